//! Studies: many ways to prune and repair, on the same images, in one journal, and what can be read
//! out of it.
//!
//! A [`Grid`] expands to [`Cell`]s; [`run()`] measures each once and a [`Journal`] keeps it, one line
//! per cell, under a key of everything that the result depends on. Whatever is killed goes on where it
//! was, and journals of several machines merge. [`Analysis`] answers the questions of a study of
//! recoverability from the records alone.

pub mod analysis;
pub mod curves;
pub mod diagnostics;
pub mod grid;
pub mod journal;
pub mod recommend;
pub mod regime;
pub mod run;

pub use analysis::Analysis;
pub use diagnostics::LayerDiagnostics;
pub use grid::Grid;
pub use journal::Journal;
pub use run::{Images, StudyOptions, Subject, run};

use crate::eval::Evaluation;
use crate::report::SparsityInfo;
use serde::{Deserialize, Serialize};

/// One way to prune and repair one model; with [`Cell::dense`] the model as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The model's name in the study.
    pub model: String,
    /// A row of the patterns, with options.
    pub pattern: String,
    /// A row of the criteria, with options.
    pub criterion: String,
    /// A row of the allocations, with options.
    pub allocation: String,
    /// Share of the prunable weights to remove.
    pub sparsity: f64,
    /// Repairs, as [`Chain::parse`](crate::repair::Chain::parse) reads them.
    pub repair: String,
    /// Calibration images for criterion and repair.
    pub calibration_images: usize,
    /// Seed of random criteria and of the choice of calibration images: 0 takes the first ones.
    pub seed: u64,
}

/// What stands in a [`Cell`] for "not pruned".
const DENSE: &str = "dense";

impl Cell {
    /// The model as it is.
    pub fn dense(model: &str) -> Cell {
        Cell {
            model: model.into(),
            pattern: "unstructured".into(),
            criterion: DENSE.into(),
            allocation: DENSE.into(),
            sparsity: 0.0,
            repair: "none".into(),
            calibration_images: 0,
            seed: 0,
        }
    }

    /// Whether it is the model as it is.
    pub fn is_dense(&self) -> bool {
        self.criterion == DENSE
    }

    /// Whether both cells have the same masks (of the same seed).
    pub fn same_masks(&self, other: &Cell) -> bool {
        let mask = |cell: &Cell| Cell { repair: String::new(), ..cell.clone() };
        mask(self) == mask(other)
    }
}

/// What was measured of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// Realised sparsity.
    pub sparsity: SparsityInfo,
    /// Bytes of the parameters in a sparse file: four for each that is not zero, one bit for each prunable one.
    pub sparse_bytes: u64,
    /// How the network does.
    pub evaluation: Evaluation,
    /// Images that it was measured on.
    pub images: usize,
    /// Number of classes, where the output has any.
    pub classes: Option<usize>,
    /// The pruned layers, in order; only with the dense model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    /// What the layers compute, beside the dense ones.
    #[serde(default, alias = "signs")] // journals of version 0.1
    pub diagnostics: LayerDiagnostics,
    /// What the user should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Which cell.
    pub cell: Cell,
    /// What was measured.
    pub result: CellResult,
}

/// What networks are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of images whose highest class is the label.
    Top1,
    /// Share of images whose highest class is the dense network's.
    Agreement,
    /// 1 - mean relative error of the outputs, for networks that do not classify.
    Closeness,
}

impl Metric {
    /// The best one that the evaluation has.
    pub fn of(evaluation: &Evaluation) -> Metric {
        match evaluation {
            Evaluation { top1: Some(_), .. } => Metric::Top1,
            Evaluation { agreement: Some(_), .. } => Metric::Agreement,
            _ => Metric::Closeness,
        }
    }

    /// Its value, in [0, 1] (closeness may be below 0), with the 95 % interval.
    pub fn estimate(self, evaluation: &Evaluation) -> Option<crate::eval::Estimate> {
        match self {
            Metric::Top1 => evaluation.top1,
            Metric::Agreement => evaluation.agreement,
            Metric::Closeness => evaluation.relative_error.map(|e| crate::eval::Estimate {
                value: 1.0 - e.value,
                low: 1.0 - e.high,
                high: 1.0 - e.low,
            }),
        }
    }

    /// For tables and axes.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Top1 => "top-1",
            Metric::Agreement => "agreement",
            Metric::Closeness => "1 - relative error",
        }
    }
}
