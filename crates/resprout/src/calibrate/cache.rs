//! The dense network's activations, kept for many walks over the same images.

use super::needs::{Needs, bytes_per_image, plan};
use super::store::ActivationStore;
use crate::error::Result;
use crate::forward::Plan;
use crate::model::Model;
use crate::ops::{BinaryOp, Compute};
use crate::progress::Progress;
use crate::tensor::Tensor;
use std::collections::HashSet;

/// The dense network beside the pruned one, with a cache of its activations or without. A [`Model`] converts to it.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Dense<'a> {
    model: &'a Model,
    cache: Option<&'a ActivationCache>,
}

impl<'a> From<&'a Model> for Dense<'a> {
    fn from(model: &'a Model) -> Dense<'a> {
        Dense { model, cache: None }
    }
}

impl<'a> Dense<'a> {
    /// With a cache of the same network. A walk uses the cache if the cached images begin with its own. No result changes.
    pub fn cached(model: &'a Model, cache: &'a Option<ActivationCache>) -> Dense<'a> {
        Dense { model, cache: cache.as_ref() }
    }

    /// The network.
    pub fn model(&self) -> &'a Model {
        self.model
    }

    pub(super) fn values(&self, plan: &Plan, images: &Tensor) -> Option<&'a ActivationStore> {
        self.cache
            .filter(|cache| cache.input == plan.input_shape)
            .map(|cache| &cache.store)
            .filter(|store| store.begins_with(images))
    }
}

/// The dense network's values that repairs read: outputs of layers with weights, inputs of BatchNormalizations, and the summands
/// of residual sums.
#[doc(hidden)]
pub struct ActivationCache {
    input: Vec<usize>,
    store: ActivationStore,
}

impl ActivationCache {
    /// Runs `images: [N, C, H, W]`; `None` if the cache and a walk beside it would take more than `memory` bytes.
    ///
    /// # Errors
    /// Of kind `Data` or `Unsupported` for images or a network that cannot be run, and `Interrupted`.
    pub fn new(dense: &Model, images: &Tensor, memory: usize, progress: &dyn Progress) -> Result<Option<ActivationCache>> {
        let plan = plan(dense, images, &Needs { images: true, dense: true, weights: true, batch: None })?;
        let kept = kept(&plan);
        let chunk: usize = kept.iter().map(|&slot| plan.slot_bytes(slot)).sum();
        let batch = plan.input_shape[0].max(1);
        let walk = bytes_per_image(dense, images.shape.get(1..).unwrap_or_default(), &Needs::default())?;
        let bytes = (chunk / batch).saturating_add(walk).saturating_mul(images.shape[0].next_multiple_of(batch));
        if bytes > memory {
            return Ok(None);
        }
        let mut store = ActivationStore::new(&plan, images)?;
        progress.begin("dense network", plan.steps.len() as u64);
        for step in &plan.steps {
            progress.check()?;
            store.run_caching(step, &kept);
            progress.advance(1);
        }
        progress.end();
        Ok(Some(ActivationCache { input: plan.input_shape, store }))
    }
}

/// The slots that repairs read.
fn kept(plan: &Plan) -> HashSet<usize> {
    let mut kept = HashSet::from([0]);
    for step in &plan.steps {
        match step.compute {
            Compute::Conv(_) | Compute::Linear { .. } => drop(kept.insert(step.output())),
            Compute::Binary { op: BinaryOp::Add, .. } => kept.extend(step.input_slots()),
            _ if step.batch_norm.is_some() => kept.extend(step.first_input()),
            _ => {}
        }
    }
    kept
}
