//! Folds weights that are computed from constants: weight normalisation and standardisation, masks, quantised weights.

use super::order::captured;
use super::proto::{GraphProto, NodeProto};
use super::source::FileTensors;
use super::tensors::widened;
use crate::model::{Layer, ParamTable};
use crate::ops::{Fact, Op, fold};
use crate::tensor::Value;
use resprout_kernels::Isa;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Values that depend on constants alone, computed on demand.
pub(super) struct Constants<'l> {
    layers: &'l [Layer],
    params: &'l ParamTable,
    tensors: FileTensors<'l>,
    /// The layer that writes each value.
    writers: HashMap<&'l str, usize>,
    known: HashMap<String, Option<Arc<Value>>>,
}

impl<'l> Constants<'l> {
    pub fn new(
        layers: &'l [Layer],
        params: &'l ParamTable,
        tensors: FileTensors<'l>,
        writers: HashMap<&'l str, usize>,
    ) -> Constants<'l> {
        Constants { layers, params, tensors, writers, known: HashMap::new() }
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
        let value = facts.and_then(|facts| fold(&layer.op, &facts, Isa::best()).ok()?).map(Arc::new);
        self.known.insert(name.to_string(), value.clone());
        value
    }

    fn stored(&self, name: &str) -> Option<Arc<Value>> {
        let (tensor, outside) = self.tensors.get(name)?;
        Some(Arc::new(Value::F32(widened(tensor, outside).ok()??)))
    }

    fn facts(&mut self, layer: &Layer, depth: usize) -> Option<Vec<Option<Fact>>> {
        let known = !layer.inputs.is_empty() && !matches!(layer.op, Op::Unknown(_));
        known.then_some(())?;
        let fact = |name: &String| match name.is_empty() {
            true => Some(None),
            false => self.value(name, depth + 1).map(|value| Some(Fact::constant(value))),
        };
        layer.inputs.iter().map(fact).collect()
    }
}

/// The longest chain of operations that is followed. The arithmetic of real weights is shorter.
const MAX_DEPTH: usize = 200;

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
