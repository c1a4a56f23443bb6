//! The state of a run between two epochs, in one file that appears whole or not at all.

use crate::error::data;
use resprout::formats::{atomic, safetensors};
use resprout::lipschitz::LipschitzRow;
use resprout::model::Model;
use resprout::tensor::Tensor;
use resprout::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The state after the last epoch.
pub const LAST: &str = "last.safetensors";
/// The epoch with the highest validation accuracy.
pub const BEST: &str = "best.safetensors";
/// The early weights that lottery tickets go back to.
pub const REWIND: &str = "rewind.safetensors";
/// One line of JSON per epoch.
pub const JOURNAL: &str = "journal.jsonl";

const MOMENTUM_SUFFIX: &str = ".momentum";
const STATE: &str = "resprout_run";

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Segments that are done.
    pub segment: usize,
    /// Epochs of the current one that are done.
    pub epoch: usize,
    /// Steps of all segments that are done.
    pub step: usize,
}

/// What is noted of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// Counted from 1 over all segments.
    pub epoch: usize,
    /// Counted from 0.
    pub segment: usize,
    /// Learning rate of the last step.
    pub rate: f64,
    /// Mean over the training images, in nats.
    pub loss: f64,
    /// Share of the training images that were right when they were trained on.
    pub train_accuracy: f64,
    /// Share of the validation images that are right at the end.
    pub validation_accuracy: Option<f64>,
    /// Share of the prunable weights that is zero at the end.
    pub sparsity: f64,
    /// Of the training steps.
    pub images_per_second: f64,
}

/// All that a run needs to go on, but for the model.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// How far.
    pub position: Position,
    /// Every epoch so far.
    pub rows: Vec<EpochRow>,
    /// The optimiser's running sums, by parameter.
    #[serde(skip)]
    pub momentum: BTreeMap<String, Vec<f32>>,
    /// What was done to the weights at the start.
    pub init_repair: Vec<LipschitzRow>,
    /// The best epoch so far and its validation accuracy.
    pub best: Option<(usize, f64)>,
    /// Seconds of training and of waiting for images, and images trained on.
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

/// Reads numbers and masks into `model`, which must be of the run's architecture, and returns the state.
pub fn read(path: &Path, model: &mut Model) -> Result<Checkpoint> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let (momentum, text) = safetensors::decode_with(model, &bytes, MOMENTUM_SUFFIX).map_err(|e| e.at(path.display()))?;
    let state = text.get(STATE).ok_or_else(|| data(format!("{}: is no checkpoint of a run", path.display())))?;
    let state: Checkpoint =
        serde_json::from_str(state).map_err(|e| data(format!("{}: the run's state cannot be read: {e}", path.display())))?;
    Ok(Checkpoint { momentum: momentum.into_iter().collect(), ..state })
}

/// Writes the journal anew.
pub fn write_journal(folder: &Path, rows: &[EpochRow]) -> Result<()> {
    let mut text = String::new();
    for row in rows {
        text += &serde_json::to_string(row).map_err(|e| data(e.to_string()))?;
        text.push('\n');
    }
    atomic::write(&folder.join(JOURNAL), text.as_bytes())
}
