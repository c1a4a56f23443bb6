//! A file without the numbers of its large initializers. These are read one by one, so that the file and the network are
//! never both in memory.

use super::field;
use crate::error::{Error, Result};
use prost::encoding::{WireType, decode_key, decode_varint};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

/// A file without its large tensors, and where these lie.
pub(super) struct Skeleton {
    pub bytes: Vec<u8>,
    /// The raw data that were left out, by the index of the initializer.
    pub numbers: HashMap<usize, Stretch>,
}

/// The raw data of an initializer that were left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// Where they lie in the file.
    pub offset: u64,
    pub length: u64,
    /// Where their field was in the rest of the initializer.
    pub at: usize,
}

/// Smaller data stay in the skeleton.
const LEAST: u64 = 4096;

/// The skeleton of a file. An invalid file is returned whole, so that the parser can say what is wrong.
pub(super) fn read(path: &Path) -> Result<Skeleton> {
    let failed = |e| Error::io(path, e);
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if meta.is_file() {
        let mut walk = Walk { file: BufReader::new(file), at: 0, numbers: HashMap::new() };
        match walk.model(meta.len()) {
            Ok(Some(bytes)) => return Ok(Skeleton { bytes, numbers: walk.numbers }),
            Ok(None) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(Skeleton { bytes: std::fs::read(path).map_err(failed)?, numbers: HashMap::new() })
}

/// Reads a file field by field.
struct Walk {
    file: BufReader<File>,
    /// The offset of the next byte.
    at: u64,
    numbers: HashMap<usize, Stretch>,
}

/// A field up to its content.
struct Head {
    number: u32,
    bytes: Vec<u8>,
    length: u64,
    /// Whether the content is bytes or a message.
    delimited: bool,
}

/// The skeleton of a message; `None` if its structure is invalid.
type Walked<T> = std::io::Result<Option<T>>;

impl Walk {
    fn model(&mut self, end: u64) -> Walked<Vec<u8>> {
        let (mut out, mut graphs) = (Vec::new(), 0);
        while self.at < end {
            let Some(head) = self.head(end)? else { return Ok(None) };
            if head.number == field::MODEL_GRAPH && head.delimited {
                let Some(graph) = self.graph(self.at + head.length)? else { return Ok(None) };
                field::append(&mut out, head.number, &graph);
                graphs += 1;
            } else {
                self.copy(&head, &mut out)?;
            }
        }
        // A reader would merge several graphs into one.
        Ok((graphs < 2).then_some(out))
    }

    fn graph(&mut self, end: u64) -> Walked<Vec<u8>> {
        let (mut out, mut index) = (Vec::new(), 0);
        while self.at < end {
            let Some(head) = self.head(end)? else { return Ok(None) };
            if head.number == field::GRAPH_INITIALIZER && head.delimited && head.length >= LEAST {
                let Some(tensor) = self.tensor(index, self.at + head.length)? else { return Ok(None) };
                field::append(&mut out, head.number, &tensor);
            } else {
                self.copy(&head, &mut out)?;
            }
            index += usize::from(head.number == field::GRAPH_INITIALIZER);
        }
        Ok(Some(out))
    }

    fn tensor(&mut self, index: usize, end: u64) -> Walked<Vec<u8>> {
        let mut out = Vec::new();
        while self.at < end {
            let Some(head) = self.head(end)? else { return Ok(None) };
            if head.number != field::TENSOR_RAW_DATA || !head.delimited || head.length < LEAST {
                self.copy(&head, &mut out)?;
                continue;
            }
            let stretch = Stretch { offset: self.at, length: head.length, at: out.len() };
            if self.numbers.insert(index, stretch).is_some() {
                return Ok(None);
            }
            let Ok(skipped) = i64::try_from(head.length) else { return Ok(None) };
            self.file.seek_relative(skipped)?;
            self.at += head.length;
        }
        Ok(Some(out))
    }

    /// The next field's head; its content ends before `end`.
    fn head(&mut self, end: u64) -> Walked<Head> {
        let mut bytes = Vec::new();
        self.varint(&mut bytes)?;
        let Ok((number, wire)) = decode_key(&mut &bytes[..]) else { return Ok(None) };
        let key = bytes.len();
        let length = match wire {
            WireType::Varint => {
                self.varint(&mut bytes)?;
                0
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => {
                self.varint(&mut bytes)?;
                let Ok(length) = decode_varint(&mut &bytes[key..]) else { return Ok(None) };
                length
            }
            WireType::StartGroup | WireType::EndGroup => return Ok(None),
        };
        let fits = self.at.checked_add(length).is_some_and(|stop| stop <= end);
        Ok(fits.then_some(Head { number, bytes, length, delimited: wire == WireType::LengthDelimited }))
    }

    fn varint(&mut self, out: &mut Vec<u8>) -> std::io::Result<()> {
        let mut byte = [0x80];
        // A varint has at most ten bytes.
        for _ in 0..10 {
            self.file.read_exact(&mut byte)?;
            self.at += 1;
            out.push(byte[0]);
            if byte[0] < 0x80 {
                break;
            }
        }
        Ok(())
    }

    fn copy(&mut self, head: &Head, out: &mut Vec<u8>) -> std::io::Result<()> {
        out.extend_from_slice(&head.bytes);
        let copied = (&mut self.file).take(head.length).read_to_end(out)? as u64;
        self.at += copied;
        if copied < head.length { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}
