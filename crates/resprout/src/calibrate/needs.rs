//! What visitors need of a walk, and the plan that provides it.

use crate::error::Result;
use crate::forward::{Plan, PlanOptions, plan_chunk};
use crate::model::Model;
use crate::tensor::Tensor;

/// What a visitor needs of the walk. By default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Calibration images.
    pub images: bool,
    /// The dense network beside the pruned one.
    pub dense: bool,
    /// A call of [`Visitor::weights`](super::Visitor::weights) at each layer with weights.
    pub weights: bool,
    /// Images per batch, where the statistics of a batch matter; `None` where they do not.
    pub batch: Option<usize>,
}

/// A plan with each BatchNormalization as a step of its own. A chunk is one batch where batches matter.
pub(super) fn plan(model: &Model, images: &Tensor, needs: &Needs) -> Result<Plan> {
    let image = images.shape.get(1..).unwrap_or_default();
    // A layer that is compared or computed again must end before its activation.
    let fuse_activation = !needs.dense && !needs.weights;
    let options = PlanOptions { fold_batch_norm: false, fuse_activation, taps: vec![] };
    match needs.batch {
        None => plan_chunk(model, image, &options),
        Some(batch) => Plan::new(model, &[&[batch.min(images.shape[0])], image].concat(), &options),
    }
}

/// The peak memory of a walk, per image.
pub(crate) fn bytes_per_image(model: &Model, image: &[usize], needs: &Needs) -> Result<usize> {
    let one = Tensor::new([&[1], image].concat(), vec![0.0; image.iter().product()]);
    let plan = plan(model, &one, needs)?;
    Ok(plan.peak_bytes() / plan.input_shape[0].max(1) * if needs.dense { 2 } else { 1 })
}
