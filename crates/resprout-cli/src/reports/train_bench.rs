//! What `train --bench` measures.

use super::bench::Times;
use resprout_train::bench::LayerTimes;
use serde::Serialize;

/// Times of single steps.
#[derive(Serialize)]
pub struct TrainBenchReport {
    pub schema_version: u32,
    pub tool_version: &'static str,
    /// The architecture or the model's file.
    pub network: String,
    pub cpu: String,
    pub threads: usize,
    /// Images of a step.
    pub batch: usize,
    pub image: [usize; 3],
    /// Steps of each network that count.
    pub rounds: usize,
    /// The most multiply-accumulates that the machine can do per second, as `bench` measures it.
    pub peak: f64,
    /// The dense network, and the pruned one if the recipe prunes.
    pub networks: Vec<TrainBenchRow>,
}

/// One network.
#[derive(Serialize)]
pub struct TrainBenchRow {
    pub name: &'static str,
    /// Of the prunable weights.
    pub sparsity: f64,
    /// Seconds of a step.
    pub step: Times,
    /// Medians.
    pub layers: Vec<LayerTimes>,
}
