//! What a model has in another way than the file it came from.

use super::pieces::Numbers;
use super::proto::data_type;
use super::read::{Location, OnnxSource};
use super::tensors::stored_bytes;
use crate::error::{Error, Result};
use crate::model::{Layer, Model, Param, View};
use crate::ops::Op;
use crate::tensor::{Tensor, Value};
use std::any::Any;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Where a tensor goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DataLocation {
    /// Where it was, or among the initializers.
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
    /// Its type and its numbers.
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

/// What has to be replaced in the graph. Nodes are named by their index in the file.
#[derive(Default)]
pub(super) struct Changes<'a> {
    pub initializers: HashMap<usize, Stored<'a>>,
    pub constants: HashMap<usize, Stored<'a>>,
    pub filled: HashMap<usize, Stored<'a>>,
    /// Shapes that have changed. What the file says of shapes in between is left out then.
    pub resized: HashMap<&'a str, Vec<usize>>,
    /// The number of groups of convolutions.
    pub groups: HashMap<usize, usize>,
    /// First outputs that nodes write instead of their own.
    pub outputs: HashMap<usize, &'a str>,
    /// Inputs that nodes are given, with their places.
    pub inputs: HashMap<usize, Vec<(usize, &'a str)>>,
    /// Initializers and nodes that go.
    pub dropped: HashSet<usize>,
    pub dropped_nodes: HashSet<usize>,
    /// What becomes a sparse initializer.
    pub sparse: Vec<(&'a str, Stored<'a>)>,
    /// What becomes an initializer.
    pub added: Vec<(&'a str, Added<'a>)>,
}

/// A new initializer.
pub(super) enum Added<'a> {
    Numbers(Stored<'a>),
    Whole(&'a crate::tensor::Array<i64>),
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

/// Whether the file's nodes hand this parameter on from another one with the same numbers.
pub(super) fn is_handed_on(model: &Model, source: &OnnxSource, name: &str, param: &Param) -> bool {
    match source.places.get(name) {
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
        // Parameters that are gone, with the layers that read them.
        let gone = source.places.iter().filter(|(name, _)| model.params.get(name).is_none());
        gone.for_each(|(_, place)| changes.take_out(place));
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
        let place = source.places.get(name);
        match (place, old) {
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
                place.into_iter().for_each(|place| self.take_out(place));
                self.sparse.push((name, stored(source, name, tensor)?));
            }
            (DataLocation::Elsewhere, _) => place.into_iter().for_each(|place| self.take_out(place)),
            _ => self.put(source, place, name, param, old)?,
        }
        Ok(())
    }

    /// A parameter that no node of the file reads yet must be an input of one layer.
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

    /// A tensor that is stored as such, where it was if it was there.
    fn put(
        &mut self,
        source: &'a OnnxSource,
        place: Option<&Location>,
        name: &'a str,
        param: &'a Param,
        old: Option<&Param>,
    ) -> Result<()> {
        let changed = !old.is_some_and(|old| same(param, old));
        let numbers = |tensor| stored(source, name, tensor);
        match (place, param.f32().filter(|_| changed)) {
            (None | Some(Location::Apart | Location::Copy(..)), _) => self.add(source, place, name, param)?,
            (Some(Location::OfNode(_)), Some(_)) => self.add(source, place, name, param)?,
            (Some(Location::Initializer(index)), Some(tensor)) => drop(self.initializers.insert(*index, numbers(tensor)?)),
            (Some(Location::ConstantNode(index)), Some(tensor)) => drop(self.constants.insert(*index, numbers(tensor)?)),
            (Some(Location::FilledNode(index)), Some(tensor)) => drop(self.filled.insert(*index, numbers(tensor)?)),
            (_, None) => {}
        }
        Ok(())
    }

    fn add(&mut self, source: &'a OnnxSource, place: Option<&Location>, name: &'a str, param: &'a Param) -> Result<()> {
        place.into_iter().for_each(|place| self.take_out(place));
        let added = match param.value().map(|value| &**value) {
            Some(Value::F32(tensor)) => Added::Numbers(stored(source, name, tensor)?),
            Some(Value::I64(whole)) => Added::Whole(whole),
            None => return Ok(()),
        };
        self.added.push((name, added));
        Ok(())
    }

    fn take_out(&mut self, place: &Location) {
        match place {
            Location::Initializer(index) => drop(self.dropped.insert(*index)),
            Location::ConstantNode(index)
            | Location::FilledNode(index)
            | Location::OfNode(index)
            | Location::Copy(_, Some(index)) => {
                self.dropped_nodes.insert(*index);
            }
            Location::Copy(_, None) | Location::Apart => {}
        }
    }
}

/// Same numbers, to the bit.
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
