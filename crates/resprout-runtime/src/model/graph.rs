//! The graph: named layers, connected by named values.

use crate::ops::Op;
use std::fmt;

/// One axis of an input: a number, or free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// A fixed length.
    Fixed(usize),
    /// Any length; the name it has in the file, if any.
    Free(String),
}

/// The element type of an input, as the file declares it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ElementType {
    /// 32-bit floats.
    #[default]
    Float32,
    /// Bytes, 0 to 255.
    Uint8,
    /// Any other type, by its name.
    Other(&'static str),
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ElementType::Float32 => "float32",
            ElementType::Uint8 => "uint8",
            ElementType::Other(name) => name,
        })
    }
}

/// An input that the caller supplies.
#[derive(Clone, Debug)]
pub struct GraphInput {
    /// Name of the value.
    pub name: String,
    /// Its element type.
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
    /// Values read, in the operation's order. The name of an optional one that is left out is empty.
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

/// Named layers, in an order in which they can be computed, with the network's inputs and outputs.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The values that the caller supplies. A network that is computed has one, the images.
    pub inputs: Vec<GraphInput>,
    /// Names of the values that the network returns.
    pub outputs: Vec<String>,
    /// The layers.
    pub layers: Vec<Layer>,
    /// Weights in graphs within layers, which cannot be pruned.
    pub inner: Vec<InnerWeight>,
    /// Layers that were merged into the one before them.
    pub(crate) merged: Vec<Merged>,
}

/// A weight in a graph within a layer: the branch of an If, the body of a Loop.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnerWeight {
    /// The layer.
    pub layer: String,
    /// Its operation.
    pub op: String,
    /// The weight's name in that graph.
    pub param: String,
    /// The number of weights.
    pub weights: usize,
}

/// A layer that was merged into the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Merged {
    /// The layer that stays.
    pub kept: String,
    /// The layer that was removed.
    pub gone: String,
    /// The output of the removed layer, which the other one writes now.
    pub output: String,
}

impl Graph {
    /// The first BatchNormalization that reads a value.
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
