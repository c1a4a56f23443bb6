//! The analysis of a study of training: means over seeds, winners and collapsed layers.

use super::{TrainCell, TrainFailure, TrainRecord};
use resprout::study::curves::{OverSeeds, ascending, deviation, mean};
use serde::{Deserialize, Serialize};

/// The version of the JSON form, raised when a field changes its meaning or is removed.
pub const SCHEMA_VERSION: u32 = 1;

/// The analysis of a study of training: all data of its report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainAnalysis {
    /// See [`SCHEMA_VERSION`].
    pub train_study_schema_version: u32,
    /// Version of the library that wrote it.
    pub tool_version: String,
    /// The recipe with all keys.
    pub recipe: serde_json::Value,
    /// One per network.
    pub networks: Vec<NetworkStudy>,
    /// The cells that could not be trained.
    pub failures: Vec<TrainFailure>,
}

/// The results of one network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkStudy {
    /// The architecture, or the name of the model file.
    pub name: String,
    /// The number of test images.
    pub images: usize,
    /// All floating-point parameters.
    pub parameters: usize,
    /// Weights in prunable layers.
    pub prunable: usize,
    /// One per method and repair, the dense ones first.
    pub curves: Vec<TrainCurve>,
    /// The best at each sparsity.
    pub winners: Vec<TrainWinner>,
}

/// A way to train: a cell without its network, sparsity and seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainConfiguration {
    /// As [`TrainCell::method`].
    pub method: String,
    /// As [`TrainCell::prune_at_init`].
    pub prune_at_init: Option<String>,
    /// As [`TrainCell::repair_init`].
    pub repair_init: String,
}

impl TrainConfiguration {
    /// The configuration of a cell.
    pub fn of(cell: &TrainCell) -> TrainConfiguration {
        let TrainCell { method, prune_at_init, repair_init, .. } = cell.clone();
        TrainConfiguration { method, prune_at_init, repair_init }
    }

    /// A short name.
    pub fn name(&self) -> String {
        let how = self.prune_at_init.as_ref().map_or_else(|| self.method.clone(), |how| format!("{how} before training"));
        if self.repair_init == "none" { how } else { format!("{how} · {}", self.repair_init) }
    }
}

/// One configuration at its sparsities, in ascending order. Dense networks have one point, at 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainCurve {
    /// The configuration.
    pub configuration: TrainConfiguration,
    /// Whether nothing is pruned.
    pub dense: bool,
    /// One point per sparsity.
    pub points: Vec<TrainPoint>,
}

impl TrainCurve {
    /// The point at exactly this sparsity.
    pub fn at(&self, sparsity: f64) -> Option<&TrainPoint> {
        self.points.iter().find(|point| point.sparsity == sparsity)
    }
}

/// One sparsity of a curve, as means over the seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainPoint {
    /// The requested sparsity.
    pub sparsity: f64,
    /// The realised sparsity.
    pub realised: f64,
    /// Kept weights of the prunable layers.
    pub kept: f64,
    /// The number of parameters divided by the number that remain.
    pub compression_ratio: f64,
    /// Multiply-accumulates before pruning, divided by those after.
    pub theoretical_speedup: Option<f64>,
    /// As [`TrainResult::sparse_bytes`](super::TrainResult::sparse_bytes).
    pub sparse_bytes: u64,
    /// Top-1 on the test images after the last epoch.
    #[serde(flatten)]
    pub test: OverSeeds,
    /// Top-1 on the test images of the epoch that validation chose.
    pub best: Option<f64>,
    /// The number of that epoch.
    pub best_epoch: Option<f64>,
    /// One per epoch.
    pub epochs: Vec<MeanEpoch>,
    /// Layers that pruning has left without any weight, and in how many of the runs.
    pub collapsed: Vec<(String, usize)>,
}

/// An epoch, as means over the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanEpoch {
    /// The number of the epoch, from 1 on.
    pub epoch: usize,
    /// The loss of the training images, in nats.
    pub loss: f64,
    /// The share of correct training images.
    pub train_accuracy: f64,
    /// The share of correct validation images.
    pub validation_accuracy: Option<f64>,
    /// The standard deviation of the validation accuracy, or without validation of the training accuracy, over several seeds.
    pub sd: Option<f64>,
}

/// The best configuration at a sparsity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainWinner {
    /// The requested sparsity.
    pub sparsity: f64,
    /// The configuration with the highest mean.
    pub configuration: TrainConfiguration,
    /// Its top-1.
    pub value: f64,
    /// The second, and by how much the first is ahead.
    pub second: Option<(TrainConfiguration, f64)>,
    /// Whether the 95 % intervals of the two are apart, and with several seeds mean ± standard deviation, too.
    pub clear: bool,
}

impl TrainAnalysis {
    /// Analyses the records.
    pub fn new(records: &[TrainRecord], failures: Vec<TrainFailure>, recipe: serde_json::Value) -> TrainAnalysis {
        let networks = grouped(records.iter(), |record| record.cell.network.clone());
        TrainAnalysis {
            train_study_schema_version: SCHEMA_VERSION,
            tool_version: env!("CARGO_PKG_VERSION").into(),
            recipe,
            networks: networks.into_iter().filter_map(|(name, records)| NetworkStudy::new(name, &records)).collect(),
            failures,
        }
    }
}

impl NetworkStudy {
    fn new(name: String, records: &[&TrainRecord]) -> Option<NetworkStudy> {
        let first = &records.first()?.result;
        let curves = grouped(records.iter().copied(), |record| TrainConfiguration::of(&record.cell));
        let curves: Vec<TrainCurve> = curves.into_iter().map(|(configuration, records)| curve(configuration, &records)).collect();
        Some(NetworkStudy {
            name,
            images: first.images,
            parameters: first.sparsity.parameters,
            prunable: first.sparsity.prunable,
            winners: winners(&curves),
            curves,
        })
    }

    /// The requested sparsities in ascending order, that of the dense networks first.
    pub fn sparsities(&self) -> Vec<f64> {
        sparsities(&self.curves)
    }
}

fn sparsities(curves: &[TrainCurve]) -> Vec<f64> {
    ascending(curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.sparsity)))
}

/// Records of equal keys, in the order of their first.
fn grouped<'a, K: PartialEq>(
    records: impl Iterator<Item = &'a TrainRecord>,
    key: impl Fn(&TrainRecord) -> K,
) -> Vec<(K, Vec<&'a TrainRecord>)> {
    let mut groups: Vec<(K, Vec<&TrainRecord>)> = Vec::new();
    for record in records {
        let key = key(record);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(record),
            None => groups.push((key, vec![record])),
        }
    }
    groups
}

fn curve(configuration: TrainConfiguration, records: &[&TrainRecord]) -> TrainCurve {
    let dense = records.iter().any(|record| record.cell.is_dense());
    let points = grouped(records.iter().copied(), |record| record.cell.sparsity);
    let mut points: Vec<TrainPoint> = points.into_iter().filter_map(|(sparsity, records)| point(sparsity, &records)).collect();
    points.sort_by(|a, b| a.sparsity.total_cmp(&b.sparsity));
    TrainCurve { configuration, dense, points }
}

fn point(sparsity: f64, records: &[&TrainRecord]) -> Option<TrainPoint> {
    let of = |of: &dyn Fn(&TrainRecord) -> Option<f64>| mean(&mut records.iter().filter_map(|record| of(record)));
    let best = |record: &TrainRecord| record.result.best.clone();
    let mut collapsed: Vec<(String, usize)> = Vec::new();
    for layer in records.iter().flat_map(|record| &record.result.collapsed) {
        match collapsed.iter_mut().find(|(known, _)| *known == layer.param) {
            Some((_, runs)) => *runs += 1,
            None => collapsed.push((layer.param.clone(), 1)),
        }
    }
    Some(TrainPoint {
        sparsity,
        realised: of(&|record| Some(record.result.sparsity.of_prunable))?,
        kept: of(&|record| Some(record.result.sparsity.kept as f64))?,
        compression_ratio: of(&|record| Some(record.result.sparsity.compression_ratio))?,
        theoretical_speedup: of(&|record| record.result.sparsity.theoretical_speedup),
        sparse_bytes: of(&|record| Some(record.result.sparse_bytes as f64))?.round() as u64,
        test: OverSeeds::of(&records.iter().map(|record| record.result.test).collect::<Vec<_>>())?,
        best: of(&|record| Some(best(record)?.test?.value)),
        best_epoch: of(&|record| Some(best(record)?.epoch as f64)),
        epochs: (0..records.first()?.result.epochs.len()).filter_map(|epoch| mean_epoch(epoch, records)).collect(),
        collapsed,
    })
}

fn mean_epoch(index: usize, records: &[&TrainRecord]) -> Option<MeanEpoch> {
    let rows: Vec<_> = records.iter().filter_map(|record| record.result.epochs.get(index)).collect();
    let accuracies: Vec<f64> = rows.iter().map(|row| row.validation_accuracy.unwrap_or(row.train_accuracy)).collect();
    Some(MeanEpoch {
        epoch: index + 1,
        loss: mean(&mut rows.iter().map(|row| row.loss))?,
        train_accuracy: mean(&mut rows.iter().map(|row| row.train_accuracy))?,
        validation_accuracy: mean(&mut rows.iter().filter_map(|row| row.validation_accuracy)),
        sd: deviation(&accuracies),
    })
}

fn winners(curves: &[TrainCurve]) -> Vec<TrainWinner> {
    let winner = |sparsity: f64| {
        let sparse = curves.iter().filter(|curve| !curve.dense);
        let mut points: Vec<_> = sparse.filter_map(|curve| Some((&curve.configuration, curve.at(sparsity)?.test))).collect();
        // Equal values keep the order of the grid.
        points.sort_by(|(_, a), (_, b)| b.value.total_cmp(&a.value));
        let (configuration, best) = *points.first()?;
        let second = points.get(1);
        Some(TrainWinner {
            sparsity,
            configuration: configuration.clone(),
            value: best.value,
            second: second.map(|(configuration, test)| ((*configuration).clone(), best.value - test.value)),
            clear: second.is_some_and(|(_, test)| apart(best, *test)),
        })
    };
    sparsities(curves).into_iter().filter_map(winner).collect()
}

fn apart(best: OverSeeds, second: OverSeeds) -> bool {
    let sds = best.sd.unwrap_or(0.0) + second.sd.unwrap_or(0.0);
    best.interval[0] > second.interval[1] && best.value - second.value > sds
}

#[cfg(test)]
mod tests {
    use super::super::{CollapsedLayer, EpochPoint, TrainResult};
    use super::*;
    use resprout::eval::Estimate;
    use resprout::report::SparsityInfo;

    fn record(method: &str, sparsity: f64, seed: u64, hits: usize) -> TrainRecord {
        let cell = TrainCell {
            network: "net".into(),
            method: method.into(),
            prune_at_init: None,
            sparsity,
            repair_init: "none".into(),
            seed,
        };
        let row = |epoch| EpochPoint { epoch, loss: 1.0, train_accuracy: 0.5, validation_accuracy: None, sparsity };
        let info = SparsityInfo {
            requested: Some(sparsity),
            of_prunable: sparsity,
            of_all_parameters: sparsity,
            effective: sparsity,
            prunable: 100,
            kept: 10,
            parameters: 110,
            compression_ratio: 2.0,
            macs_dense: None,
            macs_sparse: None,
            theoretical_speedup: None,
        };
        let result = TrainResult {
            sparsity: info,
            sparse_bytes: 10,
            test: Estimate::share(hits, 1000),
            images: 1000,
            best: None,
            epochs: vec![row(1), row(2)],
            collapsed: vec![CollapsedLayer { param: "a.weight".into(), epoch: 1 }],
            warnings: Vec::new(),
        };
        TrainRecord { cell, result }
    }

    #[test]
    fn means_and_winners_are_over_seeds() {
        let records = [
            record("dense", 0.0, 0, 950),
            record("gmp", 0.9, 0, 900),
            record("gmp", 0.9, 1, 920),
            record("imp", 0.9, 0, 800),
            record("imp", 0.9, 1, 800),
        ];
        let analysis = TrainAnalysis::new(&records, Vec::new(), serde_json::Value::Null);
        let network = &analysis.networks[0];
        assert_eq!((network.curves.len(), network.sparsities()), (3, vec![0.0, 0.9]));
        let point = network.curves[1].at(0.9).unwrap();
        assert!((point.test.value - 0.91).abs() < 1e-12 && point.test.seeds == 2);
        assert!((point.test.sd.unwrap() - 0.02 / 2f64.sqrt()).abs() < 1e-12);
        assert_eq!((point.epochs.len(), &point.collapsed), (2, &vec![("a.weight".to_string(), 2)]));
        // The dense network competes with nothing.
        let [winner] = &network.winners[..] else { panic!("{:?}", network.winners) };
        assert_eq!((winner.configuration.method.as_str(), winner.clear), ("gmp", true));
        // A lead within the deviation of the seeds is not clear.
        let apart = |hits| {
            let close = [record("gmp", 0.9, 0, hits), record("gmp", 0.9, 1, 1000), record("imp", 0.9, 0, 800)];
            TrainAnalysis::new(&close, Vec::new(), serde_json::Value::Null).networks[0].winners[0].clear
        };
        assert!(apart(950) && !apart(700));
    }
}
