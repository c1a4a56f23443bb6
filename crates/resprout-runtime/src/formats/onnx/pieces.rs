//! A message that is written piece by piece: tensors become bytes only then, one after the other.

use super::splice::head;
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
    Own(Vec<u8>),
    Apart(Numbers<'m>),
}

/// Bytes that are not copied, or the numbers of a tensor that are still to become bytes.
pub(super) enum Numbers<'m> {
    Bytes(Bytes),
    Floats(&'m Tensor),
}

/// Shorter stretches of a file are copied: a piece of their own would take more.
const SHORT: usize = 4096;

/// So many numbers at a time become bytes.
const CHUNK: usize = 4096;

impl Numbers<'_> {
    /// How many bytes they are.
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

    pub fn push(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        match self.pieces.last_mut() {
            Some(Piece::Own(last)) => last.extend_from_slice(bytes),
            _ => self.pieces.push(Piece::Own(bytes.to_vec())),
        }
    }

    /// Bytes that need not be copied.
    pub fn share(&mut self, bytes: Bytes) {
        self.numbers(Numbers::Bytes(bytes));
    }

    fn numbers(&mut self, numbers: Numbers<'m>) {
        match numbers {
            Numbers::Bytes(bytes) if bytes.len() < SHORT => self.push(&bytes),
            numbers => {
                self.len += numbers.len();
                self.pieces.push(Piece::Apart(numbers));
            }
        }
    }

    /// A field with a message or bytes in it.
    pub fn field(&mut self, number: u32, content: impl Into<Pieces<'m>>) {
        let content = content.into();
        self.head(number, content.len);
        for piece in content.pieces {
            match piece {
                Piece::Own(bytes) => self.push(&bytes),
                Piece::Apart(numbers) => self.numbers(numbers),
            }
        }
    }

    /// A field with numbers in it.
    pub fn field_of_numbers(&mut self, number: u32, numbers: Numbers<'m>) {
        self.head(number, numbers.len());
        self.numbers(numbers);
    }

    fn head(&mut self, number: u32, len: usize) {
        let mut bytes = Vec::new();
        head(&mut bytes, number, len);
        self.push(&bytes);
    }

    pub fn write_to(&self, out: &mut dyn Write) -> std::io::Result<()> {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Own(bytes) => out.write_all(bytes),
            Piece::Apart(numbers) => numbers.write_to(out),
        })
    }

    pub fn into_vec(mut self) -> Vec<u8> {
        if let [Piece::Own(bytes)] = &mut self.pieces[..] {
            return std::mem::take(bytes);
        }
        let mut out = Vec::with_capacity(self.len);
        self.write_to(&mut out).expect("memory takes all that is written");
        out
    }
}

impl From<Vec<u8>> for Pieces<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Pieces { len: bytes.len(), pieces: vec![Piece::Own(bytes)] }
    }
}
