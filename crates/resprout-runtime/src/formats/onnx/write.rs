//! A model back into ONNX: the bytes of the file that was read, with the changed tensors spliced in, and
//! the biases that layers were given. Tensors of many zeros may be stored sparse, and tensors may lie in a file beside.
//!
//! Everything else, known to this crate or not, is copied byte for byte.

use super::changes::{Added, Changes, DataLocation, is_handed_on, same, source_of, stored};
use super::pieces::{Numbers, Pieces};
use super::proto::{AttributeProto, Dimension, TensorProto, TensorShape, ValueInfoProto};
use super::read::{Aside, OnnxSource, ReadOptions, read_pending};
use super::sidecar::{Inline, Outside, Sidecar};
use super::splice::{Edit, append, field, rewrite, without};
use super::tensors_out::{float_tensor, rewrite_tensor, sparse_tensor, spelled_out, whole_tensor};
use crate::error::{Error, Result};
use crate::formats::atomic::PendingFile;
use crate::model::Model;
use crate::tensor::Tensor;
use prost::Message;
use prost::bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Protobuf messages end at two gigabytes.
const LARGEST_FILE: usize = i32::MAX as usize;

/// Writes the model to a temporary file, reads it back, hands what was read to `verify`, and only
/// then gives the file its name. External data go to a file of their own, whose name is that of the model and `.data`.
pub fn write(model: &Model, path: &Path, storage: Storage, verify: impl FnOnce(&Model) -> Result<()>) -> Result<()> {
    let outside = storage == Storage::External || float_bytes(model) > LARGEST_FILE - (1 << 20);
    if outside && storage == Storage::Sparse {
        return Err(Error::unsupported("sparse initializers above 2 GiB; an ONNX file ends there"));
    }
    let name = path.file_name().map(|name| format!("{}.data", name.to_string_lossy())).unwrap_or_default();
    let (encoded, data) = if outside {
        let mut sidecar = Sidecar::begin(&path.with_file_name(&name), &name)?;
        let encoded = encode_with(model, |_| DataLocation::Inside, &mut sidecar)?;
        (encoded, Some(sidecar.finish()?))
    } else {
        (pieces(model, storage)?, None)
    };
    let pending = PendingFile::write_with(path, |out| encoded.write_to(out))?;
    drop(encoded);
    let place = data.as_ref().map(|data| (name.as_str(), data.path()));
    let back = read_pending(pending.path(), place, Some(&model.params), ReadOptions::default())?;
    check_same(model, &back).map_err(|e| e.at(path.display()))?;
    verify(&back).map_err(|e| e.at(path.display()))?;
    data.map_or(Ok(()), PendingFile::commit)?;
    pending.commit()
}

/// Where [`write()`] puts external data of a file.
pub fn data_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(std::ffi::OsStr::to_os_string).unwrap_or_default();
    name.push(".data");
    path.with_file_name(name)
}

fn float_bytes(model: &Model) -> usize {
    4 * model.params.float_count()
}

/// How tensors are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Every element.
    Dense,
    /// As sparse initializers, where these are smaller: values and, as the standard demands, indices of 64 bits. Negative
    /// zeros lose their sign.
    Sparse,
    /// Every element, in a file of their own beside the graph: what networks above 2 GiB need.
    External,
}

/// The first version of the format that has sparse initializers.
const SPARSE_IR_VERSION: i64 = 5;
/// The first version in which an initializer need not be an input as well.
const FREE_IR_VERSION: i64 = 4;

/// The bytes of the model as an ONNX file, every tensor with all its elements.
pub fn encode(model: &Model) -> Result<Vec<u8>> {
    encode_as(model, Storage::Dense)
}

/// The bytes of the model as an ONNX file of its own.
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

/// The model without its tensors, and these.
pub(in crate::formats) fn encode_graph(model: &Model) -> Result<(Vec<u8>, StoredTensors<'_>)> {
    let apart = |tensor: &Tensor| !tensor.shape.is_empty();
    let source = source_of(model)?;
    let bytes =
        encode_with(model, |tensor| if apart(tensor) { DataLocation::Elsewhere } else { DataLocation::Inside }, &mut Inline)?;
    let mut tensors = Vec::new();
    for (name, param) in model.params.iter().filter(|(name, param)| !is_handed_on(model, source, name, param)) {
        if let Some(tensor) = param.f32().filter(|tensor| apart(tensor)) {
            tensors.push((name, stored(source, name, tensor)?.tensor));
        }
    }
    Ok((bytes.into_vec(), tensors))
}

/// A value and its index take three times the bytes of a value.
fn is_sparse(tensor: &Tensor) -> bool {
    !tensor.shape.is_empty() && 3 * tensor.data.iter().filter(|value| **value != 0.0).count() < tensor.len()
}

fn encode_with<'m>(
    model: &'m Model,
    location: impl Fn(&Tensor) -> DataLocation,
    outside: &mut dyn Outside,
) -> Result<Pieces<'m>> {
    let source = source_of(model)?;
    let changes = Changes::new(model, location)?;
    let mut bytes = rewrite(&source.bytes, |number, _, content| {
        if number == field::MODEL_GRAPH { rewrite_graph(content, &changes, source, outside).map(Some) } else { Ok(None) }
    })?;
    let needed = match (changes.sparse.is_empty(), changes.added.is_empty()) {
        (false, _) => SPARSE_IR_VERSION,
        (true, false) => FREE_IR_VERSION,
        (true, true) => 0,
    };
    if source.ir_version < needed {
        // Of a number that is there twice, the last one counts.
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
        let tensors = |other: &crate::model::Param| param.f32().zip(other.f32()).is_some_and(|(a, b)| a.same_numbers(b));
        if !back.params.get(name).is_some_and(|other| same(param, other) || tensors(other)) {
            return Err(Error::format(format!("parameter {name:?} was not read back as it was written")));
        }
    }
    Ok(())
}

fn rewrite_graph<'m>(
    graph: &Bytes,
    changes: &Changes<'m>,
    source: &'m OnnxSource,
    outside: &mut dyn Outside,
) -> Result<Pieces<'m>> {
    let stale = !changes.resized.is_empty() || !changes.outputs.is_empty();
    let graph = if stale { without(graph, field::GRAPH_VALUE_INFO)? } else { graph.clone() };
    let mut out = rewrite(&graph, |number, index, content| match number {
        // What was sparse is stored again below, sparse or not.
        field::GRAPH_SPARSE_INITIALIZER => Ok(Edit::Drop),
        field::GRAPH_INITIALIZER if changes.dropped.contains(&index) => Ok(Edit::Drop),
        field::GRAPH_NODE if changes.dropped_nodes.contains(&index) => Ok(Edit::Drop),
        field::GRAPH_INITIALIZER => initializer(index, content, changes, source, outside),
        // Old files name initializers among the inputs, with their shapes.
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
            Added::Whole(numbers) => {
                let mut tensor = whole_tensor(numbers);
                let bytes = std::mem::take(&mut tensor.raw_data);
                (tensor, Numbers::Bytes(bytes))
            }
        };
        let initializer = outside.place(TensorProto { name: name.to_string(), ..tensor }, numbers)?;
        out.field(field::GRAPH_INITIALIZER, initializer);
    }
    for (name, stored) in &changes.sparse {
        out.field(field::GRAPH_SPARSE_INITIALIZER, sparse_tensor(name, &stored.tensor).encode_to_vec());
    }
    Ok(out)
}

/// An initializer with its new numbers, where these belong.
fn initializer<'m>(
    index: usize,
    content: &Bytes,
    changes: &Changes<'m>,
    source: &'m OnnxSource,
    outside: &mut dyn Outside,
) -> Result<Edit<'m>> {
    let changed = changes.initializers.get(&index);
    let aside = source.aside.get(&index);
    let stays = !outside.takes_all() && aside.is_none_or(|aside| aside.inside.is_some());
    match (changed, aside) {
        (None, None) if stays => return Ok(Edit::Keep),
        (Some(stored), _) if stays => return rewrite_tensor(content, stored).map(Edit::Replace),
        (None, Some(Aside { inside: Some(at), bytes })) if stays => {
            let tensor = super::tensors_out::decode(content)?;
            let mut whole = Pieces::from(content[..*at].to_vec());
            whole.field_of_numbers(field::TENSOR_RAW_DATA, kept_numbers(source, &tensor.name, bytes.as_ref())?);
            whole.push(&content[*at..]);
            return Ok(Edit::Replace(whole));
        }
        _ => {}
    }
    let mut tensor = super::tensors_out::decode(content)?;
    let numbers = match (changed, aside) {
        (Some(stored), _) => {
            let (head, numbers) = float_tensor(stored);
            (tensor.dims, tensor.data_type, tensor.float_data) = (head.dims, head.data_type, Vec::new());
            numbers
        }
        (None, Some(aside)) => kept_numbers(source, &tensor.name, aside.bytes.as_ref())?,
        (None, None) => Numbers::Bytes(tensor.raw_data.clone()),
    };
    (tensor.raw_data, tensor.external_data, tensor.data_location) = (Bytes::new(), Vec::new(), 0);
    outside.place(tensor, numbers).map(Edit::Replace)
}

/// Numbers that have not changed: floats are in the parameter, the bytes of others were kept.
fn kept_numbers<'m>(source: &'m OnnxSource, name: &str, bytes: Option<&Bytes>) -> Result<Numbers<'m>> {
    if let Some(bytes) = bytes {
        return Ok(Numbers::Bytes(bytes.clone()));
    }
    let param = source.original.f32(name);
    let stored = param.map(|param| stored(source, name, param)).transpose()?;
    let stored = stored.ok_or_else(|| Error::format(format!("the data of {name:?} are not at hand")))?;
    Ok(stored.numbers().1)
}

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

/// The node with its new inputs, output and number of groups, if it is given any.
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
    for (place, name) in inputs.into_iter().flatten() {
        node = give_input(&node, *place, name)?.into();
    }
    Ok(Some(node.to_vec()))
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
    .map(Pieces::into_vec)
}

fn give_input(node: &Bytes, place: usize, name: &str) -> Result<Vec<u8>> {
    let mut inputs = 0;
    // An input that is there may be an empty name: an optional one left out.
    let mut out = rewrite(node, |number, index, _| {
        inputs += usize::from(number == field::NODE_INPUT);
        Ok((number == field::NODE_INPUT && index == place).then(|| name.as_bytes().to_vec()))
    })?
    .into_vec();
    for at in inputs..=place {
        append(&mut out, field::NODE_INPUT, if at == place { name.as_bytes() } else { b"" });
    }
    Ok(out)
}

fn rewrite_constant<'m>(node: &Bytes, tensor: &super::changes::Stored<'m>) -> Result<Pieces<'m>> {
    rewrite(node, |number, _, attribute| match number {
        field::NODE_ATTRIBUTE => rewrite(attribute, |number, _, content| match number {
            field::ATTRIBUTE_TENSOR => rewrite_tensor(content, tensor).map(Some),
            _ => Ok(None),
        })
        .map(Some),
        _ => Ok(None),
    })
}
