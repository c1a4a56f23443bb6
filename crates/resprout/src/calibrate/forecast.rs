//! How long a walk will take, and which layers are worth their time where there is not enough.

use super::site::WeightRows;
use super::store::ActivationStore;
use super::visitor::Visitor;
use super::walk::{follow, weight_param};
use crate::error::Result;
use crate::forward::{Plan, Step};
use crate::linalg::median;
use crate::model::Model;
use crate::ops::{Compute, Op};
use crate::tensor::Tensor;
use resprout_kernels::Isa;
use resprout_kernels::dense::{COLS, Tile};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What a visitor's time at a layer with weights depends on.
pub struct Outline {
    /// Calibration images.
    pub images: usize,
    /// Rows of the layer's inputs per image.
    pub positions: usize,
    /// Weights per output before pruning.
    pub len: usize,
    /// Groups of outputs.
    pub groups: usize,
    /// Weights that each output keeps.
    pub kept: Vec<usize>,
    /// Whether an activation with bounds comes behind.
    pub activation: bool,
    /// This machine's speed.
    pub speed: Speed,
}

/// How fast this machine computes.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Multiplications and additions in `f32` per second of all threads, at best.
    pub single: f64,
    /// Bytes that all threads move per second.
    pub bytes: f64,
}

impl Speed {
    /// Measured once, in some milliseconds, on all threads at once: they may share a core, or be held up by others.
    pub fn here() -> Speed {
        // No lock: a thread that waited for one could not take its part in the measurement that it waits for.
        static ONE: AtomicU64 = AtomicU64::new(0);
        let threads = rayon::current_num_threads() as f64;
        let mut each = f64::from_bits(ONE.load(Ordering::Relaxed));
        if each == 0.0 {
            each = rayon::broadcast(|_| measure()).into_iter().sum::<f64>() / threads;
            ONE.store(each.to_bits(), Ordering::Relaxed);
        }
        Speed { single: each * threads, bytes: 5e9 * threads }
    }
}

/// Operations per second of the dense micro-kernel, the median of some turns.
fn measure() -> f64 {
    const STEPS: usize = 512;
    let (a, b, mut tile) = (vec![1.0; STEPS * COLS], vec![0.5; STEPS * COLS], Tile::ZERO);
    let turn = |_| {
        let start = Instant::now();
        for _ in 0..64 {
            Isa::best().outer(STEPS, 0, 8, COLS, std::hint::black_box(&a), &b, &mut tile);
            std::hint::black_box(&tile);
        }
        (2 * 64 * STEPS * 8 * COLS) as f64 / start.elapsed().as_secs_f64().max(1e-9)
    };
    median(&(0..25).map(turn).collect::<Vec<f64>>())
}

/// Share of the micro-kernel's speed that convolutions reach.
const CONVOLUTION: f64 = 0.5;

/// Seconds of a walk.
pub(super) struct Forecast {
    /// Of every step: computing it, and what visitors do there.
    steps: Vec<(f64, f64)>,
}

impl Forecast {
    /// `networks` is how many are computed: the pruned one, and the dense one if it was not recorded.
    pub fn new(model: &Model, plan: &Plan, images: usize, networks: usize, visitors: &[&dyn Visitor]) -> Result<Forecast> {
        let speed = Speed::here();
        let batch = plan.input_shape[0].max(1);
        let mut steps = Vec::new();
        for (index, step) in plan.steps.iter().enumerate() {
            let share = images as f64 / batch as f64 * networks as f64;
            let values = step.shape.iter().product::<usize>() as f64;
            let compute = share * (2.0 * step.macs as f64 / speed.single / CONVOLUTION + 12.0 * values / speed.bytes);
            let outline = outline(model, plan, index, images, speed)?;
            let visits = outline.map_or(0.0, |outline| visitors.iter().map(|visitor| visitor.seconds(&outline)).sum());
            steps.push((compute, visits));
        }
        Ok(Forecast { steps })
    }

    /// Of the whole walk.
    pub fn seconds(&self) -> f64 {
        self.steps.iter().map(|(compute, visits)| compute + visits).sum()
    }

    /// Of a step.
    pub fn step(&self, index: usize) -> f64 {
        self.steps[index].0 + self.steps[index].1
    }

    /// What visitors take at a step.
    pub fn visits(&self, index: usize) -> f64 {
        self.steps[index].1
    }

    /// What computing the networks from a step on takes, without visitors.
    pub fn computing_from(&self, index: usize) -> f64 {
        self.steps[index..].iter().map(|(compute, _)| compute).sum()
    }

    /// Steps that visitors should leave to statistics, so that the walk takes at most `limit` seconds: those whose `gains` per
    /// second are least.
    pub fn left_out(&self, limit: f64, gains: &[f64]) -> HashSet<usize> {
        let mut order: Vec<usize> = (0..self.steps.len()).filter(|&i| self.steps[i].1 > 0.0).collect();
        let worth = |i: usize| gains[i] / self.steps[i].1;
        order.sort_by(|&a, &b| worth(b).total_cmp(&worth(a)).then(a.cmp(&b)));
        let mut left = limit - self.computing_from(0);
        let mut out = HashSet::new();
        for i in order {
            if self.steps[i].1 <= left {
                left -= self.steps[i].1;
            } else {
                out.insert(i);
            }
        }
        out
    }
}

fn outline(model: &Model, plan: &Plan, index: usize, images: usize, speed: Speed) -> Result<Option<Outline>> {
    let step = &plan.steps[index];
    let Some(param) = weight_param(model, step).filter(|_| step.first_input().is_some()) else { return Ok(None) };
    let weight = model.weight(&param)?;
    let op = &model.graph.layers[step.layer].op;
    let Some(rows) = super::site::weight_rows(op, weight, model.masks.get(&param)) else { return Ok(None) };
    let WeightRows { rows: outputs, len, groups, .. } = rows;
    let kept = (0..outputs).map(|row| (0..len).filter(|&i| rows.kept(row, i)).count()).collect();
    let batch = plan.input_shape[0].max(1);
    let values = step.shape.iter().product::<usize>();
    let positions = if matches!(op, Op::Conv(_)) { step.shape[2..].iter().product() } else { values / batch / outputs.max(1) };
    let activation = follow(plan, index, weight.shape.clone()).activation != resprout_kernels::Activation::None;
    Ok(Some(Outline { images, positions, len, groups, kept, activation, speed }))
}

/// Images that gains are measured with.
const FEW: usize = 8;

/// By how much each layer's output suffers from pruning it, on the dense network's own inputs: squared error by variance. Zero
/// at steps without weights.
pub(super) fn gains(model: &Model, pruned: &Plan, dense: &Plan, images: &Tensor) -> Result<Vec<f64>> {
    let mut store = ActivationStore::new(dense, &images.first(FEW.min(images.shape[0])))?;
    let mut gains = vec![0.0; dense.steps.len()];
    for (index, (step, pruned)) in dense.steps.iter().zip(&pruned.steps).enumerate() {
        let values = |store: &ActivationStore, step: &Step| -> Vec<f32> {
            (0..store.chunks()).flat_map(|chunk| store.value(chunk, step.output()).data.iter().copied()).collect()
        };
        let weights = weight_param(model, pruned).is_some() && matches!(step.compute, Compute::Conv(_) | Compute::Linear { .. });
        let without = weights.then(|| {
            store.run_keeping(step, &pruned.compute);
            values(&store, step)
        });
        store.run(step);
        if let Some(without) = without {
            gains[index] = relative_error(&without, &values(&store, step));
        }
    }
    Ok(gains)
}

fn relative_error(got: &[f32], wanted: &[f32]) -> f64 {
    let count = wanted.len().max(1) as f64;
    let mean = wanted.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let variance: f64 = wanted.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum();
    let error: f64 = got.iter().zip(wanted).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    if variance > 0.0 && error.is_finite() { error / variance } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_gain_most_per_second_come_first() {
        let forecast = Forecast { steps: vec![(1.0, 2.0), (1.0, 0.0), (1.0, 1.0), (0.0, 4.0)] };
        assert_eq!(forecast.seconds(), 10.0);
        let gains = [1.0, 0.0, 0.4, 4.0];
        let left_out = |limit: f64| {
            let mut steps: Vec<usize> = forecast.left_out(limit, &gains).into_iter().collect();
            steps.sort();
            steps
        };
        assert!(left_out(10.0).is_empty());
        assert_eq!(left_out(8.5), [0]);
        assert_eq!(left_out(5.5), [2, 3]);
        assert_eq!(left_out(2.0), [0, 2, 3]);
    }
}
