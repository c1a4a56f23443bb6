//! Recoverability curves: the metric of a configuration at each sparsity.

use super::{Cell, LayerDiagnostics, Metric, Record};
use crate::eval::Estimate;
use serde::{Deserialize, Serialize};

/// A configuration of pruning and repair: a cell without its sparsity and seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// As [`Cell::pattern`].
    pub pattern: String,
    /// As [`Cell::criterion`].
    pub criterion: String,
    /// As [`Cell::allocation`].
    pub allocation: String,
    /// As [`Cell::repair`].
    pub repair: String,
    /// As [`Cell::calibration_images`].
    pub calibration_images: usize,
}

impl Configuration {
    /// The configuration of a cell.
    pub fn of(cell: &Cell) -> Configuration {
        Configuration {
            pattern: cell.pattern.clone(),
            criterion: cell.criterion.clone(),
            allocation: cell.allocation.clone(),
            repair: cell.repair.clone(),
            calibration_images: cell.calibration_images,
        }
    }

    /// Whether nothing but the repair differs.
    pub fn same_but_repair(&self, other: &Configuration) -> bool {
        Configuration { repair: other.repair.clone(), ..self.clone() } == *other
    }

    /// Whether nothing but the allocation differs.
    pub fn same_but_allocation(&self, other: &Configuration) -> bool {
        Configuration { allocation: other.allocation.clone(), ..self.clone() } == *other
    }

    /// A short name: what differs from the default, then allocation and repair.
    pub fn name(&self) -> String {
        let mut words = Vec::new();
        if self.pattern != "unstructured" {
            words.push(self.pattern.as_str());
        }
        if self.criterion != "magnitude" {
            words.push(&self.criterion);
        }
        words.extend([self.allocation.as_str(), &self.repair]);
        words.join(" · ")
    }
}

/// One sparsity of a curve, as means over the seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The requested sparsity.
    pub sparsity: f64,
    /// The realised sparsity.
    pub realised: f64,
    /// The number of parameters divided by the number that remain.
    pub compression_ratio: f64,
    /// Multiply-accumulates before pruning, divided by those after.
    pub theoretical_speedup: Option<f64>,
    /// As [`CellResult::sparse_bytes`](super::CellResult::sparse_bytes).
    pub sparse_bytes: u64,
    /// The metric.
    pub value: f64,
    /// The mean ends of the 95 % intervals over the test images.
    pub interval: [f64; 2],
    /// The standard deviation over several seeds.
    pub sd: Option<f64>,
    /// Number of seeds.
    pub seeds: usize,
    /// The mean KL divergence from the dense network.
    pub kl: Option<f64>,
    /// Of the first seed.
    pub diagnostics: LayerDiagnostics,
}

/// One configuration at its sparsities, in ascending order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The configuration.
    pub configuration: Configuration,
    /// One point per sparsity.
    pub points: Vec<Point>,
}

impl Curve {
    /// The point at exactly this sparsity.
    pub fn at(&self, sparsity: f64) -> Option<&Point> {
        self.points.iter().find(|point| point.sparsity == sparsity)
    }
}

/// A share over several seeds.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OverSeeds {
    /// The mean.
    pub value: f64,
    /// The mean ends of the 95 % intervals over the images.
    pub interval: [f64; 2],
    /// The standard deviation over several seeds.
    pub sd: Option<f64>,
    /// Number of seeds.
    pub seeds: usize,
}

impl OverSeeds {
    /// Of the estimates of each seed; `None` for none.
    pub fn of(estimates: &[Estimate]) -> Option<OverSeeds> {
        let of = |part: fn(&Estimate) -> f64| mean(&mut estimates.iter().map(part));
        let value = of(|e| e.value)?;
        let sd = deviation(&estimates.iter().map(|e| e.value).collect::<Vec<_>>());
        Some(OverSeeds { value, interval: [of(|e| e.low)?, of(|e| e.high)?], sd, seeds: estimates.len() })
    }
}

/// The mean of any numbers.
#[doc(hidden)]
pub fn mean(values: &mut dyn Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    (count > 0.0).then_some(sum / count)
}

/// The standard deviation of several numbers.
#[doc(hidden)]
pub fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(&mut values.iter().copied())?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// The numbers in ascending order, equal ones once.
#[doc(hidden)]
pub fn ascending(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut all: Vec<f64> = values.collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    all
}

/// The curves of one model's records, in the order of the records.
#[doc(hidden)]
pub fn curves(records: &[&Record], metric: Metric) -> Vec<Curve> {
    let mut groups: Vec<(Configuration, f64, Vec<&Record>)> = Vec::new();
    for &record in records.iter().filter(|record| !record.cell.is_dense()) {
        let (configuration, sparsity) = (Configuration::of(&record.cell), record.cell.sparsity);
        match groups.iter_mut().find(|(known, s, _)| *known == configuration && *s == sparsity) {
            Some((_, _, group)) => group.push(record),
            None => groups.push((configuration, sparsity, vec![record])),
        }
    }
    let mut curves: Vec<Curve> = Vec::new();
    for (configuration, sparsity, group) in groups {
        let Some(point) = point(sparsity, &group, metric) else { continue };
        match curves.iter_mut().find(|curve| curve.configuration == configuration) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve { configuration, points: vec![point] }),
        }
    }
    curves.iter_mut().for_each(|curve| curve.points.sort_by(|a, b| a.sparsity.total_cmp(&b.sparsity)));
    curves
}

fn point(sparsity: f64, records: &[&Record], metric: Metric) -> Option<Point> {
    let estimates: Vec<Estimate> = records.iter().filter_map(|r| metric.estimate(&r.result.evaluation)).collect();
    let first = &records.first()?.result;
    let OverSeeds { value, interval, sd, .. } = OverSeeds::of(&estimates)?;
    let info = |of: fn(&crate::report::SparsityInfo) -> Option<f64>| {
        mean(&mut records.iter().filter_map(|record| of(&record.result.sparsity)))
    };
    Some(Point {
        sparsity,
        realised: info(|s| Some(s.of_prunable))?,
        compression_ratio: info(|s| Some(s.compression_ratio))?,
        theoretical_speedup: info(|s| s.theoretical_speedup),
        sparse_bytes: mean(&mut records.iter().map(|r| r.result.sparse_bytes as f64))?.round() as u64,
        value,
        interval,
        sd,
        seeds: records.len(),
        kl: mean(&mut records.iter().filter_map(|r| Some(r.result.evaluation.kl?.value))),
        diagnostics: first.diagnostics.clone(),
    })
}
