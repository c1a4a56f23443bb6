//! Studies, runs and models, side by side.

use super::table::{self, table};
use crate::render::cells::{self, Cells};
use crate::render::numbers::percent;
use crate::render::study_words;
use crate::reports::compare::Compared;
use resprout::study::Analysis;
use resprout::study::curves::Curve;
use std::path::Path;

/// What a study has found.
pub fn study(study: &Analysis, measured: usize, folder: &Path) {
    for model in &study.models {
        outln!("{}\n  {}", model.name, study_words::dense(model));
        let mut sparsities: Vec<f64> = model.curves.iter().flat_map(|c| c.points.iter().map(|p| p.sparsity)).collect();
        sparsities.sort_by(f64::total_cmp);
        sparsities.dedup();
        let names: Vec<String> = sparsities.iter().map(|s| percent(*s)).collect();
        let header: Vec<&str> = [model.metric.name()].into_iter().chain(names.iter().map(String::as_str)).collect();
        let row = |curve: &Curve| {
            let value = |s: &f64| curve.at(*s).map_or("-".into(), |point| format!("{:.2}", point.value * 100.0));
            [vec![curve.configuration.name()], sparsities.iter().map(value).collect()].concat()
        };
        table(&header, &model.curves.iter().map(row).collect::<Vec<_>>());
        study_words::findings(model, &study.thresholds).iter().for_each(|finding| outln!("  {finding}"));
        if let Some(best) = study_words::recommendation(model, &study.constraints) {
            outln!("  {best}");
        }
        outln!();
    }
    study.failures.iter().for_each(|failure| outln!("  failed: {}", study_words::failure(failure)));
    study.notes.iter().for_each(|note| outln!("  note: {note}"));
    outln!("{measured} cells measured now; {}: report.html, study.json, journal.jsonl, recipe.json, figures/", folder.display());
}

/// Runs, studies and models side by side.
pub fn comparison(rows: &[Compared]) {
    table::cells(&cells::compared(rows));
}

pub fn comparison_in_markdown(rows: &[Compared]) {
    let Cells { header, rows } = cells::compared(rows);
    let line = |cells: Vec<String>| outln!("| {} |", cells.join(" | "));
    line(header.iter().map(|cell| cell.to_string()).collect());
    line(vec!["---".to_string(); header.len()]);
    // A bar in a name would end its cell.
    rows.into_iter().for_each(|row| line(row.iter().map(|cell| cell.replace('|', "\\|")).collect()));
}
