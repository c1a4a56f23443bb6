//! A message that is written piece by piece: tensors become bytes only then, one after the other.

use crate::tensor::Tensor;
use prost::bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint};
use std::io::Write;

/// The bytes of a message, in order.
#[derive(Default)]
pub(super) struct Pieces<'m> {
    pieces: Vec<Piece<'m>>,
    len: usize,
}

enum Piece<'m> {
    Own(Vec<u8>),
    Shared(Bytes),
    Floats(&'m Tensor),
}

/// The numbers of a tensor as bytes, or to become bytes.
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
            Numbers::Floats(tensor) => write_floats(tensor, out),
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
        if bytes.len() < SHORT {
            return self.push(&bytes);
        }
        self.len += bytes.len();
        self.pieces.push(Piece::Shared(bytes));
    }

    fn numbers(&mut self, numbers: Numbers<'m>) {
        match numbers {
            Numbers::Bytes(bytes) => self.share(bytes),
            Numbers::Floats(tensor) => {
                self.len += 4 * tensor.len();
                self.pieces.push(Piece::Floats(tensor));
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
                Piece::Shared(bytes) => self.share(bytes),
                Piece::Floats(tensor) => self.numbers(Numbers::Floats(tensor)),
            }
        }
    }

    /// A field with numbers in it.
    pub fn field_of_numbers(&mut self, number: u32, numbers: Numbers<'m>) {
        self.head(number, numbers.len());
        self.numbers(numbers);
    }

    fn head(&mut self, number: u32, len: usize) {
        let mut head = Vec::new();
        encode_key(number, WireType::LengthDelimited, &mut head);
        encode_varint(len as u64, &mut head);
        self.push(&head);
    }

    pub fn write_to(&self, out: &mut dyn Write) -> std::io::Result<()> {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Own(bytes) => out.write_all(bytes),
            Piece::Shared(bytes) => out.write_all(bytes),
            Piece::Floats(tensor) => write_floats(tensor, out),
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

fn write_floats(tensor: &Tensor, out: &mut dyn Write) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(4 * CHUNK);
    tensor.data.chunks(CHUNK).try_for_each(|chunk| {
        bytes.clear();
        chunk.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
        out.write_all(&bytes)
    })
}
