//! One file per command, and what they share.

pub mod bench;
pub mod compare;
pub mod compress;
pub mod convert;
pub mod data;
pub mod demo;
pub mod eval;
pub mod images;
pub mod inspect;
pub mod list;
pub mod prune;
pub mod run;
pub mod score;
mod session;
pub mod shell;
pub mod sweep;
pub mod train;
mod train_bench;

use crate::args::{Format, NetworkArgs, SourceArgs, WriteArgs};
use resprout::architectures::{self, Shape};
use resprout::formats::onnx::{ReadOptions, Storage};
use resprout::formats::weights::{self, Kind};
use resprout::forward::{Network, PlanOptions, check_supported};
use resprout::model::{MergedNorms, Model};
use resprout::report::FileInfo;
use resprout::tensor::Tensor;
use resprout::{Error, ErrorKind, Result, formats};
use serde::Serialize;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// Names under which state dicts are written.
const PYTORCH: [&str; 3] = ["pth", "pt", "th"];

fn has_extension(path: &Path, names: &[&str]) -> bool {
    path.extension().is_some_and(|extension| names.iter().any(|name| extension == *name))
}

/// Reads the model file, or builds the architecture with fresh weights, for these images if any are known.
/// `redraws`: whether weights are drawn although there is a file.
fn open_source(source: &SourceArgs, shape: &Shape, redraws: bool) -> Result<Model> {
    let SourceArgs { model, network, init, seed } = source;
    if let (Some(path), Some(init), false) = (model, init, redraws) {
        let message = format!("--init {init}: no weights are drawn, they are those of {}", path.display());
        return Err(Error::new(ErrorKind::Option, message));
    }
    match (model, &network.arch) {
        (Some(path), _) => read_model(path, network),
        (None, Some(name)) => {
            let classes = network.classes.map(NonZeroUsize::get).or(shape.classes);
            let mut model = architectures::build(name, &Shape { classes, ..shape.clone() }, source.init(), *seed)?;
            if let Some(weights) = &network.weights {
                note(&weights::read_into(&mut model, weights)?);
            }
            Ok(model)
        }
        (None, None) => Err(Error::new(ErrorKind::Option, "a model or --arch is needed")),
    }
}

/// As [`read_model_and_notes`]; the notes are shown at once.
fn read_model(path: &Path, network: &NetworkArgs) -> Result<Model> {
    let (model, notes) = read_model_and_notes(path, network)?;
    note(&notes);
    Ok(model)
}

/// Shows what was left out or changed where weights were read.
fn note(notes: &[String]) {
    notes.iter().for_each(|note| eprintln!("note: {note}"));
}

/// Reads a model file, or builds the architecture that was named and reads the file's weights into it;
/// then, if given, the weights that replace its own. Also returns what was left out or changed.
fn read_model_and_notes(path: &Path, network: &NetworkArgs) -> Result<(Model, Vec<String>)> {
    let mut notes = Vec::new();
    let mut read = |model: &mut Model, path: &Path| {
        notes.extend(weights::read_into(model, path)?);
        Ok::<(), Error>(())
    };
    let mut model = match (&network.arch, weights::kind(path)?) {
        (Some(name), Some(_)) => {
            let mut model = build(name, network)?;
            read(&mut model, path)?;
            model
        }
        (Some(_), None) => {
            return Err(Error::new(
                ErrorKind::Option,
                format!("--arch: is for files of weights alone; {} brings its own graph", path.display()),
            ));
        }
        (None, Some(kind)) => {
            let network = if kind == Kind::Torch { None } else { formats::sparse::read(path)? };
            let message =
                || format!("{}: holds weights alone; name their network with --arch (see `resprout list`)", path.display());
            network.ok_or_else(|| Error::new(ErrorKind::Option, message()))?
        }
        (None, None) => formats::onnx::read_with(path, ReadOptions { fold_weights: network.fold_weights })?,
    };
    if let Some(weights) = &network.weights {
        read(&mut model, weights)?;
    }
    Ok((model, notes))
}

/// Reads a model that is to be computed; an error with its file where that cannot be done here.
fn read_computable(path: &Path, network: &NetworkArgs) -> Result<Model> {
    let model = read_model(path, network)?;
    check_computable(&model, path)?;
    Ok(model)
}

fn check_computable(model: &Model, path: &Path) -> Result<()> {
    check_supported(model).map_err(|e| e.at(path.display()))
}

/// The architecture of that name. Its weights are replaced later.
fn build(name: &str, network: &NetworkArgs) -> Result<Model> {
    let shape = Shape { classes: network.classes.map(NonZeroUsize::get), image: None };
    architectures::build(name, &shape, "kaiming-out", 0)
}

/// Images on which the written file is compared with what was measured.
const VERIFY_IMAGES: usize = 4;

/// Which tools read a file with sparse initializers.
const ONNX_SPARSE: &str =
    "--format onnx-sparse: ONNX Runtime reads the file, most other tools do not (docs/methods.md#files); onnx is for all of them";

/// The format of the options if the name fits it, or else the format of the name.
fn format_of(path: &Path, how: &WriteArgs) -> Result<Format> {
    let given = match (how.format, how.external_data) {
        (None | Some(Format::Onnx | Format::OnnxExternal), true) => Some(Format::OnnxExternal),
        (Some(format), true) => {
            return Err(Error::new(ErrorKind::Option, format!("--external-data: does not go with --format {format}")));
        }
        (given, false) => given,
    };
    let by_name = match () {
        () if has_extension(path, &["safetensors"]) => Format::Safetensors,
        () if has_extension(path, &PYTORCH) => Format::Pth,
        () => Format::Onnx,
    };
    let fits = |format: Format| match format {
        Format::Onnx | Format::OnnxSparse | Format::OnnxExternal => by_name == Format::Onnx,
        Format::Safetensors | Format::SafetensorsSparse => by_name == Format::Safetensors,
        Format::Pth => by_name == Format::Pth,
    };
    match given {
        Some(format) if !fits(format) => {
            let message = format!("--format {format}: the name {} is one of another format", path.display());
            Err(Error::new(ErrorKind::Option, message))
        }
        given => Ok(given.unwrap_or(by_name)),
    }
}

/// Writes the model; an ONNX file is read back and must give the very same outputs.
fn write_model(model: &Model, path: &Path, format: Format, images: Option<&Tensor>) -> Result<()> {
    let storage = match format {
        Format::Safetensors => return formats::safetensors::write(model, path),
        Format::SafetensorsSparse => return formats::sparse::write(model, path),
        Format::Pth => return formats::pth::write(model, path),
        Format::Onnx => Storage::Dense,
        Format::OnnxSparse => Storage::Sparse,
        Format::OnnxExternal => Storage::External,
    };
    formats::onnx::write(model, path, storage, |back| {
        let Some(images) = images.filter(|images| !images.is_empty()) else { return Ok(()) };
        let some = images.first(images.shape[0].min(VERIFY_IMAGES));
        match outputs(model, &some)?.iter().zip(&outputs(back, &some)?).all(|(a, b)| a.same_bits(b)) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Format, "the written model does not compute what was measured; nothing was kept")),
        }
    })
}

/// Takes every BatchNormalization into the layer in front of it, and says what stays.
fn fold_batch_norm(model: &mut Model) -> Result<MergedNorms> {
    let norms = model.merge_batch_norms()?;
    if norms.merged == 0 && norms.left.is_empty() {
        return Err(Error::new(ErrorKind::Option, "--fold-bn: the network has no BatchNormalization; it may be folded already"));
    }
    Ok(norms)
}

/// What the model computes of the images.
fn outputs(model: &Model, images: &Tensor) -> Result<Vec<Tensor>> {
    Network::new(model, &images.shape[1..], &PlanOptions::default())?.run(images)
}

/// The bytes of `--memory`.
fn memory_bytes(gigabytes: f64) -> Result<usize> {
    let bytes = gigabytes * 1e9;
    match (1.0..1e18).contains(&bytes) {
        true => Ok(bytes as usize),
        false => Err(Error::new(ErrorKind::Option, format!("--memory {gigabytes}: a number of gigabytes above 0 is needed"))),
    }
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
    formats::atomic::write(path, format!("{text}\n").as_bytes())?;
    Ok(true)
}

fn check_json_target(target: Option<&Path>) -> Result<()> {
    check_target(target.filter(|path| *path != Path::new("-")), "--json")
}

/// As [`check_writable`], for a file that need not be given.
fn check_target(target: Option<&Path>, option: &str) -> Result<()> {
    target.map_or(Ok(()), |path| check_writable(path, option))
}

/// A file's name, hash and length; those of an ONNX file with external data are of graph and data together.
fn file_info(path: &Path) -> Result<FileInfo> {
    let (sha256, bytes) = resprout::eval::files_sha256(&model_files(path)?)?;
    Ok(FileInfo { path: path.display().to_string(), sha256, bytes })
}

/// A model's files: its own, then those of its external data.
fn model_files(path: &Path) -> Result<Vec<PathBuf>> {
    let data = if has_extension(path, &["onnx"]) { formats::onnx::external_files(path)? } else { Vec::new() };
    Ok(std::iter::once(path.to_path_buf()).chain(data).collect())
}
