//! The report of a pruning: all printed results as data. Its JSON form is versioned.
//!
//! [`layer_rows`] and [`sparsity_info`] count what a pruned [`Model`] has left, and the functions with `warning` in their names
//! make warnings of it. The command fills in a whole [`Report`].

use crate::calibrate::{Checkup, Trained};
use crate::data::Preprocess;
use crate::error::{Error, Result};
use crate::eval::{Evaluation, EvaluationRun, OutputKind};
use crate::formats::sparse;
use crate::forward::{LayerMacs, layer_macs};
use crate::model::effective::{effective_counts, first_cut_off};
use crate::model::{CameSparse, LeftDense, MergedNorms, Model, Prunable};
use crate::repair::Candidate;
use crate::sparsify::AllocationLoss;
use crate::structure::shrink::Cut;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::PathBuf;

/// The version of the JSON form, raised when a field changes its meaning or is removed.
pub const SCHEMA_VERSION: u32 = 2;

/// The report of a pruning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Version of the library that wrote the report.
    pub tool_version: String,
    /// The model that was read.
    pub model: FileInfo,
    /// The model that was written.
    pub output: Option<FileInfo>,
    /// All options, given or default.
    pub options: serde_json::Value,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Calibration images, if any were used.
    pub calibration: Option<Calibration>,
    /// The repair, and how it was chosen.
    #[serde(default)]
    pub repair: Option<RepairReport>,
    /// The dense model of the comparison, if it is not the model that was read.
    #[serde(default)]
    pub reference: Option<FileInfo>,
    /// The zeros of the model that was read, if it was sparse.
    #[serde(default)]
    pub came_sparse: Option<CameSparse>,
    /// Realised sparsity.
    pub sparsity: SparsityInfo,
    /// One row per pruned layer.
    pub layers: Vec<LayerRow>,
    /// With the allocation `measured`: what the last step has tried.
    #[serde(default)]
    pub allocations: Vec<AllocationLoss>,
    /// Layers with weights that were left dense.
    pub left_dense: Vec<LeftDense>,
    /// The BatchNormalizations that were merged into layers, if that was asked for.
    #[serde(default)]
    pub merged_norms: Option<MergedNorms>,
    /// The channels that were cut out, if that was asked for.
    #[serde(default)]
    pub shrunk: Option<Shrunk>,
    /// Bytes of the model before and after.
    pub size: Option<SizeInfo>,
    /// The evaluation of the networks.
    pub evaluation: Option<EvaluationReport>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
    /// The stages of the work, each with its seconds.
    pub seconds: Vec<(String, f64)>,
}

/// A network from which channels were cut out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shrunk {
    /// Parameters before and after.
    pub parameters: [usize; 2],
    /// Multiply-accumulate operations before and after, where the image size is known.
    pub macs: Option<[u64; 2]>,
    /// The weights that were cut.
    pub cuts: Vec<Cut>,
}

/// Compares a network before and after [`shrink`](crate::structure::shrink::shrink()). `image` is `[C, H, W]`.
#[doc(hidden)]
pub fn shrunk(before: &Model, after: &Model, image: Option<&[usize]>, cuts: Vec<Cut>) -> Shrunk {
    let macs = |model: &Model| Some(layer_macs(model, image?).ok()?.values().sum::<u64>());
    let macs = macs(before).zip(macs(after)).map(|(before, after)| [before, after]);
    Shrunk { parameters: [before, after].map(|model| model.params.float_count()), macs, cuts }
}

/// A file and the hash of its contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// The path, as given.
    pub path: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// The length of the file.
    pub bytes: u64,
}

/// How the network was repaired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepairReport {
    /// The repairs, in order.
    pub chain: String,
    /// The sparsity of each step of pruning and repair.
    pub steps: Vec<f64>,
    /// How often a layer was changed in the last step.
    pub changed: usize,
    /// The number of BatchNormalizations with new statistics.
    #[serde(default)]
    pub batch_norms: usize,
    /// The number of layers with a folded BatchNormalization that were recalibrated.
    #[serde(default)]
    pub folded: usize,
    /// Names of new biases.
    pub added_bias: Vec<String>,
    /// With a limit on the time: layers that got the whole repair in the last step.
    #[serde(default)]
    pub fitted: Vec<String>,
    /// With a limit on the time: layers that got statistics only in the last step.
    #[serde(default)]
    pub statistics_only: Vec<String>,
    /// What training has come to in the last step, where a repair trains.
    #[serde(default)]
    pub trained: Option<Trained>,
    /// The estimated seconds of the last step's repair.
    #[serde(default)]
    pub expected_seconds: f64,
    /// The seconds it took.
    #[serde(default)]
    pub seconds: f64,
    /// The candidates, if the repair was chosen automatically.
    pub candidates: Vec<Candidate>,
    /// The check-up of the calibration images.
    pub checkup: Option<Checkup>,
}

/// The calibration images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Where they came from.
    pub path: String,
    /// Whether they are drawn noise.
    #[serde(default)]
    pub data_free: bool,
    /// The number of images.
    pub images: usize,
    /// SHA-256 of the preprocessed images.
    pub images_sha256: String,
    /// Their preprocessing.
    pub preprocess: Preprocess,
}

/// Realised sparsity with both denominators, and the theoretical speed-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SparsityInfo {
    /// The requested sparsity.
    pub requested: Option<f64>,
    /// Share of the prunable weights that is pruned.
    pub of_prunable: f64,
    /// Share of all floating-point parameters that is pruned.
    pub of_all_parameters: f64,
    /// Share of the prunable weights that is zero or lies on no path from input to output.
    pub effective: f64,
    /// Weights in prunable layers.
    pub prunable: usize,
    /// Of these, kept.
    pub kept: usize,
    /// All floating-point parameters.
    pub parameters: usize,
    /// The number of parameters divided by the number that remain.
    pub compression_ratio: f64,
    /// Multiply-accumulate operations per image before pruning, if the input size is known.
    pub macs_dense: Option<u64>,
    /// Multiply-accumulate operations per image without those of pruned weights.
    pub macs_sparse: Option<u64>,
    /// `macs_dense / macs_sparse`.
    pub theoretical_speedup: Option<f64>,
}

/// One pruned layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerRow {
    /// The layer's name.
    pub layer: String,
    /// The weight's name.
    pub param: String,
    /// The weight's shape.
    pub shape: Vec<usize>,
    /// Number of weights.
    pub weights: usize,
    /// Of these, kept.
    pub kept: usize,
    /// `kept / weights`
    pub density: f64,
    /// Of the kept weights, those on a path from the input to an output.
    pub effective: usize,
    /// Multiply-accumulate operations per image before pruning.
    pub macs: Option<u64>,
    /// Output channels without a weight.
    pub dead_channels: usize,
    /// Output channels.
    pub channels: usize,
}

/// Bytes of the model file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeInfo {
    /// The file that was read.
    pub dense: Bytes,
    /// The file that was written.
    pub sparse: Bytes,
}

/// Bytes of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// The length of the file.
    pub raw: u64,
    /// Four bytes per nonzero parameter, without indices.
    pub nonzero: u64,
    /// The length as a file of [`crate::formats::sparse`].
    #[serde(default)]
    pub sparse: u64,
    /// The length after gzip, level 6; `None` if not measured, see [`Compress`].
    pub gzip: Option<u64>,
    /// The length after Zstandard, level 3; `None` as for gzip.
    #[serde(default)]
    pub zstd: Option<u64>,
}

/// The evaluation of the dense, the pruned and the repaired network on the same images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationReport {
    /// Where the images came from.
    pub path: String,
    /// Whether these are the calibration images, on which the numbers are too good.
    pub on_calibration_images: bool,
    /// The number of images.
    pub images: usize,
    /// SHA-256 of the preprocessed images.
    pub images_sha256: String,
    /// The kind of the outputs.
    pub output: OutputKind,
    /// The name and the evaluation of each network.
    pub networks: Vec<(String, Evaluation)>,
}

impl EvaluationReport {
    /// Adds the names of the networks to a run.
    pub fn new(run: EvaluationRun, names: &[&str], path: String, on_calibration_images: bool) -> EvaluationReport {
        let names = names.iter().map(|name| name.to_string());
        EvaluationReport {
            path,
            on_calibration_images,
            images: run.images,
            images_sha256: run.images_sha256,
            output: run.output,
            networks: names.zip(run.networks).collect(),
        }
    }
}

/// A row per layer of `layers`, such as those of [`PruneOutcome::layers`](crate::prune::PruneOutcome::layers). Without `macs` of
/// [`layer_macs`] the operations stay unknown.
#[doc(hidden)]
pub fn layer_rows(model: &Model, layers: &[Prunable], macs: Option<&LayerMacs>) -> Result<Vec<LayerRow>> {
    let effective = effective_counts(model, layers);
    let row = |(layer, effective): (&Prunable, usize)| -> Result<LayerRow> {
        let weight = model.weight(&layer.param)?;
        let kept = model.masks.get(&layer.param).map_or_else(|| nonzero(weight), |mask| mask.kept());
        Ok(LayerRow {
            layer: layer.layer.clone(),
            param: layer.param.clone(),
            shape: layer.shape.clone(),
            weights: layer.len(),
            kept,
            density: kept as f64 / layer.len() as f64,
            effective,
            macs: macs.and_then(|macs| macs.get(&layer.layer).copied()),
            dead_channels: dead_channels(layer, weight),
            channels: layer.channels(),
        })
    };
    layers.iter().zip(effective).map(row).collect()
}

/// Sums over the rows of [`layer_rows`]. `macs` holds all layers, also those that are not pruned.
#[doc(hidden)]
pub fn sparsity_info(model: &Model, rows: &[LayerRow], requested: Option<f64>, macs: Option<&LayerMacs>) -> SparsityInfo {
    let macs_dense: Option<u64> = macs.map(|macs| macs.values().sum());
    let sum = |field: fn(&LayerRow) -> usize| rows.iter().map(field).sum::<usize>();
    let (prunable, kept, effective) = (sum(|r| r.weights), sum(|r| r.kept), sum(|r| r.effective));
    let parameters = model.params.float_count();
    let pruned = prunable - kept;
    let saved = |row: &LayerRow| row.macs.map(|macs| (macs as f64 * (1.0 - row.density)).round() as u64);
    let macs_sparse = macs_dense.map(|dense| dense - rows.iter().filter_map(saved).sum::<u64>().min(dense));
    let ratio = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    SparsityInfo {
        requested,
        of_prunable: ratio(pruned, prunable),
        of_all_parameters: ratio(pruned, parameters),
        effective: 1.0 - ratio(effective, prunable),
        prunable,
        kept,
        parameters,
        compression_ratio: ratio(parameters, (parameters - pruned).max(1)),
        macs_dense,
        macs_sparse,
        theoretical_speedup: macs_dense.zip(macs_sparse).map(|(dense, sparse)| dense as f64 / sparse.max(1) as f64),
    }
}

/// A warning if less than half of the weights can be pruned; `prunable` is the number that can.
#[doc(hidden)]
pub fn reach_warning(prunable: usize, left: &[LeftDense]) -> Option<String> {
    let all = prunable + left.iter().map(|left| left.weights).sum::<usize>();
    (2 * prunable < all).then(|| {
        let share = 100.0 * prunable as f64 / all as f64;
        format!("only {share:.1} % of the network's weights can be pruned ({prunable} of {all}); the others are listed with the reason")
    })
}

/// Warnings of emptied layers and dead channels.
#[doc(hidden)]
pub fn layer_warnings(rows: &[LayerRow]) -> Vec<String> {
    let emptied = rows.iter().filter(|row| row.kept == 0).map(|row| format!("{}: emptied, no weight is left", row.layer));
    let dead: usize = rows.iter().map(|row| row.dead_channels).sum();
    let channels: usize = rows.iter().map(|row| row.channels).sum();
    let layers = rows.iter().filter(|row| row.dead_channels > 0).count();
    let summary = (dead > 0).then(|| format!("{dead} of {channels} output channels have no weight left (in {layers} layers)"));
    emptied.chain(summary).collect()
}

/// Warnings of layers with weights that are on no path from the input to an output.
#[doc(hidden)]
pub fn path_warnings(model: &Model, layers: &[Prunable], rows: &[LayerRow]) -> Vec<String> {
    if rows.iter().all(|row| row.effective == 0) && !rows.is_empty() {
        let place = first_cut_off(model, layers).map(|layer| format!("; the first layer that nothing passes is {}", layer.layer));
        let place = place.unwrap_or_default();
        return vec![format!("no path is left from the input to an output: the outputs do not depend on the image{place}")];
    }
    let off = rows.iter().filter(|row| row.kept > 0 && row.effective == 0);
    off.map(|row| format!("{}: none of its {} weights lies on a path from the input to an output", row.layer, row.kept)).collect()
}

/// The number of nonzero parameters.
#[doc(hidden)]
pub fn nonzero_parameters(model: &Model) -> usize {
    model.params.iter().filter_map(|(_, param)| param.f32()).map(nonzero).sum()
}

fn nonzero(tensor: &Tensor) -> usize {
    tensor.data.iter().filter(|&&v| v != 0.0).count()
}

fn dead_channels(layer: &Prunable, weight: &Tensor) -> usize {
    let mut alive = vec![false; layer.channels()];
    weight.data.iter().enumerate().filter(|(_, w)| **w != 0.0).for_each(|(i, _)| alive[layer.channel_of(i)] = true);
    alive.iter().filter(|&&alive| !alive).count()
}

/// Which files are compressed to measure their compressed length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compress {
    /// Every file.
    Always,
    /// Files of at most [`QUICK_BYTES`]. Larger ones take longer to compress than to prune.
    WhereQuick,
}

/// Files up to this length are always compressed, which takes less than half a second.
#[doc(hidden)]
pub const QUICK_BYTES: u64 = 8 << 20;

/// The lengths of a model's files.
#[doc(hidden)]
pub fn sizes(model: &Model, files: &[PathBuf], compress: Compress) -> Result<Bytes> {
    let length = |file: &PathBuf| std::fs::metadata(file).map(|meta| meta.len()).map_err(|e| Error::io(file, e));
    let raw = files.iter().map(length).sum::<Result<u64>>()?;
    let compressed = compress == Compress::Always || raw <= QUICK_BYTES;
    let both = || Ok::<_, Error>((gzip_files(files)?, zstd_files(files)?));
    let (gzip, zstd) = compressed.then(both).transpose()?.unzip();
    let sparse = sparse::encoded_len(model)?;
    Ok(Bytes { raw, nonzero: 4 * nonzero_parameters(model) as u64, sparse, gzip, zstd })
}

/// The length of files after gzip.
#[doc(hidden)]
pub fn gzip_files(files: &[PathBuf]) -> Result<u64> {
    let mut gzip = gzip();
    copy_files(files, &mut gzip)?;
    Ok(gzip.finish().map_err(|e| Error::data(format!("gzip: {e}")))?.0)
}

/// The length of files after Zstandard.
fn zstd_files(files: &[PathBuf]) -> Result<u64> {
    let mut zstd = zstd::stream::Encoder::new(Counter(0), 3).map_err(|e| Error::data(format!("zstd: {e}")))?;
    copy_files(files, &mut zstd)?;
    Ok(zstd.finish().map_err(|e| Error::data(format!("zstd: {e}")))?.0)
}

/// The length of bytes after gzip.
#[doc(hidden)]
pub fn gzip_bytes(bytes: &[u8]) -> Result<u64> {
    let mut gzip = gzip();
    let counted = gzip.write_all(bytes).and_then(|()| gzip.finish());
    Ok(counted.map_err(|e| Error::data(format!("gzip: {e}")))?.0)
}

fn gzip() -> flate2::write::GzEncoder<Counter> {
    flate2::write::GzEncoder::new(Counter(0), flate2::Compression::new(6))
}

fn copy_files(files: &[PathBuf], into: &mut impl Write) -> Result<()> {
    for path in files {
        let copied = std::fs::File::open(path).and_then(|mut file| std::io::copy(&mut file, into));
        copied.map_err(|e| Error::io(path, e))?;
    }
    Ok(())
}

/// Counts bytes and drops them.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
