//! The number of multiply-accumulates of a network.

use super::{Plan, PlanOptions, with_batch};
use crate::error::Result;
use crate::model::Model;
use std::collections::HashMap;

/// Multiply-accumulates per image of every layer, by name.
pub type LayerMacs = HashMap<String, u64>;

/// Counts the multiply-accumulates for images of shape `[C, H, W]`, those of zero weights included.
///
/// # Errors
/// As [`Plan::new`].
pub fn layer_macs(model: &Model, image: &[usize]) -> Result<LayerMacs> {
    let input = with_batch(model, image);
    // Folding a BatchNormalization copies weights and changes no count.
    let plan = Plan::new(model, &input, &PlanOptions { fold_batch_norm: false, ..PlanOptions::default() })?;
    let batch = input[0].max(1) as u64;
    Ok(plan.steps.iter().map(|step| (model.graph.layers[step.layer].name.clone(), step.macs / batch)).collect())
}
