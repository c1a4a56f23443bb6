//! Effective sparsity: a weight on no path from the input to an output is as good as pruned.
//!
//! After Vysogorets and Kempe, Connectivity matters: neural network pruning through the lens of
//! effective sparsity, JMLR 2023. All channels of an operation that cannot be followed count as alive, so the result is
//! a lower bound.

use super::{Layer, Model, Prunable};
use crate::ops::{NormOp, Op};
use std::collections::HashMap;

/// Which channels are alive; `None` if it is unknown.
type Alive = Option<Vec<bool>>;

/// For each of these layers, the number of nonzero weights on a path from the input to an output.
pub fn effective_counts(model: &Model, layers: &[Prunable]) -> Vec<usize> {
    let forward = forward(model);
    let backward = backward(model);
    let by_layer: HashMap<&str, &Layer> = model.graph.layers.iter().map(|layer| (layer.name.as_str(), layer)).collect();
    layers
        .iter()
        .map(|prunable| {
            let (Some(layer), Ok(weight)) = (by_layer.get(prunable.layer.as_str()), model.weight(&prunable.param)) else {
                return 0;
            };
            if layer.input(1) != Some(prunable.param.as_str()) {
                // The channels of a weight on the left side of a product are not followed.
                return weight.data.iter().filter(|&&w| w != 0.0).count();
            }
            let view = WeightView::new(&layer.op, &weight.shape);
            let live_in = forward.get(layer.inputs[0].as_str()).and_then(Option::as_ref);
            let live_out = backward.get(layer.outputs[0].as_str()).and_then(Option::as_ref);
            let alive = |index: usize| {
                let (out, input) = view.channels(index);
                view.has(live_in, input) && live_out.is_none_or(|live| live.get(out).is_none_or(|&alive| alive))
            };
            weight.data.iter().enumerate().filter(|&(index, &w)| w != 0.0 && alive(index)).count()
        })
        .collect()
}

/// The first layer whose output does not depend on the input, if there is one.
pub fn first_cut_off<'l>(model: &Model, layers: &'l [Prunable]) -> Option<&'l Prunable> {
    let alive = forward(model);
    let by_layer: HashMap<&str, &Layer> = model.graph.layers.iter().map(|layer| (layer.name.as_str(), layer)).collect();
    let cut_off = |prunable: &&Prunable| {
        let output = by_layer.get(prunable.layer.as_str()).and_then(|layer| layer.outputs.first());
        let channels = output.and_then(|name| alive.get(name.as_str())).and_then(Option::as_ref);
        channels.is_some_and(|channels| !channels.contains(&true))
    };
    layers.iter().find(cut_off)
}

/// The mapping of a weight's elements to channels.
struct WeightView {
    out_inner: usize,
    outs: usize,
    in_inner: usize,
    ins: usize,
    groups: usize,
}

impl WeightView {
    fn new(op: &Op, shape: &[usize]) -> WeightView {
        let inner = |axis: usize| shape[axis + 1..].iter().product::<usize>().max(1);
        let (out_axis, in_axis, groups) = match op {
            Op::Conv(a) => (0, 1, a.groups),
            Op::Gemm { trans_b: true, .. } => (0, 1, 1),
            _ => (1, 0, 1),
        };
        WeightView { out_inner: inner(out_axis), outs: shape[out_axis], in_inner: inner(in_axis), ins: shape[in_axis], groups }
    }

    /// Output and input channel of the weight at a flat index.
    fn channels(&self, index: usize) -> (usize, usize) {
        let out = index / self.out_inner % self.outs;
        let group = out / (self.outs / self.groups).max(1);
        (out, group * self.ins + index / self.in_inner % self.ins)
    }

    fn inputs(&self) -> usize {
        self.ins * self.groups
    }

    /// Whether input `channel` is alive. A flattened image has several inputs per channel.
    fn has(&self, live: Option<&Vec<bool>>, channel: usize) -> bool {
        let Some(live) = live.filter(|live| !live.is_empty() && self.inputs().is_multiple_of(live.len())) else { return true };
        live[channel / (self.inputs() / live.len())]
    }
}

/// The channels of each value that depend on the input.
fn forward(model: &Model) -> HashMap<&str, Alive> {
    let mut alive: HashMap<&str, Alive> = HashMap::new();
    for layer in &model.graph.layers {
        let out = forward_layer(model, layer, &alive);
        layer.outputs.iter().for_each(|name| {
            alive.insert(name, out.clone());
        });
    }
    alive
}

fn forward_layer(model: &Model, layer: &Layer, alive: &HashMap<&str, Alive>) -> Alive {
    let of = |index: usize| layer.input(index).and_then(|name| alive.get(name)).and_then(Option::as_ref);
    if let Some((view, weight)) = weights(model, layer) {
        let mut live = vec![false; view.outs];
        for (index, _) in weight.iter().enumerate().filter(|(_, w)| **w != 0.0) {
            let (out, input) = view.channels(index);
            live[out] |= view.has(of(0), input);
        }
        return Some(live);
    }
    match &layer.op {
        op if keeps_channels(op) => of(0).cloned(),
        Op::Binary(_) => {
            let computed = layer.inputs.iter().filter(|name| model.params.get(name).is_none());
            let parts: Option<Vec<&Vec<bool>>> = computed.map(|name| alive.get(name.as_str()).and_then(Option::as_ref)).collect();
            let parts = parts?;
            let first = parts.first()?;
            let same = parts.iter().all(|part| part.len() == first.len());
            same.then(|| (0..first.len()).map(|c| parts.iter().any(|part| part[c])).collect())
        }
        Op::Concat { axis: 1 } => {
            let parts: Option<Vec<&Vec<bool>>> = (0..layer.inputs.len()).map(of).collect();
            Some(parts?.into_iter().flatten().copied().collect())
        }
        _ => None,
    }
}

/// The channels of each value that an output depends on.
fn backward(model: &Model) -> HashMap<&str, Alive> {
    let widths = widths(model);
    // No channel of a value of known width is needed until a reader needs it.
    let mut needed: HashMap<&str, Alive> = widths.iter().map(|(&name, &width)| (name, Some(vec![false; width]))).collect();
    for output in &model.graph.outputs {
        needed.insert(output, None);
    }
    for layer in model.graph.layers.iter().rev() {
        let out = layer.outputs.first().and_then(|name| needed.get(name.as_str()).cloned()).flatten();
        let mut offset = 0;
        for (index, name) in layer.inputs.iter().enumerate() {
            let width = widths.get(name.as_str()).copied();
            let part = needed_input(model, layer, index, out.as_ref(), width, offset);
            offset += width.unwrap_or(0);
            if let Some(slot) = needed.get_mut(name.as_str()) {
                merge(slot, part);
            }
        }
    }
    needed
}

/// The channels that `layer` needs of its `index`-th input, given those that are needed of its output.
fn needed_input(
    model: &Model,
    layer: &Layer,
    index: usize,
    out: Option<&Vec<bool>>,
    width: Option<usize>,
    offset: usize,
) -> Alive {
    let width = width?;
    if let Some((view, weight)) = weights(model, layer) {
        if index != 0 || view.inputs() % width.max(1) != 0 {
            return None;
        }
        let mut live = vec![false; width];
        for (at, _) in weight.iter().enumerate().filter(|(_, w)| **w != 0.0) {
            let (o, input) = view.channels(at);
            live[input / (view.inputs() / width)] |= out.is_none_or(|out| out.get(o).is_none_or(|&alive| alive));
        }
        return Some(live);
    }
    match &layer.op {
        op if keeps_channels(op) || matches!(op, Op::Binary(_)) => out.filter(|out| out.len() == width).cloned(),
        Op::Concat { axis: 1 } => out.and_then(|out| out.get(offset..offset + width)).map(<[bool]>::to_vec),
        _ => None,
    }
}

fn merge(slot: &mut Alive, part: Alive) {
    *slot = match (slot.take(), part) {
        (Some(a), Some(b)) if a.len() == b.len() => Some(a.iter().zip(b).map(|(&x, y)| x || y).collect()),
        _ => None,
    };
}

/// The number of channels of every value, as far as the weights before it determine it.
fn widths(model: &Model) -> HashMap<&str, usize> {
    let mut widths: HashMap<&str, usize> = HashMap::new();
    for layer in &model.graph.layers {
        let of = |index: usize| layer.input(index).and_then(|name| widths.get(name)).copied();
        let width = match (weights(model, layer), &layer.op) {
            (Some((view, _)), _) => Some(view.outs),
            (None, op) if keeps_channels(op) => of(0),
            (None, Op::Binary(_)) => (0..layer.inputs.len()).find_map(of),
            (None, Op::Concat { axis: 1 }) => (0..layer.inputs.len()).map(of).sum(),
            _ => None,
        };
        if let (Some(width), Some(name)) = (width, layer.outputs.first()) {
            widths.insert(name, width);
        }
    }
    widths
}

fn weights<'a>(model: &'a Model, layer: &Layer) -> Option<(WeightView, &'a [f32])> {
    let suitable = match layer.op {
        Op::Conv(_) | Op::MatMul => true,
        Op::Gemm { trans_a, .. } => !trans_a,
        _ => false,
    };
    let weight = layer.input(1).filter(|_| suitable).and_then(|name| model.params.f32(name))?;
    (weight.shape.len() >= 2 && !weight.is_empty()).then(|| (WeightView::new(&layer.op, &weight.shape), &weight.data[..]))
}

/// Whether channel `c` of the output depends on channel `c` of the input alone.
fn keeps_channels(op: &Op) -> bool {
    matches!(
        op,
        Op::BatchNorm { .. }
            | Op::Unary(_)
            | Op::Clip { .. }
            | Op::MaxPool(_)
            | Op::AveragePool(_)
            | Op::GlobalAveragePool
            | Op::GlobalPool { .. }
            | Op::WindowPool(_)
            | Op::Norm(NormOp::Instance { .. })
            | Op::Flatten { axis: 1 }
            | Op::Identity
            | Op::Resize(_)
    )
}
