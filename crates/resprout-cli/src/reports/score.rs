//! What `score` shows.

use resprout::lipschitz::LipschitzRow;
use resprout::model::LeftDense;
use resprout::report::{LayerRow, SparsityInfo};
use serde::Serialize;

/// What `score` shows.
#[derive(Serialize)]
pub struct ScoreReport {
    pub schema_version: u32,
    pub tool_version: &'static str,
    pub method: String,
    pub allocation: String,
    pub ablation: String,
    pub seed: u64,
    pub sparsity: SparsityInfo,
    pub layers: Vec<LayerRow>,
    pub left_dense: Vec<LeftDense>,
    /// What the repair at initialisation did to each layer; empty without one.
    pub init_repair: Vec<LipschitzRow>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Seconds of scoring and selecting.
    pub seconds: f64,
}
