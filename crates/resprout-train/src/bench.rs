//! Single training steps, to be timed.

use crate::engine::{Mode, TrainProgram};
use crate::loss;
use crate::optimiser::Sgd;
use crate::parameters::Parameters;
use resprout::Result;
use resprout::model::Model;

/// A model in training, without a run around it.
pub struct Stepper {
    parameters: Parameters,
    program: TrainProgram,
    optimiser: Sgd,
}

impl Stepper {
    /// Prepares steps of `batch` images of shape `image: [C, H, W]`. The model is copied, and its masks are kept.
    ///
    /// # Errors
    /// As [`gradients()`](crate::gradients()).
    pub fn new(model: &Model, image: [usize; 3], batch: usize) -> Result<Stepper> {
        let parameters = Parameters::new(model)?;
        let program = TrainProgram::new(model, &parameters, &[&[batch][..], &image].concat())?;
        let optimiser = Sgd { momentum: 0.9, nesterov: false, weight_decay: 1e-4, decay_all: true };
        Ok(Stepper { parameters, program, optimiser })
    }

    /// Runs one step with a rate of 0. For each layer it returns the seconds forward and backward, and the multiply-accumulates
    /// forward.
    pub fn layers(&mut self, images: &[f32], labels: &[usize]) -> Vec<(String, [f64; 2], Option<u64>)> {
        self.program.measure(true);
        self.step(images, labels, 0.0);
        self.program.measure(false)
    }

    /// One step of SGD on `images`, `[N, C, H, W]` flat, with one label each. Returns the mean cross-entropy in nats.
    pub fn step(&mut self, images: &[f32], labels: &[usize], rate: f64) -> f64 {
        let forward = self.program.forward(&self.parameters, images, Mode::Training);
        let (loss, gradient) = loss::cross_entropy(&forward.logits, labels, 0.0, 1.0);
        forward.update_statistics(&mut self.parameters);
        let gradients = self.program.backward(&self.parameters, forward, Mode::Training, &gradient);
        self.optimiser.step(&mut self.parameters, gradients, rate);
        loss
    }
}
