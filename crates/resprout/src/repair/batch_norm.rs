//! BatchNorm recalibration: running mean and variance are measured again on the pruned network.

use super::{Build, Repair, RepairOutcome};
use crate::calibrate::{ChannelStats, Sweep};
use crate::error::{Error, Result};
use crate::forward::{BatchNormStep, Plan, PlanOptions, Step, plan_chunk};
use crate::model::Model;
use crate::ops::Compute;
use crate::progress::Progress;
use crate::table::{Entry, OptionSpec};
use crate::tensor::Tensor;
use std::collections::HashSet;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "bn",
    about: "measures the running mean and variance of every BatchNormalization again, layer by layer",
    paper: "exact: population statistics in f64, layers before already recalibrated; cumulative: Jordan et al., REPAIR, ICLR 2023; \
            ema: the training rule of Ioffe and Szegedy, ICML 2015",
    options: &[
        OptionSpec { name: "variant", about: "exact, cumulative or ema", default: "exact" },
        OptionSpec { name: "batch", about: "images per batch (cumulative, ema)", default: "128" },
        OptionSpec { name: "momentum", about: "share of the new batch in the running average, in (0, 1] (ema)", default: "0.1" },
        OptionSpec { name: "reset", about: "whether to forget the old statistics first: yes or no (ema)", default: "yes" },
    ],
    build: |options| {
        let batch = options.parse("batch", "a number of images from 2 on", |&b: &usize| b >= 2)?;
        let momentum = options.parse("momentum", "a number in (0, 1]", |&m: &f64| m > 0.0 && m <= 1.0)?;
        let reset = match options.text("reset") {
            "yes" => true,
            "no" => false,
            _ => return Err(options.error("reset", "yes or no")),
        };
        let variant = match options.text("variant") {
            "exact" => Variant::Exact,
            "cumulative" => Variant::Batches { batch, rule: Rule::Cumulative },
            "ema" => Variant::Batches { batch, rule: Rule::Ema { momentum, reset } },
            _ => return Err(options.error("variant", "exact, cumulative or ema")),
        };
        Ok(Box::new(BatchNormRecalibration { variant }))
    },
};

struct BatchNormRecalibration {
    variant: Variant,
}

enum Variant {
    /// One batch of all images; the stored variance is the population's.
    Exact,
    /// Every batch is normalised by its own statistics, as in training.
    Batches { batch: usize, rule: Rule },
}

enum Rule {
    /// Mean over the batches of (mean, unbiased variance).
    Cumulative,
    /// `running = (1 - momentum) * running + momentum * batch`, starting at mean 0 and variance 1 or at the old statistics.
    Ema { momentum: f64, reset: bool },
}

impl Repair for BatchNormRecalibration {
    fn needs_images(&self) -> bool {
        true
    }

    fn repair(&self, model: &mut Model, images: &Tensor, progress: &dyn Progress) -> Result<RepairOutcome> {
        let plan = self.plan(model, images)?;
        check_distinct(&plan, model)?;
        let mut sweep = Sweep::new(&plan, images)?;
        let mut outcome = RepairOutcome::default();
        progress.begin("recalibrate BatchNorm", plan.steps.len() as u64);
        for step in &plan.steps {
            progress.check()?;
            match (&step.batch_norm, step.first_input()) {
                (Some(norm), Some(slot)) => {
                    let (stored, computes) = self.measure(model, norm, &sweep, slot)?;
                    let name = &model.graph.layers[step.layer].name;
                    outcome.warnings.extend(dead_warning(name, &stored));
                    outcome.changed += 1;
                    store(model, norm, &stored)?;
                    sweep.run_each(step, |chunk| &computes[chunk.min(computes.len() - 1)]);
                }
                _ => sweep.run(step),
            }
            progress.advance(1);
        }
        progress.end();
        if outcome.changed == 0 {
            outcome.warnings.push("the model has no BatchNormalization nodes: there was nothing to recalibrate".into());
        }
        Ok(outcome)
    }
}

impl BatchNormRecalibration {
    /// BatchNormalizations as steps of their own; the chunk is the batch where that matters.
    fn plan(&self, model: &Model, images: &Tensor) -> Result<Plan> {
        let image = images.shape.get(1..).unwrap_or_default();
        let options = PlanOptions { fold_batch_norm: false, taps: vec![] };
        match self.variant {
            Variant::Exact => plan_chunk(model, image, &options),
            Variant::Batches { batch, .. } => {
                let rest = images.shape[0] % batch;
                if rest == 1 {
                    return Err(Error::option(format!(
                        "--repair bn: {} images in batches of {batch} leave a last batch of one image; its variance has no meaning",
                        images.shape[0]
                    )));
                }
                Plan::new(model, &[&[batch.min(images.shape[0])], image].concat(), &options)
            }
        }
    }

    /// The statistics to store, and how each chunk is normalised on its way on.
    fn measure(&self, model: &Model, norm: &BatchNormStep, sweep: &Sweep, slot: usize) -> Result<(ChannelStats, Vec<Compute>)> {
        match &self.variant {
            Variant::Exact => {
                let stats = sweep.stats(slot);
                let compute = affine(model, norm, &stats)?;
                Ok((stats, vec![compute]))
            }
            Variant::Batches { rule, .. } => {
                let batches = sweep.chunk_stats(slot);
                let computes: Result<Vec<Compute>> = batches.iter().map(|stats| affine(model, norm, stats)).collect();
                Ok((rule.combine(&batches, old_stats(model, norm)?), computes?))
            }
        }
    }
}

impl Rule {
    fn combine(&self, batches: &[ChannelStats], old: ChannelStats) -> ChannelStats {
        let unbiased = |stats: &ChannelStats| -> Vec<f64> {
            let factor = stats.count as f64 / (stats.count.max(2) - 1) as f64;
            stats.var.iter().map(|var| var * factor).collect()
        };
        let channels = old.mean.len();
        let mut running = match self {
            Rule::Ema { reset: false, .. } => old,
            _ => ChannelStats { count: 0, mean: vec![0.0; channels], var: vec![1.0; channels] },
        };
        for (i, batch) in batches.iter().enumerate() {
            let share = match self {
                // 1, 1/2, 1/3, ...: the running value is the mean of all so far.
                Rule::Cumulative => 1.0 / (i + 1) as f64,
                Rule::Ema { momentum, .. } => *momentum,
            };
            let blend =
                |running: &mut Vec<f64>, new: &[f64]| running.iter_mut().zip(new).for_each(|(r, n)| *r += share * (n - *r));
            blend(&mut running.mean, &batch.mean);
            blend(&mut running.var, &unbiased(batch));
            running.count += batch.count;
        }
        running
    }
}

/// `gamma * (x - mean) / sqrt(var + epsilon) + beta`.
fn affine(model: &Model, norm: &BatchNormStep, stats: &ChannelStats) -> Result<Compute> {
    let [gamma, beta, _, _] = &norm.params;
    let (gamma, beta) = (&model.weight(gamma)?.data, &model.weight(beta)?.data);
    let epsilon = f64::from(norm.epsilon);
    // Rounded to f32 first, as it will be stored: what is measured behind is what the written model computes.
    let stored = |value: f64| f64::from(value as f32);
    let scale: Vec<f64> = gamma.iter().zip(&stats.var).map(|(&g, &var)| f64::from(g) / (stored(var) + epsilon).sqrt()).collect();
    let shift =
        beta.iter().zip(&stats.mean).zip(&scale).map(|((&b, &mean), s)| (f64::from(b) - stored(mean) * s) as f32).collect();
    Ok(Compute::Affine { scale: scale.iter().map(|&s| s as f32).collect(), shift, activation: norm.activation })
}

fn old_stats(model: &Model, norm: &BatchNormStep) -> Result<ChannelStats> {
    let [_, _, mean, var] = &norm.params;
    let wide = |name: &String| Ok::<_, Error>(model.weight(name)?.data.iter().map(|&v| f64::from(v)).collect());
    Ok(ChannelStats { count: 0, mean: wide(mean)?, var: wide(var)? })
}

fn store(model: &mut Model, norm: &BatchNormStep, stats: &ChannelStats) -> Result<()> {
    let [_, _, mean, var] = &norm.params;
    for (name, values) in [(mean, &stats.mean), (var, &stats.var)] {
        let tensor =
            model.params.f32_mut(name).ok_or_else(|| Error::unsupported(format!("{name:?} is computed, not a parameter")))?;
        tensor.data.iter_mut().zip(values).for_each(|(to, &from)| *to = from as f32);
    }
    Ok(())
}

/// Channels that are the same everywhere: with variance 0 the output is beta, and later rounding
/// noise would be multiplied by `1 / sqrt(epsilon)`. They are left as they are and reported.
fn dead_warning(layer: &str, stats: &ChannelStats) -> Option<String> {
    let dead = stats.var.iter().filter(|&&var| var == 0.0).count();
    (dead > 0).then(|| format!("{layer}: {dead} of {} channels are constant on the calibration images", stats.var.len()))
}

/// Two layers that share their statistics cannot be recalibrated one after the other.
fn check_distinct(plan: &Plan, model: &Model) -> Result<()> {
    let mut seen = HashSet::new();
    let shared = |step: &&Step| {
        step.batch_norm.as_ref().is_some_and(|norm| !norm.params[2..].iter().all(|name| seen.insert(name.clone())))
    };
    match plan.steps.iter().find(shared) {
        Some(step) => Err(Error::unsupported(format!(
            "layer {:?} shares its running statistics with another",
            model.graph.layers[step.layer].name
        ))),
        None => Ok(()),
    }
}
