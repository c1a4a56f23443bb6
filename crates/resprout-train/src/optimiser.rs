//! Stochastic gradient descent with momentum and weight decay, as in torch.

use crate::parameters::Parameters;
use burn_core::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// The constants of the optimiser, without the learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sgd {
    /// The factor of the old running sum.
    pub momentum: f64,
    /// Whether it uses Nesterov momentum.
    pub nesterov: bool,
    /// The factor of the weights in their gradient.
    pub weight_decay: f64,
    /// Whether biases and normalisation parameters decay too.
    pub decay_all: bool,
}

impl Sgd {
    /// One step: `g += decay * w`, `v = momentum * v + g`, `w -= rate * v`. With Nesterov momentum the last one is
    /// `w -= rate * (g + momentum * v)`. Masks apply to `w` and `v`. A parameter without a gradient does not change.
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
