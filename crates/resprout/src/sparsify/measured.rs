//! The allocation `measured`: several allocations are pruned and repaired, and the one that comes nearest to the dense network
//! is taken.

use crate::allocation::{ALLOCATIONS, Counts, Measured};
use crate::calibrate::{ActivationCache, Dense};
use crate::error::{Error, Result};
use crate::eval::Evaluation;
use crate::model::Model;
use crate::progress::{Progress, Quiet};
use crate::prune::{OwnMethods, PruneOptions, Scored, prune_scored, score_layers};
use crate::repair::{Chain, Judge, RepairOptions};
use crate::table;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// The rows that are tried as they are.
const ROWS: [&str; 3] = ["global", "lamp", "erk"];

/// How much of the better of two allocations a mixture has.
const SHARES: [f64; 2] = [2.0 / 3.0, 1.0 / 3.0];

/// By what a layer's weights are multiplied when layers exchange them.
const FACTORS: [f64; 2] = [1.25, 0.8];

/// An allocation that was tried for `measured`, and the label-free loss of the network pruned by it, after least squares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AllocationLoss {
    /// A row, a mixture of two, or one of them after exchanges between layers.
    pub allocation: String,
    /// The mean KL divergence from the dense network on held-out calibration images, or the relative error where outputs are no
    /// classes. `None` if the allocation could not be used.
    pub loss: Option<f64>,
    /// Whether it was chosen.
    pub chosen: bool,
}

/// Weights that each layer keeps, by the name of the weight.
type Kept = HashMap<String, usize>;

/// The counts of [`Measured`] in the place of its name, where `options` ask for it; also what was tried.
pub(super) fn resolve(
    model: &Model,
    dense: &Model,
    images: &Tensor,
    mut options: PruneOptions,
    repair: &RepairOptions,
    progress: &dyn Progress,
) -> Result<(PruneOptions, Vec<AllocationLoss>)> {
    if !options.measures() || options.sparsity == 0.0 {
        return Ok((options, Vec::new()));
    }
    let measured = Measured::parse(&table::find(ALLOCATIONS, "allocation", &options.allocation)?.1)?;
    let all = images.shape.first().copied().unwrap_or(0);
    if all < 4 {
        return Err(Error::option(format!(
            "allocation measured: {all} calibration images; at least 4 are needed, every fourth to measure by"
        )));
    }
    let (seen, held_out) = Judge::split(&images.first(all.min(measured.images)));
    let cache = ActivationCache::new(dense, &seen, repair.memory, &Quiet)?;
    let dense_seen = Dense::cached(dense, &cache);
    let repair = RepairOptions { seconds: None, ..repair.clone() };
    let judge = Judge::new(dense, held_out)?;
    let scored = score_layers(model, &options, &seen, &Quiet)?;
    let bench = Bench { model, dense: dense_seen, seen: &seen, scored, judge, options: &options, repair };
    let (kept, tried) = bench.choose(&measured, progress)?;
    options.own.allocation = Some(Arc::new(Counts(kept)));
    Ok((options, tried))
}

/// What all measurements share.
struct Bench<'b> {
    model: &'b Model,
    dense: Dense<'b>,
    seen: &'b Tensor,
    scored: Scored,
    judge: Judge,
    options: &'b PruneOptions,
    repair: RepairOptions,
}

/// An allocation that could be used.
struct Tried {
    name: String,
    kept: Kept,
    loss: f64,
}

impl Bench<'_> {
    fn choose(&self, measured: &Measured, progress: &dyn Progress) -> Result<(Kept, Vec<AllocationLoss>)> {
        let layers: Vec<&str> = self.scored.layers().iter().map(|layer| layer.param.as_str()).collect();
        let (mixtures, exchanges) = (measured.mixtures * SHARES.len(), measured.passes * layers.len());
        progress.begin("measure allocations", (ROWS.len() + mixtures + exchanges) as u64);
        let (mut tried, mut failed) = (Vec::new(), Vec::new());
        for row in ROWS {
            progress.check()?;
            let options = PruneOptions { allocation: row.into(), ..self.options.clone() };
            match self.try_out(row.into(), &options) {
                Ok(found) => tried.push(found),
                // ERK has no answer at low sparsities, where the others have one.
                Err(_) if row != ROWS[0] => failed.push(row.to_string()),
                Err(error) => return Err(error),
            }
            progress.advance(1);
        }
        for _ in 0..measured.mixtures {
            nearest_first(&mut tried);
            let [one, other, ..] = &tried[..] else { break };
            let percent = |share: f64| (100.0 * share).round();
            let name = |share: f64| format!("{} % ({}), {} % ({})", percent(share), one.name, percent(1.0 - share), other.name);
            let mixtures = SHARES.map(|share| (name(share), mixture(&one.kept, &other.kept, share)));
            for (name, kept) in mixtures {
                progress.check()?;
                tried.push(self.try_counts(name, kept)?);
                progress.advance(1);
            }
        }
        nearest_first(&mut tried);
        tried.extend(self.exchange(&tried[0], &layers, measured.passes, progress)?);
        progress.end();
        nearest_first(&mut tried);
        let rows = tried.iter().enumerate().map(|(index, tried)| AllocationLoss {
            allocation: tried.name.clone(),
            loss: Some(tried.loss),
            chosen: index == 0,
        });
        let failed = failed.into_iter().map(|allocation| AllocationLoss { allocation, loss: None, chosen: false });
        let rows = rows.chain(failed).collect();
        Ok((tried.swap_remove(0).kept, rows))
    }

    /// Offers each layer more weights than `best` gives it, then fewer, at the expense of all others, and keeps what lowers the
    /// loss. `None` if nothing does.
    fn exchange(&self, best: &Tried, layers: &[&str], passes: usize, progress: &dyn Progress) -> Result<Option<Tried>> {
        let (mut now, mut exchanges) = (None::<Tried>, 0);
        for layer in (0..passes).flat_map(|_| layers) {
            progress.check()?;
            for factor in FACTORS {
                let from = now.as_ref().unwrap_or(best);
                let mut kept = from.kept.clone();
                kept.entry(layer.to_string()).and_modify(|count| *count = (*count as f64 * factor).round() as usize);
                let name = format!("{} after {} exchanges", best.name, exchanges + 1);
                let found = self.try_counts(name, kept)?;
                if found.loss < from.loss {
                    (now, exchanges) = (Some(found), exchanges + 1);
                    break;
                }
            }
            progress.advance(1);
        }
        Ok(now)
    }

    fn try_counts(&self, name: String, kept: Kept) -> Result<Tried> {
        let own = OwnMethods { allocation: Some(Arc::new(Counts(kept))), ..self.options.own.clone() };
        self.try_out(name, &PruneOptions { own, ..self.options.clone() })
    }

    /// Prunes, repairs by least squares in one step, and measures.
    fn try_out(&self, name: String, options: &PruneOptions) -> Result<Tried> {
        let mut model = self.model.clone();
        let outcome = prune_scored(&mut model, &self.scored, options)?;
        Chain::parse("least-squares")?.repair(&mut model, self.dense, self.seen, &self.repair, &Quiet)?;
        let kept = outcome.layers.iter().zip(&outcome.kept).map(|(layer, &kept)| (layer.param.clone(), kept)).collect();
        Ok(Tried { name, kept, loss: distance(&self.judge.judge(&model)?) })
    }
}

fn nearest_first(tried: &mut [Tried]) {
    tried.sort_by(|a, b| a.loss.total_cmp(&b.loss));
}

/// A network that breaks on an image is farther away than any other.
fn distance(evaluation: &Evaluation) -> f64 {
    let distance = evaluation.kl.as_ref().or(evaluation.relative_error.as_ref()).map_or(f64::INFINITY, |of| of.value);
    if evaluation.broken_images > 0 { f64::INFINITY } else { distance }
}

/// Between two allocations.
fn mixture(one: &Kept, other: &Kept, share: f64) -> Kept {
    let mixed = |(name, &count): (&String, &usize)| {
        let second = other.get(name).copied().unwrap_or(0) as f64;
        (name.clone(), (share * count as f64 + (1.0 - share) * second).round() as usize)
    };
    one.iter().map(mixed).collect()
}
