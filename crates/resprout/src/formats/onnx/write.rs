//! A model back into ONNX: the bytes of the file that was read, with the changed tensors spliced in, and
//! the biases that layers were given. Tensors of many zeros may be stored sparse.
//!
//! Everything else, known to this crate or not, is copied byte for byte.

use super::proto::{
    AttributeProto, Dimension, NodeProto, SparseTensorProto, TensorProto, TensorShape, ValueInfoProto, data_type,
};
use super::read::{OnnxSource, Place};
use crate::error::{Error, Result};
use crate::formats::atomic::PendingFile;
use crate::model::{Model, Param};
use crate::ops::Op;
use crate::tensor::{Array, Tensor, Value};
use prost::Message;
use prost::bytes::{Buf, Bytes};
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Protobuf messages end at two gigabytes.
const LARGEST_FILE: usize = i32::MAX as usize;

/// Field numbers that are rewritten; see `onnx.proto`.
mod field {
    pub const MODEL_IR_VERSION: u32 = 1;
    pub const MODEL_GRAPH: u32 = 7;
    pub const GRAPH_NODE: u32 = 1;
    pub const GRAPH_INITIALIZER: u32 = 5;
    pub const GRAPH_INPUT: u32 = 11;
    pub const GRAPH_VALUE_INFO: u32 = 13;
    pub const GRAPH_SPARSE_INITIALIZER: u32 = 15;
    pub const NODE_INPUT: u32 = 1;
    pub const NODE_OUTPUT: u32 = 2;
    pub const NODE_ATTRIBUTE: u32 = 5;
    pub const ATTRIBUTE_TENSOR: u32 = 5;
    pub const TENSOR_DIMS: u32 = 1;
    pub const TENSOR_FLOAT_DATA: u32 = 4;
    pub const TENSOR_RAW_DATA: u32 = 9;
    pub const TENSOR_EXTERNAL_DATA: u32 = 13;
    pub const TENSOR_DATA_LOCATION: u32 = 14;
}

/// Writes the model to a temporary file, reads it back, hands what was read to `verify`, and only
/// then gives the file its name.
pub fn write(model: &Model, path: &Path, storage: Storage, verify: impl FnOnce(&Model) -> Result<()>) -> Result<()> {
    let pending = PendingFile::write(path, &encode_as(model, storage)?)?;
    let back = super::read(pending.path())?;
    check_same(model, &back).map_err(|e| e.at(path.display()))?;
    verify(&back).map_err(|e| e.at(path.display()))?;
    pending.commit()
}

/// How tensors are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Every element.
    Dense,
    /// As sparse initializers, where these are smaller: values and, as the standard demands, indices of 64 bits. Negative
    /// zeros lose their sign.
    Sparse,
}

/// The first version of the format that has sparse initializers.
const SPARSE_IR_VERSION: u64 = 5;

/// The bytes of the model as an ONNX file, every tensor with all its elements.
pub fn encode(model: &Model) -> Result<Vec<u8>> {
    encode_as(model, Storage::Dense)
}

/// The bytes of the model as an ONNX file.
pub fn encode_as(model: &Model, storage: Storage) -> Result<Vec<u8>> {
    match storage {
        Storage::Dense => encode_with(model, |_| Home::Inside),
        Storage::Sparse => encode_with(model, |tensor| if is_sparse(tensor) { Home::Sparse } else { Home::Inside }),
    }
}

/// The model without its tensors, and the names of these.
pub(in crate::formats) fn encode_graph(model: &Model) -> Result<(Vec<u8>, Vec<&str>)> {
    let apart = |tensor: &Tensor| !tensor.shape.is_empty();
    let names = model.params.iter().filter(|(_, param)| param.f32().is_some_and(apart)).map(|(name, _)| name).collect();
    Ok((encode_with(model, |tensor| if apart(tensor) { Home::Elsewhere } else { Home::Inside })?, names))
}

/// Where a tensor goes.
#[derive(PartialEq, Eq)]
enum Home {
    Inside,
    Sparse,
    Elsewhere,
}

/// A value and its index take three times the bytes of a value.
fn is_sparse(tensor: &Tensor) -> bool {
    !tensor.shape.is_empty() && 3 * tensor.data.iter().filter(|value| **value != 0.0).count() < tensor.len()
}

fn encode_with(model: &Model, home: impl Fn(&Tensor) -> Home) -> Result<Vec<u8>> {
    let source = model.source.as_ref().ok_or_else(|| Error::unsupported("this model was not read from an ONNX file"))?;
    let changes = changes(model, source, home)?;
    let mut bytes = rewrite(&source.bytes, |number, _, content| {
        if number == field::MODEL_GRAPH { rewrite_graph(content, &changes, source).map(Some) } else { Ok(None) }
    })?;
    if !changes.sparse.is_empty() && source.ir_version < SPARSE_IR_VERSION as i64 {
        // Of a number that is there twice, the last one counts.
        encode_key(field::MODEL_IR_VERSION, WireType::Varint, &mut bytes);
        encode_varint(SPARSE_IR_VERSION, &mut bytes);
    }
    if bytes.len() > LARGEST_FILE {
        return Err(Error::unsupported(format!("the model has {} bytes; an ONNX file ends at 2 GiB", bytes.len())));
    }
    Ok(bytes)
}

/// What has to be replaced in the graph.
#[derive(Default)]
struct Changes<'a> {
    initializers: HashMap<usize, &'a Tensor>,
    constants: HashMap<usize, &'a Tensor>,
    filled: HashMap<usize, &'a Tensor>,
    /// Shapes that have changed. What the file says of shapes in between is left out then.
    resized: HashMap<&'a str, &'a [usize]>,
    /// The number of groups of convolutions that have several, by the node's first output.
    groups: HashMap<&'a str, usize>,
    /// Initializers, and nodes, whose tensors go elsewhere.
    dropped: HashSet<usize>,
    dropped_nodes: HashSet<usize>,
    /// What becomes a sparse initializer.
    sparse: Vec<(&'a str, &'a Tensor)>,
    /// What becomes an initializer.
    added: Vec<(&'a str, &'a Value)>,
    /// The input that a node is given, with its place, by the node's first output.
    inputs: HashMap<&'a str, (usize, &'a str)>,
}

fn changes<'a>(model: &'a Model, source: &OnnxSource, home: impl Fn(&Tensor) -> Home) -> Result<Changes<'a>> {
    let mut changes = Changes::default();
    for (name, param) in model.params.iter() {
        let old = source.original.get(name);
        match old {
            None => changes.give(model, name)?,
            Some(old) if old.shape != param.shape => drop(changes.resized.insert(name, &param.shape)),
            Some(_) => {}
        }
        let place = source.places.get(name).copied().unwrap_or(Place::Apart);
        let tensor = param.f32();
        match (tensor.map_or(Home::Inside, &home), tensor) {
            (Home::Sparse, Some(tensor)) => {
                changes.take_out(place);
                changes.sparse.push((name, tensor));
            }
            (Home::Elsewhere, _) => changes.take_out(place),
            _ => changes.put(place, name, param, old),
        }
    }
    for layer in model.graph.layers.iter().filter(|_| !changes.resized.is_empty()) {
        if let (Op::Conv(attributes), Some(output)) = (&layer.op, layer.outputs.first()) {
            changes.groups.insert(output, attributes.groups);
        }
    }
    Ok(changes)
}

impl<'a> Changes<'a> {
    /// A parameter that the file does not have must be an input of one layer: a bias, or the second one.
    fn give(&mut self, model: &'a Model, name: &'a str) -> Result<()> {
        let place = |layer: &'a crate::model::Layer| {
            Some((layer.outputs.first()?, [1, 2].into_iter().find(|&at| layer.input(at) == Some(name))?))
        };
        let (output, place) = model.graph.layers.iter().find_map(place).ok_or_else(|| {
            Error::unsupported(format!("parameter {name:?} is not in the file, and not an input of one layer either"))
        })?;
        self.inputs.insert(output, (place, name));
        Ok(())
    }

    /// A tensor that is stored as such, where it was if it was there.
    fn put(&mut self, place: Place, name: &'a str, param: &'a Param, old: Option<&Param>) {
        let changed = !old.is_some_and(|old| same(param, old));
        match (place, param.f32().filter(|_| changed)) {
            (Place::Apart, _) => self.added.extend(param.value().map(|value| (name, &**value))),
            (Place::Initializer(index), Some(tensor)) => drop(self.initializers.insert(index, tensor)),
            (Place::ConstantNode(index), Some(tensor)) => drop(self.constants.insert(index, tensor)),
            (Place::FilledNode(index), Some(tensor)) => drop(self.filled.insert(index, tensor)),
            (_, None) => {}
        }
    }

    fn take_out(&mut self, place: Place) {
        match place {
            Place::Initializer(index) => drop(self.dropped.insert(index)),
            Place::ConstantNode(index) | Place::FilledNode(index) => drop(self.dropped_nodes.insert(index)),
            Place::Apart => {}
        }
    }
}

/// Same numbers, to the bit.
fn same(a: &Param, b: &Param) -> bool {
    match (a.value(), b.value()) {
        (Some(a), Some(b)) if std::sync::Arc::ptr_eq(a, b) => true,
        (Some(a), Some(b)) => match (&**a, &**b) {
            (Value::F32(a), Value::F32(b)) => a.same_bits(b),
            (a, b) => a == b,
        },
        _ => a.shape == b.shape,
    }
}

fn check_same(model: &Model, back: &Model) -> Result<()> {
    for (name, param) in model.params.iter() {
        let tensors = |other: &Param| param.f32().zip(other.f32()).is_some_and(|(a, b)| a.same_numbers(b));
        if !back.params.get(name).is_some_and(|other| same(param, other) || tensors(other)) {
            return Err(Error::format(format!("parameter {name:?} was not read back as it was written")));
        }
    }
    Ok(())
}

fn rewrite_graph(graph: &Bytes, changes: &Changes, source: &OnnxSource) -> Result<Vec<u8>> {
    let graph = if changes.resized.is_empty() { graph.clone() } else { without(graph, field::GRAPH_VALUE_INFO)? };
    let mut out = rewrite(&graph, |number, index, content| match number {
        // What was sparse is stored again below, sparse or not.
        field::GRAPH_SPARSE_INITIALIZER => Ok(Edit::Drop),
        field::GRAPH_INITIALIZER if changes.dropped.contains(&index) => Ok(Edit::Drop),
        field::GRAPH_NODE if changes.dropped_nodes.contains(&index) => Ok(Edit::Drop),
        field::GRAPH_INITIALIZER => match (changes.initializers.get(&index), source.external.get(&index)) {
            (Some(tensor), _) => rewrite_tensor(content, tensor).map(Edit::Replace),
            // Other files are not carried along, so what lay in them moves into this one.
            (None, Some(bytes)) => embed(content, bytes).map(Edit::Replace),
            (None, None) => Ok(Edit::Keep),
        },
        // Old files name initializers among the inputs, with their shapes.
        field::GRAPH_INPUT if !changes.resized.is_empty() => reshape_input(content, &changes.resized).map(Edit::from),
        field::GRAPH_NODE => match (changes.constants.get(&index), changes.filled.get(&index)) {
            (Some(tensor), _) => rewrite_constant(content, tensor).map(Edit::Replace),
            (None, Some(tensor)) => spell_out(content, tensor).map(Edit::Replace),
            (None, None) => rewrite_node(content, changes).map(Edit::from),
        },
        _ => Ok(Edit::Keep),
    })?;
    for (name, value) in &changes.added {
        let tensor = match value {
            Value::F32(tensor) => float_tensor(tensor),
            Value::I64(numbers) => whole_tensor(numbers),
        };
        let initializer = TensorProto { name: name.to_string(), ..tensor };
        append(&mut out, field::GRAPH_INITIALIZER, &initializer.encode_to_vec());
    }
    for (name, tensor) in &changes.sparse {
        append(&mut out, field::GRAPH_SPARSE_INITIALIZER, &sparse_tensor(name, tensor).encode_to_vec());
    }
    Ok(out)
}

fn reshape_input(input: &Bytes, shapes: &HashMap<&str, &[usize]>) -> Result<Option<Vec<u8>>> {
    let broken = |e| Error::format(format!("an input cannot be read again: {e}"));
    let mut input = ValueInfoProto::decode(input.clone()).map_err(broken)?;
    let Some(shape) = shapes.get(input.name.as_str()) else { return Ok(None) };
    if let Some(kind) = input.r#type.as_mut().and_then(|kind| kind.tensor_type.as_mut()) {
        let dim = |&side: &usize| Dimension { dim_value: Some(side as i64), ..Default::default() };
        kind.shape = Some(TensorShape { dim: shape.iter().map(dim).collect() });
    }
    Ok(Some(input.encode_to_vec()))
}

/// The node with its new input and its new number of groups, if it is given any.
fn rewrite_node(node: &Bytes, changes: &Changes) -> Result<Option<Vec<u8>>> {
    if changes.inputs.is_empty() && changes.groups.is_empty() {
        return Ok(None);
    }
    let (mut inputs, mut name) = (0, String::new());
    each_field(node, |number, index, _, content| {
        match (number, content) {
            (field::NODE_INPUT, _) => inputs += 1,
            (field::NODE_OUTPUT, Some(output)) if index == 0 => name = String::from_utf8_lossy(output).into_owned(),
            _ => {}
        }
        Ok(())
    })?;
    let groups = changes.groups.get(name.as_str()).map(|&groups| regroup(node, groups)).transpose()?;
    match changes.inputs.get(name.as_str()) {
        Some((place, name)) => give_input(&groups.map_or_else(|| node.clone(), Bytes::from), inputs, *place, name).map(Some),
        None => Ok(groups),
    }
}

fn regroup(node: &Bytes, groups: usize) -> Result<Vec<u8>> {
    rewrite(node, |number, _, content| {
        if number != field::NODE_ATTRIBUTE {
            return Ok(None);
        }
        let broken = |e| Error::format(format!("an attribute cannot be read again: {e}"));
        let old = AttributeProto::decode(content.clone()).map_err(broken)?;
        Ok((old.name == "group").then(|| AttributeProto { i: groups as i64, ..old }.encode_to_vec()))
    })
}

fn give_input(node: &Bytes, inputs: usize, place: usize, name: &str) -> Result<Vec<u8>> {
    // An input that is there may be an empty name: an optional one left out.
    let given = |number, index| number == field::NODE_INPUT && index == place;
    let mut out = rewrite(node, |number, index, _| Ok(given(number, index).then(|| name.as_bytes().to_vec())))?;
    if inputs <= place {
        append(&mut out, field::NODE_INPUT, name.as_bytes());
    }
    Ok(out)
}

fn dims(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&dim| dim as i64).collect()
}

fn float_tensor(tensor: &Tensor) -> TensorProto {
    TensorProto {
        dims: dims(&tensor.shape),
        data_type: data_type::FLOAT,
        raw_data: Bytes::from(tensor.to_le_bytes()),
        ..Default::default()
    }
}

/// A tensor of zeros alone keeps one of them: not every reader expects none at all.
fn sparse_tensor(name: &str, tensor: &Tensor) -> SparseTensorProto {
    let mut places: Vec<usize> = (0..tensor.len()).filter(|&at| tensor.data[at] != 0.0).collect();
    if places.is_empty() {
        places.push(0);
    }
    let values = Tensor::new(vec![places.len()], places.iter().map(|&at| tensor.data[at]).collect());
    let indices = Array::vector(places.iter().map(|&at| at as i64).collect());
    SparseTensorProto {
        values: Some(TensorProto { name: name.into(), ..float_tensor(&values) }),
        indices: Some(whole_tensor(&indices)),
        dims: dims(&tensor.shape),
    }
}

fn whole_tensor(numbers: &Array<i64>) -> TensorProto {
    let raw: Vec<u8> = numbers.data.iter().flat_map(|number| number.to_le_bytes()).collect();
    TensorProto { dims: dims(&numbers.shape), data_type: data_type::INT64, raw_data: raw.into(), ..Default::default() }
}

fn rewrite_constant(node: &Bytes, tensor: &Tensor) -> Result<Vec<u8>> {
    rewrite(node, |number, _, attribute| match number {
        field::NODE_ATTRIBUTE => rewrite(attribute, |number, _, content| match number {
            field::ATTRIBUTE_TENSOR => rewrite_tensor(content, tensor).map(Some),
            _ => Ok(None),
        })
        .map(Some),
        _ => Ok(None),
    })
}

/// A ConstantOfShape node whose elements are no longer all the same becomes a Constant.
fn spell_out(node: &Bytes, tensor: &Tensor) -> Result<Vec<u8>> {
    let old = NodeProto::decode(node.clone()).map_err(|e| Error::format(format!("a node cannot be read again: {e}")))?;
    let attribute = AttributeProto { name: "value".into(), t: Some(float_tensor(tensor)), r#type: 4, ..Default::default() };
    let node = NodeProto { input: vec![], op_type: "Constant".into(), attribute: vec![attribute], ..old };
    Ok(node.encode_to_vec())
}

/// Replaces the numbers of a tensor, in the encoding they had, and its shape if that is another one.
fn rewrite_tensor(tensor: &Bytes, new: &Tensor) -> Result<Vec<u8>> {
    let (mut out, typed) = without_data(tensor)?;
    let old = TensorProto::decode(&out[..]).map_err(|e| Error::format(format!("a tensor cannot be read again: {e}")))?;
    if old.dims != dims(&new.shape) {
        out = without(&Bytes::from(out), field::TENSOR_DIMS)?.to_vec();
        for &dim in &new.shape {
            encode_key(field::TENSOR_DIMS, WireType::Varint, &mut out);
            encode_varint(dim as u64, &mut out);
        }
    }
    let tag = if typed { field::TENSOR_FLOAT_DATA } else { field::TENSOR_RAW_DATA };
    // Raw data and packed floats are the same bytes.
    append(&mut out, tag, &new.to_le_bytes());
    Ok(out)
}

fn embed(tensor: &Bytes, data: &Bytes) -> Result<Vec<u8>> {
    let (mut out, _) = without_data(tensor)?;
    append(&mut out, field::TENSOR_RAW_DATA, data);
    Ok(out)
}

/// The tensor's fields but for its numbers, and whether these were typed rather than raw.
fn without_data(tensor: &Bytes) -> Result<(Vec<u8>, bool)> {
    let mut out = Vec::new();
    let mut typed = false;
    each_field(tensor, |number, _, whole, _| {
        typed |= number == field::TENSOR_FLOAT_DATA;
        let numbers = matches!(
            number,
            field::TENSOR_FLOAT_DATA | field::TENSOR_RAW_DATA | field::TENSOR_EXTERNAL_DATA | field::TENSOR_DATA_LOCATION
        );
        if !numbers {
            out.extend_from_slice(whole);
        }
        Ok(())
    })?;
    Ok((out, typed))
}

/// The message without the fields of a number.
fn without(message: &Bytes, field: u32) -> Result<Bytes> {
    let mut out = Vec::with_capacity(message.len());
    each_field(message, |number, _, whole, _| {
        if number != field {
            out.extend_from_slice(whole);
        }
        Ok(())
    })?;
    Ok(out.into())
}

fn append(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

/// What becomes of a field.
enum Edit {
    Keep,
    Replace(Vec<u8>),
    Drop,
}

impl From<Option<Vec<u8>>> for Edit {
    fn from(new: Option<Vec<u8>>) -> Edit {
        new.map_or(Edit::Keep, Edit::Replace)
    }
}

/// Copies a message with its length-delimited fields as `change(number, index among fields of that
/// number, content)` says.
fn rewrite<E: Into<Edit>>(message: &Bytes, mut change: impl FnMut(u32, usize, &Bytes) -> Result<E>) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(message.len());
    each_field(message, |number, index, whole, content| {
        match content.map(|content| change(number, index, content)).transpose()?.map_or(Edit::Keep, E::into) {
            Edit::Replace(new) => append(&mut out, number, &new),
            Edit::Keep => out.extend_from_slice(whole),
            Edit::Drop => {}
        }
        Ok(())
    })?;
    Ok(out)
}

/// Calls `visit(number, index among fields of that number, whole field, content if length-delimited)`.
fn each_field(message: &Bytes, mut visit: impl FnMut(u32, usize, &[u8], Option<&Bytes>) -> Result<()>) -> Result<()> {
    let broken = |what: &str| Error::format(format!("the file's structure is broken: {what}"));
    let mut rest = message.clone();
    let mut counts: HashMap<u32, usize> = HashMap::new();
    while rest.has_remaining() {
        let start = message.len() - rest.remaining();
        let (number, wire) = decode_key(&mut rest).map_err(|e| broken(&e.to_string()))?;
        let length = match wire {
            WireType::Varint => decode_varint(&mut rest).map(|_| 0).map_err(|e| broken(&e.to_string()))?,
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => decode_varint(&mut rest).map_err(|e| broken(&e.to_string()))? as usize,
            WireType::StartGroup | WireType::EndGroup => return Err(broken("a group")),
        };
        if length > rest.remaining() {
            return Err(broken("a field runs past the end"));
        }
        let content = rest.split_to(length);
        let end = message.len() - rest.remaining();
        let index = counts.entry(number).or_insert(0);
        visit(number, *index, &message[start..end], (wire == WireType::LengthDelimited).then_some(&content))?;
        *index += 1;
    }
    Ok(())
}
