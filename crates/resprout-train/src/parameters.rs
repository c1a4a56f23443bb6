//! A model's numbers while it is trained: what is trained, what is only kept, and the masks.

use crate::error::unsupported;
use resprout::Result;
use resprout::model::Model;
use resprout::ops::{BinaryOp, Op};
use std::collections::{HashMap, HashSet};

/// A trained parameter, laid out flat.
pub struct Parameter {
    /// Its name in the model.
    pub name: String,
    /// Its shape in the model.
    pub shape: Vec<usize>,
    /// Its values.
    pub value: Vec<f32>,
    /// The optimiser's running sum of gradients, once there is one.
    pub momentum: Option<Vec<f32>>,
    /// The optimiser's running mean of squared gradients, once there is one.
    pub squares: Option<Vec<f32>>,
    /// Which weights are kept, if it has a mask.
    pub mask: Option<Vec<bool>>,
}

/// The running statistics of one batch normalisation.
pub struct Statistics {
    /// Names of mean and variance in the model.
    pub names: [String; 2],
    /// Means and variances, `[C]`.
    pub values: [Vec<f32>; 2],
}

/// Everything that training changes.
pub struct Parameters {
    /// What is trained, in the model's order.
    pub trained: Vec<Parameter>,
    /// What is kept beside it.
    pub statistics: Vec<Statistics>,
    by_name: HashMap<String, usize>,
    mask_version: u64,
}

impl Parameters {
    /// Copies a model's numbers and masks.
    pub fn new(model: &Model) -> Result<Parameters> {
        let mut parameters = Parameters::without_masks(model, |_, values| values.to_vec())?;
        parameters.set_masks(model);
        Ok(parameters)
    }

    /// Copies a model's numbers, changed by name on the way, and no masks: for gradients alone.
    pub fn without_masks(model: &Model, map: impl Fn(&str, &[f32]) -> Vec<f32>) -> Result<Parameters> {
        let names = trained_names(model)?;
        let mut trained = Vec::new();
        for (name, param) in model.params.iter().filter(|(name, _)| names.contains(*name)) {
            let tensor =
                param.f32().ok_or_else(|| unsupported(format!("parameter {name:?}: only 32-bit floats can be trained")))?;
            trained.push(Parameter {
                name: name.to_string(),
                shape: tensor.shape.clone(),
                value: map(name, &tensor.data),
                momentum: None,
                squares: None,
                mask: None,
            });
        }
        let mut statistics: Vec<Statistics> = Vec::new();
        for layer in model.graph.layers.iter().filter(|layer| matches!(layer.op, Op::BatchNorm { .. })) {
            let names = [3, 4].map(|index| layer.input(index).unwrap_or_default().to_string());
            if statistics.iter().any(|other| other.names.iter().any(|name| names.contains(name))) {
                return Err(unsupported(format!(
                    "layer {:?} shares its statistics with another one: cannot be trained",
                    layer.name
                )));
            }
            let values = [&names[0], &names[1]].map(|name| Ok(map(name, &model.weight(name)?.data)));
            let [mean, variance] = values;
            statistics.push(Statistics { names, values: [mean?, variance?] });
        }
        let by_name = trained.iter().enumerate().map(|(i, parameter)| (parameter.name.clone(), i)).collect();
        Ok(Parameters { trained, statistics, by_name, mask_version: 0 })
    }

    /// Rises whenever masks are taken over.
    pub fn mask_version(&self) -> u64 {
        self.mask_version
    }

    /// The index of a trained parameter.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Takes the model's masks over and applies them to values and momentum.
    pub fn set_masks(&mut self, model: &Model) {
        for parameter in &mut self.trained {
            parameter.mask = model.masks.get(&parameter.name).map(|mask| mask.0.to_vec());
            parameter.apply_mask();
        }
        self.mask_version += 1;
    }

    /// Takes the model's numbers over, and forgets the momentum.
    pub fn load(&mut self, model: &Model) -> Result<()> {
        for parameter in &mut self.trained {
            parameter.value = model.weight(&parameter.name)?.data.clone();
            (parameter.momentum, parameter.squares) = (None, None);
        }
        for statistics in &mut self.statistics {
            for (name, value) in statistics.names.iter().zip(&mut statistics.values) {
                *value = model.weight(name)?.data.clone();
            }
        }
        self.set_masks(model);
        Ok(())
    }

    /// Sets the momentum of a parameter.
    pub fn set_momentum(&mut self, index: usize, momentum: &[f32]) {
        self.trained[index].momentum = Some(momentum.to_vec());
    }

    /// Copies all numbers back into the model.
    pub fn store(&self, model: &mut Model) {
        for parameter in &self.trained {
            if let Some(tensor) = model.params.f32_mut(&parameter.name) {
                tensor.data.clone_from(&parameter.value);
            }
        }
        for statistics in &self.statistics {
            for (name, value) in statistics.names.iter().zip(&statistics.values) {
                if let Some(tensor) = model.params.f32_mut(name) {
                    tensor.data.clone_from(value);
                }
            }
        }
        // A weight of -0.0 under a mask would be a pruned weight that is not exactly zero.
        model.apply_masks();
    }
}

impl Parameter {
    /// Sets pruned weights, and what the optimiser keeps of them, to zero.
    pub fn apply_mask(&mut self) {
        let Some(mask) = &self.mask else { return };
        for values in [Some(&mut self.value), self.momentum.as_mut(), self.squares.as_mut()].into_iter().flatten() {
            values.iter_mut().zip(mask).filter(|(_, kept)| !**kept).for_each(|(value, _)| *value = 0.0);
        }
    }
}

/// Weights and biases of layers, scale and shift of normalisations, and what is added as a bias.
fn trained_names(model: &Model) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    for layer in &model.graph.layers {
        let inputs: &[usize] = match layer.op {
            Op::Conv(_) | Op::Gemm { .. } | Op::BatchNorm { .. } => &[1, 2],
            Op::MatMul => &[0, 1],
            Op::Binary(BinaryOp::Add) => &[0, 1],
            _ => &[],
        };
        for name in inputs.iter().filter_map(|&index| layer.input(index)) {
            let Some(param) = model.params.get(name) else { continue };
            // A single number that is added is part of a formula, not a bias.
            let formula = matches!(layer.op, Op::Binary(_)) && param.shape.iter().product::<usize>() < 2;
            if !formula {
                names.insert(name.to_string());
            }
        }
    }
    if names.is_empty() {
        return Err(unsupported("the model has no weights that could be trained"));
    }
    Ok(names)
}
