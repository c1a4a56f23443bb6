//! Variance matching per channel, shrunk where the channel's signal is weak.
//!
//! The paper's abstract gives the idea without formulas. The shrinkage rules and placements here are readings of it, each an
//! option.

use super::batch_norm::{BatchNormRecalibration, moving_average};
use super::gains::{Shift, Spread, apply};
use super::layerwise::{CLAMP, SHIFT, clamp, shift};
use super::stats::{match_outputs, outputs};
use super::{Build, Repair, Stage};
use crate::calibrate::{ChannelStats, Needs, NormSite, PairStats, Visitor, WeightSite};
use crate::error::Result;
use crate::linalg::median;
use crate::table::{Entry, OptionSpec, Options};

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "asr",
    about: "variance matching per channel, shrunk where little signal is left; before BatchNormalization recalibration (asr,bn)",
    paper: "Adaptive Signal Resuscitation, 2026 (from its abstract; formulas are this project's readings)",
    options: &[
        OptionSpec {
            name: "rule",
            about: "shrinkage: signal (variance by its median), ratio (kept share by its median), wiener (correlation), \
                    bayes (sampling noise), or a fixed weight from 0 (toward) to 1 (naive matching)",
            default: "signal",
        },
        OptionSpec {
            name: "toward",
            about: "where gains shrink to: identity, layer (the layer's gain), mean (of the channels' log gains), or auto \
                    (mean for bayes, else identity)",
            default: "auto",
        },
        OptionSpec {
            name: "placement",
            about: "p1: weights; p2: weights, then a moving average of statistics without reset; p3: scale and shift of the \
                    BatchNormalization, by its outputs; p4: its scale is multiplied by the shrinkage alone",
            default: "p1",
        },
        OptionSpec { name: "batch", about: "images per batch of the moving average (p2)", default: "128" },
        CLAMP,
        SHIFT,
    ],
    build: |options| {
        let rule = rule(options)?;
        let placement = match options.text("placement") {
            "p1" => Placement::Weights,
            "p2" => {
                Placement::Stale(moving_average(options.parse("batch", "a number of images from 2 on", |&b: &usize| b >= 2)?))
            }
            "p3" => Placement::Affine,
            "p4" => Placement::ShrinkOnly,
            _ => return Err(options.error("placement", "p1, p2, p3 or p4")),
        };
        Ok(Box::new(Asr { toward: toward(options, &rule)?, rule, placement, clamp: clamp(options)?, shift: shift(options)? }))
    },
};

struct Asr {
    rule: Rule,
    toward: Toward,
    placement: Placement,
    clamp: f64,
    shift: Shift,
}

enum Rule {
    Signal,
    Ratio,
    Wiener,
    Bayes,
    Fixed(f64),
}

enum Toward {
    Identity,
    Layer,
    Mean,
}

enum Placement {
    Weights,
    Stale(BatchNormRecalibration),
    Affine,
    ShrinkOnly,
}

/// Groups of images for the estimate of a gain's sampling noise.
const GROUPS: usize = 16;

fn rule(options: &Options) -> Result<Rule> {
    Ok(match options.text("rule") {
        "signal" => Rule::Signal,
        "ratio" => Rule::Ratio,
        "wiener" => Rule::Wiener,
        "bayes" => Rule::Bayes,
        _ => Rule::Fixed(
            options.parse("rule", "signal, ratio, wiener, bayes or a number from 0 to 1", |w: &f64| (0.0..=1.0).contains(w))?,
        ),
    })
}

fn toward(options: &Options, rule: &Rule) -> Result<Toward> {
    match (options.text("toward"), rule) {
        ("auto", Rule::Bayes) | ("mean", Rule::Signal | Rule::Ratio | Rule::Bayes | Rule::Fixed(_)) => Ok(Toward::Mean),
        ("auto" | "identity", _) => Ok(Toward::Identity),
        (_, Rule::Wiener) => Err(options.error("toward", "identity (the rule wiener multiplies the gain itself)")),
        ("layer", _) => Ok(Toward::Layer),
        _ => Err(options.error("toward", "auto, identity, layer or mean")),
    }
}

impl Asr {
    /// One gain per channel, from the statistics of all images and of groups of images.
    fn gains(&self, pair: &PairStats, groups: &[PairStats]) -> Vec<f64> {
        let spread = Spread::new(pair);
        let gain = |(c, weight): (usize, f64)| {
            if !spread.live[c] {
                return 1.0;
            }
            let own = spread.channel(c);
            let shrunk = match self.rule {
                // The gain of least squares is cov / var: the ratio of deviations times the correlation.
                Rule::Wiener => weight * own,
                _ => blend(weight, own, self.anchor(&spread)),
            };
            shrunk.clamp(1.0 / self.clamp, self.clamp)
        };
        self.shrinkage(&spread, groups).into_iter().enumerate().map(gain).collect()
    }

    /// The gain at weight 0.
    fn anchor(&self, spread: &Spread) -> f64 {
        match self.toward {
            Toward::Identity => 1.0,
            Toward::Layer => spread.layer(),
            Toward::Mean => {
                let (sum, count) = spread.live().fold((0.0, 0usize), |(sum, n), c| (sum + spread.channel(c).ln(), n + 1));
                (sum / count.max(1) as f64).exp()
            }
        }
    }

    /// The weight of each channel's own gain, in `[0, 1]`.
    fn shrinkage(&self, spread: &Spread, groups: &[PairStats]) -> Vec<f64> {
        let channels = spread.live.len();
        let by_median = |value: &dyn Fn(usize) -> f64| {
            let middle = median(&spread.live().map(value).collect::<Vec<_>>());
            (0..channels).map(|c| value(c) / (value(c) + middle).max(f64::MIN_POSITIVE)).collect()
        };
        match self.rule {
            Rule::Signal => by_median(&|c| spread.sparse[c]),
            Rule::Ratio => by_median(&|c| spread.kept(c)),
            Rule::Wiener => spread.correlation.iter().map(|r| r.max(0.0)).collect(),
            Rule::Bayes => bayes(spread, groups),
            Rule::Fixed(weight) => vec![weight; channels],
        }
    }
}

/// `anchor^(1 - weight) * own^weight`, exact at the ends.
fn blend(weight: f64, own: f64, anchor: f64) -> f64 {
    match weight {
        0.0 => anchor,
        1.0 => own,
        _ => (weight * own.ln() + (1.0 - weight) * anchor.ln()).exp(),
    }
}

/// Empirical Bayes on log gains: the variance between channels over its sum with the channel's sampling noise.
fn bayes(spread: &Spread, groups: &[PairStats]) -> Vec<f64> {
    let live: Vec<usize> = spread.live().collect();
    let noise: Vec<f64> = (0..spread.live.len()).map(|c| jackknife(groups, c)).collect();
    let logs: Vec<f64> = live.iter().map(|&c| spread.channel(c).ln()).collect();
    let count = live.len().max(1) as f64;
    let mean = logs.iter().sum::<f64>() / count;
    let between = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    let within = live.iter().map(|&c| noise[c]).sum::<f64>() / count;
    let tau = (between - within).max(0.0);
    noise.iter().map(|noise| if tau > 0.0 { tau / (tau + noise) } else { 0.0 }).collect()
}

/// The jackknife variance of a channel's log gain: one group of images is left out at a time.
fn jackknife(groups: &[PairStats], c: usize) -> f64 {
    let count = groups.len();
    if count < 2 {
        return 0.0;
    }
    let pooled = |side: fn(&PairStats) -> &ChannelStats, without: usize| {
        let parts = groups.iter().enumerate().filter(|(i, _)| *i != without).map(|(_, group)| side(group));
        let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for part in parts {
            let weight = part.count as f64;
            n += weight;
            sum += weight * part.mean[c];
            squares += weight * (part.var[c] + part.mean[c] * part.mean[c]);
        }
        squares / n - (sum / n) * (sum / n)
    };
    let log = |without: usize| 0.5 * (pooled(|g| &g.dense, without) / pooled(|g| &g.sparse, without)).ln();
    let logs: Vec<f64> = (0..count).map(log).filter(|log| log.is_finite()).collect();
    if logs.len() < count {
        // The channel is dead without one of the groups, so its gain is arbitrary.
        return f64::INFINITY;
    }
    let mean = logs.iter().sum::<f64>() / count as f64;
    (count as f64 - 1.0) / count as f64 * logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>()
}

impl Visitor for Asr {
    fn needs(&self) -> Needs {
        let batch = match &self.placement {
            Placement::Stale(average) => average.needs().batch,
            _ => None,
        };
        Needs { images: true, dense: true, weights: true, batch }
    }

    fn weights(&self, site: &mut WeightSite) -> Result<()> {
        let at_norm = matches!(self.placement, Placement::Affine | Placement::ShrinkOnly) && site.norm.is_some();
        if at_norm {
            return Ok(());
        }
        let pair = site.pair()?;
        let groups = site.pair_groups(GROUPS)?;
        match self.placement {
            Placement::ShrinkOnly => {
                let factors = self.factors(&Spread::new(&pair), &groups);
                apply(site, &pair, &factors, Shift::Keep);
            }
            _ => {
                let gains = self.gains(&pair, &groups);
                apply(site, &pair, &gains, self.shift);
            }
        }
        Ok(())
    }

    fn norm(&self, site: &mut NormSite) -> Result<()> {
        match &self.placement {
            Placement::Weights => Ok(()),
            Placement::Stale(average) => average.norm(site),
            Placement::Affine => {
                let pair = outputs(site, &site.pair()?)?;
                let groups: Result<Vec<PairStats>> = site.pair_groups(GROUPS)?.iter().map(|group| outputs(site, group)).collect();
                let gains = self.gains(&pair, &groups?);
                match_outputs(site, &pair, &gains);
                Ok(())
            }
            Placement::ShrinkOnly => {
                let pair = outputs(site, &site.pair()?)?;
                let factors = self.factors(&Spread::new(&pair), &site.pair_groups(GROUPS)?);
                factors.iter().enumerate().for_each(|(c, factor)| site.params.gamma[c] *= factor);
                site.changed = true;
                Ok(())
            }
        }
    }
}

impl Asr {
    /// The shrinkage as a factor of the deviation.
    fn factors(&self, spread: &Spread, groups: &[PairStats]) -> Vec<f64> {
        let of = |(c, weight): (usize, f64)| match (spread.live[c], &self.rule) {
            (false, _) => 1.0,
            (true, Rule::Wiener) => weight,
            (true, _) => weight.sqrt(),
        };
        self.shrinkage(spread, groups).into_iter().enumerate().map(of).collect()
    }
}

impl Repair for Asr {
    fn stage(&self) -> Stage {
        match self.placement {
            Placement::Weights => Stage::Weights,
            Placement::Stale(_) => Stage::Statistics,
            Placement::Affine | Placement::ShrinkOnly => Stage::Affine,
        }
    }
}
