//! What a study has found, in sentences: for the page and for the terminal.

use super::numbers::percent;
use resprout::study::Failure;
use resprout::study::analysis::ModelStudy;
use resprout::study::recommend::Constraints;
use resprout::study::regime::{Collapse, Thresholds, Transition};

/// The dense network.
pub fn dense(model: &ModelStudy) -> String {
    let size = &model.dense.sparsity;
    let macs = size.macs_dense.map_or(String::new(), |macs| format!(", {:.2} M multiply-accumulates", macs as f64 / 1e6));
    format!(
        "Dense: {} {} on {} images; {} parameters, {} of them prunable{macs}.",
        model.metric.name(),
        percent(model.dense_value),
        model.dense.images,
        size.parameters,
        size.prunable
    )
}

/// What could not be measured, and why.
pub fn failure(failure: &Failure) -> String {
    let cell = &failure.cell;
    match cell.is_dense() {
        true => format!("{}: {}", cell.model, failure.error),
        false => format!(
            "{}: {}, {}, {}, {} at {}: {}",
            cell.model,
            cell.pattern,
            cell.criterion,
            cell.allocation,
            cell.repair,
            percent(cell.sparsity),
            failure.error
        ),
    }
}

/// The operating point to use, where constraints were given.
pub fn recommendation(model: &ModelStudy, constraints: &Constraints) -> Option<String> {
    if !constraints.any() {
        return None;
    }
    let Some(best) = &model.recommended else { return Some("Recommended: no measured point keeps to the constraints.".into()) };
    let point = &best.point;
    let speedup = point.theoretical_speedup.map_or(String::new(), |x| format!(", theoretical speed-up {x:.2}x"));
    Some(format!(
        "Recommended: {} at a sparsity of {}: {} {} (dense {}), {} bytes in a sparse file{speedup}.",
        best.configuration.name(),
        percent(point.sparsity),
        model.metric.name(),
        percent(point.value),
        percent(model.dense_value),
        point.sparse_bytes
    ))
}

/// Winners, crossings, transition regimes and collapsed layers.
pub fn findings(model: &ModelStudy, thresholds: &Thresholds) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(winners(model));
    let clear: Vec<_> = model.crossings.iter().filter(|crossing| crossing.clear).collect();
    found.extend(clear.iter().map(|crossing| {
        format!(
            "{}: {} is better up to about {}, then {}; both differences are larger than the intervals.",
            crossing.configuration.repair,
            crossing.configuration.allocation,
            percent(crossing.at),
            crossing.then
        )
    }));
    let close = model.crossings.len() - clear.len();
    if close > 0 {
        found.push(format!("{close} more crossings of two allocations lie within the intervals."));
    }
    found.extend(widest(model, thresholds));
    found.extend(collapses(model, thresholds));
    found
}

/// How often each allocation wins, over repairs and sparsities.
fn winners(model: &ModelStudy) -> Option<String> {
    let mut counts: Vec<(&str, usize, usize)> = Vec::new();
    for winner in &model.winners {
        let name = winner.configuration.allocation.as_str();
        let index = counts.iter().position(|(known, ..)| *known == name).unwrap_or_else(|| {
            counts.push((name, 0, 0));
            counts.len() - 1
        });
        counts[index].1 += 1;
        counts[index].2 += usize::from(winner.clear);
    }
    counts.sort_by_key(|(_, wins, _)| std::cmp::Reverse(*wins));
    let words: Vec<String> = counts.iter().map(|(name, wins, clear)| format!("{name} {wins} ({clear} clearly)")).collect();
    (!words.is_empty()).then(|| format!("Best allocation, counted over repairs and sparsities: {}.", words.join(", ")))
}

/// The widest regime of each allocation.
fn widest(model: &ModelStudy, thresholds: &Thresholds) -> Vec<String> {
    let mut best: Vec<&Transition> = Vec::new();
    for transition in model.transitions.iter().filter(|transition| transition.width > 0.0) {
        let alike = |other: &&mut &Transition| other.configuration.same_but_repair(&transition.configuration);
        match best.iter_mut().find(alike) {
            Some(widest) if widest.width >= transition.width => {}
            Some(widest) => *widest = transition,
            None => best.push(transition),
        }
    }
    if best.is_empty() && !model.transitions.is_empty() {
        return vec![format!(
            "No transition regime: no repair is {} points ahead of recalibration where anything is left.",
            thresholds.delta * 100.0
        )];
    }
    let words = |transition: &Transition| {
        let ranges: Vec<String> =
            transition.ranges.iter().map(|[from, to]| format!("{} to {}", percent(*from), percent(*to))).collect();
        let open = if transition.open { ", where the study ends" } else { "" };
        format!(
            "Transition regime of {}: {}{open}; {:.2} points wide.",
            transition.configuration.name(),
            ranges.join(" and "),
            transition.width * 100.0
        )
    };
    best.into_iter().map(words).collect()
}

/// Where layers collapse without repair.
fn collapses(model: &ModelStudy, thresholds: &Thresholds) -> Vec<String> {
    let unrepaired = model.collapses.iter().filter(|collapse| collapse.configuration.repair == "none");
    let words = |collapse: &Collapse| {
        format!(
            "Without repair, {}: the first layer to collapse is {} (number {} of {}) at {}; layers that keep less than {} of their variance there: {}.",
            collapse.configuration.name().trim_end_matches(" · none"),
            collapse.layer,
            collapse.index + 1,
            model.dense.layers.len(),
            percent(collapse.sparsity),
            percent(thresholds.dead),
            collapse.layers
        )
    };
    unrepaired.map(words).collect()
}
