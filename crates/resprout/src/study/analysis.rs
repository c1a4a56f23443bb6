//! What the records of a study say.

use super::curves::{Curve, curves};
use super::recommend::{Constraints, Recommendation};
use super::regime::{Collapse, Crossing, Thresholds, Transition, Winner, collapses, crossings, transitions, winners};
use super::run::Failure;
use super::{CellResult, Metric, Record};
use serde::{Deserialize, Serialize};

/// Raised whenever a field changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 2;

/// A study as data: all that its report shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// See [`SCHEMA_VERSION`].
    pub study_schema_version: u32,
    /// Version of the library that wrote it.
    pub tool_version: String,
    /// The recipe, every key of it.
    pub recipe: serde_json::Value,
    /// What counts as failure and as recovery.
    pub thresholds: Thresholds,
    /// What a recommended point must keep to.
    pub constraints: Constraints,
    /// One per model that was measured.
    pub models: Vec<ModelStudy>,
    /// What could not be measured.
    pub failures: Vec<Failure>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// What was found of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelStudy {
    /// Its name in the study.
    pub name: String,
    /// What its networks are compared by.
    pub metric: Metric,
    /// The metric of the dense network.
    pub dense_value: f64,
    /// The metric of guessing.
    pub chance: f64,
    /// The dense network.
    pub dense: CellResult,
    /// One per way of pruning and repair.
    pub curves: Vec<Curve>,
    /// Where recalibration fails and repair still recovers.
    pub transitions: Vec<Transition>,
    /// Where allocations change places.
    pub crossings: Vec<Crossing>,
    /// The best allocation, sparsity by sparsity.
    pub winners: Vec<Winner>,
    /// Which layer died first.
    pub collapses: Vec<Collapse>,
    /// The operating point to use.
    pub recommended: Option<Recommendation>,
}

impl Analysis {
    /// Reads all that can be read out of the records.
    pub fn new(
        records: &[Record],
        failures: Vec<Failure>,
        recipe: serde_json::Value,
        thresholds: Thresholds,
        constraints: Constraints,
        notes: Vec<String>,
    ) -> Analysis {
        let mut names: Vec<&str> = Vec::new();
        for record in records {
            if !names.contains(&record.cell.model.as_str()) {
                names.push(&record.cell.model);
            }
        }
        let of_model = |name: &&str| {
            let records: Vec<&Record> = records.iter().filter(|record| record.cell.model == *name).collect();
            ModelStudy::new(name, &records, &thresholds, &constraints)
        };
        Analysis {
            study_schema_version: SCHEMA_VERSION,
            tool_version: env!("CARGO_PKG_VERSION").into(),
            recipe,
            thresholds,
            constraints,
            models: names.iter().filter_map(of_model).collect(),
            failures,
            notes,
        }
    }
}

impl ModelStudy {
    /// `None` as long as the dense network was not measured.
    fn new(name: &str, records: &[&Record], thresholds: &Thresholds, constraints: &Constraints) -> Option<ModelStudy> {
        let dense = &records.iter().find(|record| record.cell.is_dense())?.result;
        let metric = Metric::of(&dense.evaluation);
        let dense_value = metric.estimate(&dense.evaluation)?.value;
        let chance = match (metric, dense.classes) {
            (Metric::Closeness, _) | (_, None) => 0.0,
            (_, Some(classes)) => 1.0 / classes as f64,
        };
        let curves = curves(records, metric);
        Some(ModelStudy {
            name: name.into(),
            metric,
            dense_value,
            chance,
            dense: dense.clone(),
            transitions: transitions(&curves, dense_value, chance, thresholds),
            crossings: crossings(&curves),
            winners: winners(&curves),
            collapses: collapses(&curves, &dense.layers, thresholds),
            recommended: constraints.recommend(&curves, dense_value),
            curves,
        })
    }
}
