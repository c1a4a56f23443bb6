//! The page of a study of training, and its figures as files.

use super::figure::heatmap::{Heatmap, HeatmapCell, heatmap};
use super::figure::lines::{Line, chart};
use super::figure::{Figure, short};
use super::study_frame::{Section, StudyPage, unnamed};
use super::{study_table, train_study_words};
use resprout::Result;
use resprout_train::study::TrainAnalysis;
use resprout_train::study::analysis::{MeanEpoch, NetworkStudy, TrainCurve, TrainPoint};
use std::path::Path;

/// Writes `report.html`, tables, and each figure as SVG, PDF and CSV into `figures/`.
pub fn write(study: &TrainAnalysis, folder: &Path) -> Result<()> {
    let section = |network: &NetworkStudy| Section {
        name: network.name.clone(),
        summary: train_study_words::network(network),
        best: None,
        findings: train_study_words::findings(network),
        figures: figures(network),
    };
    let points = study.networks.iter().flat_map(|network| {
        network.curves.iter().flat_map(move |curve| curve.points.iter().map(move |point| row(network, curve, point)))
    });
    let page = StudyPage {
        title: "A study of sparse training",
        legend: "Bands: mean ± standard deviation over seeds, or with one seed 95 % intervals from the number of test images.",
        tool_version: &study.tool_version,
        recipe: &study.recipe,
        notes: &[],
        failures: study.failures.iter().map(train_study_words::failure).collect(),
        sections: study.networks.iter().map(section).collect(),
        columns: &COLUMNS,
        rows: points.collect(),
        choices: &[0, 1, 2, 3],
    };
    page.write(folder)?;
    study_table::write(&study_table::of_training(study), folder)
}

const COLUMNS: [(&str, bool); 17] = [
    ("network", true),
    ("method", true),
    ("before training", true),
    ("repair", true),
    ("requested %", false),
    ("realised %", false),
    ("kept", false),
    ("compression", false),
    ("MACs saved", false),
    ("sparse bytes", false),
    ("top-1 %", false),
    ("low", false),
    ("high", false),
    ("sd", false),
    ("seeds", false),
    ("best epoch", false),
    ("its top-1 %", false),
];

fn row(network: &NetworkStudy, curve: &TrainCurve, point: &TrainPoint) -> Vec<String> {
    let percent = |share: f64| format!("{:.2}", share * 100.0);
    let optional = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
    let configuration = &curve.configuration;
    vec![
        network.name.clone(),
        configuration.method.clone(),
        configuration.prune_at_init.clone().unwrap_or_else(|| "none".into()),
        configuration.repair_init.clone(),
        percent(point.sparsity),
        percent(point.realised),
        short(point.kept),
        format!("{:.2}", point.compression_ratio),
        optional(point.theoretical_speedup),
        point.sparse_bytes.to_string(),
        percent(point.test.value),
        percent(point.test.interval[0]),
        percent(point.test.interval[1]),
        optional(point.test.sd.map(|sd| sd * 100.0)),
        point.test.seeds.to_string(),
        optional(point.best_epoch),
        optional(point.best.map(|best| best * 100.0)),
    ]
}

fn figures(network: &NetworkStudy) -> Vec<Figure> {
    let sparse: Vec<f64> = network.sparsities().into_iter().filter(|&s| s > 0.0).collect();
    let mut all = vec![table_figure(network, &sparse), sparsity_figure(network, &sparse)];
    for &sparsity in &sparse {
        all.push(epochs_figure(network, sparsity));
    }
    all
}

fn text(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

/// Configurations by sparsities.
fn table_figure(network: &NetworkStudy, sparsities: &[f64]) -> Figure {
    let curves: Vec<&TrainCurve> = network.curves.iter().filter(|curve| !curve.dense).collect();
    let cell = |curve: &TrainCurve, s: f64| {
        let value = curve.at(s)?.test.value;
        Some(HeatmapCell { share: value, kind: 0, words: format!("{:.2}", value * 100.0) })
    };
    let map = Heatmap {
        rows: curves.iter().map(|curve| curve.configuration.name()).collect(),
        columns: sparsities.iter().map(|s| short(s * 100.0)).collect(),
        column_name: "sparsity, %".into(),
        cells: curves.iter().map(|curve| sparsities.iter().map(|&s| cell(curve, s)).collect()).collect(),
        kinds: Vec::new(),
    };
    let rows = curves.iter().flat_map(|curve| {
        let row = |p: &TrainPoint| {
            let value = [p.sparsity, p.test.value].map(|v| v.to_string()).to_vec();
            [vec![curve.configuration.name()], value, vec![text(p.test.sd), p.test.seeds.to_string()]].concat()
        };
        curve.points.iter().map(row).collect::<Vec<_>>()
    });
    let rows = rows.collect();
    unnamed(heatmap("Top-1 of each method, %", &map), vec!["name", "sparsity", "value", "sd", "seeds"], rows)
}

/// Top-1 over sparsity.
fn sparsity_figure(network: &NetworkStudy, sparsities: &[f64]) -> Figure {
    let ends = sparsities.first().zip(sparsities.last());
    let (mut lines, mut rows) = (Vec::new(), Vec::new());
    for curve in &network.curves {
        let name = curve.configuration.name();
        let ends_of = |p: &TrainPoint| match p.test.sd {
            Some(sd) => [p.test.value - sd, p.test.value + sd],
            None => p.test.interval,
        };
        for p in &curve.points {
            let [low, high] = ends_of(p);
            rows.push([vec![name.clone()], [p.sparsity, p.test.value, low, high].map(|v| v.to_string()).to_vec()].concat());
        }
        let at = |sparsity: f64, p: &TrainPoint| (sparsity * 100.0, p.test.value * 100.0);
        // The dense network is a level to compare with.
        let points = match (curve.dense, curve.points.first(), ends) {
            (true, Some(p), Some((&low, &high))) => vec![at(low, p), at(high, p)],
            _ => curve.points.iter().map(|p| at(p.sparsity, p)).collect(),
        };
        let band = |p: &TrainPoint| {
            let [low, high] = ends_of(p);
            (p.sparsity * 100.0, low * 100.0, high * 100.0)
        };
        let band = if curve.dense { Vec::new() } else { curve.points.iter().map(band).collect() };
        lines.push(Line { name, points, band, reference: curve.dense });
    }
    let drawing = chart("Top-1 by sparsity", "sparsity, %", "top-1, %", &lines);
    unnamed(drawing, vec!["name", "sparsity", "value", "low", "high"], rows)
}

/// How training went at a sparsity, beside the dense run.
fn epochs_figure(network: &NetworkStudy, sparsity: f64) -> Figure {
    let held = network.curves.iter().flat_map(|curve| &curve.points).flat_map(|p| &p.epochs);
    let validated = held.clone().count() > 0 && held.clone().all(|epoch| epoch.validation_accuracy.is_some());
    let value = |epoch: &MeanEpoch| epoch.validation_accuracy.filter(|_| validated).unwrap_or(epoch.train_accuracy);
    let (mut lines, mut rows) = (Vec::new(), Vec::new());
    for curve in &network.curves {
        let Some(point) = (if curve.dense { curve.points.first() } else { curve.at(sparsity) }) else { continue };
        let name = curve.configuration.name();
        for e in &point.epochs {
            let numbers = [e.loss, e.train_accuracy].map(|v| v.to_string()).to_vec();
            let rest = vec![text(e.validation_accuracy), text(e.sd)];
            rows.push([vec![name.clone(), e.epoch.to_string()], numbers, rest].concat());
        }
        let band = point.epochs.iter().filter_map(|e| Some((e, e.sd?)));
        lines.push(Line {
            name,
            points: point.epochs.iter().map(|e| (e.epoch as f64, value(e) * 100.0)).collect(),
            band: band.map(|(e, sd)| (e.epoch as f64, (value(e) - sd) * 100.0, (value(e) + sd) * 100.0)).collect(),
            reference: curve.dense,
        });
    }
    let which = if validated { "Validation" } else { "Training" };
    let title = format!("{which} accuracy by epoch at {} %", short(sparsity * 100.0));
    let drawing = chart(&title, "epoch", "accuracy, %", &lines);
    unnamed(drawing, vec!["name", "epoch", "loss", "training", "validation", "sd"], rows)
}
