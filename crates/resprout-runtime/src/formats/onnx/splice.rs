//! Copies the messages of a file byte for byte, except for fields that change.

use super::pieces::Pieces;
use crate::error::{Error, Result};
use prost::bytes::{Buf, Bytes};
use prost::encoding::{WireType, decode_key, decode_varint};
use std::collections::HashMap;

/// The message without its fields of this number.
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

/// The edit of a field.
pub(super) enum Edit<'m> {
    Keep,
    Replace(Pieces<'m>),
    /// Replaces the field by several ones of the same number.
    Several(Vec<Vec<u8>>),
    Drop,
}

impl<'m, P: Into<Pieces<'m>>> From<Option<P>> for Edit<'m> {
    fn from(new: Option<P>) -> Edit<'m> {
        new.map_or(Edit::Keep, |new| Edit::Replace(new.into()))
    }
}

/// Copies a message. `change(number, index among fields of that number, content)` edits its length-delimited fields.
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
