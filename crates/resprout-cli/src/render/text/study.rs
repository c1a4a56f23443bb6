//! Studies, runs and models, side by side.

use super::table::{self, table};
use crate::render::cells::{self, Cells};
use crate::render::study_table::{self, StudyTable};
use crate::render::{study_words, train_study_words};
use crate::reports::compare::Compared;
use resprout::study::Analysis;
use resprout::study::curves::OverSeeds;
use resprout_train::study::TrainAnalysis;
use std::path::Path;

/// What a study has found.
pub fn study(study: &Analysis, measured: usize, folder: &Path) {
    for (model, rows) in study.models.iter().zip(&study_table::of_study(study)) {
        outln!("{}\n  {}", model.name, study_words::dense(model));
        text_table(rows);
        study_words::findings(model, &study.thresholds).iter().for_each(|finding| outln!("  {finding}"));
        if let Some(best) = study_words::recommendation(model, &study.constraints) {
            outln!("  {best}");
        }
        outln!();
    }
    study.failures.iter().for_each(|failure| outln!("  failed: {}", study_words::failure(failure)));
    study.notes.iter().for_each(|note| outln!("  note: {note}"));
    outln!("{measured} cells measured now; {}: {FILES}", folder.display());
}

/// What a study of training has found.
pub fn train_study(study: &TrainAnalysis, measured: usize, folder: &Path) {
    for (network, rows) in study.networks.iter().zip(&study_table::of_training(study)) {
        outln!("{}\n  {}", network.name, train_study_words::network(network));
        text_table(rows);
        train_study_words::findings(network).iter().for_each(|finding| outln!("  {finding}"));
        outln!();
    }
    study.failures.iter().for_each(|failure| outln!("  failed: {}", train_study_words::failure(failure)));
    outln!("{measured} cells measured now; {}: {FILES}", folder.display());
}

/// The files of a study's folder.
const FILES: &str = "report.html, study.json, journal.jsonl, recipe.json, table.csv, table.md, table.tex, figures/";

fn text_table(rows: &StudyTable) {
    let names = rows.header();
    let header: Vec<&str> = [rows.metric].into_iter().chain(names.iter().map(String::as_str)).collect();
    let row = |(name, values): &(String, Vec<Option<OverSeeds>>)| {
        [vec![name.clone()], values.iter().map(|value| study_table::words(value.as_ref(), "±")).collect()].concat()
    };
    table(&header, &rows.rows.iter().map(row).collect::<Vec<_>>());
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
