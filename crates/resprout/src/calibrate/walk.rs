//! The driver: takes the pruned network through all images layer by layer, and the dense one in lock-step.

use super::cache::Dense;
use super::follow::{Follow, weight_param};
use super::forecast::{Forecast, gains};
use super::needs::{Needs, plan};
use super::norm::NormParams;
use super::site::{NormSite, WeightSite};
use super::stats::ChannelStats;
use super::store::ActivationStore;
use super::visitor::Visitor;
use super::weights::{WeightRows, stored_bias};
use crate::error::{Error, Result};
use crate::forward::{Plan, Step};
use crate::model::Model;
use crate::ops::{Compute, Op};
use crate::progress::Progress;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// What a walk, or a chain of repairs, has done.
#[doc(hidden)]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WalkOutcome {
    /// The number of changed layers; a layer counts once per walk.
    pub changed: usize,
    /// For each visitor, whether it changed any layer.
    pub acted: Vec<bool>,
    /// The number of BatchNormalizations with new statistics.
    pub batch_norms: usize,
    /// The number of layers with a folded BatchNormalization that got the dense network's mean and deviation.
    pub folded: usize,
    /// Names of new biases.
    pub added_bias: Vec<String>,
    /// Warnings, each naming the layer.
    pub warnings: Vec<String>,
    /// With a time limit: layers that got the whole repair.
    pub fitted: Vec<String>,
    /// With a time limit: layers that got statistics only.
    pub statistics_only: Vec<String>,
    /// What training has come to, where a repair trains.
    pub trained: Option<Trained>,
    /// The estimated seconds of the walk.
    pub expected_seconds: f64,
    /// The seconds it took.
    pub seconds: f64,
}

/// What training has come to, on images that it has not seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Steps of training.
    pub steps: usize,
    /// The number of held-out images.
    pub images: usize,
    /// The distance from the dense network before and after: mean KL divergence in nats, or mean relative error of outputs that
    /// are no classes.
    pub distance: [f64; 2],
    /// The share of images whose highest class is the dense network's, before and after.
    pub agreement: Option<[f64; 2]>,
}

/// One walk through the network. All visitors act at each layer in order, on what the repaired layers before it compute.
///
/// `images: [N, C, H, W]` are preprocessed and all in memory, with the values alive at a layer. `dense` has the same layers as
/// `model`. `stage` is the name for `progress`, and a unit of it about a millisecond.
///
/// # Errors
/// Of kind `Data` or `Unsupported` for images or a network that cannot be run, `Interrupted`, and those of visitors. `model` then
/// has the changes of the layers that were done.
#[doc(hidden)]
pub fn walk<'d>(
    model: &mut Model,
    dense: impl Into<Dense<'d>>,
    images: &Tensor,
    visitors: &[&dyn Visitor],
    stage: &str,
    progress: &dyn Progress,
) -> Result<WalkOutcome> {
    walk_within(f64::INFINITY, model, dense, images, visitors, stage, progress)
}

/// As [`walk`], in about `limit` seconds. If the visitors need more, the layers that gain least per second get statistics only.
pub(crate) fn walk_within<'d>(
    limit: f64,
    model: &mut Model,
    dense: impl Into<Dense<'d>>,
    images: &Tensor,
    visitors: &[&dyn Visitor],
    stage: &str,
    progress: &dyn Progress,
) -> Result<WalkOutcome> {
    let start = Instant::now();
    let needs = Needs::of(visitors, model);
    let plan = plan(model, images, &needs)?;
    let cached: Dense = dense.into();
    let dense = cached.model();
    let mut outcome = WalkOutcome { acted: vec![false; visitors.len()], ..WalkOutcome::default() };
    let shared = shared_weights(model);
    let folded = if needs.weights { model.folded_norms() } else { HashSet::new() };
    let mut lock_step = LockStep {
        store: ActivationStore::new(&plan, images)?,
        dense: needs.dense.then(|| ReferencePass::new(cached, &plan, images, &needs)).transpose()?,
        statistics_only: HashSet::new(),
    };
    let networks = 1 + usize::from(matches!(lock_step.dense, Some(ReferencePass::Running(..))));
    let forecast = Forecast::new(model, &plan, images.shape[0], networks, visitors)?;
    if forecast.seconds() > limit {
        let dense_plan = self::plan(dense, images, &needs)?;
        lock_step.statistics_only = forecast.left_out(limit, &gains(model, &plan, &dense_plan, images)?);
    }
    outcome.expected_seconds = forecast.seconds() - lock_step.statistics_only.iter().map(|&i| forecast.visits(i)).sum::<f64>();
    progress.begin(&with_time(stage, outcome.expected_seconds), (outcome.expected_seconds * 1e3) as u64);
    for index in 0..plan.steps.len() {
        progress.check()?;
        let step = &plan.steps[index];
        let visits = forecast.visits(index);
        if visits > 0.0 && start.elapsed().as_secs_f64() + visits + forecast.computing_from(index) > limit {
            lock_step.statistics_only.insert(index);
        }
        let name = model.graph.layers[step.layer].name.clone();
        if step.batch_norm.is_some() {
            lock_step.norm(model, dense, (&plan, index), &name, visitors, &mut outcome)?;
        } else if let Some(param) = weight_param(model, step).filter(|_| needs.weights && step.first_input().is_some()) {
            if shared.contains(&param) {
                outcome.warnings.push(format!("{name}: shares its weights with another layer and is left as it is"));
                lock_step.run(step, index);
            } else {
                let mut follow = Follow::new(&plan, index, model.weight(&param)?.shape.clone());
                follow.folded = folded.contains(&step.layer);
                lock_step.weights(model, dense, (&plan, index), &follow, &name, visitors, &mut outcome)?;
            }
        } else {
            lock_step.run(step, index);
        }
        let left_out = lock_step.statistics_only.contains(&index);
        if visits > 0.0 && limit.is_finite() {
            if left_out { &mut outcome.statistics_only } else { &mut outcome.fitted }.push(name);
        }
        progress.advance(((forecast.step(index) - if left_out { visits } else { 0.0 }) * 1e3) as u64);
    }
    progress.end();
    if limit.is_finite() && outcome.fitted.is_empty() && !outcome.statistics_only.is_empty() {
        let least = forecast.computing_from(0);
        outcome.warnings.push(format!(
            "seconds {limit:.0}: the images alone take about {least:.0} s; no layer was fitted, all got statistics only"
        ));
    }
    outcome.seconds = start.elapsed().as_secs_f64();
    Ok(outcome)
}

/// The name of a stage, with its estimated time if it is long.
fn with_time(stage: &str, seconds: f64) -> String {
    match seconds {
        0.0..10.0 => stage.to_string(),
        10.0..120.0 => format!("{stage}, about {seconds:.0} s"),
        _ => format!("{stage}, about {:.0} min", seconds / 60.0),
    }
}

/// Both networks with all images at the same layer.
struct LockStep<'d> {
    store: ActivationStore,
    dense: Option<ReferencePass<'d>>,
    /// Steps that get statistics only.
    statistics_only: HashSet<usize>,
}

/// The dense network's values at the layer, computed now or cached.
enum ReferencePass<'d> {
    Running(ActivationStore, Box<Plan>),
    Cached(&'d ActivationStore),
}

impl<'d> ReferencePass<'d> {
    fn new(dense: Dense<'d>, pruned: &Plan, images: &Tensor, needs: &Needs) -> Result<ReferencePass<'d>> {
        let plan = plan(dense.model(), images, needs)?;
        if !plan.steps.iter().map(|step| step.layer).eq(pruned.steps.iter().map(|step| step.layer)) {
            return Err(Error::data("the dense network has other layers than the pruned one"));
        }
        match dense.values(&plan, images) {
            Some(store) => Ok(ReferencePass::Cached(store)),
            None => Ok(ReferencePass::Running(ActivationStore::new(&plan, images)?, Box::new(plan))),
        }
    }

    fn values(&self) -> &ActivationStore {
        match self {
            ReferencePass::Running(store, _) => store,
            ReferencePass::Cached(store) => store,
        }
    }
}

impl LockStep<'_> {
    fn run(&mut self, step: &Step, index: usize) {
        self.store.run(step);
        self.run_dense(index);
    }

    fn run_dense(&mut self, index: usize) {
        if let Some(ReferencePass::Running(store, plan)) = &mut self.dense {
            store.run(&plan.steps[index]);
        }
    }

    fn norm(
        &mut self,
        model: &mut Model,
        dense: &Model,
        (plan, index): (&Plan, usize),
        name: &str,
        visitors: &[&dyn Visitor],
        outcome: &mut WalkOutcome,
    ) -> Result<()> {
        let step = &plan.steps[index];
        let (Some(norm), Some(slot)) = (&step.batch_norm, step.first_input()) else {
            return Err(Error::data(format!("layer {name:?} has no input that depends on the images")));
        };
        let mut site = NormSite {
            name,
            params: NormParams::read(model, norm)?,
            dense_params: self.dense.is_some().then(|| NormParams::read(dense, norm)).transpose()?,
            warnings: Vec::new(),
            changed: false,
            recalibrated: false,
            statistics_only: self.statistics_only.contains(&index),
            per_chunk: None,
            slot,
            store: &self.store,
            dense: self.dense.as_ref().map(ReferencePass::values),
        };
        for (index, visitor) in visitors.iter().enumerate() {
            let before = std::mem::take(&mut site.changed);
            visitor.norm(&mut site)?;
            outcome.acted[index] |= site.changed;
            site.changed |= before;
        }
        let NormSite { params, warnings, changed, recalibrated, per_chunk, .. } = site;
        outcome.warnings.extend(warnings);
        outcome.changed += usize::from(changed);
        outcome.batch_norms += usize::from(recalibrated);
        params.write(model, norm).map_err(|e| e.at(format!("layer {name:?}")))?;
        let own = |stats: &ChannelStats| {
            let params = NormParams { mean: stats.mean.clone(), var: stats.var.clone(), ..params.clone() };
            params.compute(norm.activation)
        };
        let computes: Vec<Compute> = match &per_chunk {
            Some(chunks) => chunks.iter().map(own).collect(),
            None => vec![params.compute(norm.activation)],
        };
        self.store.run_each(step, |chunk| &computes[chunk.min(computes.len() - 1)]);
        self.run_dense(index);
        Ok(())
    }

    fn weights(
        &mut self,
        model: &mut Model,
        dense: &Model,
        (plan, index): (&Plan, usize),
        follow: &Follow,
        name: &str,
        visitors: &[&dyn Visitor],
        outcome: &mut WalkOutcome,
    ) -> Result<()> {
        let step = &plan.steps[index];
        self.run_dense(index);
        let statistics_only = self.statistics_only.contains(&index);
        if statistics_only {
            // The BatchNormalization that follows takes part.
            self.statistics_only.extend(follow.norm);
        }
        let layer = &model.graph.layers[step.layer];
        let (op, param) = (layer.op.clone(), layer.inputs[1].clone());
        let weight = model.weight(&param)?;
        let Some(weights) = WeightRows::read(&op, weight, model.masks.get(&param)) else {
            self.store.run(step);
            return Ok(());
        };
        let norm_step = follow.norm.and_then(|norm| plan.steps[norm].batch_norm.clone());
        let read = |model: &Model| norm_step.as_ref().map(|norm| NormParams::read(model, norm)).transpose();
        let mut site = WeightSite {
            name,
            bias: read_bias(model, step.layer, weights.rows),
            fixed_bias: layer.input(2).and_then(|name| model.params.f32(name).cloned()),
            norm: read(model)?,
            dense_norm: self.dense.is_some().then(|| read(dense)).transpose()?.flatten(),
            weights,
            warnings: Vec::new(),
            changed: false,
            recalibrated: false,
            statistics_only,
            op: &op,
            follow,
            step,
            store: &mut self.store,
            dense: self.dense.as_ref().map(ReferencePass::values),
            fresh: false,
        };
        for (index, visitor) in visitors.iter().enumerate() {
            let before = std::mem::take(&mut site.changed);
            visitor.weights(&mut site)?;
            outcome.acted[index] |= site.changed;
            site.changed |= before;
        }
        site.refresh()?;
        let WeightSite { weights, bias, norm, warnings, changed, recalibrated, .. } = site;
        self.store.release(step);
        outcome.warnings.extend(warnings.into_iter().map(|warning| format!("{name}: {warning}")));
        outcome.folded += usize::from(recalibrated);
        if !changed {
            return Ok(());
        }
        outcome.changed += 1;
        let stored = weights.stored(&op, &follow.weight_shape);
        model.params.f32_mut(&param).ok_or_else(|| Error::data(format!("{param:?} is not a tensor")))?.data = stored.data;
        if let Some(bias) = &bias {
            outcome.added_bias.extend(write_bias(model, step.layer, &op, bias)?);
        }
        if let (Some(norm), Some(norm_step)) = (norm, norm_step) {
            norm.write(model, &norm_step).map_err(|e| e.at(format!("layer {name:?}")))?;
        }
        Ok(())
    }
}

/// Parameters that more than one layer reads.
fn shared_weights(model: &Model) -> HashSet<String> {
    let counts: HashMap<&str, usize> = model.graph.reader_counts();
    counts.into_iter().filter(|(_, count)| *count > 1).map(|(name, _)| name.to_string()).collect()
}

/// The layer's bias: zeros if it has none, `None` if it cannot have one of its own.
fn read_bias(model: &Model, layer: usize, outputs: usize) -> Option<Vec<f64>> {
    let layer = &model.graph.layers[layer];
    let factor = match layer.op {
        Op::Conv(_) => 1.0,
        Op::Gemm { beta, .. } if beta != 0.0 => f64::from(beta),
        _ => return None,
    };
    match layer.input(2) {
        None => Some(vec![0.0; outputs]),
        Some(name) => {
            let tensor = model.params.f32(name).filter(|tensor| tensor.len() == outputs)?;
            let alone = model.graph.reader_counts().get(name) == Some(&1);
            alone.then(|| tensor.data.iter().map(|&b| f64::from(b) * factor).collect())
        }
    }
}

/// Stores a bias. Where the layer has none, adds the parameter and returns its name.
fn write_bias(model: &mut Model, layer: usize, op: &Op, bias: &[f64]) -> Result<Option<String>> {
    let stored = stored_bias(op, bias);
    if let Some(name) = model.graph.layers[layer].input(2).map(str::to_string) {
        let tensor = model.params.f32_mut(&name).ok_or_else(|| Error::data(format!("{name:?} is not a tensor")))?;
        tensor.data = stored;
        return Ok(None);
    }
    if stored.iter().all(|&b| b == 0.0) {
        return Ok(None);
    }
    model.give_bias(layer, stored).map(Some)
}
