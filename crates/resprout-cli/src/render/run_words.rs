//! What came out of a run of training, in sentences: for the page and for the terminal.

use resprout::eval::Estimate;
use resprout::lipschitz::LipschitzRow;
use resprout_train::run::RunReport;

/// What came out of a run, in a sentence or two.
pub fn run_summary(report: &RunReport) -> String {
    let outcome = &report.outcome;
    let percent = |e: &Estimate| format!("{:.2} % [{:.2}, {:.2}]", e.value * 100.0, e.low * 100.0, e.high * 100.0);
    let mut text = format!("{} at a sparsity of {:.2} %", report.recipe.method, outcome.sparsity * 100.0);
    match &outcome.test {
        Some(test) => text += &format!(": {} of the test images are right after the last epoch", percent(test)),
        None => text += ": no test images",
    }
    if let Some(best) = &outcome.best {
        text += &format!("; validation was best after epoch {} ({:.2} %", best.epoch, best.validation * 100.0);
        text += &best.test.as_ref().map_or(")".into(), |test| format!(", test {})", percent(test)));
    }
    if !outcome.init_repair.is_empty() {
        text += &format!(". {}", init_repair(&outcome.init_repair));
    }
    text + &format!(
        ". {:.0} images per second, {:.1} % of the time waiting for images.",
        outcome.images_per_second,
        outcome.waiting * 100.0
    )
}

/// What a run's reader must know.
pub fn run_warnings(report: &RunReport) -> Vec<String> {
    let rows = &report.outcome.rows;
    let emptied: Vec<String> = rows
        .iter()
        .flat_map(|row| row.emptied.iter().map(move |e| format!("{} (epoch {}, before step {})", e.param, row.epoch, e.step)))
        .collect();
    let message = || format!("pruning left no weight in {}; a lower sparsity or another allocation may help", emptied.join(", "));
    if emptied.is_empty() { Vec::new() } else { vec![message()] }
}

/// What a repair at initialisation did, in a sentence.
pub fn init_repair(rows: &[LipschitzRow]) -> String {
    let scaled = rows.iter().filter(|row| row.gamma.is_some()).count();
    let empty = rows.iter().filter(|row| row.sigma == 0.0).count();
    let bounds = rows.iter().filter(|row| row.sigma > 0.0).map(|row| row.lipschitz);
    let (low, high) = bounds.fold((f64::INFINITY, 0.0f64), |(low, high), bound| (low.min(bound), high.max(bound)));
    let mut text = format!(
        "The repair at initialisation found Lipschitz bounds from {low:.2} to {high:.2} in {} layers and divided {scaled} scales of \
         BatchNormalizations",
        rows.len()
    );
    if empty > 0 {
        text += &format!("; {empty} layers without any weight were left");
    }
    text
}
