//! Studies: many configurations of pruning and repair on the same images, in one journal, and their analysis.
//!
//! A [`Grid`] expands to [`Cell`]s. [`run()`] measures each cell once, and a [`Journal`] stores one line per cell. The key
//! of a line identifies everything that determines the result. So a killed run resumes, and the journals of several machines
//! merge. [`schedule`] does the same for cells of any kind. [`Analysis`] reads out of the records alone how far each configuration can be pruned and repaired.

pub mod analysis;
pub mod curves;
pub mod diagnostics;
pub mod grid;
#[doc(hidden)]
pub mod journal;
pub mod recommend;
pub mod regime;
pub mod run;
#[doc(hidden)]
pub mod schedule;

pub use analysis::Analysis;
pub use diagnostics::LayerDiagnostics;
pub use grid::Grid;
pub use journal::Journal;
pub use run::{Images, StudyOptions, Subject, run};

use crate::eval::Evaluation;
use crate::report::SparsityInfo;
use serde::{Deserialize, Serialize};

/// One configuration of pruning and repair for one model: a cell of the [`Grid`]. [`Cell::dense`] is the dense model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The model's name in the study.
    pub model: String,
    /// A row of the patterns with options.
    pub pattern: String,
    /// A row of the criteria with options.
    pub criterion: String,
    /// A row of the allocations with options.
    pub allocation: String,
    /// Share of the prunable weights to remove.
    pub sparsity: f64,
    /// Repairs, as [`Chain::parse`](crate::repair::Chain::parse) reads them.
    pub repair: String,
    /// Calibration images for criterion and repair.
    pub calibration_images: usize,
    /// Seed of random criteria and of the choice of calibration images. Seed 0 takes the first images.
    pub seed: u64,
}

/// The criterion and the allocation of [`Cell::dense`].
const DENSE: &str = "dense";

impl Cell {
    /// The dense model.
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

    /// Whether it is the dense model.
    pub fn is_dense(&self) -> bool {
        self.criterion == DENSE
    }

    /// Whether both cells have the same masks: they differ in nothing but the repair.
    pub fn same_masks(&self, other: &Cell) -> bool {
        let mask = |cell: &Cell| Cell { repair: String::new(), ..cell.clone() };
        mask(self) == mask(other)
    }
}

/// The measurements of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// Realised sparsity.
    pub sparsity: SparsityInfo,
    /// Bytes of the parameters in a sparse file: four per nonzero parameter, and one bit per prunable one.
    pub sparse_bytes: u64,
    /// The evaluation of the network.
    pub evaluation: Evaluation,
    /// The number of test images.
    pub images: usize,
    /// The number of classes, if the output has classes.
    pub classes: Option<usize>,
    /// The pruned layers in order; only for the dense model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    /// The layers' outputs compared with the dense ones.
    #[serde(default, alias = "signs")] // journals of version 0.1
    pub diagnostics: LayerDiagnostics,
    /// Warnings for the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A line of the journal. Cells of other kinds have results of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record<C = Cell, R = CellResult> {
    /// The cell.
    pub cell: C,
    /// Its measurements.
    pub result: R,
}

/// A cell that could not be measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure<C = Cell> {
    /// The cell; [`Cell::dense`] for a model that could not be used at all.
    pub cell: C,
    /// The reason.
    pub error: String,
}

/// The metric that compares networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Metric {
    /// Share of images whose highest class is the label.
    Top1,
    /// Share of images whose highest class is the dense network's.
    Agreement,
    /// 1 minus the mean relative error of the outputs, for networks that do not classify.
    Closeness,
}

impl Metric {
    /// The best metric that the evaluation has.
    pub fn of(evaluation: &Evaluation) -> Metric {
        match evaluation {
            Evaluation { top1: Some(_), .. } => Metric::Top1,
            Evaluation { agreement: Some(_), .. } => Metric::Agreement,
            _ => Metric::Closeness,
        }
    }

    /// Its value with the 95 % interval. The value is in [0, 1], but closeness may be below 0.
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

    /// Its name in tables and on axes.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Top1 => "top-1",
            Metric::Agreement => "agreement",
            Metric::Closeness => "1 - relative error",
        }
    }
}
