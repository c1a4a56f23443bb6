//! Studies, runs and models, side by side.

use super::table::table;
use crate::render::numbers::{bytes, macs, percent};
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
    table(&COMPARED, &compared(rows));
}

pub fn comparison_in_markdown(rows: &[Compared]) {
    let line = |cells: Vec<String>| outln!("| {} |", cells.join(" | "));
    line(COMPARED.map(String::from).to_vec());
    line(vec!["---".to_string(); COMPARED.len()]);
    // A bar in a name would end its cell.
    compared(rows).into_iter().for_each(|row| line(row.iter().map(|cell| cell.replace('|', "\\|")).collect()));
}

const COMPARED: [&str; 9] = ["", "sparsity", "smaller", "MACs", "MACs saved", "bytes", "top-1", "agreement", "KL (nats)"];

fn compared(rows: &[Compared]) -> Vec<Vec<String>> {
    let share = |value: Option<f64>| value.map_or("-".into(), percent);
    let ratio = |value: Option<f64>| value.map_or("-".into(), |x| format!("{x:.2}x"));
    let row = |row: &Compared| {
        vec![
            row.name.clone(),
            share(row.sparsity),
            ratio(row.compression_ratio),
            macs(row.macs),
            ratio(row.theoretical_speedup),
            row.bytes.map_or("-".into(), bytes),
            share(row.top1),
            share(row.agreement),
            row.kl.map_or("-".into(), |kl| format!("{kl:.4}")),
        ]
    };
    rows.iter().map(row).collect()
}
