//! Whole channels: scores, the number that goes, and their masks.
//!
//! Channels that are coupled, such as those of the two summands of a residual connection, form a *unit* that stays or goes as a
//! whole: see [`coupling`](crate::structure::coupling).

mod costs;
mod criteria;
mod order;

pub use criteria::{CHANNEL_CRITERIA, Criterion, Score, UnitLayer, find};
pub use order::{CHANNEL_ALLOCATIONS, Order};

use super::options::{PruneOptions, PruneOutcome};
use crate::error::{Error, Result};
use crate::model::{LeftDense, Mask, MaskTable, Model, PrunableRule};
use crate::progress::Progress;
use crate::structure::coupling::Coupling;
use crate::table;
use crate::tensor::Tensor;
use costs::{Costs, gone, masks, remove};
use criteria::scores;
use order::groups;
use std::collections::{HashMap, HashSet};

/// Prunes whole channels in place, with all that depends on them: the weights that write them, the weights that read them,
/// biases, scale and shift. [`prune::prune`](crate::prune::prune()) calls it for the pattern of channels.
///
/// # Errors
/// As [`prune::prune`](crate::prune::prune()), and of kind `Option` where no channel can go.
pub fn prune(model: &mut Model, options: &PruneOptions, images: &Tensor, progress: &dyn Progress) -> Result<PruneOutcome> {
    check(options)?;
    let everything = PrunableRule { include_grouped: true, ..options.rule.clone() };
    let (layers, mut left_dense) = model.prunable(&everything)?;
    let reasons: HashMap<&str, &str> = left_dense.iter().map(|left| (left.param.as_str(), left.reason.as_str())).collect();
    let coupling = Coupling::new(model, |param| reasons.get(param).map(|reason| reason.to_string()));
    let open = (0..coupling.frozen.len()).filter(|&unit| coupling.frozen[unit].is_none());
    let produced: HashSet<usize> = coupling.outputs().flat_map(|one| one.units.iter().copied()).collect();
    let open: Vec<usize> = open.filter(|unit| produced.contains(unit)).collect();
    if open.is_empty() {
        return Err(Error::option(format!("pattern channel: no channel can go{}", coupling.example_reasons())));
    }
    let scores = scores(model, &coupling, &layers, &open, options, images, progress)?;
    let (order, _) = table::find(CHANNEL_ALLOCATIONS, "allocation", &options.allocation)?;
    let groups = groups(&coupling, &open);
    let order = (order.build)(&scores, &groups);
    let gone = gone(model, &coupling);
    let mut costs = Costs::new(model, &coupling, &layers, images, options, &gone)?;
    let (limit, exact) = (costs.budget, options.macs.is_some() || model.masks.iter().next().is_none());
    let mut after = masked(model, &coupling, &remove(&costs, &coupling, &order, &gone)?);
    for _ in 0..CORRECTIONS {
        let left = layers.iter().map(|layer| after.get(&layer.param).map_or(layer.len(), Mask::kept)).sum::<usize>() as f64;
        if exact || left <= limit {
            break;
        }
        costs.budget *= limit / left;
        after = masked(model, &coupling, &remove(&costs, &coupling, &order, &gone)?);
    }
    model.masks = after;
    model.apply_masks();
    for layer in &layers {
        let outputs = coupling.outputs().find(|one| one.param == layer.param);
        let frozen = outputs.and_then(|one| coupling.frozen[one.units[0]].as_ref().filter(|_| coupling.is_frozen(one)));
        if let Some(reason) = frozen {
            let reason = format!("its output channels stay: {reason}");
            let (weights, param) = (layer.len(), layer.param.clone());
            left_dense.push(LeftDense { layer: layer.layer.clone(), param, reason, weights });
        }
    }
    let kept = layers.iter().map(|layer| model.masks.get(&layer.param).map_or(layer.len(), Mask::kept)).collect();
    Ok(PruneOutcome { layers, kept, left_dense })
}

/// How often the budget is lowered to meet the sparsity. Earlier masks leave an uneven number of weights per channel, so the cost
/// of a channel is an estimate.
const CORRECTIONS: usize = 8;

/// The model's masks combined with those of dead units.
fn masked(model: &Model, coupling: &Coupling, dead: &[bool]) -> MaskTable {
    let mut all = model.masks.clone();
    for (param, mut mask) in masks(model, coupling, dead) {
        if let Some(older) = all.get(&param) {
            mask.intersect(older);
        }
        all.insert(param, mask);
    }
    all
}

/// Fails on options that do not apply to channels.
fn check(options: &PruneOptions) -> Result<()> {
    let PruneOptions { criterion, allocation, own, .. } = options;
    for (kind, name, is_own) in
        [("criterion", criterion, own.criterion.is_some()), ("allocation", allocation, own.allocation.is_some())]
    {
        if is_own {
            return Err(Error::option(format!("{kind} {name}: is for single weights; whole channels take a row of the tables")));
        }
    }
    find(&options.criterion)?;
    table::find(CHANNEL_ALLOCATIONS, "allocation", &options.allocation)?;
    if !options.layers.is_empty() || options.min_per_layer > 0 || options.min_per_channel > 0 {
        return Err(Error::option(
            "pattern channel: sparsities of single layers and minimum weights per layer or channel do not apply; ignore layers instead",
        ));
    }
    options.macs.map_or(Ok(()), check_share)
}

/// Fails unless the share of the multiply-accumulates lies in `(0, 1]`.
///
/// # Errors
/// Of kind `Option`.
#[doc(hidden)]
pub fn check_share(macs: f64) -> Result<()> {
    if macs > 0.0 && macs <= 1.0 {
        return Ok(());
    }
    Err(Error::option(format!("macs {macs}: a share above 0, up to 1, is needed")))
}
