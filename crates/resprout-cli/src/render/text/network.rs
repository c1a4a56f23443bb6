//! What is left of a network: layers, sparsity, what stays dense.

use super::table;
use super::warnings::warnings;
use crate::render::cells;
use crate::render::numbers::{bytes, macs, percent};
use crate::render::run_words::init_repair;
use crate::reports::inspect::Inspection;
use crate::reports::score::ScoreReport;
use resprout::model::LeftDense;
use resprout::report::{LayerRow, SparsityInfo, reach_warning};
use std::path::Path;

pub fn layers(rows: &[LayerRow]) {
    table::cells(&cells::layers(rows));
}

/// Says first where most of the network cannot be pruned.
pub fn reach(prunable: usize, left: &[LeftDense]) {
    reach_warning(prunable, left).into_iter().for_each(|warning| outln!("NOTE: {warning}\n"));
}

/// One line per reason.
pub fn left_dense(left: &[LeftDense]) {
    let mut reasons: Vec<&str> = left.iter().map(|l| l.reason.as_str()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    for reason in reasons {
        let names: Vec<&str> = left.iter().filter(|l| l.reason == reason).map(|l| l.param.as_str()).collect();
        let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
        outln!("  left dense ({reason}): {}{more}", names[..names.len().min(3)].join(", "));
    }
}

pub fn sparsity(s: &SparsityInfo) {
    outln!(
        "\n  sparsity: {} of {} prunable weights, {} of all {} parameters, effective {}",
        percent(s.of_prunable),
        s.prunable,
        percent(s.of_all_parameters),
        s.parameters,
        percent(s.effective)
    );
    let speedup = s
        .theoretical_speedup
        .map_or("unknown (input size)".into(), |x| format!("{x:.2}x (MACs {} -> {})", macs(s.macs_dense), macs(s.macs_sparse)));
    outln!(
        "  compression ratio {:.2}x, theoretical speed-up {speedup}; `resprout bench` measures the real one",
        s.compression_ratio
    );
}

pub fn inspection(inspection: &Inspection) {
    outln!("{} ({}, sha256 {})", inspection.model.path, bytes(inspection.model.bytes), inspection.model.sha256);
    for ((name, shape), element) in inspection.inputs.iter().zip(&inspection.input_types) {
        outln!("  input {name} [{}] {element}", shape.join(", "));
    }
    outln!("  output {}", inspection.outputs.join(", "));
    let operations = inspection.operations.iter().map(|(name, count)| format!("{name} {count}"));
    outln!("  operations: {}\n", operations.collect::<Vec<_>>().join(", "));
    reach(inspection.sparsity.prunable, &inspection.left_dense);
    layers(&inspection.layers);
    left_dense(&inspection.left_dense);
    outln!("\n  {} prunable of {} parameters", inspection.sparsity.prunable, inspection.sparsity.parameters);
    if inspection.sparsity.kept < inspection.sparsity.prunable {
        sparsity(&inspection.sparsity);
    }
    match (&inspection.image, &inspection.forward_error) {
        (None, _) => outln!("  operations are not counted: the image size is free; give --input-shape"),
        (Some(_), Some(error)) => outln!("  cannot be computed here (pruning without repair works): {error}"),
        (Some(image), None) => {
            outln!("  {} multiply-accumulates for an image of {image:?}", macs(inspection.sparsity.macs_dense))
        }
    }
}

/// What is left of an untrained network.
pub fn scored(scored: &ScoreReport, output: &Path) {
    layers(&scored.layers);
    left_dense(&scored.left_dense);
    sparsity(&scored.sparsity);
    if !scored.init_repair.is_empty() {
        outln!("  {}", init_repair(&scored.init_repair));
    }
    warnings(&scored.warnings);
    outln!("\nwrote {}; scored by {} in {:.1} s", output.display(), scored.method, scored.seconds);
}
