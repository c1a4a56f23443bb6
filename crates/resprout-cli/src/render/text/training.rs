//! A run of training.

use crate::render::run_words::run_summary;
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
