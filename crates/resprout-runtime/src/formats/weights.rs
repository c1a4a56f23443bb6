//! Weights without a graph: safetensors files and PyTorch checkpoints.
//!
//! Prefixes of names are taken off, weights in parts are computed, and all of them must fit the model. Notes tell what was
//! left out or changed.

use super::state_dict::place;
use super::{pth, safetensors, sparse};
use crate::error::{Error, Result};
use crate::model::Model;
use std::io::Read;
use std::path::Path;

/// Kinds of files that hold weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
#[non_exhaustive]
pub enum Kind {
    /// safetensors, also the sparse ones that hold a graph too.
    Safetensors,
    /// Files of `torch.save`.
    Torch,
}

/// Extensions of PyTorch's checkpoints.
const TORCH_EXTENSIONS: [&str; 5] = ["pth", "pt", "th", "ckpt", "bin"];

/// The bytes that identify a file: the magic number of a tar archive lies behind its first name.
const HEAD: u64 = 262;

/// Unsupported kinds of files: offset and bytes of the magic number, and a description.
const FOREIGN: [(usize, &[u8], &str); 4] = [
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes them"),
    (0, b"GGUF", "a GGUF file"),
    (4, b"TFL3", "a TensorFlow Lite file"),
    (257, b"ustar", "a tar archive, as PyTorch wrote them until version 0.1.11"),
];

/// The kind of a file of weights, by its first bytes or else by its extension. `None` for any other file, such as an ONNX
/// model.
///
/// # Errors
/// Of kind `Io`, and `Unsupported` for files of other programs that are recognised, such as HDF5 and GGUF.
#[doc(hidden)]
pub fn kind(path: &Path) -> Result<Option<Kind>> {
    let mut head = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    file.take(HEAD).read_to_end(&mut head).map_err(|e| Error::io(path, e))?;
    if let Some((.., what)) = FOREIGN.iter().find(|(at, magic, _)| head.get(*at..*at + magic.len()) == Some(*magic)) {
        let message = format!("{}: is {what}; ONNX models, safetensors and PyTorch's checkpoints are read", path.display());
        return Err(Error::unsupported(message));
    }
    let named = |names: &[&str]| path.extension().is_some_and(|extension| names.iter().any(|name| extension == *name));
    Ok(match () {
        () if pth::is_checkpoint(&head) => Some(Kind::Torch),
        () if head.get(4..9) == Some(b"\0\0\0\0{") => Some(Kind::Safetensors),
        () if named(&["safetensors"]) => Some(Kind::Safetensors),
        () if named(&TORCH_EXTENSIONS) => Some(Kind::Torch),
        () => None,
    })
}

/// Replaces the weights, biases and statistics of `model` by those of the file, and takes over its masks.
///
/// The file must hold all of them and nothing that the model does not have. Nothing is changed unless all of it fits.
/// Returns notes about what was left out or changed.
///
/// # Errors
/// Of kind `Io`, `Format` or `Unsupported` for the file, and `Data` for weights that do not fit the model.
pub fn read_into(model: &mut Model, path: &Path) -> Result<Vec<String>> {
    let kind = kind(path)?;
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let read = match kind {
        Some(kind) => decode_into(model, &bytes, kind),
        None => Err(Error::format("is no file of weights: neither safetensors nor a checkpoint of PyTorch")),
    };
    let notes = read.map_err(|e| e.at(path.display()))?;
    Ok(notes.into_iter().map(|note| format!("{}: {note}", path.display())).collect())
}

/// As [`read_into`], from memory.
#[doc(hidden)]
pub fn decode_into(model: &mut Model, bytes: &[u8], kind: Kind) -> Result<Vec<String>> {
    match kind {
        Kind::Torch => pth::with_tensors(bytes, |names| place(model, names)),
        Kind::Safetensors if sparse::contents(bytes)?.is_some() => safetensors::decode_into(model, bytes).map(|()| Vec::new()),
        Kind::Safetensors => place(model, safetensors::names(bytes)?),
    }
}
