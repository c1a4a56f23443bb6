//! One file per command, and what they share.

pub mod demo;
pub mod eval;
pub mod images;
pub mod inspect;
pub mod list;
pub mod prune;
pub mod train;

use resprout::model::Model;
use resprout::report::FileInfo;
use resprout::{Error, ErrorKind, Result};
use serde::Serialize;
use std::path::Path;

/// Reads a model and, if given, the weights that replace its own.
fn read_model(path: &Path, weights: Option<&Path>) -> Result<Model> {
    let mut model = resprout::formats::onnx::read(path)?;
    if let Some(weights) = weights {
        read_weights(&mut model, weights)?;
    }
    Ok(model)
}

/// Replaces a model's weights by those of a file.
fn read_weights(model: &mut Model, path: &Path) -> Result<()> {
    resprout::formats::safetensors::read_into(model, path)
}

/// Fails early where a result could not be written in the end.
fn check_writable(path: &Path, option: &str) -> Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match folder {
        _ if path.is_dir() => {
            Err(Error::new(ErrorKind::Option, format!("{option} {}: is a folder, a file name is needed", path.display())))
        }
        Some(folder) if !folder.is_dir() => Err(Error::new(
            ErrorKind::Option,
            format!("{option} {}: the folder {} does not exist", path.display(), folder.display()),
        )),
        _ => Ok(()),
    }
}

/// Prints JSON for `-`, writes it for a file name, and says whether the tables are still wanted.
fn write_json<T: Serialize>(value: &T, target: Option<&Path>) -> anyhow::Result<bool> {
    let Some(path) = target else { return Ok(true) };
    let text = serde_json::to_string_pretty(value)?;
    if path == Path::new("-") {
        outln!("{text}");
        return Ok(false);
    }
    resprout::formats::atomic::write(path, format!("{text}\n").as_bytes())?;
    Ok(true)
}

fn check_json_target(target: Option<&Path>) -> Result<()> {
    target.filter(|path| *path != Path::new("-")).map_or(Ok(()), |path| check_writable(path, "--json"))
}

/// A file's name, hash and contents.
fn file_info(path: &Path) -> Result<(FileInfo, Vec<u8>)> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let info = FileInfo { path: path.display().to_string(), sha256: resprout::eval::sha256(&bytes), bytes: bytes.len() as u64 };
    Ok((info, bytes))
}
