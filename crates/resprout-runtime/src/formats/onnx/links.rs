//! Links layers directly to the constants that they read.
//!
//! Nodes that only hand a constant on are removed. Each layer gets a copy of numbers that several layers share. A weight
//! behind nodes that move it becomes a view, and weights that are computed from constants can be folded.

use super::fold::{self, Constants};
use super::proto::GraphProto;
use super::source::{Detached, FileTensors, Location};
use super::tensors::widened;
use crate::error::Result;
use crate::model::view::{View, ViewStep};
use crate::model::{Layer, Param, ParamTable};
use crate::ops::{Fact, Op, fold as fold_op, permutation};
use crate::tensor::Value;
use resprout_kernels::Isa;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The file of the layers, and the options.
pub(super) struct Link<'a> {
    pub graph: &'a GraphProto,
    /// Numbers of initializers that are not among the kept bytes.
    pub detached: &'a HashMap<usize, Detached>,
    /// Whether weights that are computed from constants are folded.
    pub fold_weights: bool,
}

/// The remaining layers, and how the file stores their parameters.
#[derive(Default)]
pub(super) struct Linked {
    pub layers: Vec<Layer>,
    pub views: HashMap<String, View>,
    /// Folded parameters, which the file does not hold.
    pub computed: Vec<String>,
    pub dead_nodes: HashSet<usize>,
    pub dead_initializers: HashSet<usize>,
}

/// Links sorted layers.
pub(super) fn link(
    link: Link,
    layers: Vec<Layer>,
    outputs: &[String],
    params: &mut ParamTable,
    locations: &mut HashMap<String, Location>,
    nodes: &HashMap<String, usize>,
) -> Result<Linked> {
    let gone = vec![false; layers.len()];
    let mut linker = Linker { link, layers, gone, outputs, params, locations, nodes };
    let mut linked = Linked::default();
    linker.hand_on();
    linker.unshare();
    linked.views = linker.views();
    if linker.link.fold_weights {
        linker.fold(&mut linked);
    }
    let gone = linker.gone;
    linked.layers = linker.layers.into_iter().zip(gone).filter(|(_, gone)| !gone).map(|(layer, _)| layer).collect();
    Ok(linked)
}

struct Linker<'a> {
    link: Link<'a>,
    layers: Vec<Layer>,
    /// Which layers are removed.
    gone: Vec<bool>,
    outputs: &'a [String],
    params: &'a mut ParamTable,
    locations: &'a mut HashMap<String, Location>,
    nodes: &'a HashMap<String, usize>,
}

impl Linker<'_> {
    fn is_output(&self, value: &str) -> bool {
        self.outputs.iter().any(|output| output == value)
    }

    /// The readers of each value: layer and input.
    fn readers(&self) -> HashMap<String, Vec<(usize, usize)>> {
        let mut readers: HashMap<String, Vec<(usize, usize)>> = HashMap::new();
        for (index, layer) in self.layers.iter().enumerate().filter(|(index, _)| !self.gone[*index]) {
            for (slot, name) in layer.inputs.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                readers.entry(name.clone()).or_default().push((index, slot));
            }
        }
        readers
    }

    /// Removes nodes that hand a constant on unchanged. If other layers read the same numbers, the readers behind such a node
    /// get a copy: exporters merge equal tensors of normalisations, and a repair changes them one by one.
    fn hand_on(&mut self) {
        let readers = self.readers();
        let mut known_as: HashMap<String, String> = HashMap::new();
        for index in 0..self.layers.len() {
            for input in &mut self.layers[index].inputs {
                if let Some(root) = known_as.get(input) {
                    input.clone_from(root);
                }
            }
            let layer = &self.layers[index];
            let ([from], [to]) = (&layer.inputs[..], &layer.outputs[..]) else { continue };
            let Some(param) = self.params.get(from).filter(|_| matches!(layer.op, Op::Identity) && !self.is_output(to)) else {
                continue;
            };
            if is_vector(param) && readers.get(from).is_some_and(|readers| readers.len() > 1) {
                let (from, to, param) = (from.clone(), to.clone(), param.clone());
                self.locations.insert(to.clone(), Location::Copy(from, self.nodes.get(&self.layers[index].name).copied()));
                self.params.insert(to, param);
            } else {
                known_as.insert(to.clone(), from.clone());
            }
            self.gone[index] = true;
        }
    }

    /// Gives every normalisation and every bias numbers of its own if several layers read the same.
    fn unshare(&mut self) {
        let readers = self.readers();
        for index in 0..self.layers.len() {
            for slot in 0..self.layers[index].inputs.len() {
                let layer = &self.layers[index];
                let (name, Some(what)) = (&layer.inputs[slot], own_numbers(&layer.op, slot)) else { continue };
                let Some(all) = readers.get(name).filter(|all| all.len() > 1 || self.is_output(name)) else { continue };
                let owned = |&(index, slot): &(usize, usize)| own_numbers(&self.layers[index].op, slot).is_some();
                let first = all[0] == (index, slot) && all.iter().all(owned) && !self.is_output(name);
                let Some(param) = self.params.get(name).filter(|param| is_vector(param) && !first).cloned() else { continue };
                let copy = self.free_name(format!("{}.{what}", layer.name));
                self.locations.insert(copy.clone(), Location::Copy(name.clone(), None));
                self.params.insert(copy.clone(), param);
                self.layers[index].inputs[slot] = copy;
            }
        }
    }

    fn free_name(&self, mut name: String) -> String {
        let is_value =
            |name: &String| self.layers.iter().any(|layer| layer.outputs.contains(name) || layer.inputs.contains(name));
        while self.params.get(&name).is_some() || is_value(&name) {
            name.push('_');
        }
        name
    }

    /// Replaces the nodes that move or convert a weight by a view.
    fn views(&mut self) -> HashMap<String, View> {
        let mut views = HashMap::new();
        for index in 0..self.layers.len() {
            for &slot in self.layers[index].op.weight_inputs() {
                let Some(value) = self.layers[index].input(slot).map(String::from) else { continue };
                let Some((root, chain)) = self.trace(&value) else { continue };
                let Some((view, seen)) = self.view(&root, &chain) else { continue };
                self.params.replace(&root, seen);
                let inputs = self.layers.iter_mut().flat_map(|layer| &mut layer.inputs);
                inputs.filter(|input| **input == value).for_each(|input| input.clone_from(&root));
                chain.iter().for_each(|&layer| self.gone[layer] = true);
                views.insert(root, view);
            }
        }
        views
    }

    /// The constant from which a value is moved, and the layers between them, if nothing else reads any of these.
    fn trace(&self, value: &str) -> Option<(String, Vec<usize>)> {
        if self.params.get(value).is_some() {
            return None;
        }
        let (readers, writers) = (self.readers(), self.writers());
        let (mut name, mut chain) = (value, Vec::new());
        while self.params.get(name).is_none() {
            let &writer = writers.get(name)?;
            let layer = &self.layers[writer];
            let moves = matches!(
                layer.op,
                Op::Transpose { .. } | Op::Reshape { .. } | Op::Squeeze { .. } | Op::Unsqueeze { .. } | Op::Flatten { .. }
            ) || matches!(layer.op, Op::Identity | Op::Cast { to: 1 });
            (moves && !self.is_output(name)).then_some(())?;
            chain.push(writer);
            name = layer.input(0)?;
            (readers.get(name)?.len() == 1 && !self.is_output(name)).then_some(())?;
        }
        chain.reverse();
        Some((name.to_string(), chain))
    }

    /// The layer that writes each value.
    fn writers(&self) -> HashMap<&str, usize> {
        let left = self.layers.iter().enumerate().filter(|(index, _)| !self.gone[*index]);
        left.flat_map(|(index, layer)| layer.outputs.iter().map(move |name| (name.as_str(), index))).collect()
    }

    /// The view that the layers of a chain make of a constant, and the parameter that is read.
    fn view(&self, root: &str, chain: &[usize]) -> Option<(View, Param)> {
        let mut view = View::default();
        let mut value = match self.params.get(root)?.value() {
            Some(value) => value.clone(),
            None => {
                let (tensor, outside) = self.tensors().get(root)?;
                // Narrow integers could not store every change.
                [10, 11, 16].contains(&tensor.data_type).then_some(())?;
                view.element = Some(tensor.data_type);
                Arc::new(Value::F32(widened(tensor, outside).ok()??))
            }
        };
        let mut converted = view.element.is_none();
        for &index in chain {
            let layer = &self.layers[index];
            let rest = layer.inputs[1..].iter().map(|name| match name.is_empty() {
                true => Some(None),
                false => self.params.get(name)?.value().cloned().map(|value| Some(Fact::constant(value))),
            });
            let facts: Option<Vec<Option<Fact>>> =
                std::iter::once(Some(Some(Fact::constant(value.clone())))).chain(rest).collect();
            let next = fold_op(&layer.op, &facts?, Isa::best()).ok()??;
            converted |= matches!(layer.op, Op::Cast { .. });
            match &layer.op {
                Op::Transpose { perm } => {
                    view.steps.push(ViewStep::Transpose(permutation(value.shape().len(), perm.as_deref()).ok()?))
                }
                _ if value.shape() != next.shape() => view.steps.push(ViewStep::reshape(value.shape(), next.shape())),
                _ => {}
            }
            value = Arc::new(next);
        }
        let seen = value.as_f32().filter(|_| converted)?.clone();
        Some((view, Param::from_tensor(seen)))
    }

    fn tensors(&self) -> FileTensors<'_> {
        FileTensors { graph: self.link.graph, detached: self.link.detached, locations: self.locations }
    }

    /// Replaces weights that are computed from constants by their values.
    fn fold(&mut self, linked: &mut Linked) {
        let found = Constants::new(&self.layers, self.params, self.tensors(), self.writers()).weights();
        for (name, value) in found {
            let Some(&writer) = self.writers().get(name.as_str()) else { continue };
            let Some(&node) = self.nodes.get(&self.layers[writer].name) else { continue };
            self.gone[writer] = true;
            self.locations.insert(name.clone(), Location::OutputOf(node));
            self.params.insert(name.clone(), Param::from_value(value));
            linked.computed.push(name);
        }
        let (dead_nodes, dead_initializers) = fold::unneeded(self.link.graph, &linked.computed);
        for (index, layer) in self.layers.iter().enumerate() {
            self.gone[index] |= self.nodes.get(&layer.name).is_some_and(|node| dead_nodes.contains(node));
        }
        let dead = |location: &Location| match location {
            Location::Initializer(index) => dead_initializers.contains(index),
            Location::ConstantNode(node) | Location::FilledNode(node) | Location::Copy(_, Some(node)) => {
                dead_nodes.contains(node)
            }
            _ => false,
        };
        let names: Vec<String> = self.locations.iter().filter(|(_, at)| dead(at)).map(|(name, _)| name.clone()).collect();
        for name in names.iter().filter(|name| !linked.computed.contains(name)) {
            self.params.remove(name);
            self.locations.remove(name);
        }
        (linked.dead_nodes, linked.dead_initializers) = (dead_nodes, dead_initializers);
    }
}

fn is_vector(param: &Param) -> bool {
    param.f32().is_some_and(|tensor| tensor.shape.len() == 1)
}

/// The name of an input that a repair may change for this layer alone.
fn own_numbers(op: &Op, slot: usize) -> Option<&'static str> {
    match (op, slot) {
        (Op::BatchNorm { .. }, 1) => Some("scale"),
        (Op::BatchNorm { .. }, 2) => Some("bias"),
        (Op::BatchNorm { .. }, 3) => Some("mean"),
        (Op::BatchNorm { .. }, 4) => Some("var"),
        (Op::Conv(_) | Op::ConvTranspose(_) | Op::OpaqueConv { .. } | Op::Gemm { .. }, 2) => Some("bias"),
        _ => None,
    }
}
