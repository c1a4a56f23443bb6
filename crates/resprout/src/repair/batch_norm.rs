//! BatchNorm recalibration: measures running mean and variance again on the pruned network. Where an exporter has folded a
//! BatchNormalization into weights and bias, these are adjusted in its place.

use super::gains::{Shift, Spread, apply};
use super::{Build, Repair, Stage};
use crate::calibrate::{ChannelStats, Needs, NormParams, NormSite, Visitor, WeightSite};
use crate::error::Result;
use crate::model::Model;
use crate::table::{Entry, OptionSpec};

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "bn",
    about: "measures the running mean and variance of every BatchNormalization again, layer by layer; where it was folded into \
            weights and bias, these give each channel the dense network's mean and deviation",
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

pub(super) struct BatchNormRecalibration {
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

impl Visitor for BatchNormRecalibration {
    fn needs(&self) -> Needs {
        let batch = match self.variant {
            Variant::Exact => None,
            Variant::Batches { batch, .. } => Some(batch),
        };
        Needs { images: true, batch, ..Needs::default() }
    }

    fn needs_for(&self, model: &Model) -> Needs {
        // A folded layer has no statistics of its output. The dense network provides them.
        let folded = !model.folded_norms().is_empty();
        Needs { dense: folded, weights: folded, ..self.needs() }
    }

    fn weights(&self, site: &mut WeightSite) -> Result<()> {
        if site.is_folded() {
            folded(site)?;
            if !matches!(self.variant, Variant::Exact) {
                site.warnings
                    .push("its BatchNormalization was folded: statistics of all images were taken (variant=exact)".into());
            }
        }
        Ok(())
    }

    fn norm(&self, site: &mut NormSite) -> Result<()> {
        match &self.variant {
            Variant::Exact => exact(site),
            Variant::Batches { rule, .. } => {
                let batches = site.chunk_stats();
                let combined = rule.combine(&batches, &site.params);
                store(site, &combined);
                site.per_chunk = Some(batches);
            }
        }
        Ok(())
    }
}

impl Repair for BatchNormRecalibration {
    fn stage(&self) -> Stage {
        Stage::Statistics
    }

    fn nothing(&self) -> &'static str {
        "it has no BatchNormalization, and no convolution or Gemm with a bias before its last layer, into which one may have been folded"
    }
}

/// The moving average of training, from the old statistics on.
pub(super) fn moving_average(batch: usize) -> BatchNormRecalibration {
    BatchNormRecalibration { variant: Variant::Batches { batch, rule: Rule::Ema { momentum: 0.1, reset: false } } }
}

/// Stores the statistics of all images.
pub(super) fn exact(site: &mut NormSite) {
    let stats = site.stats();
    store(site, &stats);
}

/// Recalibrates a layer with a folded BatchNormalization: its output gets the dense network's mean and deviation. A constant
/// channel gets the mean alone.
fn folded(site: &mut WeightSite) -> Result<()> {
    if site.bias.is_none() {
        site.warnings.push("its bias is shared with another layer, and the layer is left as it is".into());
        return Ok(());
    }
    let pair = site.pair()?;
    let spread = Spread::new(&pair);
    let channels = spread.live.len();
    let dead = (0..channels).filter(|&c| !spread.live[c] && spread.dense[c] > 0.0).count();
    if dead > 0 {
        site.warnings.push(format!("{dead} of {channels} channels are constant on the calibration images"));
    }
    let gains: Vec<f64> = (0..channels).map(|c| spread.channel(c)).collect();
    apply(site, &pair, &gains, Shift::WithoutNorm);
    site.recalibrated = true;
    Ok(())
}

fn store(site: &mut NormSite, stats: &ChannelStats) {
    site.params.mean.clone_from(&stats.mean);
    site.params.var.clone_from(&stats.var);
    site.changed = true;
    site.recalibrated = true;
    site.warnings.extend(dead_warning(site.name, stats, &site.params.gamma));
}

impl Rule {
    fn combine(&self, batches: &[ChannelStats], old: &NormParams) -> ChannelStats {
        let unbiased = |stats: &ChannelStats| -> Vec<f64> {
            let factor = stats.count as f64 / (stats.count.max(2) - 1) as f64;
            stats.var.iter().map(|var| var * factor).collect()
        };
        let channels = old.mean.len();
        let mut running = match self {
            Rule::Ema { reset: false, .. } => ChannelStats { count: 0, mean: old.mean.clone(), var: old.var.clone() },
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

/// Warns of constant channels. With variance 0 their output is beta, and rounding noise is multiplied by `1 /
/// sqrt(epsilon)`. Channels of scale 0 are silent on purpose.
fn dead_warning(layer: &str, stats: &ChannelStats, gamma: &[f64]) -> Option<String> {
    let dead = stats.var.iter().zip(gamma).filter(|&(&var, &gamma)| var == 0.0 && gamma != 0.0).count();
    (dead > 0).then(|| format!("{layer}: {dead} of {} channels are constant on the calibration images", stats.var.len()))
}
