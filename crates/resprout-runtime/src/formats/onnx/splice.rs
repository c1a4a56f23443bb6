//! Messages of a file, copied byte for byte but for the fields that change.

use super::pieces::Pieces;
use crate::error::{Error, Result};
use prost::bytes::{Buf, Bytes};
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use std::collections::HashMap;

/// Field numbers that are rewritten; see `onnx.proto`.
pub(super) mod field {
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
    pub const TENSOR_DATA_TYPE: u32 = 2;
    pub const TENSOR_FLOAT_DATA: u32 = 4;
    pub const TENSOR_INT32_DATA: u32 = 5;
    pub const TENSOR_RAW_DATA: u32 = 9;
    pub const TENSOR_DOUBLE_DATA: u32 = 10;
    pub const TENSOR_EXTERNAL_DATA: u32 = 13;
    pub const TENSOR_DATA_LOCATION: u32 = 14;
}

/// The message without the fields of a number.
pub(super) fn without(message: &Bytes, field: u32) -> Result<Bytes> {
    let mut out = Vec::with_capacity(message.len());
    each_field(message, |number, _, whole, _| {
        if number != field {
            out.extend_from_slice(whole);
        }
        Ok(())
    })?;
    Ok(out.into())
}

pub(super) fn append(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    head(out, number, content.len());
    out.extend_from_slice(content);
}

/// What stands in front of a field's content: its number and how long it is.
pub(super) fn head(out: &mut Vec<u8>, number: u32, len: usize) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

/// What becomes of a field.
pub(super) enum Edit<'m> {
    Keep,
    Replace(Pieces<'m>),
    /// Several fields of the same number in its place.
    Several(Vec<Vec<u8>>),
    Drop,
}

impl<'m, P: Into<Pieces<'m>>> From<Option<P>> for Edit<'m> {
    fn from(new: Option<P>) -> Edit<'m> {
        new.map_or(Edit::Keep, |new| Edit::Replace(new.into()))
    }
}

/// Copies a message with its length-delimited fields as `change(number, index among fields of that
/// number, content)` says.
pub(super) fn rewrite<'m, E: Into<Edit<'m>>>(
    message: &Bytes,
    mut change: impl FnMut(u32, usize, &Bytes) -> Result<E>,
) -> Result<Pieces<'m>> {
    let mut out = Pieces::default();
    each_field(message, |number, index, whole, content| {
        match content.map(|content| change(number, index, content)).transpose()?.map_or(Edit::Keep, E::into) {
            Edit::Replace(new) => out.field(number, new),
            Edit::Several(all) => all.into_iter().for_each(|new| out.field(number, new)),
            Edit::Keep => out.share(message.slice_ref(whole)),
            Edit::Drop => {}
        }
        Ok(())
    })?;
    Ok(out)
}

/// Calls `visit(number, index among fields of that number, whole field, content if length-delimited)`.
pub(super) fn each_field(message: &Bytes, mut visit: impl FnMut(u32, usize, &[u8], Option<&Bytes>) -> Result<()>) -> Result<()> {
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
