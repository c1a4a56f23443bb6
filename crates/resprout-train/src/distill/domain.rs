//! Whether images are of the kind that the dense network knows.

use super::Distill;
use resprout::Result;
use resprout::calibrate::{FAR, norm_distance};
use resprout::model::Model;
use resprout::progress::Progress;
use resprout::tensor::Tensor;

/// Images that are looked at.
const LOOKED_AT: usize = 256;

/// A warning in place of training, if the images are far from those that the dense network was trained on: what training gains on
/// them says little of what it gains on others.
pub(super) fn far(distill: &Distill, dense: &Model, images: &Tensor, progress: &dyn Progress) -> Result<Option<String>> {
    if distill.any_domain {
        return Ok(None);
    }
    let images = images.first(LOOKED_AT.min(images.shape[0]));
    let distance = norm_distance(dense, &images, progress)?;
    Ok(distance.filter(|distance| *distance > FAR).map(|distance| {
        format!(
            "repair distill: nothing was trained, because the images are far from those that the dense network was trained on: \
             statistics in front of its BatchNormalizations differ from the running ones by {distance:.2}, and {FAR} is the most; \
             distill:domain=any trains on them"
        )
    }))
}
