//! The results of a run.

use crate::checkpoint::EpochRow;
use crate::recipe::Recipe;
use resprout::eval::{self, Estimate};
use resprout::lipschitz::LipschitzRow;
use serde::{Deserialize, Serialize};

/// The outcome of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// One row per epoch.
    pub rows: Vec<EpochRow>,
    /// The changes of the repair at initialisation, one row per layer; empty without such a repair.
    pub init_repair: Vec<LipschitzRow>,
    /// The accuracy of the last epoch on the test images.
    pub test: Option<Estimate>,
    /// The epoch with the highest validation accuracy among those at the final sparsity.
    pub best: Option<Best>,
    /// The share of prunable weights that is zero.
    pub sparsity: f64,
    /// Images per second of the training steps, over the whole run.
    pub images_per_second: f64,
    /// The share of the training time in which it waited for images.
    pub waiting: f64,
}

/// The epoch that validation chose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The number of the epoch, from 1 on.
    pub epoch: usize,
    /// Its accuracy on the validation images.
    pub validation: f64,
    /// Its accuracy on the test images.
    pub test: Option<Estimate>,
}

/// The report of a run in its folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunReport {
    /// Version of the JSON form, raised when a field changes its meaning or is removed.
    pub schema_version: u32,
    /// Version of the library that wrote it.
    pub tool_version: String,
    /// The recipe of the run.
    pub recipe: Recipe,
    /// The outcome of the run.
    pub outcome: Outcome,
    /// SHA-256 of the written model.
    pub model_sha256: String,
}

impl RunReport {
    /// The report of an outcome, with the bytes of the written model.
    pub fn new(recipe: &Recipe, outcome: Outcome, model: &[u8]) -> RunReport {
        RunReport {
            schema_version: 1,
            tool_version: env!("CARGO_PKG_VERSION").into(),
            recipe: recipe.clone(),
            outcome,
            model_sha256: eval::sha256(model),
        }
    }
}
