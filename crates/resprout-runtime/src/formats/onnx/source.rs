//! The file that a model was read from, and where it stores each parameter.

use super::proto::{GraphProto, TensorProto};
use crate::model::{Origin, ParamTable, View};
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

/// The ONNX file of a model as it was read, and where it stores each parameter.
#[doc(hidden)]
#[derive(Debug)]
pub struct OnnxSource {
    /// The file with functions inlined, without the numbers of large initializers.
    pub(super) bytes: Bytes,
    /// Where each parameter is stored.
    pub(super) locations: HashMap<String, Location>,
    /// The parameters as they were read, to find those that have changed.
    pub(super) original: ParamTable,
    /// Version of the format.
    pub(super) ir_version: i64,
    /// The numbers of initializers that are not among the bytes, by the initializer's index.
    pub(super) detached: HashMap<usize, Detached>,
    /// The files of external data.
    pub(super) data_files: Vec<PathBuf>,
    /// The index of each layer's node, by the layer's name.
    pub(super) nodes: HashMap<String, usize>,
    /// How the file stores parameters that layers read through other nodes.
    pub(super) views: HashMap<String, View>,
    /// Nodes and initializers that nothing needs after folding.
    pub(super) dead_nodes: HashSet<usize>,
    pub(super) dead_initializers: HashSet<usize>,
}

impl OnnxSource {
    /// The files of external data that the model was read from.
    pub fn data_files(&self) -> &[PathBuf] {
        &self.data_files
    }
}

impl Origin for OnnxSource {
    fn view(&self, param: &str) -> Option<&View> {
        self.views.get(param)
    }
}

/// The numbers of an initializer that are not among the kept bytes.
#[derive(Debug)]
pub(super) struct Detached {
    /// Their bytes; `None` if the parameter holds them.
    pub bytes: Option<Bytes>,
    /// Where their field was in the initializer; `None` if they are in another file.
    pub inside: Option<usize>,
}

/// Where the file stores a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// The n-th initializer.
    Initializer(usize),
    /// The tensor of the n-th node, a Constant.
    ConstantNode(usize),
    /// The n-th node, a ConstantOfShape of a constant shape. A change makes it a Constant.
    FilledNode(usize),
    /// The output of the n-th node. After a change, an initializer replaces it.
    OutputOf(usize),
    /// A copy of another parameter for one of the layers that read it, directly or through the n-th node.
    Copy(String, Option<usize>),
    /// A sparse initializer, or nowhere in the file.
    Separate,
}

/// The tensors of a file by the names of parameters.
pub(super) struct FileTensors<'a> {
    pub graph: &'a GraphProto,
    pub detached: &'a HashMap<usize, Detached>,
    pub locations: &'a HashMap<String, Location>,
}

impl<'a> FileTensors<'a> {
    /// The stored tensor of a parameter, and its bytes if they are not inside of it.
    pub fn get(&self, name: &str) -> Option<(&'a TensorProto, Option<&'a Bytes>)> {
        match self.locations.get(name)? {
            Location::Initializer(index) => {
                Some((self.graph.initializer.get(*index)?, self.detached.get(index).and_then(|detached| detached.bytes.as_ref())))
            }
            Location::ConstantNode(index) => Some((self.graph.node.get(*index)?.attribute.first()?.t.as_ref()?, None)),
            _ => None,
        }
    }
}
