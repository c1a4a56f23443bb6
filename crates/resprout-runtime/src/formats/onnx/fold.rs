//! Folds weights that are computed from constants: weight normalisation and standardisation, masks, quantised weights.

use super::order::captured;
use super::proto::{AttributeProto, GraphProto, NodeProto};
use super::source::FileTensors;
use super::tensors::widened;
use crate::model::{Layer, ParamTable};
use crate::ops::{Fact, Op, fold};
use crate::tensor::{Tensor, Value};
use resprout_kernels::Isa;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Values that depend on constants alone, computed on demand.
pub(super) struct Constants<'l> {
    layers: &'l [Layer],
    params: &'l ParamTable,
    /// The node of each layer, by the layer's name.
    nodes: &'l HashMap<String, usize>,
    tensors: FileTensors<'l>,
    /// The layer that writes each value.
    writers: HashMap<&'l str, usize>,
    known: HashMap<String, Option<Arc<Value>>>,
}

impl<'l> Constants<'l> {
    pub fn new(
        layers: &'l [Layer],
        params: &'l ParamTable,
        nodes: &'l HashMap<String, usize>,
        tensors: FileTensors<'l>,
        writers: HashMap<&'l str, usize>,
    ) -> Constants<'l> {
        Constants { layers, params, nodes, tensors, writers, known: HashMap::new() }
    }

    /// The weights that are computed from constants, each once, in the order of the layers that read them.
    pub fn weights(mut self) -> Vec<(String, Value)> {
        let mut found: Vec<(String, Value)> = Vec::new();
        for layer in self.layers {
            for &slot in layer.op.weight_inputs() {
                let Some(name) = layer.input(slot).filter(|name| self.writers.contains_key(name)) else { continue };
                let value = self.value(name, 0).filter(|value| value.as_f32().is_some());
                if let Some(value) = value.filter(|_| !found.iter().any(|(other, _)| other == name)) {
                    found.push((name.to_string(), (*value).clone()));
                }
            }
        }
        found
    }

    /// The numbers of a value; `None` if they depend on the input, or on an unsupported operation.
    fn value(&mut self, name: &str, depth: usize) -> Option<Arc<Value>> {
        if let Some(param) = self.params.get(name) {
            return param.value().cloned().or_else(|| self.stored(name));
        }
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        let &writer = self.writers.get(name)?;
        let layer = &self.layers[writer];
        let first = layer.outputs.first().is_some_and(|output| output == name);
        let facts = if first && depth < MAX_DEPTH { self.facts(layer, depth) } else { None };
        let value = facts.and_then(|facts| self.compute(layer, &facts)).map(Arc::new);
        self.known.insert(name.to_string(), value.clone());
        value
    }

    fn stored(&self, name: &str) -> Option<Arc<Value>> {
        let (tensor, outside) = self.tensors.get(name)?;
        Some(Arc::new(Value::F32(widened(tensor, outside).ok()??)))
    }

    fn facts(&mut self, layer: &Layer, depth: usize) -> Option<Vec<Option<Fact>>> {
        let others = layer.outputs.len() > 1 && !matches!(&layer.op, Op::Unknown(name) if name.starts_with(NORM));
        (!layer.inputs.is_empty() && !others).then_some(())?;
        let fact = |name: &String| match name.is_empty() {
            true => Some(None),
            false => self.value(name, depth + 1).map(|value| Some(Fact::constant(value))),
        };
        layer.inputs.iter().map(fact).collect()
    }

    fn compute(&self, layer: &Layer, facts: &[Option<Fact>]) -> Option<Value> {
        match &layer.op {
            Op::Unknown(name) => {
                let node = self.tensors.graph.node.get(*self.nodes.get(&layer.name)?)?;
                if name.starts_with(NORM) { normalised(node, facts) } else { None }
            }
            op => fold(op, facts, Isa::best()).ok()?,
        }
    }
}

/// How the name of an unsupported BatchNormalization begins.
const NORM: &str = "BatchNormalization";

fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

/// The longest chain of operations that is followed. The arithmetic of real weights is shorter.
const MAX_DEPTH: usize = 200;

/// A BatchNormalization in training mode, by mean and variance of its own input.
fn normalised(node: &NodeProto, facts: &[Option<Fact>]) -> Option<Value> {
    let number = |index: usize| facts.get(index)?.as_ref()?.value.as_ref()?.as_f32();
    let (x, scale, shift) = (number(0)?, number(1)?, number(2)?);
    let attribute = |name: &str| attribute(node, name);
    attribute("training_mode").filter(|mode| mode.i == 1)?;
    let epsilon = f64::from(attribute("epsilon").map_or(1e-5, |epsilon| epsilon.f));
    let &channels = x.shape.get(1).filter(|&&channels| channels > 0 && channels == scale.len() && channels == shift.len())?;
    let inner = x.shape[2..].iter().product::<usize>().max(1);
    let channel = |index: usize| index / inner % channels;
    let count = (x.len() / channels).max(1) as f64;
    let mut mean = vec![0.0f64; channels];
    x.data.iter().enumerate().for_each(|(index, &v)| mean[channel(index)] += f64::from(v) / count);
    let mut variance = vec![0.0f64; channels];
    x.data.iter().enumerate().for_each(|(i, &v)| variance[channel(i)] += (f64::from(v) - mean[channel(i)]).powi(2) / count);
    let of = |(index, &v): (usize, &f32)| {
        let c = channel(index);
        let unit = (f64::from(v) - mean[c]) / (variance[c] + epsilon).sqrt();
        (unit * f64::from(scale.data[c]) + f64::from(shift.data[c])) as f32
    };
    Some(Value::F32(Tensor::new(x.shape.clone(), x.data.iter().enumerate().map(of).collect())))
}

/// Nodes and initializers that nothing but these values needs.
pub(super) fn unneeded(graph: &GraphProto, computed: &[String]) -> (HashSet<usize>, HashSet<usize>) {
    let cut: HashSet<&str> = computed.iter().map(String::as_str).collect();
    let before = needed(graph, &HashSet::new());
    let after = needed(graph, &cut);
    let nodes = before.0.difference(&after.0).copied().collect();
    let gone = |name: &String| before.1.contains(name) && !after.1.contains(name);
    let initializers = graph.initializer.iter().enumerate().filter(|(_, tensor)| gone(&tensor.name)).map(|(index, _)| index);
    (nodes, initializers.collect())
}

/// Nodes on which the outputs depend, and names that these read. Values in `cut` depend on nothing.
fn needed(graph: &GraphProto, cut: &HashSet<&str>) -> (HashSet<usize>, HashSet<String>) {
    let outputs =
        |(index, node): (usize, &NodeProto)| node.output.iter().map(move |name| (name.clone(), index)).collect::<Vec<_>>();
    let writers: HashMap<String, usize> = graph.node.iter().enumerate().flat_map(outputs).collect();
    let mut open: Vec<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let (mut nodes, mut names) = (HashSet::new(), HashSet::new());
    while let Some(name) = open.pop() {
        if !names.insert(name.clone()) || cut.contains(name.as_str()) {
            continue;
        }
        if let Some(&writer) = writers.get(&name).filter(|writer| nodes.insert(**writer)) {
            let node = &graph.node[writer];
            open.extend(node.input.iter().cloned().chain(captured(node)));
        }
    }
    (nodes, names)
}
