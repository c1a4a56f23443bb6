//! Stochastic gradient descent with momentum and weight decay, as torch defines it.

use crate::parameters::Parameters;
use burn_core::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// The constants of the optimiser, all but the learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sgd {
    /// Share of the old running sum that is kept.
    pub momentum: f64,
    /// Whether the step looks ahead along the running sum.
    pub nesterov: bool,
    /// Factor of the weights that is added to their gradient.
    pub weight_decay: f64,
    /// Whether biases and normalisation parameters decay too.
    pub decay_all: bool,
}

impl Sgd {
    /// One step: `g += decay * w`, `v = momentum * v + g`, `w -= rate * v` (or `g + momentum * v`), and
    /// masks on `w` and `v`. A gradient that is `None` leaves its parameter as it is.
    pub fn step(&self, parameters: &mut Parameters, gradients: Vec<Option<Tensor<1>>>, rate: f64) {
        for (parameter, gradient) in parameters.trained.iter_mut().zip(gradients) {
            let Some(mut gradient) = gradient else { continue };
            if self.weight_decay != 0.0 && (self.decay_all || parameter.shape.len() > 1) {
                gradient = gradient + parameter.value.clone() * self.weight_decay;
            }
            let mut direction = gradient.clone();
            if self.momentum != 0.0 {
                let momentum = match parameter.momentum.take() {
                    Some(momentum) => momentum * self.momentum + gradient.clone(),
                    None => gradient.clone(),
                };
                direction = if self.nesterov { gradient + momentum.clone() * self.momentum } else { momentum.clone() };
                parameter.momentum = Some(momentum);
            }
            parameter.value = parameter.value.clone() - direction * rate;
            parameter.apply_mask();
        }
    }
}
