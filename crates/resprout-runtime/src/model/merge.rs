//! Merges each BatchNormalization into the layer in front of it: fewer operations, and the form that quantisers expect.

use super::{Layer, Merged, Model};
use crate::error::Result;
use crate::ops::Op;
use serde::{Deserialize, Serialize};

/// The outcome for the BatchNormalizations of a network.
#[doc(hidden)]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedNorms {
    /// The number that were merged.
    pub merged: usize,
    /// The names of those that stay, each with the reason.
    pub left: Vec<(String, String)>,
}

impl Model {
    /// Merges every BatchNormalization into the convolution or linear layer in front of it, if nothing else reads between.
    /// The network's results stay the same to rounding, and pruned weights stay zero.
    ///
    /// `w' = s w` and `b' = s (b - mean) + beta` with `s = gamma / sqrt(var + epsilon)`, in `f64`.
    pub fn merge_batch_norms(&mut self) -> Result<MergedNorms> {
        let norms: Vec<String> =
            self.graph.layers.iter().filter(|layer| is_norm(layer)).map(|layer| layer.name.clone()).collect();
        let mut outcome = MergedNorms::default();
        for name in norms {
            match self.target(&name) {
                Ok(layer) => {
                    self.merge(layer, &name)?;
                    outcome.merged += 1;
                }
                Err(reason) => outcome.left.push((name, reason.to_string())),
            }
        }
        Ok(outcome)
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.graph.layers.iter().position(|layer| layer.name == name)
    }

    /// The layer that a BatchNormalization can be merged into, or why there is none.
    fn target(&self, norm: &str) -> Result<usize, &'static str> {
        let norm = self.position(norm).map(|index| &self.graph.layers[index]).ok_or("not a layer")?;
        let value = norm.input(0).ok_or("reads nothing")?;
        let numbers = (1..5).all(|slot| norm.input(slot).is_some_and(|name| self.params.f32(name).is_some()));
        let index = self.graph.layers.iter().position(|layer| layer.outputs.first().is_some_and(|output| output == value));
        let layer = index.map(|index| &self.graph.layers[index]).ok_or("reads an input of the network")?;
        let readers = self.graph.reader_counts();
        let alone = |name: &str| readers.get(name) == Some(&1);
        match &layer.op {
            Op::Conv(_) | Op::Gemm { trans_a: false, .. } => {}
            Op::ConvTranspose(attributes) if attributes.groups() == 1 => {}
            _ => return Err("no convolution or linear layer in front of it"),
        }
        let weight =
            layer.input(1).filter(|name| self.params.f32(name).is_some()).ok_or("the weight in front of it is computed")?;
        let scaled = matches!(layer.op, Op::Gemm { alpha, beta, .. } if alpha != 1.0 || beta != 1.0);
        let bias = layer.input(2).map(|name| self.params.f32(name).filter(|bias| bias.shape.len() == 1 && alone(name)));
        match () {
            () if !numbers => Err("its numbers are computed"),
            () if !alone(value) => Err("something else reads what it reads"),
            () if !alone(weight) => Err("the weight in front of it is read by several layers"),
            () if scaled || bias == Some(None) => Err("the bias in front of it is no vector of its own"),
            () => Ok(index.unwrap_or_default()),
        }
    }

    fn merge(&mut self, index: usize, norm: &str) -> Result<()> {
        let at = self.position(norm).unwrap_or_default();
        let norm = self.graph.layers[at].clone();
        let numbers = |slot: usize| -> Result<Vec<f64>> {
            Ok(self.weight(norm.input(slot).unwrap_or_default())?.data.iter().map(|&v| f64::from(v)).collect())
        };
        let Op::BatchNorm { epsilon } = norm.op else { return Ok(()) };
        let (gamma, beta, mean, var) = (numbers(1)?, numbers(2)?, numbers(3)?, numbers(4)?);
        let scale: Vec<f64> = gamma.iter().zip(&var).map(|(gamma, var)| gamma / (var + f64::from(epsilon)).sqrt()).collect();
        let layer = self.graph.layers[index].clone();
        let weight = layer.inputs[1].clone();
        let axis = out_axis(&layer.op);
        if let Some(tensor) = self.params.f32_mut(&weight) {
            let (inner, sides) = (tensor.shape[axis + 1..].iter().product::<usize>(), tensor.shape[axis]);
            let of = |at: usize| scale[at / inner.max(1) % sides.max(1)];
            tensor.data.iter_mut().enumerate().for_each(|(at, w)| *w = (f64::from(*w) * of(at)) as f32);
        }
        let old: Vec<f64> = match layer.input(2) {
            Some(name) => self.weight(name)?.data.iter().map(|&v| f64::from(v)).collect(),
            None => vec![0.0; scale.len()],
        };
        let bias: Vec<f32> = (0..scale.len()).map(|c| (scale[c] * (old[c] - mean[c]) + beta[c]) as f32).collect();
        match layer.input(2).map(String::from) {
            Some(name) => self.params.f32_mut(&name).into_iter().for_each(|tensor| tensor.data.clone_from(&bias)),
            None => drop(self.give_bias(index, bias)?),
        }
        let output = norm.outputs[0].clone();
        self.graph.layers[index].outputs = vec![output.clone()];
        self.graph.merged.push(Merged { kept: layer.name, gone: norm.name.clone(), output });
        self.graph.layers.remove(at);
        self.forget(&norm.inputs[1..]);
        Ok(())
    }

    /// Removes parameters that no layer reads any more.
    fn forget(&mut self, names: &[String]) {
        let readers: std::collections::HashSet<String> = self.graph.reader_counts().into_keys().map(String::from).collect();
        for name in names.iter().filter(|name| !readers.contains(*name)) {
            self.params.remove(name);
            // A pruned channel can mask its scale and shift too.
            self.masks.remove(name);
        }
    }
}

fn is_norm(layer: &Layer) -> bool {
    matches!(layer.op, Op::BatchNorm { .. }) && layer.outputs.len() == 1
}

fn out_axis(op: &Op) -> usize {
    match op {
        Op::ConvTranspose(_) | Op::Gemm { trans_b: false, .. } => 1,
        _ => 0,
    }
}
