//! Sparse safetensors: a whole network in one file, with a bitmask and the nonzero values of each pruned tensor.
//!
//! The container is safetensors, so that any reader can list the tensors. Its metadata have the key
//! `resprout` with the JSON object `{"version": 1, "shapes": {NAME: [DIM, ..]}, "masks": [NAME, ..]}`.
//!
//! * A parameter `NAME` of `n` elements that is listed in `shapes` is two tensors. `NAME.bitmask`, bytes
//!   `[ceil(n / 8)]`: element `i` is stored if bit `i % 8` (the lowest is bit 0) of byte `i / 8` is set; bits beyond
//!   `n` are 0. `NAME.values`, 32-bit floats `[number of bits set]`: the stored elements in order. All others are 0;
//!   a negative zero becomes a positive one.
//! * Any other parameter is the tensor `NAME`.
//! * If `NAME` is listed in `masks`, its bits are its mask too: an element that is not stored is pruned.
//! * `resprout.graph`, bytes: an ONNX file of the network without these tensors.

use super::onnx::{encode_graph, parse_with};
use super::packed::{Packed, floats, pack, packed_len};
use super::{ElementBudget, atomic};
use crate::error::{Error, Result};
use crate::model::{Mask, Model, Param};
use crate::tensor::{Tensor, element_count};
use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

const KEY: &str = "resprout";
const VERSION: u32 = 1;
const GRAPH: &str = "resprout.graph";
const BITS: &str = ".bitmask";
const VALUES: &str = ".values";

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    shapes: BTreeMap<String, Vec<usize>>,
    masks: Vec<String>,
}

/// The contents of a file.
pub(super) struct Contents {
    graph: Option<Vec<u8>>,
    pub(super) tensors: Vec<(String, Tensor)>,
    pub(super) masks: Vec<(String, Mask)>,
}

/// Writes the network, with its masks. Reads it back before the file gets its name.
///
/// # Errors
/// Of kind `Io` or `Format`, with the file's name.
pub fn write(model: &Model, path: &Path) -> Result<()> {
    let bytes = encode(model).map_err(|e| e.at(path.display()))?;
    let back = decode(&bytes).map_err(|e| e.at(path.display()))?;
    let same = |(name, param): (&str, &Param), back: &Model| match (param.f32(), back.params.f32(name)) {
        (Some(a), Some(b)) => a.same_numbers(b),
        (a, b) => a.is_none() && b.is_none(),
    };
    if !back.is_some_and(|back| model.params.iter().all(|param| same(param, &back)) && back.masks == model.masks) {
        return Err(Error::format("was not read back as it was written").at(path.display()));
    }
    atomic::write(path, &bytes)
}

/// The bytes of the file that [`write()`] writes.
pub fn encode(model: &Model) -> Result<Vec<u8>> {
    let (tensors, metadata) = packed(model)?;
    pack(&tensors, Some(metadata))
}

/// The length of that file in bytes, without building it.
#[doc(hidden)]
pub fn encoded_len(model: &Model) -> Result<u64> {
    let (tensors, metadata) = packed(model)?;
    packed_len(&tensors, Some(metadata))
}

/// The tensors and the metadata of the file.
fn packed(model: &Model) -> Result<(Vec<Packed<'_>>, HashMap<String, String>)> {
    let (graph, stored) = encode_graph(model)?;
    let mut header = Header { version: VERSION, shapes: BTreeMap::new(), masks: Vec::new() };
    let byte_tensor = |name: String, bytes: Vec<u8>| {
        let shape = vec![bytes.len()];
        Packed { name, dtype: Dtype::U8, shape, bytes: Box::new(move || bytes.clone()) }
    };
    let mut tensors: Vec<Packed> = vec![byte_tensor(GRAPH.into(), graph)];
    for (name, tensor) in stored {
        let mask = model.stored_mask(name)?;
        let count = mask.as_ref().map_or_else(|| tensor.data.iter().filter(|value| **value != 0.0).count(), Mask::kept);
        let mut bits = vec![0u8; tensor.len().div_ceil(8)];
        if mask.is_none() && bits.len() + 4 * count >= 4 * tensor.len() {
            tensors.push(Packed::floats(name, tensor));
            continue;
        }
        let stored = |at: usize| mask.as_ref().map_or_else(|| tensor.data[at] != 0.0, |mask| mask.0[at]);
        (0..tensor.len()).filter(|&at| stored(at)).for_each(|at| bits[at / 8] |= 1 << (at % 8));
        header.shapes.insert(name.into(), tensor.shape.clone());
        header.masks.extend(mask.map(|_| name.to_string()));
        let kept = bits.clone();
        let values = move || {
            let indices = (0..tensor.len()).filter(|at| kept[at / 8] >> (at % 8) & 1 == 1);
            indices.flat_map(|at| tensor.data[at].to_le_bytes()).collect()
        };
        tensors.push(byte_tensor(format!("{name}{BITS}"), bits));
        let name = format!("{name}{VALUES}");
        tensors.push(Packed { name, dtype: Dtype::F32, shape: vec![count], bytes: Box::new(values) });
    }
    let header = serde_json::to_string(&header).map_err(|e| Error::format(e.to_string()))?;
    Ok((tensors, HashMap::from([(KEY.to_string(), header)])))
}

/// Reads a file of [`write()`]. `None` for any other safetensors file, which holds weights only.
///
/// # Errors
/// Of kind `Io` or `Format` with the file's name; of kind `Unsupported` for another version of the format.
pub fn read(path: &Path) -> Result<Option<Model>> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    decode(&bytes).map_err(|e| e.at(path.display()))
}

/// As [`read`], from memory.
pub fn decode(bytes: &[u8]) -> Result<Option<Model>> {
    let Some(contents) = contents(bytes)? else { return Ok(None) };
    let graph = contents.graph.ok_or_else(|| Error::format(format!("there is no {GRAPH:?} in it")))?;
    let mut model = parse_with(graph, contents.tensors).map_err(|e| e.at(GRAPH))?;
    for (name, mask) in contents.masks {
        let mask = model.seen_mask(&name, mask)?;
        model.masks.insert(name, mask);
    }
    Ok(Some(model))
}

/// Reads the contents. `None` for a safetensors file of another kind.
pub(super) fn contents(bytes: &[u8]) -> Result<Option<Contents>> {
    let wrong = |e: &dyn std::fmt::Display| Error::format(format!("not a safetensors file: {e}"));
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| wrong(&e))?;
    let Some(header) = metadata.metadata().as_ref().and_then(|metadata| metadata.get(KEY)) else { return Ok(None) };
    let header: Header = serde_json::from_str(header).map_err(|e| Error::format(format!("metadata {KEY:?}: {e}")))?;
    if header.version != VERSION {
        return Err(Error::unsupported(format!("version {} of the sparse format; {VERSION} is known", header.version)));
    }
    let file = SafeTensors::deserialize(bytes).map_err(|e| wrong(&e))?;
    let masked: HashSet<&str> = header.masks.iter().map(String::as_str).collect();
    if let Some(name) = masked.iter().find(|name| !header.shapes.contains_key(**name)) {
        return Err(Error::format(format!("{name:?} is said to be masked, and has no bitmask")));
    }
    let (mut tensors, mut masks, mut parts) = (Vec::new(), Vec::new(), HashSet::from([GRAPH.to_string()]));
    let mut budget = ElementBudget::default();
    for (name, shape) in header.shapes {
        let (bits, values) = (format!("{name}{BITS}"), format!("{name}{VALUES}"));
        let (kept, tensor) = expand(&file, &bits, &values, shape, &mut budget).map_err(|e| e.at(format!("tensor {name:?}")))?;
        if masked.contains(name.as_str()) {
            masks.push((name.clone(), Mask(kept)));
        }
        tensors.push((name, tensor));
        parts.extend([bits, values]);
    }
    for (name, view) in file.iter().filter(|(name, _)| !parts.contains(*name)) {
        let data = floats(&view).map_err(|e| e.at(format!("tensor {name:?}")))?;
        tensors.push((name.to_string(), Tensor::new(view.shape().to_vec(), data)));
    }
    let graph = file.tensor(GRAPH).ok().map(|view| view.data().to_vec());
    Ok(Some(Contents { graph, tensors, masks }))
}

/// Expands a tensor. Also returns which elements are stored.
fn expand(
    file: &SafeTensors,
    bits: &str,
    values: &str,
    shape: Vec<usize>,
    budget: &mut ElementBudget,
) -> Result<(Vec<bool>, Tensor)> {
    let part = |name: &str| file.tensor(name).map_err(|_| Error::format(format!("there is no {name:?}")));
    let (bits, values) = (part(bits)?, part(values)?);
    let count = element_count(&shape)?;
    budget.take(count)?;
    if bits.dtype() != Dtype::U8 || bits.data().len() != count.div_ceil(8) {
        return Err(Error::format(format!("{} bytes of bitmask for {count} elements of shape {shape:?}", bits.data().len())));
    }
    let set: usize = bits.data().iter().map(|byte| byte.count_ones() as usize).sum();
    let beyond = count % 8 != 0 && bits.data().last().is_some_and(|last| last >> (count % 8) != 0);
    let values = floats(&values)?;
    if set != values.len() || beyond {
        return Err(Error::format(format!(
            "bitmask and values disagree: {set} bits set, {} values, {count} elements",
            values.len()
        )));
    }
    let (mut kept, mut data) = (vec![false; count], vec![0.0; count]);
    let mut values = values.into_iter();
    for (byte, (kept, data)) in bits.data().iter().zip(kept.chunks_mut(8).zip(data.chunks_mut(8))) {
        let mut left = *byte;
        while left != 0 {
            let at = left.trailing_zeros() as usize;
            kept[at] = true;
            data[at] = values.next().unwrap_or_default();
            left &= left - 1;
        }
    }
    Ok((kept, Tensor::new(shape, data)))
}
