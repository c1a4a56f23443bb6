//! A model's parameters on the training device: trained ones, running statistics, and masks.

use crate::error::unsupported;
use burn_core::tensor::{Device, Tensor, TensorData};
use resprout::Result;
use resprout::model::Model;
use resprout::ops::{BinaryOp, Op};
use std::collections::{HashMap, HashSet};

/// A trained parameter as a flat vector.
pub struct Parameter {
    /// Its name in the model.
    pub name: String,
    /// Its shape in the model.
    pub shape: Vec<usize>,
    /// Its values.
    pub value: Tensor<1>,
    /// The optimiser's running sum of gradients, after the first step.
    pub momentum: Option<Tensor<1>>,
    /// The mask, if there is one: 1 for a kept weight and 0 for a pruned one.
    pub mask: Option<Tensor<1>>,
}

/// The running statistics of one batch normalisation.
pub struct Statistics {
    /// The names of mean and variance in the model.
    pub names: [String; 2],
    /// Means and variances, `[C]`.
    pub values: [Tensor<1>; 2],
}

/// All parameters that training changes.
pub struct Parameters {
    /// The trained parameters, in the model's order.
    pub trained: Vec<Parameter>,
    /// The running statistics.
    pub statistics: Vec<Statistics>,
    by_name: HashMap<String, usize>,
    device: Device,
}

impl Parameters {
    /// Copies a model's parameters and masks to a device.
    pub fn new(model: &Model, device: &Device) -> Result<Parameters> {
        let mut parameters = Parameters::without_masks(model, device, |_, values| values.to_vec())?;
        parameters.set_masks(model);
        Ok(parameters)
    }

    /// Copies a model's parameters without masks, each changed by `map`.
    pub fn without_masks(model: &Model, device: &Device, map: impl Fn(&str, &[f32]) -> Vec<f32>) -> Result<Parameters> {
        let names = trained_names(model)?;
        let mut trained = Vec::new();
        for (name, param) in model.params.iter().filter(|(name, _)| names.contains(*name)) {
            let tensor =
                param.f32().ok_or_else(|| unsupported(format!("parameter {name:?}: only 32-bit floats can be trained")))?;
            trained.push(Parameter {
                name: name.to_string(),
                shape: tensor.shape.clone(),
                value: vector(map(name, &tensor.data), device),
                momentum: None,
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
            let values = [&names[0], &names[1]].map(|name| Ok(vector(map(name, &model.weight(name)?.data), device)));
            let [mean, variance] = values;
            statistics.push(Statistics { names, values: [mean?, variance?] });
        }
        let by_name = trained.iter().enumerate().map(|(i, parameter)| (parameter.name.clone(), i)).collect();
        Ok(Parameters { trained, statistics, by_name, device: device.clone() })
    }

    /// The index of a trained parameter.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Copies the model's masks, and applies them to values and momentum.
    pub fn set_masks(&mut self, model: &Model) {
        for parameter in &mut self.trained {
            let mask = model.masks.get(&parameter.name).map(|mask| {
                let kept: Vec<f32> = mask.0.iter().map(|&kept| f32::from(u8::from(kept))).collect();
                vector(kept, &self.device)
            });
            parameter.mask = mask;
            parameter.apply_mask();
        }
    }

    /// Copies the model's parameters and masks, and clears the momentum.
    pub fn load(&mut self, model: &Model) -> Result<()> {
        for parameter in &mut self.trained {
            parameter.value = vector(model.weight(&parameter.name)?.data.clone(), &self.device);
            parameter.momentum = None;
        }
        for statistics in &mut self.statistics {
            for (name, value) in statistics.names.iter().zip(&mut statistics.values) {
                *value = vector(model.weight(name)?.data.clone(), &self.device);
            }
        }
        self.set_masks(model);
        Ok(())
    }

    /// Sets the momentum of a parameter.
    pub fn set_momentum(&mut self, index: usize, momentum: &[f32]) {
        self.trained[index].momentum = Some(vector(momentum.to_vec(), &self.device));
    }

    /// Copies all parameters back into the model.
    pub fn store(&self, model: &mut Model) {
        for parameter in &self.trained {
            if let Some(tensor) = model.params.f32_mut(&parameter.name) {
                tensor.data = values(&parameter.value);
            }
        }
        for statistics in &self.statistics {
            for (name, value) in statistics.names.iter().zip(&statistics.values) {
                if let Some(tensor) = model.params.f32_mut(name) {
                    tensor.data = values(value);
                }
            }
        }
        // The product with a mask may be -0.0, and a pruned weight must be 0.0.
        model.apply_masks();
    }
}

impl Parameter {
    /// Sets pruned weights and their momentum to zero.
    pub fn apply_mask(&mut self) {
        let Some(mask) = &self.mask else { return };
        self.value = self.value.clone() * mask.clone();
        self.momentum = self.momentum.take().map(|momentum| momentum * mask.clone());
    }
}

/// The elements of a tensor.
pub fn values(tensor: &Tensor<1>) -> Vec<f32> {
    tensor.to_data().try_into_vec().expect("parameters are tensors of f32")
}

fn vector(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

/// The names of weights and biases of layers, scales and shifts of normalisations, and operands that are added.
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
            // A scalar operand is part of a formula, not a bias.
            let scalar = matches!(layer.op, Op::Binary(_)) && param.shape.iter().product::<usize>() < 2;
            if !scalar {
                names.insert(name.to_string());
            }
        }
    }
    if names.is_empty() {
        return Err(unsupported("the model has no weights that could be trained"));
    }
    Ok(names)
}
