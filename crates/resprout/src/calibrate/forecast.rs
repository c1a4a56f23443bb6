//! How long a walk takes, and which layers a time limit leaves out.

use super::follow::{Follow, weight_param};
use super::outline::{Outline, Speed};
use super::store::ActivationStore;
use super::visitor::Visitor;
use super::weights::WeightRows;
use crate::error::Result;
use crate::forward::{Plan, Step};
use crate::model::Model;
use crate::ops::{Compute, Op};
use crate::tensor::Tensor;
use resprout_kernels::Activation;
use std::collections::HashSet;

/// Share of the micro-kernel's speed that convolutions reach.
const CONVOLUTION: f64 = 0.5;

/// The estimated seconds of a walk.
pub(super) struct Forecast {
    /// Of every step: the computation and the visitors.
    steps: Vec<(f64, f64)>,
}

impl Forecast {
    /// `networks` counts the networks that run: the pruned one, and the dense one unless it is cached.
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

    /// The visitors at a step.
    pub fn visits(&self, index: usize) -> f64 {
        self.steps[index].1
    }

    /// The networks from a step on, without visitors.
    pub fn computing_from(&self, index: usize) -> f64 {
        self.steps[index..].iter().map(|(compute, _)| compute).sum()
    }

    /// The steps that get statistics only, so that the walk takes at most `limit` seconds. These have the least `gains` per
    /// second.
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
    let Some(rows) = WeightRows::read(op, weight, model.masks.get(&param)) else { return Ok(None) };
    let WeightRows { rows: outputs, len, groups, .. } = rows;
    let kept = (0..outputs).map(|row| (0..len).filter(|&i| rows.kept(row, i)).count()).collect();
    let batch = plan.input_shape[0].max(1);
    let values = step.shape.iter().product::<usize>();
    let positions = if matches!(op, Op::Conv(_)) { step.shape[2..].iter().product() } else { values / batch / outputs.max(1) };
    let activation = Follow::new(plan, index, weight.shape.clone()).activation != Activation::None;
    Ok(Some(Outline { images, positions, len, groups, kept, activation, speed }))
}

/// Images that gains are measured on.
const GAIN_IMAGES: usize = 8;

/// How much pruning damages each layer's output, on the dense network's inputs: squared error by variance. Zero at steps without
/// weights.
pub(super) fn gains(model: &Model, pruned: &Plan, dense: &Plan, images: &Tensor) -> Result<Vec<f64>> {
    let mut store = ActivationStore::new(dense, &images.first(GAIN_IMAGES.min(images.shape[0])))?;
    let mut gains = vec![0.0; dense.steps.len()];
    for (index, (step, pruned)) in dense.steps.iter().zip(&pruned.steps).enumerate() {
        let values = |store: &ActivationStore, step: &Step| -> Vec<f32> {
            (0..store.chunks()).flat_map(|chunk| store.value(chunk, step.output()).data.iter().copied()).collect()
        };
        let weights = weight_param(model, pruned).is_some() && matches!(step.compute, Compute::Conv(_) | Compute::Linear { .. });
        let pruned_values = weights.then(|| {
            store.run_keeping(step, &pruned.compute);
            values(&store, step)
        });
        store.run(step);
        if let Some(pruned_values) = pruned_values {
            gains[index] = relative_error(&pruned_values, &values(&store, step));
        }
    }
    Ok(gains)
}

fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    let count = expected.len().max(1) as f64;
    let mean = expected.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let variance: f64 = expected.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum();
    let error: f64 = got.iter().zip(expected).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    if variance > 0.0 && error.is_finite() { error / variance } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_gain_most_per_second_stay() {
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
