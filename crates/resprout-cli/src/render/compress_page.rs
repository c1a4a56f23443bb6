//! A search's page: one file, no network.

use super::compress_words::{frontier, summary};
use super::figure::lines::{Line, chart};
use super::figure::{Figure, escape, slug};
use super::numbers::bytes;
use super::plain_page::{html_figure, html_list, plain_page};
use crate::reports::compress::CompressReport;
use resprout::compress::{Candidate, Row, Stage};

/// The page, with its [`figure`].
pub fn page(report: &CompressReport, figure: &Figure) -> String {
    let paragraphs: String = summary(report).lines().map(|line| format!("<p>{}</p>\n", escape(line))).collect();
    let mut rows: Vec<(usize, &Row)> = report.rows.iter().enumerate().collect();
    rows.sort_by(|a, b| a.1.cost.faster.total_cmp(&b.1.cost.faster));
    let table: String = rows.into_iter().map(|(index, row)| table_row(row, index == report.nearest)).collect();
    let how = [
        format!("Measured on {}, {} threads, batches of {}.", report.cpu, report.threads, report.batch),
        format!("{} images repaired, {} chose.", report.images[0], report.images[1]),
    ];
    let body = format!(
        "{paragraphs}{}\
         <table><tr><th>network<th>repair<th>stage<th>times as fast<th>ms<th>sparse file<th>operations<th>points lost<th>interval</tr>\n\
         {table}</table>\n<h2>Make it again</h2>\n<pre>{}</pre>\n{}",
        html_figure("Points lost by how many times as fast; networks that were repaired in full", &figure.drawing),
        escape(&report.commands.join("\n")),
        html_list("Notes", &[&how[..], &report.warnings].concat())
    );
    let path = &report.model.path;
    plain_page(&format!("{path}: loss against latency"), path, "tr.best{font-weight:bold}", &body)
}

/// The picture of the page, for a file of its own.
pub fn figure(report: &CompressReport) -> Figure {
    let lines = lines(report);
    let title = "Points lost by speed";
    let drawing = chart(title, "times as fast as the dense network", "points lost", &lines);
    let row = |line: &Line, (x, y): &(f64, f64)| vec![line.name.clone(), x.to_string(), y.to_string()];
    let rows = lines.iter().flat_map(|line| line.points.iter().map(move |point| row(line, point))).collect();
    Figure { id: slug(title), drawing, columns: vec!["kind", "times as fast", "points lost"], rows }
}

/// One line for each kind of pruning, and the frontier.
fn lines(report: &CompressReport) -> Vec<Line> {
    let kind = |candidate: &Candidate| match (candidate.channels.is_some(), candidate.weights.is_some()) {
        (true, true) => "channels, then single weights",
        (true, false) => "channels",
        _ => "single weights",
    };
    let sorted = |mut points: Vec<(f64, f64)>| {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    let point = |row: &Row| (row.cost.faster, row.loss.points);
    let best = frontier(report).into_iter().map(|index| point(&report.rows[index])).collect();
    let mut all = vec![Line { name: "frontier".into(), points: sorted(best), reference: true, ..Line::default() }];
    for name in ["single weights", "channels", "channels, then single weights"] {
        let of_kind = report.rows.iter().filter(|row| row.stage == Stage::Full && kind(&row.candidate) == name);
        let points: Vec<(f64, f64)> = of_kind.map(point).collect();
        if !points.is_empty() {
            all.push(Line { name: name.into(), points: sorted(points), ..Line::default() });
        }
    }
    all
}

fn table_row(row: &Row, best: bool) -> String {
    let stage = if row.stage == Stage::Full { "full" } else { "estimate" };
    format!(
        "<tr{}><td>{}<td>{}<td>{stage}<td>{:.2}<td>{:.3}<td>{}<td>{:.1} %<td>{:.2}<td>{:.2} to {:.2}</tr>\n",
        if best { " class=\"best\"" } else { "" },
        escape(&row.candidate.name()),
        escape(&row.repair),
        row.cost.faster,
        row.cost.milliseconds,
        bytes(row.cost.bytes),
        100.0 * row.cost.macs,
        row.loss.points,
        row.loss.low,
        row.loss.high
    )
}
