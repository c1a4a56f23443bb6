//! A run of training, and its steps.

use super::table::table;
use crate::render::numbers::{ms, percent};
use crate::render::run_words::run_summary;
use crate::reports::train_bench::TrainBenchReport;
use resprout_train::bench::LayerTimes;
use resprout_train::run::RunReport;
use std::path::Path;

/// The table of a run's epochs, and what came out.
pub fn run(report: &RunReport, folder: &Path) {
    outln!("{:>5} {:>8} {:>9} {:>11} {:>9} {:>9} {:>7}", "epoch", "loss", "training", "validation", "sparsity", "rate", "img/s");
    for row in &report.outcome.rows {
        let validation = row.validation_accuracy.map_or("-".into(), |accuracy| format!("{:.2}", accuracy * 100.0));
        outln!(
            "{:>5} {:>8.4} {:>9.2} {validation:>11} {:>9.2} {:>9.5} {:>7.0}",
            row.epoch,
            row.loss,
            row.train_accuracy * 100.0,
            row.sparsity * 100.0,
            row.rate,
            row.images_per_second
        );
    }
    outln!("{}", run_summary(report));
    outln!("{}: model.onnx, report.html, report.json, journal.jsonl, recipe.yaml", folder.display());
}

/// Times of single steps, layer by layer.
pub fn train_bench(report: &TrainBenchReport) {
    let shape = report.image.map(|side| side.to_string()).join("x");
    outln!("{} on {} images of {shape}, {}, {} threads", report.network, report.batch, report.cpu, report.threads);
    let dense = report.networks.first().map_or(f64::NAN, |row| row.step.p50);
    let rows = report.networks.iter().map(|row| {
        vec![
            row.name.into(),
            percent(row.sparsity),
            ms(row.step.p50),
            ms(row.step.p90),
            format!("{:.0}", row.step.images_per_second),
            format!("{:.2}x", dense / row.step.p50),
        ]
    });
    table(&["network", "sparsity", "p50 ms", "p90 ms", "images/s", "faster"], &rows.collect::<Vec<_>>());
    for row in &report.networks {
        outln!("\n{}, medians; peak {:.1} GMAC/s", row.name, report.peak / 1e9);
        let share = |layer: &LayerTimes, direction: usize| {
            let rate = layer.macs.map(|macs| macs[direction] as f64 / layer.seconds[direction]);
            rate.map_or("-".into(), |rate| percent(rate / report.peak))
        };
        let line = |layer: &LayerTimes| {
            let [forward, backward] = layer.seconds.map(ms);
            vec![layer.layer.clone(), forward, share(layer, 0), backward, share(layer, 1)]
        };
        let mut lines: Vec<Vec<String>> = row.layers.iter().map(line).collect();
        let sum = |direction: usize| row.layers.iter().map(|layer| layer.seconds[direction]).sum::<f64>();
        lines.push(vec!["all layers".into(), ms(sum(0)), "-".into(), ms(sum(1)), "-".into()]);
        table(&["layer", "forward ms", "of the peak", "backward ms", "of the peak"], &lines);
    }
}
