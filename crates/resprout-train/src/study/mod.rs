//! Studies of training: architectures, methods, sparsities, repairs at initialisation and seeds, each a run, in one journal.
//!
//! A [`TrainGrid`] and a [`Recipe`](crate::recipe::Recipe) expand to [`TrainCell`]s. [`run()`] trains each cell once.
//! [`TrainAnalysis`] reads curves and winners out of the records. Journals, shards and jobs are those of [`resprout::study`].

pub mod analysis;
mod grid;
mod run;

pub use analysis::TrainAnalysis;
pub use grid::{TrainGrid, TrainStudy};
pub use run::{RUNS, Source, run};

use crate::run::Best;
use resprout::eval::Estimate;
use resprout::report::SparsityInfo;
use serde::{Deserialize, Serialize};

/// One run of training: a cell of the [`TrainGrid`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainCell {
    /// The architecture, or the name of the model file.
    pub network: String,
    /// As [`Recipe::method`](crate::recipe::Recipe::method); `dense` for the dense run, and with pruning at initialisation.
    pub method: String,
    /// As [`Recipe::prune_at_init`](crate::recipe::Recipe::prune_at_init).
    pub prune_at_init: Option<String>,
    /// Share of the prunable weights to remove; 0 for the dense run.
    pub sparsity: f64,
    /// As [`Recipe::repair_init`](crate::recipe::Recipe::repair_init).
    pub repair_init: String,
    /// As [`Recipe::seed`](crate::recipe::Recipe::seed).
    pub seed: u64,
}

impl TrainCell {
    /// Whether nothing is pruned.
    pub fn is_dense(&self) -> bool {
        self.method == grid::DENSE && self.prune_at_init.is_none()
    }
}

/// The results of an epoch, without times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochPoint {
    /// The number of the epoch, from 1 on.
    pub epoch: usize,
    /// The mean loss of the training images, in nats.
    pub loss: f64,
    /// The share of correct training images.
    pub train_accuracy: f64,
    /// The share of correct validation images.
    pub validation_accuracy: Option<f64>,
    /// The share of prunable weights that is zero at the end.
    pub sparsity: f64,
}

/// A layer that pruning has left without any weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollapsedLayer {
    /// The weight's name.
    pub param: String,
    /// The number of the epoch, from 1 on.
    pub epoch: usize,
}

/// The results of a run. None of them depends on a clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainResult {
    /// Realised sparsity, kept weights and operations.
    pub sparsity: SparsityInfo,
    /// Bytes of the parameters in a sparse file: four per nonzero parameter, and one bit per prunable one.
    pub sparse_bytes: u64,
    /// The accuracy of the last epoch on the test images.
    pub test: Estimate,
    /// The number of test images.
    pub images: usize,
    /// The epoch with the highest validation accuracy.
    pub best: Option<Best>,
    /// One per epoch.
    pub epochs: Vec<EpochPoint>,
    /// Layers without any weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collapsed: Vec<CollapsedLayer>,
    /// Warnings for the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A line of the journal.
pub type TrainRecord = resprout::study::Record<TrainCell, TrainResult>;

/// A cell that could not be trained.
pub type TrainFailure = resprout::study::Failure<TrainCell>;
