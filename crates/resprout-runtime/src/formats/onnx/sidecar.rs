//! Tensors that are written to a file beside the graph's.

use super::pieces::{Numbers, Pieces};
use super::proto::{StringEntry, TensorProto};
use super::tensors_out::with_numbers;
use crate::error::{Error, Result};
use crate::formats::atomic::PendingFile;
use prost::Message;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Decides where the numbers of an initializer go.
pub(super) trait Outside {
    /// Whether unchanged tensors are asked for as well.
    fn takes_all(&self) -> bool;
    /// The tensor as the graph's file is to hold it, from the tensor without its numbers and these.
    fn place<'m>(&mut self, tensor: TensorProto, numbers: Numbers<'m>) -> Result<Pieces<'m>>;
}

/// Everything stays in the graph's file.
pub(super) struct Inline;

impl Outside for Inline {
    fn takes_all(&self) -> bool {
        false
    }

    fn place<'m>(&mut self, tensor: TensorProto, numbers: Numbers<'m>) -> Result<Pieces<'m>> {
        Ok(with_numbers(&tensor, numbers))
    }
}

/// Smaller tensors stay in the graph's file: other readers look at shapes and axes there.
const LEAST: usize = 1024;

/// Tensors begin at multiples of this many bytes, so that other readers can map them.
const ALIGNMENT: u64 = 64;

/// A data file that is being written.
pub(super) struct Sidecar {
    target: PathBuf,
    location: String,
    out: BufWriter<PendingFile>,
    at: u64,
}

impl Sidecar {
    /// A file for `target`, which the graph will name `location`.
    pub fn begin(target: &Path, location: &str) -> Result<Sidecar> {
        let out = BufWriter::new(PendingFile::begin(target)?);
        Ok(Sidecar { target: target.to_path_buf(), location: location.to_string(), out, at: 0 })
    }

    /// The whole file, under a temporary name.
    pub fn finish(self) -> Result<PendingFile> {
        let Sidecar { target, out, .. } = self;
        let file = out.into_inner().map_err(|e| Error::io(&target, e.into_error()).at("cannot write"))?;
        file.synced()
    }
}

impl Outside for Sidecar {
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
