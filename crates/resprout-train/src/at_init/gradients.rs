//! Mean gradients over the batches.

use super::method::{Input, Scores};
use crate::engine::{Hold, Mode};
use crate::error::data;
use crate::gradients::gradients_at;
use resprout::Result;
use resprout::model::{Model, Prunable};

/// The gradients of the mean loss over all batches with respect to the layers' weights. Normalisations use batch statistics.
pub(super) fn mean_gradients(model: &Model, layers: &[Prunable], input: &Input) -> Result<Scores> {
    mean_gradients_with(model, layers, input, 1.0, |_| Hold::Free)
}

/// As [`mean_gradients`], with logits divided by a temperature, and with the gates of each batch noted or held.
pub(super) fn mean_gradients_with<'g>(
    model: &Model,
    layers: &[Prunable],
    input: &Input,
    temperature: f64,
    mut hold: impl FnMut(usize) -> Hold<'g>,
) -> Result<Scores> {
    let mut sums: Scores = layers.iter().map(|layer| (layer.param.clone(), vec![0.0; layer.len()])).collect();
    for (index, (images, labels)) in input.batches.iter().enumerate() {
        let gradients = gradients_at(model, images, labels, Mode::Training, temperature, hold(index), input.device)?;
        for (name, sum) in &mut sums {
            let gradient =
                gradients.by_name.get(name).ok_or_else(|| data(format!("{name:?}: the loss does not depend on it")))?;
            if gradient.data.iter().any(|value| !value.is_finite()) {
                return Err(data(format!("{name:?}: its gradient is not finite")));
            }
            let share = 1.0 / input.batches.len() as f64;
            sum.iter_mut().zip(&gradient.data).for_each(|(sum, &value)| *sum += f64::from(value) * share);
        }
    }
    Ok(sums)
}
