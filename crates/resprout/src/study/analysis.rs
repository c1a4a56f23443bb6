//! The analysis of a study's records.

use super::curves::{Curve, curves};
use super::recommend::{Constraints, Recommendation};
use super::regime::{Collapse, Crossing, Thresholds, Transition, Winner, collapses, crossings, transitions, winners};
use super::{CellResult, Failure, Metric, Record};
use serde::{Deserialize, Serialize};

/// The version of the JSON form, raised when a field changes its meaning or is removed.
pub const SCHEMA_VERSION: u32 = 2;

/// The analysis of a study: all data of its report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// See [`SCHEMA_VERSION`].
    pub study_schema_version: u32,
    /// Version of the library that wrote it.
    pub tool_version: String,
    /// The recipe with all keys.
    pub recipe: serde_json::Value,
    /// The thresholds of failure and recovery.
    pub thresholds: Thresholds,
    /// The constraints of a recommended point.
    pub constraints: Constraints,
    /// One per measured model.
    pub models: Vec<ModelStudy>,
    /// The cells that could not be measured.
    pub failures: Vec<Failure>,
    /// Notes for the reader.
    pub notes: Vec<String>,
}

/// The results of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelStudy {
    /// Its name in the study.
    pub name: String,
    /// The metric that compares its networks.
    pub metric: Metric,
    /// The metric of the dense network.
    pub dense_value: f64,
    /// The metric of guessing.
    pub chance: f64,
    /// The dense network.
    pub dense: CellResult,
    /// One curve per configuration.
    pub curves: Vec<Curve>,
    /// The sparsities where recalibration fails and a repair recovers.
    pub transitions: Vec<Transition>,
    /// The sparsities where two allocations cross.
    pub crossings: Vec<Crossing>,
    /// The best allocation at each sparsity.
    pub winners: Vec<Winner>,
    /// The first collapsed layer of each curve.
    pub collapses: Vec<Collapse>,
    /// The recommended operating point.
    pub recommended: Option<Recommendation>,
}

impl Analysis {
    /// Analyses the records.
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
    /// `None` until the dense network is measured.
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
