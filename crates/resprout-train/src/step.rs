//! One step of training.

use crate::engine::{Mode, TrainProgram};
use crate::loss;
use crate::optimiser::Sgd;
use crate::parameters::Parameters;

/// What a step does with a batch.
#[derive(Clone, Copy)]
pub(crate) struct Descent<'a> {
    pub optimiser: &'a Sgd,
    pub label_smoothing: f64,
    pub rate: f64,
}

impl Descent<'_> {
    /// Forward, backward and update. Returns the loss in nats and the logits; a loss that is not finite changes nothing.
    pub fn step(
        &self,
        program: &mut TrainProgram,
        parameters: &mut Parameters,
        images: &[f32],
        labels: &[usize],
    ) -> (f64, Vec<f32>) {
        let mut forward = program.forward(parameters, images, Mode::Training);
        let logits = std::mem::take(&mut forward.logits);
        let (loss, gradient) = loss::cross_entropy(&logits, labels, self.label_smoothing, 1.0);
        if loss.is_finite() {
            forward.update_statistics(parameters);
            let gradients = program.backward(parameters, forward, Mode::Training, &gradient);
            self.optimiser.step(parameters, gradients, self.rate);
        }
        (loss, logits)
    }
}
