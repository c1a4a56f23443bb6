//! The graph: named layers, connected by named values.

use super::input::ElementType;
use crate::ops::Op;

/// One axis of an input: a number, or free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// A fixed length.
    Fixed(usize),
    /// Any length; the name it has in the file, if any.
    Free(String),
}

/// An input that the caller supplies.
#[derive(Clone, Debug)]
pub struct GraphInput {
    /// Name of the value.
    pub name: String,
    /// What its numbers are.
    pub element: ElementType,
    /// Its axes.
    pub shape: Vec<Dim>,
}

/// One operation with the names of the values it reads and writes.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Unique name; made from the first output where the file gives none.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Values read, in the operation's order; empty where an optional one is left out.
    pub inputs: Vec<String>,
    /// Values written.
    pub outputs: Vec<String>,
}

impl Layer {
    /// The `index`-th input's name, if it is there.
    pub fn input(&self, index: usize) -> Option<&str> {
        self.inputs.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }
}

/// Layers in an order in which they can be computed.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// What the caller supplies.
    pub inputs: Vec<GraphInput>,
    /// Names of the results.
    pub outputs: Vec<String>,
    /// The layers.
    pub layers: Vec<Layer>,
    /// Weights in graphs within layers, which no pruning reaches.
    pub inner: Vec<InnerWeight>,
    /// Layers that went into the one before them.
    pub(crate) merged: Vec<Merged>,
}

/// A weight in a graph within a layer: the branch of an If, the body of a Loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnerWeight {
    /// The layer.
    pub layer: String,
    /// Its operation.
    pub op: String,
    /// The weight's name within.
    pub param: String,
    /// The number of weights.
    pub weights: usize,
}

/// A layer that went into the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Merged {
    /// The layer that is left.
    pub kept: String,
    /// The layer that is gone.
    pub gone: String,
    /// What the gone one wrote, and the other one writes now.
    pub output: String,
}

impl Graph {
    /// The first BatchNormalization of a value.
    pub fn batch_norm_of(&self, value: &str) -> Option<&Layer> {
        self.layers.iter().find(|layer| matches!(layer.op, Op::BatchNorm { .. }) && layer.input(0) == Some(value))
    }

    /// How many layers (and graph outputs) read each value.
    pub fn reader_counts(&self) -> std::collections::HashMap<&str, usize> {
        let mut counts = std::collections::HashMap::new();
        let read = self.layers.iter().flat_map(|layer| &layer.inputs).chain(&self.outputs);
        for name in read.filter(|name| !name.is_empty()) {
            *counts.entry(name.as_str()).or_insert(0) += 1;
        }
        counts
    }
}
