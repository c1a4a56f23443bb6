//! The changes between a model and the file that it was read from.

use super::pieces::Numbers;
use super::proto::data_type;
use super::source::{Location, OnnxSource};
use super::tensors::stored_bytes;
use crate::error::{Error, Result};
use crate::model::{Layer, Model, Param, View};
use crate::ops::Op;
use crate::tensor::{Array, Tensor, Value};
use std::any::Any;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Where a tensor is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DataLocation {
    /// Where the file has it, or among the initializers.
    Inside,
    /// Among the sparse initializers.
    Sparse,
    /// Nowhere in the file.
    Elsewhere,
}

/// A tensor as the file stores it.
pub(super) struct Stored<'a> {
    pub tensor: Cow<'a, Tensor>,
    view: Option<&'a View>,
}

impl<'a> Stored<'a> {
    /// Its type code and numbers.
    pub fn numbers(&self) -> (i32, Numbers<'a>) {
        match (self.view, &self.tensor) {
            (Some(view), tensor) => {
                let (element, bytes) = stored_bytes(view, tensor);
                (element, Numbers::Bytes(bytes.into()))
            }
            (None, Cow::Borrowed(tensor)) => (data_type::FLOAT, Numbers::Floats(tensor)),
            (None, Cow::Owned(tensor)) => (data_type::FLOAT, Numbers::Bytes(tensor.to_le_bytes().into())),
        }
    }
}

/// Edits of the graph. Initializers and nodes are identified by their index in the file.
#[derive(Default)]
pub(super) struct Changes<'a> {
    pub initializers: HashMap<usize, Stored<'a>>,
    pub constants: HashMap<usize, Stored<'a>>,
    pub filled: HashMap<usize, Stored<'a>>,
    /// Shapes that have changed. Then the file's shapes of intermediate values are left out.
    pub resized: HashMap<&'a str, Vec<usize>>,
    /// New numbers of groups of convolutions.
    pub groups: HashMap<usize, usize>,
    /// New first outputs of nodes.
    pub outputs: HashMap<usize, &'a str>,
    /// New inputs of nodes, with their positions.
    pub inputs: HashMap<usize, Vec<(usize, &'a str)>>,
    /// Initializers and nodes that are removed.
    pub dropped: HashSet<usize>,
    pub dropped_nodes: HashSet<usize>,
    /// New sparse initializers.
    pub sparse: Vec<(&'a str, Stored<'a>)>,
    /// New initializers.
    pub added: Vec<(&'a str, Added<'a>)>,
}

/// A new initializer.
pub(super) enum Added<'a> {
    Numbers(Stored<'a>),
    Integers(&'a Array<i64>),
}

/// The model's source, or an error for a model without one.
pub(super) fn source_of(model: &Model) -> Result<&OnnxSource> {
    let origin = model.origin.as_deref().map(|origin| origin as &dyn Any);
    origin.and_then(|origin| origin.downcast_ref()).ok_or_else(|| Error::unsupported("this model was not read from an ONNX file"))
}

/// A parameter as the file stores it.
pub(super) fn stored<'a>(source: &'a OnnxSource, name: &str, tensor: &'a Tensor) -> Result<Stored<'a>> {
    match source.views.get(name) {
        None => Ok(Stored { tensor: Cow::Borrowed(tensor), view: None }),
        Some(view) => {
            let tensor = view.stored(tensor.clone()).map_err(|e| e.at(format!("parameter {name:?}")))?;
            Ok(Stored { tensor: Cow::Owned(tensor), view: Some(view) })
        }
    }
}

/// Whether the parameter is a copy that the file's nodes hand on, still with the same numbers.
pub(super) fn is_handed_on(model: &Model, source: &OnnxSource, name: &str, param: &Param) -> bool {
    match source.locations.get(name) {
        Some(Location::Copy(root, _)) => model.params.get(root).is_some_and(|root| same(param, root)),
        _ => false,
    }
}

impl<'a> Changes<'a> {
    pub fn new(model: &'a Model, location: impl Fn(&Tensor) -> DataLocation) -> Result<Changes<'a>> {
        let source = source_of(model)?;
        let mut changes =
            Changes { dropped: source.dead_initializers.clone(), dropped_nodes: source.dead_nodes.clone(), ..Changes::default() };
        for (name, param) in model.params.iter() {
            changes.param(model, source, name, param, &location)?;
        }
        // Parameters that were removed with the layers that read them.
        let gone = source.locations.iter().filter(|(name, _)| model.params.get(name).is_none());
        gone.for_each(|(_, at)| changes.take_out(at));
        for layer in model.graph.layers.iter().filter(|_| !changes.resized.is_empty()) {
            if let (Op::Conv(attributes), Some(&node)) = (&layer.op, source.nodes.get(&layer.name)) {
                changes.groups.insert(node, attributes.groups);
            }
        }
        for merged in &model.graph.merged {
            if let (Some(&kept), Some(&gone)) = (source.nodes.get(&merged.kept), source.nodes.get(&merged.gone)) {
                changes.outputs.insert(kept, &merged.output);
                changes.dropped_nodes.insert(gone);
            }
        }
        Ok(changes)
    }

    fn param(
        &mut self,
        model: &'a Model,
        source: &'a OnnxSource,
        name: &'a str,
        param: &'a Param,
        location: &impl Fn(&Tensor) -> DataLocation,
    ) -> Result<()> {
        if is_handed_on(model, source, name, param) {
            return Ok(());
        }
        let old = source.original.get(name);
        let at = source.locations.get(name);
        match (at, old) {
            (None | Some(Location::Copy(_, None)), _) => self.give(model, source, name)?,
            (_, Some(old)) if old.shape != param.shape => {
                let shape = param.f32().map(|tensor| stored(source, name, tensor).map(|stored| stored.tensor.shape.clone()));
                self.resized.insert(name, shape.transpose()?.unwrap_or_else(|| param.shape.clone()));
            }
            _ => {}
        }
        let tensor = param.f32();
        match (tensor.map_or(DataLocation::Inside, location), tensor) {
            (DataLocation::Sparse, Some(tensor)) => {
                at.into_iter().for_each(|at| self.take_out(at));
                self.sparse.push((name, stored(source, name, tensor)?));
            }
            (DataLocation::Elsewhere, _) => at.into_iter().for_each(|at| self.take_out(at)),
            _ => self.put(source, at, name, param, old)?,
        }
        Ok(())
    }

    /// Gives a parameter that no node of the file reads to the layer that has it as an input.
    fn give(&mut self, model: &'a Model, source: &OnnxSource, name: &'a str) -> Result<()> {
        let reads = |layer: &Layer| {
            let slot = layer.inputs.iter().position(|input| input == name)?;
            Some((*source.nodes.get(&layer.name)?, slot))
        };
        let (node, slot) = model.graph.layers.iter().find_map(reads).ok_or_else(|| {
            Error::unsupported(format!("parameter {name:?} is not in the file, and not an input of one layer either"))
        })?;
        self.inputs.entry(node).or_default().push((slot, name));
        Ok(())
    }

    /// Stores a parameter where the file has it, or as an initializer.
    fn put(
        &mut self,
        source: &'a OnnxSource,
        at: Option<&Location>,
        name: &'a str,
        param: &'a Param,
        old: Option<&Param>,
    ) -> Result<()> {
        let changed = !old.is_some_and(|old| same(param, old));
        let numbers = |tensor| stored(source, name, tensor);
        match (at, param.f32().filter(|_| changed)) {
            (None | Some(Location::Separate | Location::Copy(..)), _) => self.add(source, at, name, param)?,
            (Some(Location::OutputOf(_)), Some(_)) => self.add(source, at, name, param)?,
            (Some(Location::Initializer(index)), Some(tensor)) => drop(self.initializers.insert(*index, numbers(tensor)?)),
            (Some(Location::ConstantNode(index)), Some(tensor)) => drop(self.constants.insert(*index, numbers(tensor)?)),
            (Some(Location::FilledNode(index)), Some(tensor)) => drop(self.filled.insert(*index, numbers(tensor)?)),
            (_, None) => {}
        }
        Ok(())
    }

    fn add(&mut self, source: &'a OnnxSource, at: Option<&Location>, name: &'a str, param: &'a Param) -> Result<()> {
        at.into_iter().for_each(|at| self.take_out(at));
        let added = match param.value().map(|value| &**value) {
            Some(Value::F32(tensor)) => Added::Numbers(stored(source, name, tensor)?),
            Some(Value::I64(integers)) => Added::Integers(integers),
            None => return Ok(()),
        };
        self.added.push((name, added));
        Ok(())
    }

    fn take_out(&mut self, at: &Location) {
        match at {
            Location::Initializer(index) => drop(self.dropped.insert(*index)),
            Location::ConstantNode(index)
            | Location::FilledNode(index)
            | Location::OutputOf(index)
            | Location::Copy(_, Some(index)) => {
                self.dropped_nodes.insert(*index);
            }
            Location::Copy(_, None) | Location::Separate => {}
        }
    }
}

/// Whether both have the same numbers, to the bit.
pub(super) fn same(a: &Param, b: &Param) -> bool {
    match (a.value(), b.value()) {
        (Some(a), Some(b)) if Arc::ptr_eq(a, b) => true,
        (Some(a), Some(b)) => match (&**a, &**b) {
            (Value::F32(a), Value::F32(b)) => a.same_bits(b),
            (a, b) => a == b,
        },
        _ => a.shape == b.shape,
    }
}
