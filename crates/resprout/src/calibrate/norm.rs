//! The parameters of a BatchNormalization.

use crate::error::{Error, Result};
use crate::forward::BatchNormStep;
use crate::model::Model;
use crate::ops::Compute;
use resprout_kernels::Activation;

/// The parameters of a BatchNormalization, one of each per channel: `gamma * (x - mean) / sqrt(var + epsilon) + beta`.
#[derive(Clone, Debug, PartialEq)]
pub struct NormParams {
    /// Scale, `[C]`.
    pub gamma: Vec<f64>,
    /// Shift, `[C]`.
    pub beta: Vec<f64>,
    /// Running mean, `[C]`.
    pub mean: Vec<f64>,
    /// Running variance, `[C]`.
    pub var: Vec<f64>,
    /// Added to the variance.
    pub epsilon: f64,
}

impl NormParams {
    /// Reads them from the model.
    pub fn read(model: &Model, norm: &BatchNormStep) -> Result<NormParams> {
        let wide = |name: &String| Ok::<_, Error>(model.weight(name)?.data.iter().map(|&v| f64::from(v)).collect());
        let [gamma, beta, mean, var] = &norm.params;
        Ok(NormParams {
            gamma: wide(gamma)?,
            beta: wide(beta)?,
            mean: wide(mean)?,
            var: wide(var)?,
            epsilon: f64::from(norm.epsilon),
        })
    }

    /// Writes into the model what differs from it, rounded to `f32`.
    pub(super) fn write(&self, model: &mut Model, norm: &BatchNormStep) -> Result<()> {
        let old = NormParams::read(model, norm)?;
        let columns = [
            (&self.gamma, &old.gamma, &norm.params[0]),
            (&self.beta, &old.beta, &norm.params[1]),
            (&self.mean, &old.mean, &norm.params[2]),
            (&self.var, &old.var, &norm.params[3]),
        ];
        for (new, _, name) in columns.into_iter().filter(|(new, old, _)| new != old) {
            // A value that another layer reads too cannot fit both.
            if model.graph.reader_counts().get(name.as_str()) != Some(&1) {
                return Err(Error::unsupported(format!("the BatchNormalization shares {name:?} with another layer")));
            }
            let missing = || Error::unsupported(format!("{name:?} is computed, not a parameter"));
            let tensor = model.params.f32_mut(name).ok_or_else(missing)?;
            tensor.data.iter_mut().zip(new).for_each(|(to, &from)| *to = from as f32);
        }
        Ok(())
    }

    /// `gamma / sqrt(var + epsilon)`: the factor of channel `c`.
    pub fn scale(&self, c: usize) -> f64 {
        self.gamma[c] / (self.var[c] + self.epsilon).sqrt()
    }

    /// `beta - mean * scale`: what is added to channel `c`.
    pub fn shift(&self, c: usize) -> f64 {
        self.beta[c] - self.mean[c] * self.scale(c)
    }

    /// The number of channels.
    pub fn channels(&self) -> usize {
        self.gamma.len()
    }

    /// The computation with statistics rounded to `f32`, as the file stores them. So the layers after it see what the written
    /// model computes.
    pub(super) fn compute(&self, activation: Activation) -> Compute {
        let stored = |values: &[f64]| values.iter().map(|&v| f64::from(v as f32)).collect::<Vec<f64>>();
        let rounded = NormParams {
            gamma: stored(&self.gamma),
            beta: stored(&self.beta),
            mean: stored(&self.mean),
            var: stored(&self.var),
            epsilon: self.epsilon,
        };
        let each = |value: &dyn Fn(usize) -> f64| (0..self.channels()).map(|c| value(c) as f32).collect();
        Compute::Affine { scale: each(&|c| rounded.scale(c)), shift: each(&|c| rounded.shift(c)), activation }
    }
}
