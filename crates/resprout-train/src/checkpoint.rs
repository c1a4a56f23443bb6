//! The files in a run's folder, and the state of a run between two epochs, in one file that is written atomically.

use crate::error::data;
use resprout::formats::{atomic, safetensors};
use resprout::lipschitz::LipschitzRow;
use resprout::model::Model;
use resprout::tensor::Tensor;
use resprout::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The file of the state after the last epoch.
pub const LAST: &str = "last.safetensors";
/// The file of the epoch with the highest validation accuracy.
pub const BEST: &str = "best.safetensors";
/// The file of the early weights that a run rewinds to.
pub const REWIND: &str = "rewind.safetensors";
/// The file with one line of JSON, an [`EpochRow`], per epoch.
pub const JOURNAL: &str = "journal.jsonl";

const MOMENTUM_SUFFIX: &str = ".momentum";
const STATE: &str = "resprout_run";

/// The progress of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The number of finished segments.
    pub segment: usize,
    /// The number of finished epochs of the current segment.
    pub epoch: usize,
    /// The number of finished steps of all segments.
    pub step: usize,
}

/// The results of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// The number of the epoch over all segments, from 1 on.
    pub epoch: usize,
    /// The index of the segment, from 0 on.
    pub segment: usize,
    /// The learning rate of the last step.
    pub rate: f64,
    /// The mean loss of the training images, in nats.
    pub loss: f64,
    /// The share of correct training images in their training steps.
    pub train_accuracy: f64,
    /// The share of correct validation images at the end.
    pub validation_accuracy: Option<f64>,
    /// The share of prunable weights that is zero at the end.
    pub sparsity: f64,
    /// Images per second of the training steps.
    pub images_per_second: f64,
    /// Weights that were pruned whole in this epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emptied: Vec<Emptied>,
}

/// A layer that pruning has left without any weight: nothing passes it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emptied {
    /// The weight's name.
    pub param: String,
    /// The step of the epoch before which it was pruned, from 1 on.
    pub step: usize,
}

/// The state that a run needs to resume, without the model.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The position of the run.
    pub position: Position,
    /// One row per epoch so far.
    pub rows: Vec<EpochRow>,
    /// The optimiser's running sums, by parameter.
    #[serde(skip)]
    pub momentum: BTreeMap<String, Vec<f32>>,
    /// The changes of the repair at initialisation.
    pub init_repair: Vec<LipschitzRow>,
    /// The best epoch so far and its validation accuracy.
    pub best: Option<(usize, f64)>,
    /// Seconds of training, seconds of waiting for images, and trained images.
    pub seconds: (f64, f64, usize),
}

/// Writes model, masks and state.
pub fn write(path: &Path, model: &Model, checkpoint: &Checkpoint) -> Result<()> {
    let state = serde_json::to_string(checkpoint).map_err(|e| data(format!("{}: {e}", path.display())))?;
    let momentum = checkpoint.momentum.iter();
    let extra: Vec<(String, Tensor)> =
        momentum.map(|(name, values)| (format!("{name}{MOMENTUM_SUFFIX}"), Tensor::vector(values.clone()))).collect();
    let bytes = safetensors::encode_with(model, &extra, Some(HashMap::from([(STATE.to_string(), state)])));
    atomic::write(path, &bytes.map_err(|e| e.at(path.display()))?)
}

/// Reads parameters and masks into `model`, which must have the run's architecture. Returns the state.
///
/// # Errors
/// Of kind `Io` or `Format`, and `Data` for another architecture.
pub fn read(path: &Path, model: &mut Model) -> Result<Checkpoint> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let (momentum, text) = safetensors::decode_with(model, &bytes, MOMENTUM_SUFFIX).map_err(|e| e.at(path.display()))?;
    let state = text.get(STATE).ok_or_else(|| data(format!("{}: is no checkpoint of a run", path.display())))?;
    let state: Checkpoint =
        serde_json::from_str(state).map_err(|e| data(format!("{}: the run's state cannot be read: {e}", path.display())))?;
    Ok(Checkpoint { momentum: momentum.into_iter().collect(), ..state })
}

/// Rewrites the journal.
pub fn write_journal(folder: &Path, rows: &[EpochRow]) -> Result<()> {
    let mut text = String::new();
    for row in rows {
        text += &serde_json::to_string(row).map_err(|e| data(e.to_string()))?;
        text.push('\n');
    }
    atomic::write(&folder.join(JOURNAL), text.as_bytes())
}
