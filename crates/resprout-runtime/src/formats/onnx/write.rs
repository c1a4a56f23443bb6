//! Writes a model as ONNX: the bytes of the file that was read, with changed tensors and new biases spliced in.
//!
//! Tensors with many zeros can be stored sparse, and tensors can be stored in a file beside the graph. Everything else, known
//! to this crate or not, is copied byte for byte.

use super::changes::{Added, Changes, DataLocation, Stored, is_handed_on, same, source_of, stored};
use super::field;
use super::pieces::{Numbers, Pieces};
use super::proto::{AttributeProto, Dimension, TensorProto, TensorShape, ValueInfoProto};
use super::read::{ReadOptions, read_pending};
use super::sidecar::{DataSink, Inline, Sidecar};
use super::source::{Detached, OnnxSource};
use super::splice::{Edit, rewrite, without};
use super::tensors_out::{decode, float_tensor, integer_tensor, rewrite_tensor, sparse_tensor, spelled_out};
use crate::error::{Error, Result};
use crate::formats::atomic::PendingFile;
use crate::model::{Model, Param};
use crate::tensor::Tensor;
use prost::Message;
use prost::bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The largest protobuf message.
const LARGEST_FILE: usize = i32::MAX as usize;

/// Writes the model to a temporary file, reads it back, calls `verify` with the result, and only then gives the file its
/// name. External data have a file of their own: see [`data_path`].
///
/// `model` was read by this module or built. Networks above 2 GiB are written with external data, whatever `storage` says.
///
/// # Errors
/// Of kind `Io` or `Format` with the file's name, and the errors of `verify`. Of kind `Unsupported` for
/// [`Storage::Sparse`] above 2 GiB.
pub fn write(model: &Model, path: &Path, storage: Storage, verify: impl FnOnce(&Model) -> Result<()>) -> Result<()> {
    let external = storage == Storage::External || float_bytes(model) > LARGEST_FILE - (1 << 20);
    if external && storage == Storage::Sparse {
        return Err(Error::unsupported("sparse initializers above 2 GiB; an ONNX file ends there"));
    }
    let name = path.file_name().map(|name| format!("{}.data", name.to_string_lossy())).unwrap_or_default();
    let (encoded, data) = if external {
        let mut sidecar = Sidecar::begin(&path.with_file_name(&name), &name)?;
        let encoded = encode_with(model, |_| DataLocation::Inside, &mut sidecar)?;
        (encoded, Some(sidecar.finish()?))
    } else {
        (pieces(model, storage)?, None)
    };
    let pending = PendingFile::write_with(path, |out| encoded.write_to(out))?;
    drop(encoded);
    let renamed = data.as_ref().map(|data| (name.as_str(), data.path()));
    let back = read_pending(pending.path(), renamed, Some(&model.params), ReadOptions::default())?;
    check_same(model, &back).map_err(|e| e.at(path.display()))?;
    verify(&back).map_err(|e| e.at(path.display()))?;
    data.map_or(Ok(()), PendingFile::commit)?;
    pending.commit()
}

/// The path of external data that [`write()`] uses: that of the model, and `.data`.
#[doc(hidden)]
pub fn data_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(std::ffi::OsStr::to_os_string).unwrap_or_default();
    name.push(".data");
    path.with_file_name(name)
}

fn float_bytes(model: &Model) -> usize {
    4 * model.params.float_count()
}

/// How a file stores tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Storage {
    /// Every element.
    Dense,
    /// As sparse initializers, where these are smaller: values and 64-bit indices, as the standard requires. A negative zero
    /// becomes a positive one.
    Sparse,
    /// Every element, in a file beside the graph. Networks above 2 GiB need it.
    External,
}

/// The first format version with sparse initializers.
const SPARSE_IR_VERSION: i64 = 5;
/// The first format version in which an initializer need not be an input.
const FREE_IR_VERSION: i64 = 4;

/// The bytes of the model as an ONNX file, every tensor with all its elements.
pub fn encode(model: &Model) -> Result<Vec<u8>> {
    encode_as(model, Storage::Dense)
}

/// As [`encode`], with [`Storage::Dense`] or [`Storage::Sparse`].
///
/// # Errors
/// Of kind `Unsupported` for [`Storage::External`], which needs a second file.
#[doc(hidden)]
pub fn encode_as(model: &Model, storage: Storage) -> Result<Vec<u8>> {
    pieces(model, storage).map(Pieces::into_vec)
}

fn pieces(model: &Model, storage: Storage) -> Result<Pieces<'_>> {
    match storage {
        Storage::Dense => encode_with(model, |_| DataLocation::Inside, &mut Inline),
        Storage::Sparse => {
            encode_with(model, |tensor| if is_sparse(tensor) { DataLocation::Sparse } else { DataLocation::Inside }, &mut Inline)
        }
        Storage::External => Err(Error::unsupported("external data have a file of their own")),
    }
}

/// Tensors by name, as the file stores them.
pub(in crate::formats) type StoredTensors<'m> = Vec<(&'m str, Cow<'m, Tensor>)>;

/// The model without its tensors, and the tensors.
pub(in crate::formats) fn encode_graph(model: &Model) -> Result<(Vec<u8>, StoredTensors<'_>)> {
    let separate = |tensor: &Tensor| !tensor.shape.is_empty();
    let source = source_of(model)?;
    let bytes =
        encode_with(model, |tensor| if separate(tensor) { DataLocation::Elsewhere } else { DataLocation::Inside }, &mut Inline)?;
    let mut tensors = Vec::new();
    for (name, param) in model.params.iter().filter(|(name, param)| !is_handed_on(model, source, name, param)) {
        if let Some(tensor) = param.f32().filter(|tensor| separate(tensor)) {
            tensors.push((name, stored(source, name, tensor)?.tensor));
        }
    }
    Ok((bytes.into_vec(), tensors))
}

/// Whether sparse storage is smaller. A value and its index take three times the bytes of a value.
fn is_sparse(tensor: &Tensor) -> bool {
    !tensor.shape.is_empty() && 3 * tensor.data.iter().filter(|value| **value != 0.0).count() < tensor.len()
}

fn encode_with<'m>(model: &'m Model, location: impl Fn(&Tensor) -> DataLocation, sink: &mut dyn DataSink) -> Result<Pieces<'m>> {
    let source = source_of(model)?;
    let changes = Changes::new(model, location)?;
    let mut bytes = rewrite(&source.bytes, |number, _, content| {
        if number == field::MODEL_GRAPH { rewrite_graph(content, &changes, source, sink).map(Some) } else { Ok(None) }
    })?;
    let needed = match (changes.sparse.is_empty(), changes.added.is_empty()) {
        (false, _) => SPARSE_IR_VERSION,
        (true, false) => FREE_IR_VERSION,
        (true, true) => 0,
    };
    if source.ir_version < needed {
        // If a field occurs twice, the last one counts.
        let mut version = Vec::new();
        encode_key(field::MODEL_IR_VERSION, WireType::Varint, &mut version);
        encode_varint(needed as u64, &mut version);
        bytes.push(&version);
    }
    if bytes.len() > LARGEST_FILE {
        let message = format!("the model has {} bytes; an ONNX file ends at 2 GiB, unless its data are external", bytes.len());
        return Err(Error::unsupported(message));
    }
    Ok(bytes)
}

fn check_same(model: &Model, back: &Model) -> Result<()> {
    for (name, param) in model.params.iter() {
        let same_tensors = |other: &Param| param.f32().zip(other.f32()).is_some_and(|(a, b)| a.same_numbers(b));
        if !back.params.get(name).is_some_and(|other| same(param, other) || same_tensors(other)) {
            return Err(Error::format(format!("parameter {name:?} was not read back as it was written")));
        }
    }
    Ok(())
}

fn rewrite_graph<'m>(
    graph: &Bytes,
    changes: &Changes<'m>,
    source: &'m OnnxSource,
    sink: &mut dyn DataSink,
) -> Result<Pieces<'m>> {
    let stale = !changes.resized.is_empty() || !changes.outputs.is_empty();
    let graph = if stale { without(graph, field::GRAPH_VALUE_INFO)? } else { graph.clone() };
    let mut out = rewrite(&graph, |number, index, content| match number {
        // Sparse tensors are written again below, sparse or not.
        field::GRAPH_SPARSE_INITIALIZER => Ok(Edit::Drop),
        field::GRAPH_INITIALIZER if changes.dropped.contains(&index) => Ok(Edit::Drop),
        field::GRAPH_NODE if changes.dropped_nodes.contains(&index) => Ok(Edit::Drop),
        field::GRAPH_INITIALIZER => initializer(index, content, changes, source, sink),
        // Old files list initializers among the inputs, with their shapes.
        field::GRAPH_INPUT if !changes.resized.is_empty() => reshape_input(content, &changes.resized).map(Edit::from),
        field::GRAPH_NODE => match (changes.constants.get(&index), changes.filled.get(&index)) {
            (Some(tensor), _) => rewrite_constant(content, tensor).map(Edit::Replace),
            (None, Some(tensor)) => spelled_out(content, tensor).map(|node| Edit::Replace(node.into())),
            (None, None) => rewrite_node(content, index, changes).map(Edit::from),
        },
        _ => Ok(Edit::Keep),
    })?;
    for (name, added) in &changes.added {
        let (tensor, numbers) = match added {
            Added::Numbers(stored) => float_tensor(stored),
            Added::Integers(numbers) => {
                let mut tensor = integer_tensor(numbers);
                let bytes = std::mem::take(&mut tensor.raw_data);
                (tensor, Numbers::Bytes(bytes))
            }
        };
        let initializer = sink.place(TensorProto { name: name.to_string(), ..tensor }, numbers)?;
        out.field(field::GRAPH_INITIALIZER, initializer);
    }
    for (name, stored) in &changes.sparse {
        out.field(field::GRAPH_SPARSE_INITIALIZER, sparse_tensor(name, &stored.tensor).encode_to_vec());
    }
    Ok(out)
}

/// The edit of an initializer: its new numbers, or its old ones where they are written now.
fn initializer<'m>(
    index: usize,
    content: &Bytes,
    changes: &Changes<'m>,
    source: &'m OnnxSource,
    sink: &mut dyn DataSink,
) -> Result<Edit<'m>> {
    let changed = changes.initializers.get(&index);
    let detached = source.detached.get(&index);
    let stays = !sink.takes_all() && detached.is_none_or(|detached| detached.inside.is_some());
    match (changed, detached) {
        (None, None) if stays => return Ok(Edit::Keep),
        (Some(stored), _) if stays => return rewrite_tensor(content, stored).map(Edit::Replace),
        (None, Some(Detached { inside: Some(at), bytes })) if stays => {
            let tensor = decode(content)?;
            let mut whole = Pieces::from(content[..*at].to_vec());
            whole.field_of_numbers(field::TENSOR_RAW_DATA, kept_numbers(source, &tensor.name, bytes.as_ref())?);
            whole.push(&content[*at..]);
            return Ok(Edit::Replace(whole));
        }
        _ => {}
    }
    let mut tensor = decode(content)?;
    let numbers = match (changed, detached) {
        (Some(stored), _) => {
            let (head, numbers) = float_tensor(stored);
            (tensor.dims, tensor.data_type, tensor.float_data) = (head.dims, head.data_type, Vec::new());
            numbers
        }
        (None, Some(detached)) => kept_numbers(source, &tensor.name, detached.bytes.as_ref())?,
        (None, None) => Numbers::Bytes(tensor.raw_data.clone()),
    };
    (tensor.raw_data, tensor.external_data, tensor.data_location) = (Bytes::new(), Vec::new(), 0);
    sink.place(tensor, numbers).map(Edit::Replace)
}

/// Numbers that have not changed: floats of the parameter, or kept bytes of another type.
fn kept_numbers<'m>(source: &'m OnnxSource, name: &str, bytes: Option<&Bytes>) -> Result<Numbers<'m>> {
    if let Some(bytes) = bytes {
        return Ok(Numbers::Bytes(bytes.clone()));
    }
    let param = source.original.f32(name);
    let stored = param.map(|param| stored(source, name, param)).transpose()?;
    let stored = stored.ok_or_else(|| Error::format(format!("the data of {name:?} are not at hand")))?;
    Ok(stored.numbers().1)
}

/// The input with its new shape, if it has one.
fn reshape_input(input: &Bytes, shapes: &HashMap<&str, Vec<usize>>) -> Result<Option<Vec<u8>>> {
    let broken = |e| Error::format(format!("an input cannot be read again: {e}"));
    let mut input = ValueInfoProto::decode(input.clone()).map_err(broken)?;
    let Some(shape) = shapes.get(input.name.as_str()) else { return Ok(None) };
    if let Some(kind) = input.r#type.as_mut().and_then(|kind| kind.tensor_type.as_mut()) {
        let dim = |&side: &usize| Dimension { dim_value: Some(side as i64), ..Default::default() };
        kind.shape = Some(TensorShape { dim: shape.iter().map(dim).collect() });
    }
    Ok(Some(input.encode_to_vec()))
}

/// The node with its new inputs, output and number of groups, if it has any.
fn rewrite_node(node: &Bytes, index: usize, changes: &Changes) -> Result<Option<Vec<u8>>> {
    let (inputs, groups, output) = (changes.inputs.get(&index), changes.groups.get(&index), changes.outputs.get(&index));
    if inputs.is_none() && groups.is_none() && output.is_none() {
        return Ok(None);
    }
    let mut node = node.clone();
    if let Some(&groups) = groups {
        node = regroup(&node, groups)?.into();
    }
    if let Some(output) = output {
        node = rewrite(&node, |number, at, _| Ok((number == field::NODE_OUTPUT && at == 0).then(|| output.as_bytes().to_vec())))?
            .into_vec()
            .into();
    }
    for (position, name) in inputs.into_iter().flatten() {
        node = give_input(&node, *position, name)?.into();
    }
    Ok(Some(node.to_vec()))
}

/// The node with this number of groups.
fn regroup(node: &Bytes, groups: usize) -> Result<Vec<u8>> {
    rewrite(node, |number, _, content| {
        if number != field::NODE_ATTRIBUTE {
            return Ok(None);
        }
        let broken = |e| Error::format(format!("an attribute cannot be read again: {e}"));
        let old = AttributeProto::decode(content.clone()).map_err(broken)?;
        Ok((old.name == "group").then(|| AttributeProto { i: groups as i64, ..old }.encode_to_vec()))
    })
    .map(Pieces::into_vec)
}

/// The node with this input.
fn give_input(node: &Bytes, position: usize, name: &str) -> Result<Vec<u8>> {
    let mut inputs = 0;
    // The node may have an empty name there, of an optional input that is left out.
    let mut out = rewrite(node, |number, index, _| {
        inputs += usize::from(number == field::NODE_INPUT);
        Ok((number == field::NODE_INPUT && index == position).then(|| name.as_bytes().to_vec()))
    })?
    .into_vec();
    for at in inputs..=position {
        field::append(&mut out, field::NODE_INPUT, if at == position { name.as_bytes() } else { b"" });
    }
    Ok(out)
}

/// The Constant node with new numbers.
fn rewrite_constant<'m>(node: &Bytes, tensor: &Stored<'m>) -> Result<Pieces<'m>> {
    rewrite(node, |number, _, attribute| match number {
        field::NODE_ATTRIBUTE => rewrite(attribute, |number, _, content| match number {
            field::ATTRIBUTE_TENSOR => rewrite_tensor(content, tensor).map(Some),
            _ => Ok(None),
        })
        .map(Some),
        _ => Ok(None),
    })
}
