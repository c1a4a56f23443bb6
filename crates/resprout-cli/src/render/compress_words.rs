//! Sentences about a search.

use crate::reports::compress::CompressReport;
use resprout::compress::{Row, Stage, Wish};

/// What was found, and how it was measured.
pub fn summary(report: &CompressReport) -> String {
    let Row { candidate, repair, steps, cost, .. } = &report.rows[report.nearest];
    let verdict = match (report.chosen, report.kept) {
        (Some(_), true) => "It keeps the wish",
        (Some(_), false) => "It kept the wish on the images that it was chosen by, but not on those of the final measurement",
        (None, _) => "No network keeps the wish; this one comes closest",
    };
    let unit = if report.labelled { "points of accuracy" } else { "points" };
    let on = if report.labelled { "labelled images" } else { "images that nothing was chosen by" };
    let check = &report.check;
    format!(
        "Wish: {}.\n{verdict}: {}, repaired by {repair} in {steps} steps.\n{:.2} times as fast as the dense network ({:.2} ms, {} threads, \
         batch {}), {:.1} % of the parameters, {:.1} % of the operations.\nIt loses {:.2} {unit} ({:.2} to {:.2}) on {on}.",
        wish(&report.wish),
        candidate.name(),
        cost.faster,
        cost.milliseconds,
        report.threads,
        report.batch,
        100.0 * cost.parameters,
        100.0 * cost.macs,
        check.points,
        check.low,
        check.high
    )
}

/// A wish in words.
fn wish(wish: &Wish) -> String {
    let percent = |share: f64| format!("{} %", (share * 1000.0).round() / 10.0);
    let parts = [
        wish.faster.map(|factor| format!("{factor} times as fast")),
        wish.bytes.map(|bytes| format!("at most {bytes} bytes")),
        wish.macs.map(|share| format!("at most {} of the operations", percent(share))),
        wish.parameters.map(|share| format!("at most {} of the parameters", percent(share))),
        wish.max_loss.map(|points| format!("at most {points} points lost")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The rows in full that no other one beats in speed and loss.
pub fn frontier(report: &CompressReport) -> Vec<usize> {
    let full = || report.rows.iter().enumerate().filter(|(_, row)| row.stage == Stage::Full);
    let beaten = |row: &Row| {
        full().any(|(_, other)| {
            let (faster, better) = (other.cost.faster - row.cost.faster, row.loss.points - other.loss.points);
            faster >= 0.0 && better >= 0.0 && (faster > 0.0 || better > 0.0)
        })
    };
    full().filter(|(_, row)| !beaten(row)).map(|(index, _)| index).collect()
}
