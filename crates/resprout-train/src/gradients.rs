//! Gradients of the loss with respect to every trained parameter, for scores and tests.

use crate::device;
use crate::engine::{Hold, Mode, TrainProgram};
use crate::error::data;
use crate::loss;
use crate::parameters::Parameters;
use resprout::Result;
use resprout::model::Model;
use resprout::tensor::Tensor;
use std::collections::BTreeMap;

/// A loss and its gradients.
pub struct Gradients {
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// One row of logits per image: `[N, classes]`.
    pub logits: Tensor,
    /// The gradient of each parameter by name, without parameters that the loss does not depend on.
    pub by_name: BTreeMap<String, Tensor>,
}

/// The gradients of the mean cross-entropy of preprocessed `images: [N, C, H, W]` with one label each. Pruned weights are zero
/// and have gradients too. `device` is a row of [`DEVICES`](crate::device::DEVICES), `cpu`.
///
/// # Errors
/// Of kind `Option` for an unknown device, `Data` for images or labels that do not fit, and `Unsupported` for a layer that cannot
/// be trained.
pub fn gradients(model: &Model, images: &Tensor, labels: &[usize], mode: Mode, device: &str) -> Result<Gradients> {
    gradients_at(model, images, labels, mode, 1.0, Hold::Free, device)
}

/// As [`gradients`], with logits divided by a temperature, and with gates noted or held.
pub(crate) fn gradients_at(
    model: &Model,
    images: &Tensor,
    labels: &[usize],
    mode: Mode,
    temperature: f64,
    hold: Hold,
    device: &str,
) -> Result<Gradients> {
    device::check(device)?;
    let parameters = Parameters::without_masks(model, |_, values| values.to_vec())?;
    let mut program = TrainProgram::new(model, &parameters, &images.shape)?;
    let classes = program.classes();
    let count = images.shape[0];
    if labels.len() != count || labels.iter().any(|&label| label >= classes) {
        return Err(data(format!("{} labels for {count} images of {classes} classes, or one out of range", labels.len())));
    }
    let forward = program.forward_held(&parameters, &images.data, mode, hold);
    let (loss, gradient) = loss::cross_entropy(&forward.logits, labels, 0.0, temperature);
    let logits = Tensor::new(vec![count, classes], forward.logits.clone());
    let gradients = program.backward(&parameters, forward, mode, &gradient);
    let named = parameters.trained.iter().zip(gradients);
    let by_name =
        named.filter_map(|(parameter, gradient)| Some((parameter.name.clone(), Tensor::new(parameter.shape.clone(), gradient?))));
    Ok(Gradients { loss, logits, by_name: by_name.collect() })
}
