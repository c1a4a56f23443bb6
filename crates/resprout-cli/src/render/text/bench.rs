//! Latency and throughput.

use super::table::table;
use super::warnings::warnings;
use crate::render::numbers::{ms, us};
use crate::reports::bench::{BaselineTimes, BenchReport, BenchRow, BreakEvenRow, PlanLayer, Plans};
use resprout::forward::LayerTime;

/// Latency and throughput.
pub fn bench(bench: &BenchReport, layers: bool) {
    let shape: Vec<String> = bench.image.iter().map(usize::to_string).collect();
    let beside = if bench.contend > 0 { format!(", beside {} busy threads", bench.contend) } else { String::new() };
    outln!("{} on images of {}, {}, {}{beside}", bench.model.path, shape.join("x"), bench.cpu, bench.isa);
    let row = |row: &BenchRow| {
        let baseline = |of: fn(&BaselineTimes) -> f64| row.baseline.as_ref().map(of);
        vec![
            row.batch.to_string(),
            row.threads.to_string(),
            microbatch(row),
            ms(row.ours.p50),
            ms(row.ours.p90),
            format!("{:.0}", row.ours.images_per_second),
            baseline(|r| r.times.p50).map_or("-".into(), ms),
            baseline(|r| r.times.p90).map_or("-".into(), ms),
            baseline(|r| r.ratio).map_or("-".into(), |ratio| format!("{ratio:.2}x")),
            row.baseline.as_ref().and_then(|r| r.difference).map_or("-".into(), |d| format!("{d:.1e}")),
        ]
    };
    let header = [
        "batch",
        "threads",
        "microbatch",
        "p50 ms",
        "p90 ms",
        "images/s",
        "baseline p50",
        "baseline p90",
        "faster",
        "difference",
    ];
    table(&header, &bench.rows.iter().map(row).collect::<Vec<_>>());
    if let Some(baseline) = bench.rows.iter().find_map(|row| row.baseline.as_ref()) {
        outln!("  baseline: {}; faster: the median of its time by ours, turn by turn", baseline.name);
    }
    let baseline = bench.load.baseline.zip(bench.load.ratio);
    let baseline = baseline.map_or(String::new(), |(its, ratio)| format!("; baseline {} ms, {ratio:.2} times as long", ms(its)));
    outln!("  ready {} ms after the file is opened{baseline}", ms(bench.load.ours));
    bench.rows.iter().filter_map(|row| row.plans.as_ref()).for_each(plans);
    bench.rows.iter().filter(|row| !row.break_even.is_empty()).for_each(break_even);
    for row in bench.rows.iter().filter(|_| layers) {
        outln!("\nbatch {}, {} threads; peak {:.1} GMAC/s", row.batch, row.threads, row.peak / 1e9);
        let line = |layer: &LayerTime| {
            let rate = layer.macs.map(|macs| macs as f64 / layer.seconds);
            vec![
                layer.name.clone(),
                layer.images.to_string(),
                us(layer.seconds),
                layer.density.map_or("-".into(), |d| format!("{d:.3}")),
                rate.map_or("-".into(), |rate| format!("{:.1}", rate / 1e9)),
                rate.map_or("-".into(), |rate| format!("{:.0} %", rate / row.peak * 100.0)),
            ]
        };
        table(
            &["operation", "images", "us", "density", "GMAC/s", "of the peak"],
            &row.layers.iter().map(line).collect::<Vec<_>>(),
        );
    }
    warnings(&bench.warnings);
}

/// Images per run, stage by stage.
fn microbatch(row: &BenchRow) -> String {
    row.microbatch.iter().map(usize::to_string).collect::<Vec<_>>().join(" > ")
}

fn plans(plans: &Plans) {
    outln!(
        "\nplanned {} ms, all layers sparse {}, all dense {}: the better of these takes {:.2} times as long",
        ms(plans.planned),
        ms(plans.all_sparse),
        ms(plans.all_dense),
        plans.ratio
    );
    if let Some(worst) = plans.worst_layer {
        outln!("  of the layers planned sparse, the dense path takes at least {worst:.2} times as long");
    }
    let row = |layer: &PlanLayer| {
        let path = if layer.planned_sparse { "sparse" } else { "dense" };
        vec![
            layer.name.clone(),
            format!("{:.3}", layer.density),
            path.into(),
            us(layer.planned),
            us(layer.sparse),
            us(layer.dense),
        ]
    };
    table(
        &["convolution, us per image", "density", "plan", "planned", "sparse", "dense"],
        &plans.layers.iter().map(row).collect::<Vec<_>>(),
    );
}

fn break_even(row: &BenchRow) {
    outln!(
        "\nbatch {}, {} threads: below which density a convolution with random masks is faster sparse",
        row.batch,
        row.threads
    );
    let densities = row.break_even[0].sparse.iter().map(|(density, _)| format!("{density:.2}"));
    let header: Vec<String> =
        ["shape", "dense us"].map(String::from).into_iter().chain(densities).chain(["break-even".into()]).collect();
    let line = |found: &BreakEvenRow| {
        let sparse = found.sparse.iter().map(|(_, seconds)| us(*seconds));
        let density = if found.density < 1.0 { format!("{:.2}", found.density) } else { "always".into() };
        [found.shape.clone(), us(found.dense)].into_iter().chain(sparse).chain([density]).collect()
    };
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    table(&header, &row.break_even.iter().map(line).collect::<Vec<_>>());
}
