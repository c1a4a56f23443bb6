//! Layers into which an exporter has folded a BatchNormalization.

use super::{Layer, Model};
use crate::ops::Op;
use std::collections::HashSet;

/// Whether an operation keeps channels as they are.
fn passes(op: &Op) -> bool {
    matches!(op, Op::Unary(_) | Op::Clip { .. } | Op::Identity)
}

impl Model {
    /// Indices of the layers that may hold a folded BatchNormalization: one that an exporter has multiplied into their weights.
    ///
    /// They are convolutions and Gemms with a bias, no BatchNormalization behind them or their activation, and another layer
    /// with weights later. A file does not tell whether a BatchNormalization was folded.
    pub fn folded_norms(&self) -> HashSet<usize> {
        let outputs = self.output_layers();
        let candidates = self.graph.layers.iter().enumerate().filter(|(index, layer)| {
            let constant = |index: usize| layer.input(index).is_some_and(|name| self.params.f32(name).is_some());
            matches!(layer.op, Op::Conv(_) | Op::Gemm { .. }) && constant(1) && constant(2) && !outputs.contains(index)
        });
        candidates.filter(|(_, layer)| !self.normalised(layer)).map(|(index, _)| index).collect()
    }

    /// Layers with weights that no other layer with weights follows: a classifier's last one.
    fn output_layers(&self) -> HashSet<usize> {
        let mut read_by_weights: HashSet<&str> = HashSet::new();
        let mut found = HashSet::new();
        for (index, layer) in self.graph.layers.iter().enumerate().rev() {
            let weights = matches!(layer.op, Op::Conv(_) | Op::ConvTranspose(_) | Op::Gemm { .. } | Op::MatMul);
            let before = layer.outputs.iter().any(|output| read_by_weights.contains(output.as_str()));
            if weights && !before {
                found.insert(index);
            }
            if weights || before {
                read_by_weights.extend(layer.inputs.iter().map(String::as_str));
            }
        }
        found
    }

    /// Whether a BatchNormalization reads a layer's output, directly or behind activations.
    fn normalised(&self, layer: &Layer) -> bool {
        let mut values: HashSet<&str> = layer.outputs.first().map(String::as_str).into_iter().collect();
        for reader in self.graph.layers.iter().filter(|reader| matches!(reader.op, Op::BatchNorm { .. }) || passes(&reader.op)) {
            if reader.input(0).is_some_and(|input| values.contains(input)) {
                if matches!(reader.op, Op::BatchNorm { .. }) {
                    return true;
                }
                values.extend(reader.outputs.iter().map(String::as_str));
            }
        }
        false
    }
}
