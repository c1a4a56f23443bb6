//! BatchNormalization taken into the layer in front of it: fewer operations, and what quantisers expect.

use super::{Layer, Merged, Model};
use crate::error::Result;
use crate::ops::Op;
use serde::{Deserialize, Serialize};

/// What became of the BatchNormalizations of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedNorms {
    /// How many went into the layer in front of them.
    pub merged: usize,
    /// Those that stay, with the reason.
    pub left: Vec<(String, String)>,
}

impl Model {
    /// Takes every BatchNormalization into the convolution or linear layer in front of it, where that is the only way:
    /// `w' = s w`, `b' = s (b - mean) + beta` with `s = gamma / sqrt(var + epsilon)`, in `f64`. What the network computes
    /// stays the same but for rounding, and pruned weights stay zero.
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

    /// The layer that a BatchNormalization can go into, or why there is none.
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

    /// Takes out parameters that no layer reads any more.
    fn forget(&mut self, names: &[String]) {
        let readers: std::collections::HashSet<String> = self.graph.reader_counts().into_keys().map(String::from).collect();
        for name in names.iter().filter(|name| !readers.contains(*name)) {
            self.params.remove(name);
            // A scale or shift of a channel that went with its weights.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::{Network, PlanOptions};
    use crate::model::Mask;
    use crate::tensor::Tensor;
    use crate::testing::Net;

    /// Two convolutions with BatchNormalization, and one whose output something else reads as well.
    fn network() -> Model {
        let mut net = Net::default();
        let a = net.conv("input", "a", [4, 3, 3, 3], 1, false);
        let a = net.batch_norm(&a, "a_norm", 4);
        let b = net.conv(&a, "b", [4, 1, 3, 3], 4, true);
        let b = net.batch_norm(&b, "b_norm", 4);
        let c = net.conv(&b, "c", [4, 4, 1, 1], 1, false);
        let d = net.batch_norm(&c, "c_norm", 4);
        let sum = net.add(&c, &d, "sum");
        net.classify(&sum, 4, [3, 8, 8], 3)
    }

    fn run(model: &Model) -> Vec<f32> {
        let images = Tensor::new(vec![2, 3, 8, 8], (0..384).map(|i| (i as f32 * 0.37).sin()).collect());
        Network::new(model, &[3, 8, 8], &PlanOptions::default()).unwrap().run(&images).unwrap().swap_remove(0).data
    }

    #[test]
    fn a_network_computes_the_same_without_its_batch_norms_and_is_written_without_them() {
        let model = network();
        let mut merged = model.clone();
        let mask = Mask((0..108).map(|i| i % 3 != 0).collect());
        merged.masks.insert("a.weight".into(), mask.clone());
        merged.apply_masks();
        let before = run(&merged);
        let outcome = merged.merge_batch_norms().unwrap();
        assert_eq!((outcome.merged, outcome.left.len()), (2, 1));
        assert_eq!(outcome.left[0].0, "c_norm");
        let zeros =
            |model: &Model| model.params.f32("a.weight").unwrap().data.iter().zip(&mask.0).all(|(w, kept)| *kept || *w == 0.0);
        assert!(zeros(&merged));
        let bytes = crate::formats::onnx::encode(&merged).unwrap();
        let back = crate::formats::onnx::parse(bytes, None).unwrap();
        let norms = |model: &Model| model.graph.layers.iter().filter(|layer| is_norm(layer)).count();
        assert_eq!((norms(&model), norms(&merged), norms(&back)), (3, 1, 1));
        assert!(back.params.get("a_norm.weight").is_none() && back.params.get("c_norm.weight").is_some());
        for after in [run(&merged), run(&back)] {
            assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() <= 1e-5 * a.abs().max(1.0)), "{before:?} {after:?}");
        }
    }
}
