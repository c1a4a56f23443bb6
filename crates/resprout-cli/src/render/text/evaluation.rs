//! How networks do on images.

use super::table::{self, table};
use super::warnings::warnings;
use crate::render::cells;
use crate::render::numbers::{bytes, percent};
use crate::reports::demo::DemoReport;
use crate::reports::eval::EvalReport;
use crate::reports::run::Classified;
use resprout::eval::Evaluation;
use resprout::report::EvaluationReport;
use std::path::Path;

pub fn evaluation(run: &EvaluationReport) {
    let note = if run.on_calibration_images { ", the calibration images themselves: too good to be true for others" } else { "" };
    outln!("  {} images of {}{note}; in brackets 95 % intervals", run.images, run.path);
    table::cells(&cells::evaluation(run));
    for (name, e) in run.networks.iter().filter(|(_, e)| e.broken_images > 0) {
        outln!("  {name}: NaN or infinite outputs for {} images", e.broken_images);
    }
}

/// What `eval` measures.
pub fn eval(report: &EvalReport) {
    evaluation(&report.evaluation);
    outln!("{:.0} images/s, decoding included", report.images_per_second);
    warnings(&report.warnings);
}

/// The highest classes of every image.
pub fn classified(result: &Classified) {
    for image in &result.images {
        let classes: Vec<String> = image.classes.iter().map(|(class, output)| format!("{class} ({output:.3})")).collect();
        outln!("{}  {}", image.image, classes.join("  "));
    }
    outln!("{:.0} images/s, without decoding", result.images_per_second);
    warnings(&result.warnings);
}

pub fn demo(report: &DemoReport, folder: &Path) {
    let top1 = |e: &Evaluation| e.top1.map_or(0.0, |t| t.value * 100.0);
    outln!(
        "Handwritten digits, {} test images; dense network: {:.1} % correct. Magnitude pruning, {} allocation,",
        report.test_images,
        top1(&report.dense),
        report.allocation
    );
    outln!("then a repair on {} unlabelled images: BatchNorm recalibration, or least squares.\n", report.calibration_images);
    let rows: Vec<Vec<String>> = report
        .rows
        .iter()
        .map(|row| {
            vec![
                percent(row.sparsity.of_prunable),
                format!("{:.1}x", row.sparsity.compression_ratio),
                bytes(row.gzip_bytes),
                format!("{:.1} %", top1(&row.pruned)),
                format!("{:.1} %", top1(&row.recalibrated)),
                format!("{:.1} %", top1(&row.least_squares)),
                format!("{:<25}", bar(top1(&row.pruned), top1(&row.recalibrated), top1(&row.least_squares))),
            ]
        })
        .collect();
    table(
        &["sparsity", "smaller", "gzip", "pruned", "recalibrated", "least squares", "# pruned, + recalibrated, * fitted"],
        &rows,
    );
    outln!("\nThe sparse models and report.json are in {}.", folder.display());
}

/// `#` for what pruning left, `+` for what recalibration brought back, `*` for what least squares
/// brought back beyond that; one character is four points.
fn bar(before: f64, recalibrated: f64, fitted: f64) -> String {
    let cells = |value: f64| (value / 4.0).round() as usize;
    let more = |from: f64, to: f64| cells(to).saturating_sub(cells(from));
    let marks = [("#", cells(before)), ("+", more(before, recalibrated)), ("*", more(before.max(recalibrated), fitted))];
    marks.into_iter().map(|(mark, count)| mark.repeat(count)).collect()
}
