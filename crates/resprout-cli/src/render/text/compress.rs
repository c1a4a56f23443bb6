//! What a search has found.

use super::table::table;
use crate::render::compress_words::{frontier, summary};
use crate::render::numbers::bytes;
use crate::reports::compress::CompressReport;
use resprout::compress::{Row, Stage};
use std::path::Path;

pub fn compress(report: &CompressReport, folder: &Path) {
    let best = frontier(report);
    let row = |(index, row): (usize, &Row)| {
        let mark = if index == report.nearest {
            "*"
        } else if best.contains(&index) {
            "-"
        } else {
            ""
        };
        vec![
            row.candidate.name(),
            row.repair.clone(),
            format!("{:.2}x", row.cost.faster),
            format!("{:.2}", row.cost.milliseconds),
            bytes(row.cost.bytes),
            format!("{:.2}", row.loss.points),
            format!("{:.0}", row.seconds),
            mark.to_string(),
        ]
    };
    let full = report.rows.iter().enumerate().filter(|(_, row)| row.stage == Stage::Full);
    let mut rows: Vec<(usize, &Row)> = full.collect();
    rows.sort_by(|a, b| a.1.cost.faster.total_cmp(&b.1.cost.faster));
    table(
        &["network", "repair", "faster", "ms", "sparse file", "loss", "seconds", ""],
        &rows.into_iter().map(row).collect::<Vec<_>>(),
    );
    outln!("\n{}", summary(report));
    outln!("\nMake it again with:");
    report.commands.iter().for_each(|line| outln!("  {line}"));
    report.warnings.iter().for_each(|warning| outln!("note: {warning}"));
    outln!("\nThe network is {}, the page {}.", folder.join("model.onnx").display(), folder.join("report.html").display());
}
