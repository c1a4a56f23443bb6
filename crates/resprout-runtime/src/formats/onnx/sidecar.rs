//! Writes the numbers of tensors to the graph's file, or to a file beside it.

use super::pieces::{Numbers, Pieces};
use super::proto::{StringEntry, TensorProto};
use super::tensors_out::with_numbers;
use crate::error::{Error, Result};
use crate::formats::atomic::PendingFile;
use prost::Message;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Where the numbers of initializers are written.
pub(super) trait DataSink {
    /// Whether it takes unchanged tensors too.
    fn takes_all(&self) -> bool;
    /// Places the numbers of a tensor. Returns the tensor for the graph's file.
    fn place<'m>(&mut self, tensor: TensorProto, numbers: Numbers<'m>) -> Result<Pieces<'m>>;
}

/// Numbers in the graph's file.
pub(super) struct Inline;

impl DataSink for Inline {
    fn takes_all(&self) -> bool {
        false
    }

    fn place<'m>(&mut self, tensor: TensorProto, numbers: Numbers<'m>) -> Result<Pieces<'m>> {
        Ok(with_numbers(&tensor, numbers))
    }
}

/// Smaller tensors stay in the graph's file, where other readers expect shapes and axes.
const LEAST: usize = 1024;

/// The alignment of tensors in bytes, so that other readers can map them.
const ALIGNMENT: u64 = 64;

/// Numbers in a data file beside the graph.
pub(super) struct Sidecar {
    target: PathBuf,
    location: String,
    out: BufWriter<PendingFile>,
    at: u64,
}

impl Sidecar {
    /// Begins a file for `target`, which the graph calls `location`.
    pub fn begin(target: &Path, location: &str) -> Result<Sidecar> {
        let out = BufWriter::new(PendingFile::begin(target)?);
        Ok(Sidecar { target: target.to_path_buf(), location: location.to_string(), out, at: 0 })
    }

    /// The complete file, under a temporary name.
    pub fn finish(self) -> Result<PendingFile> {
        let Sidecar { target, out, .. } = self;
        let file = out.into_inner().map_err(|e| Error::io(&target, e.into_error()).at("cannot write"))?;
        file.synced()
    }
}

impl DataSink for Sidecar {
    fn takes_all(&self) -> bool {
        true
    }

    fn place<'m>(&mut self, mut tensor: TensorProto, numbers: Numbers<'m>) -> Result<Pieces<'m>> {
        if numbers.len() < LEAST {
            return Ok(with_numbers(&tensor, numbers));
        }
        let gap = self.at.next_multiple_of(ALIGNMENT) - self.at;
        let written = self.out.write_all(&[0; ALIGNMENT as usize][..gap as usize]).and_then(|()| numbers.write_to(&mut self.out));
        written.map_err(|e| Error::io(&self.target, e).at("cannot write"))?;
        let (offset, length) = (self.at + gap, numbers.len() as u64);
        self.at = offset + length;
        let entry = |key: &str, value: String| StringEntry { key: key.into(), value };
        tensor.external_data = vec![
            entry("location", self.location.clone()),
            entry("offset", offset.to_string()),
            entry("length", length.to_string()),
        ];
        tensor.data_location = 1;
        Ok(tensor.encode_to_vec().into())
    }
}
