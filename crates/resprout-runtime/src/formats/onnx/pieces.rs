//! A message that is written piece by piece. Tensors become bytes only then, one after another.

use super::field;
use crate::tensor::Tensor;
use prost::bytes::Bytes;
use std::io::Write;

/// The bytes of a message, in order.
#[derive(Default)]
pub(super) struct Pieces<'m> {
    pieces: Vec<Piece<'m>>,
    len: usize,
}

enum Piece<'m> {
    Copied(Vec<u8>),
    Shared(Numbers<'m>),
}

/// The numbers of a tensor: bytes that are not copied, or floats that become bytes when they are written.
pub(super) enum Numbers<'m> {
    Bytes(Bytes),
    Floats(&'m Tensor),
}

/// Shorter bytes are copied: a piece of their own would take more memory.
const SHORT: usize = 4096;

/// Numbers that become bytes at a time.
const CHUNK: usize = 4096;

impl Numbers<'_> {
    /// Their length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Numbers::Bytes(bytes) => bytes.len(),
            Numbers::Floats(tensor) => 4 * tensor.len(),
        }
    }

    pub fn write_to(&self, out: &mut dyn Write) -> std::io::Result<()> {
        match self {
            Numbers::Bytes(bytes) => out.write_all(bytes),
            Numbers::Floats(tensor) => {
                let mut bytes = Vec::with_capacity(4 * CHUNK);
                tensor.data.chunks(CHUNK).try_for_each(|chunk| {
                    bytes.clear();
                    chunk.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
                    out.write_all(&bytes)
                })
            }
        }
    }
}

impl<'m> Pieces<'m> {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        match self.pieces.last_mut() {
            Some(Piece::Copied(last)) => last.extend_from_slice(bytes),
            _ => self.pieces.push(Piece::Copied(bytes.to_vec())),
        }
    }

    /// Appends bytes without copying long ones.
    pub fn share(&mut self, bytes: Bytes) {
        self.numbers(Numbers::Bytes(bytes));
    }

    fn numbers(&mut self, numbers: Numbers<'m>) {
        match numbers {
            Numbers::Bytes(bytes) if bytes.len() < SHORT => self.push(&bytes),
            numbers => {
                self.len += numbers.len();
                self.pieces.push(Piece::Shared(numbers));
            }
        }
    }

    /// Appends a field with a message or bytes.
    pub fn field(&mut self, number: u32, content: impl Into<Pieces<'m>>) {
        let content = content.into();
        self.head(number, content.len);
        for piece in content.pieces {
            match piece {
                Piece::Copied(bytes) => self.push(&bytes),
                Piece::Shared(numbers) => self.numbers(numbers),
            }
        }
    }

    /// Appends a field with numbers.
    pub fn field_of_numbers(&mut self, number: u32, numbers: Numbers<'m>) {
        self.head(number, numbers.len());
        self.numbers(numbers);
    }

    fn head(&mut self, number: u32, len: usize) {
        let mut bytes = Vec::new();
        field::head(&mut bytes, number, len);
        self.push(&bytes);
    }

    pub fn write_to(&self, out: &mut dyn Write) -> std::io::Result<()> {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Copied(bytes) => out.write_all(bytes),
            Piece::Shared(numbers) => numbers.write_to(out),
        })
    }

    pub fn into_vec(mut self) -> Vec<u8> {
        if let [Piece::Copied(bytes)] = &mut self.pieces[..] {
            return std::mem::take(bytes);
        }
        let mut out = Vec::with_capacity(self.len);
        self.write_to(&mut out).expect("memory takes all that is written");
        out
    }
}

impl From<Vec<u8>> for Pieces<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Pieces { len: bytes.len(), pieces: vec![Piece::Copied(bytes)] }
    }
}
