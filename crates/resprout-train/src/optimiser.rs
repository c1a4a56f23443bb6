//! Optimisers, as torch defines them: stochastic gradient descent with momentum and weight decay, and Adam.

use crate::parameters::Parameters;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Stochastic gradient descent: its constants, all but the learning rate.
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
    pub(crate) fn step(&self, parameters: &mut Parameters, gradients: Vec<Option<Vec<f32>>>, rate: f64) {
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

/// Adam without weight decay (Kingma and Ba, Adam: a method for stochastic optimization, ICLR 2015, algorithm 1).
#[derive(Clone, Debug, PartialEq)]
pub struct Adam {
    /// Share of the running mean of gradients that is kept.
    pub beta1: f64,
    /// Share of the running mean of squared gradients that is kept.
    pub beta2: f64,
    /// Added to the root of the mean of squares.
    pub epsilon: f64,
}

impl Adam {
    /// Step `t`, from 1 on: `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`,
    /// `w -= rate / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + epsilon)`, and masks on `w`, `m` and `v`. A gradient that is
    /// `None` leaves its parameter as it is.
    pub(crate) fn step(&self, parameters: &mut Parameters, gradients: Vec<Option<Vec<f32>>>, rate: f64, t: usize) {
        let power = |beta: f64| 1.0 - beta.powf(t as f64);
        let (first, second) = ((rate / power(self.beta1)) as f32, (1.0 / power(self.beta2)) as f32);
        let (beta1, beta2, epsilon) = (self.beta1 as f32, self.beta2 as f32, self.epsilon as f32);
        parameters.trained.par_iter_mut().zip(gradients).for_each(|(parameter, gradient)| {
            let Some(gradient) = gradient else { return };
            let zeros = || vec![0.0; gradient.len()];
            let means = parameter.momentum.get_or_insert_with(zeros).iter_mut();
            let squares = parameter.squares.get_or_insert_with(zeros).iter_mut();
            for (((value, gradient), mean), square) in parameter.value.iter_mut().zip(&gradient).zip(means).zip(squares) {
                *mean = beta1 * *mean + (1.0 - beta1) * gradient;
                *square = beta2 * *square + (1.0 - beta2) * gradient * gradient;
                *value -= first * *mean / ((*square * second).sqrt() + epsilon);
            }
            parameter.apply_mask();
        });
    }
}
