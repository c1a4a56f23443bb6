//! Stochastic gradient descent with momentum and weight decay, as torch defines it.

use crate::parameters::Parameters;
use rayon::prelude::*;
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
    pub fn step(&self, parameters: &mut Parameters, gradients: Vec<Option<Vec<f32>>>, rate: f64) {
        let (momentum, decay, rate) = (self.momentum as f32, self.weight_decay as f32, rate as f32);
        parameters.trained.par_iter_mut().zip(gradients).for_each(|(parameter, gradient)| {
            let Some(mut gradient) = gradient else { return };
            if decay != 0.0 && (self.decay_all || parameter.shape.len() > 1) {
                gradient.iter_mut().zip(&parameter.value).for_each(|(gradient, value)| *gradient += value * decay);
            }
            if momentum != 0.0 {
                match &mut parameter.momentum {
                    Some(sums) => sums.iter_mut().zip(&gradient).for_each(|(sum, gradient)| *sum = *sum * momentum + gradient),
                    none => *none = Some(gradient.clone()),
                }
                let sums = parameter.momentum.iter().flatten();
                let direction =
                    |(gradient, sum): (&mut f32, &f32)| *gradient = if self.nesterov { *gradient + sum * momentum } else { *sum };
                gradient.iter_mut().zip(sums).for_each(direction);
            }
            parameter.value.iter_mut().zip(&gradient).for_each(|(value, direction)| *value -= direction * rate);
            parameter.apply_mask();
        });
    }
}
