//! The values inside of a network that are matched beside its outputs.

use resprout::model::{Layer, Model};
use resprout::ops::{BinaryOp, Op};
use std::collections::{HashMap, HashSet};

/// The names of the block outputs, in order: residual sums; where there are none, concatenations; where there are none, outputs
/// of layers with weights, but for the last. An activation that alone reads one of them belongs to it, and so does a
/// BatchNormalization behind a layer with weights.
pub(super) fn block_outputs(model: &Model) -> Vec<String> {
    let values = Values::new(model);
    let computed = |layer: &&Layer| layer.inputs.iter().filter(|name| values.depends.contains(name.as_str())).count() > 1;
    let sums = |layer: &&Layer| matches!(layer.op, Op::Binary(BinaryOp::Add)) && computed(layer);
    let joints = |layer: &&Layer| matches!(layer.op, Op::Concat { .. }) && computed(layer);
    let weighted = |layer: &&Layer| matches!(layer.op, Op::Conv(_) | Op::Gemm { .. } | Op::MatMul) && values.reads_images(layer);
    let of = |wanted: &dyn Fn(&&Layer) -> bool| -> Vec<String> {
        let found = model.graph.layers.iter().filter(wanted).filter_map(|layer| layer.outputs.first());
        let mut found: Vec<String> = found.map(|name| values.behind(name)).collect();
        found.dedup();
        // The network's output is matched anyway.
        found.retain(|name| !values.ends.contains(name.as_str()));
        found
    };
    let (sums, joints) = (of(&sums), of(&joints));
    match (sums.is_empty(), joints.is_empty()) {
        (false, _) => sums,
        (_, false) => joints,
        _ => of(&weighted),
    }
}

/// Which values depend on the images, and what reads them.
struct Values<'m> {
    depends: HashSet<&'m str>,
    readers: HashMap<&'m str, Vec<&'m Layer>>,
    /// The outputs, and what they are computed from by layers without weights or sums.
    ends: HashSet<&'m str>,
}

impl<'m> Values<'m> {
    fn new(model: &'m Model) -> Values<'m> {
        let mut depends: HashSet<&str> = model.graph.inputs.iter().map(|input| input.name.as_str()).collect();
        let mut readers: HashMap<&str, Vec<&Layer>> = HashMap::new();
        for layer in &model.graph.layers {
            let reads = layer.inputs.iter().any(|name| depends.contains(name.as_str()));
            if reads && !matches!(layer.op, Op::Shape { .. }) {
                depends.extend(layer.outputs.iter().map(String::as_str));
            }
            layer.inputs.iter().for_each(|name| readers.entry(name).or_default().push(layer));
        }
        let mut ends: HashSet<&str> = model.graph.outputs.iter().map(String::as_str).collect();
        for layer in model.graph.layers.iter().rev().filter(|layer| is_shape(&layer.op)) {
            if layer.outputs.iter().any(|name| ends.contains(name.as_str())) {
                ends.extend(layer.input(0));
            }
        }
        Values { depends, readers, ends }
    }

    fn reads_images(&self, layer: &Layer) -> bool {
        layer.input(0).is_some_and(|name| self.depends.contains(name))
    }

    /// The value behind BatchNormalizations and activations that alone read it.
    fn behind(&self, name: &str) -> String {
        let mut name = name;
        while let Some(&[reader]) = self.readers.get(name).map(Vec::as_slice) {
            let follows = matches!(reader.op, Op::BatchNorm { .. } | Op::Unary(_) | Op::Clip { .. });
            match reader.outputs.first().filter(|_| follows && !self.ends.contains(name)) {
                Some(output) => name = output,
                None => break,
            }
        }
        name.to_string()
    }
}

/// Whether the operation leaves the numbers as they are, or is the last softmax.
fn is_shape(op: &Op) -> bool {
    matches!(
        op,
        Op::Softmax { .. } | Op::Flatten { .. } | Op::Reshape { .. } | Op::Squeeze { .. } | Op::Unsqueeze { .. } | Op::Identity
    )
}
