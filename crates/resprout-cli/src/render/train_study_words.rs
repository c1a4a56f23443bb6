//! What a study of training has found, in sentences: for the page and for the terminal.

use super::numbers::percent;
use resprout_train::study::TrainFailure;
use resprout_train::study::analysis::{NetworkStudy, TrainConfiguration, TrainCurve, TrainPoint, TrainWinner};

/// The network and its dense runs.
pub fn network(network: &NetworkStudy) -> String {
    let dense = network.curves.iter().filter(|curve| curve.dense).filter_map(|curve| {
        let test = curve.points.first()?.test;
        let over = test.sd.map_or(String::new(), |sd| format!(" ± {:.2} over {} seeds", sd * 100.0, test.seeds));
        Some(format!("{} {}{over}", curve.configuration.name(), percent(test.value)))
    });
    let dense: Vec<String> = dense.collect();
    format!(
        "{} parameters, {} of them prunable; top-1 on {} images: {}.",
        network.parameters,
        network.prunable,
        network.images,
        if dense.is_empty() { "no dense run".into() } else { dense.join(", ") }
    )
}

/// The best at each sparsity, and collapsed layers.
pub fn findings(network: &NetworkStudy) -> Vec<String> {
    let collapsed = network.curves.iter().flat_map(|curve| curve.points.iter().filter_map(move |point| collapse(curve, point)));
    network.winners.iter().map(winner).chain(collapsed).collect()
}

fn winner(winner: &TrainWinner) -> String {
    let second = winner.second.as_ref().map_or(String::new(), |(second, ahead)| {
        let clearly = if winner.clear { "clearly" } else { "not clearly" };
        format!(", {:.2} points and {clearly} ahead of {}", ahead * 100.0, second.name())
    });
    format!("Best at {}: {} with {}{second}.", percent(winner.sparsity), winner.configuration.name(), percent(winner.value))
}

fn collapse(curve: &TrainCurve, point: &TrainPoint) -> Option<String> {
    let layers: Vec<String> =
        point.collapsed.iter().map(|(layer, runs)| format!("{layer} ({runs} of {})", point.test.seeds)).collect();
    let text = || {
        format!(
            "{} at {}: pruning left no weight in {} (of the runs).",
            curve.configuration.name(),
            percent(point.sparsity),
            layers.join(", ")
        )
    };
    (!layers.is_empty()).then(text)
}

/// What could not be trained, and why.
pub fn failure(failure: &TrainFailure) -> String {
    let cell = &failure.cell;
    let how = TrainConfiguration::of(cell).name();
    format!("{}: {how} at {}, seed {}: {}", cell.network, percent(cell.sparsity), cell.seed, failure.error)
}
