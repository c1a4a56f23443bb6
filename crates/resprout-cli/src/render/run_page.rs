//! A run's page: one file, no network.

use super::figure::escape;
use super::figure::lines::{Line, chart};
use super::plain_page::{html_figure, html_list, plain_page};
use resprout_train::checkpoint::EpochRow;
use resprout_train::run::RunReport;

/// The page.
pub fn page(report: &RunReport) -> String {
    let rows = &report.outcome.rows;
    let line = |name: &str, of: fn(&EpochRow) -> f64| Line {
        name: name.into(),
        points: rows.iter().map(|row| (row.epoch as f64, of(row))).collect(),
        ..Line::default()
    };
    let mut accuracy = vec![line("training", |row| row.train_accuracy)];
    if rows.iter().any(|row| row.validation_accuracy.is_some()) {
        accuracy.push(line("validation", |row| row.validation_accuracy.unwrap_or(f64::NAN)));
    }
    let charts = [
        figure("Loss (nats)", &[line("training", |row| row.loss)]),
        figure("Accuracy", &accuracy),
        figure("Sparsity and learning rate", &[line("sparsity", |row| row.sparsity), line("learning rate", |row| row.rate)]),
    ];
    let recipe = escape(&report.recipe.to_yaml().unwrap_or_default());
    let table: String = rows.iter().map(table_row).collect();
    let network = report.recipe.arch.as_deref().or(report.recipe.model.as_deref()).unwrap_or_default();
    let body = format!(
        "<p>{}</p>\n{}\n<table><tr><th>epoch<th>loss<th>training<th>validation<th>sparsity<th>rate</tr>\n{table}</table>\n\
         {}<h2>Recipe</h2>\n<pre>{recipe}</pre>",
        escape(&super::run_words::run_summary(report)),
        charts.join(""),
        html_list("Warnings", &super::run_words::run_warnings(report))
    );
    plain_page(&format!("{network}: a run of resprout"), network, "body{max-width:44rem}", &body)
}

fn table_row(row: &EpochRow) -> String {
    let percent = |value: f64| format!("{:.2}", value * 100.0);
    format!(
        "<tr><td>{}<td>{:.4}<td>{}<td>{}<td>{}<td>{:.5}</tr>\n",
        row.epoch,
        row.loss,
        percent(row.train_accuracy),
        row.validation_accuracy.map_or("-".into(), percent),
        percent(row.sparsity),
        row.rate
    )
}

fn figure(title: &str, lines: &[Line]) -> String {
    html_figure(title, &chart(title, "epoch", "", lines))
}
