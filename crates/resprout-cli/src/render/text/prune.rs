//! The report of `prune`.

use super::evaluation::evaluation;
use super::network::{layers, left_dense, reach, sparsity};
use super::table;
use super::warnings::warnings;
use crate::render::cells;
use crate::render::numbers::{macs, percent};
use resprout::calibrate::Trained;
use resprout::report::{RepairReport, Report};
use resprout::sparsify::AllocationLoss;

pub fn report(report: &Report) {
    reach(report.sparsity.prunable, &report.left_dense);
    layers(&report.layers);
    left_dense(&report.left_dense);
    sparsity(&report.sparsity);
    if let Some(came) = &report.came_sparse {
        outln!("  {came}");
    }
    if let Some(shrunk) = &report.shrunk {
        let macs = shrunk.macs.map_or(String::new(), |[a, b]| format!(", MACs {} -> {}", macs(Some(a)), macs(Some(b))));
        let [before, after] = shrunk.parameters;
        outln!("  cut out: parameters {before} -> {after}{macs}, {} weights became smaller", shrunk.cuts.len());
    }
    if let Some(norms) = &report.merged_norms {
        outln!("  BatchNormalization: {} went into the layer in front of them", norms.merged);
        norms.left.iter().for_each(|(layer, reason)| outln!("    {layer} stays: {reason}"));
    }
    if let Some(size) = &report.size {
        outln!();
        table::cells(&cells::sizes(size));
    }
    allocations(&report.allocations);
    if let Some(made) = &report.repair {
        outln!();
        repair(made);
    }
    if let Some(run) = &report.evaluation {
        outln!();
        evaluation(run);
    }
    warnings(&report.warnings);
    if let Some(output) = &report.output {
        let seconds: f64 = report.seconds.iter().map(|(_, seconds)| seconds).sum();
        outln!("\nwrote {} in {seconds:.1} s", output.path);
    }
}

/// What the allocation `measured` has tried.
fn allocations(tried: &[AllocationLoss]) {
    if tried.is_empty() {
        return;
    }
    outln!("\n  allocations, and the loss after least squares on calibration images that it had not seen:");
    table::cells(&cells::allocations(tried));
}

fn repair(repair: &RepairReport) {
    let steps: Vec<String> = repair.steps.iter().map(|step| percent(*step)).collect();
    outln!(
        "  repair {}{}",
        repair.chain,
        if steps.len() > 1 { format!(", in steps of {}", steps.join(", ")) } else { String::new() }
    );
    if repair.batch_norms + repair.folded > 0 {
        outln!(
            "  recalibrated: {} layers by their BatchNormalization, {} by weights and bias (BatchNormalization folded into them)",
            repair.batch_norms,
            repair.folded
        );
    }
    if !repair.statistics_only.is_empty() {
        let (few, all) = (repair.statistics_only.len(), repair.statistics_only.len() + repair.fitted.len());
        outln!("  for want of time {few} of {all} layers got statistics only: {}", repair.statistics_only.join(", "));
    }
    if let Some(Trained { steps, images, distance: [from, to], agreement }) = &repair.trained {
        let agreement = agreement.map(|[from, to]| format!(", agreement {} to {}", percent(from), percent(to)));
        outln!(
            "  trained in {steps} steps; on {images} held-out images the distance went from {from:.4} to {to:.4}{}",
            agreement.unwrap_or_default()
        );
    }
    if repair.candidates.is_empty() {
        return;
    }
    outln!("  tried, and judged on every fourth calibration image, which the repair had not seen:");
    table::cells(&cells::candidates(&repair.candidates));
    for (name, error) in repair.candidates.iter().filter_map(|c| Some((&c.repair, c.error.as_ref()?))) {
        outln!("  {name} failed: {error}");
    }
}
