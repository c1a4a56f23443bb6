//! Tables for people.

use super::study_words;
use crate::commands::bench::{Baseline, Bench, BenchRow, BreakEvenRow, PlanLayer, Plans};
use crate::commands::compare::Compared;
use crate::commands::demo::DemoReport;
use crate::commands::inspect::Inspection;
use crate::commands::run::Classified;
use crate::commands::score::ScoreReport;
use resprout::eval::{Estimate, Evaluation};
use resprout::model::LeftDense;
use resprout::repair::Candidate;
use resprout::report::{EvaluationReport, LayerRow, RepairReport, Report, SparsityInfo, reach_warning};
use resprout::study::Analysis;
use resprout::study::curves::Curve;
use std::path::Path;

/// Prints rows under a header: text to the left, numbers (all columns but the first) to the right.
fn table(header: &[&str], rows: &[Vec<String>]) {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([header[column].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cell = |(i, text): (usize, &String)| {
            if i == 0 { format!("{text:<0$}", widths[0]) } else { format!("{text:>0$}", widths[i]) }
        };
        outln!("  {}", cells.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end());
    };
    line(&header.iter().map(|name| name.to_string()).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
}

/// A share, in percent.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn percent_estimate(estimate: Option<Estimate>) -> String {
    estimate.map_or("-".into(), |e| format!("{:.2} % [{:.2}, {:.2}]", e.value * 100.0, e.low * 100.0, e.high * 100.0))
}

fn number_estimate(estimate: Option<Estimate>) -> String {
    estimate.map_or("-".into(), |e| format!("{:.4} [{:.4}, {:.4}]", e.value, e.low, e.high))
}

fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

fn macs(count: Option<u64>) -> String {
    count.map_or("-".into(), |count| format!("{:.2} M", count as f64 / 1e6))
}

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
        let row = |name: &str, b: &resprout::report::Bytes| {
            let sizes = [Some(b.raw), b.gzip, b.zstd, Some(b.sparse)];
            [name.to_string()].into_iter().chain(sizes.map(|size| size.map_or("see --sizes".into(), bytes))).collect()
        };
        table(&["size", "file", "gzip", "zstd", "as sparse file"], &[row("dense", &size.dense), row("sparse", &size.sparse)]);
    }
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

fn layers(rows: &[LayerRow]) {
    let row = |row: &LayerRow| {
        vec![
            row.param.clone(),
            row.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x"),
            format!("{:.4}", row.density),
            row.kept.to_string(),
            row.effective.to_string(),
            macs(row.macs),
            format!("{}/{}", row.dead_channels, row.channels),
        ]
    };
    table(
        &["weight", "shape", "density", "kept", "effective", "MACs", "dead channels"],
        &rows.iter().map(row).collect::<Vec<_>>(),
    );
}

/// Says first where most of the network cannot be pruned.
fn reach(prunable: usize, left: &[LeftDense]) {
    reach_warning(prunable, left).into_iter().for_each(|warning| outln!("NOTE: {warning}\n"));
}

/// One line per reason.
fn left_dense(left: &[LeftDense]) {
    let mut reasons: Vec<&str> = left.iter().map(|l| l.reason.as_str()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    for reason in reasons {
        let names: Vec<&str> = left.iter().filter(|l| l.reason == reason).map(|l| l.param.as_str()).collect();
        let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
        outln!("  left dense ({reason}): {}{more}", names[..names.len().min(3)].join(", "));
    }
}

fn sparsity(s: &SparsityInfo) {
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
    if repair.candidates.is_empty() {
        return;
    }
    outln!("  tried, and judged on every fourth calibration image, which the repair had not seen:");
    let row = |c: &Candidate| {
        let mark = if c.chosen { "* " } else { "  " };
        let of = |e: Option<&Evaluation>| match e {
            Some(e) => [percent_estimate(e.agreement), number_estimate(e.kl), number_estimate(e.relative_error)],
            None => ["failed".to_string(), "-".into(), "-".into()],
        };
        [vec![format!("{mark}{}", c.repair)], of(c.evaluation.as_ref()).to_vec()].concat()
    };
    table(&["repair", "agreement", "KL (nats)", "relative error"], &repair.candidates.iter().map(row).collect::<Vec<_>>());
    for (name, error) in repair.candidates.iter().filter_map(|c| Some((&c.repair, c.error.as_ref()?))) {
        outln!("  {name} failed: {error}");
    }
}

pub fn evaluation(run: &EvaluationReport) {
    let note = if run.on_calibration_images { ", the calibration images themselves: too good to be true for others" } else { "" };
    outln!("  {} images of {}{note}; in brackets 95 % intervals", run.images, run.path);
    let row = |(name, e): &(String, Evaluation)| {
        vec![
            name.clone(),
            percent_estimate(e.top1),
            percent_estimate(e.top5),
            percent_estimate(e.agreement),
            number_estimate(e.kl),
            number_estimate(e.relative_error),
        ]
    };
    let rows: Vec<Vec<String>> = run.networks.iter().map(row).collect();
    table(&["network", "top-1", "top-5", "agreement", "KL (nats)", "relative error"], &rows);
    for (name, e) in run.networks.iter().filter(|(_, e)| e.broken_images > 0) {
        outln!("  {name}: NaN or infinite outputs for {} images", e.broken_images);
    }
}

pub fn warnings(warnings: &[String]) {
    if !warnings.is_empty() {
        outln!();
    }
    warnings.iter().for_each(|warning| outln!("  note: {warning}"));
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

/// What a study has found.
pub fn study(study: &Analysis, measured: usize, folder: &Path) {
    for model in &study.models {
        outln!("{}\n  {}", model.name, study_words::dense(model));
        let mut sparsities: Vec<f64> = model.curves.iter().flat_map(|c| c.points.iter().map(|p| p.sparsity)).collect();
        sparsities.sort_by(f64::total_cmp);
        sparsities.dedup();
        let names: Vec<String> = sparsities.iter().map(|s| percent(*s)).collect();
        let header: Vec<&str> = [model.metric.name()].into_iter().chain(names.iter().map(String::as_str)).collect();
        let row = |curve: &Curve| {
            let value = |s: &f64| curve.at(*s).map_or("-".into(), |point| format!("{:.2}", point.value * 100.0));
            [vec![curve.way.name()], sparsities.iter().map(value).collect()].concat()
        };
        table(&header, &model.curves.iter().map(row).collect::<Vec<_>>());
        study_words::findings(model, &study.thresholds).iter().for_each(|finding| outln!("  {finding}"));
        if let Some(best) = study_words::recommendation(model, &study.constraints) {
            outln!("  {best}");
        }
        outln!();
    }
    study.failures.iter().for_each(|failure| outln!("  failed: {}", study_words::failure(failure)));
    study.notes.iter().for_each(|note| outln!("  note: {note}"));
    outln!("{measured} cells measured now; {}: report.html, study.json, journal.jsonl, recipe.json, figures/", folder.display());
}

/// The highest classes of every image.
pub fn classified(result: &Classified) {
    for image in &result.images {
        let classes: Vec<String> = image.classes.iter().map(|(class, output)| format!("{class} ({output:.3})")).collect();
        outln!("{}  {}", image.image, classes.join("  "));
    }
    outln!("{:.0} images/s, without decoding", result.images_per_second);
    warnings(&result.warnings);
}

/// Latency and throughput.
pub fn bench(bench: &Bench, layers: bool) {
    let shape: Vec<String> = bench.image.iter().map(usize::to_string).collect();
    let beside = if bench.contend > 0 { format!(", beside {} busy threads", bench.contend) } else { String::new() };
    outln!("{} on images of {}, {}, {}{beside}", bench.model.path, shape.join("x"), bench.cpu, bench.isa);
    let row = |row: &BenchRow| {
        let baseline = |of: fn(&Baseline) -> f64| row.baseline.as_ref().map(of);
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
        let line = |layer: &resprout::forward::LayerTime| {
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

/// Images that run together, stage by stage.
fn microbatch(row: &BenchRow) -> String {
    row.microbatch.iter().map(usize::to_string).collect::<Vec<_>>().join(" > ")
}

fn ms(seconds: f64) -> String {
    format!("{:.3}", seconds * 1e3)
}

fn us(seconds: f64) -> String {
    format!("{:.1}", seconds * 1e6)
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

/// Runs, studies and models side by side.
pub fn comparison(rows: &[Compared]) {
    table(&COMPARED, &compared(rows));
}

pub fn comparison_in_markdown(rows: &[Compared]) {
    let line = |cells: Vec<String>| outln!("| {} |", cells.join(" | "));
    line(COMPARED.map(String::from).to_vec());
    line(vec!["---".to_string(); COMPARED.len()]);
    // A bar in a name would end its cell.
    compared(rows).into_iter().for_each(|row| line(row.iter().map(|cell| cell.replace('|', "\\|")).collect()));
}

const COMPARED: [&str; 9] = ["", "sparsity", "smaller", "MACs", "MACs saved", "bytes", "top-1", "agreement", "KL (nats)"];

fn compared(rows: &[Compared]) -> Vec<Vec<String>> {
    let share = |value: Option<f64>| value.map_or("-".into(), percent);
    let ratio = |value: Option<f64>| value.map_or("-".into(), |x| format!("{x:.2}x"));
    let row = |row: &Compared| {
        vec![
            row.name.clone(),
            share(row.sparsity),
            ratio(row.compression_ratio),
            macs(row.macs),
            ratio(row.theoretical_speedup),
            row.bytes.map_or("-".into(), bytes),
            share(row.top1),
            share(row.agreement),
            row.kl.map_or("-".into(), |kl| format!("{kl:.4}")),
        ]
    };
    rows.iter().map(row).collect()
}

pub fn demo(report: &DemoReport, folder: &Path) {
    let top1 = |e: &Evaluation| e.top1.map_or(0.0, |t| t.value * 100.0);
    outln!(
        "Handwritten digits, {} test images; dense network: {:.1} % correct. Magnitude pruning, {} allocation,",
        report.test_images,
        top1(&report.dense),
        report.allocation
    );
    outln!("then a repair on {} unlabelled images: BatchNorm recalibration, or least squares.\n", report.calibration_images);
    let rows: Vec<Vec<String>> = report
        .rows
        .iter()
        .map(|row| {
            vec![
                percent(row.sparsity.of_prunable),
                format!("{:.1}x", row.sparsity.compression_ratio),
                bytes(row.gzip_bytes),
                format!("{:.1} %", top1(&row.pruned)),
                format!("{:.1} %", top1(&row.recalibrated)),
                format!("{:.1} %", top1(&row.least_squares)),
                format!("{:<25}", bar(top1(&row.pruned), top1(&row.recalibrated), top1(&row.least_squares))),
            ]
        })
        .collect();
    table(
        &["sparsity", "smaller", "gzip", "pruned", "recalibrated", "least squares", "# pruned, + recalibrated, * fitted"],
        &rows,
    );
    outln!("\nThe sparse models and report.json are in {}.", folder.display());
}

/// `#` for what pruning left, `+` for what recalibration brought back, `*` for what least squares
/// brought back beyond that; one character is four points.
fn bar(before: f64, recalibrated: f64, fitted: f64) -> String {
    let cells = |value: f64| (value / 4.0).round() as usize;
    let more = |from: f64, to: f64| cells(to).saturating_sub(cells(from));
    let marks = [("#", cells(before)), ("+", more(before, recalibrated)), ("*", more(before.max(recalibrated), fitted))];
    marks.into_iter().map(|(mark, count)| mark.repeat(count)).collect()
}

/// The table of a run's epochs, and what came out.
pub fn run(report: &resprout_train::run::RunReport, folder: &Path) {
    outln!("{:>5} {:>8} {:>9} {:>11} {:>9} {:>9} {:>7}", "epoch", "loss", "training", "validation", "sparsity", "rate", "img/s");
    for row in &report.outcome.rows {
        let validation = row.validation_accuracy.map_or("-".into(), |accuracy| format!("{:.2}", accuracy * 100.0));
        outln!(
            "{:>5} {:>8.4} {:>9.2} {validation:>11} {:>9.2} {:>9.5} {:>7.0}",
            row.epoch,
            row.loss,
            row.train_accuracy * 100.0,
            row.sparsity * 100.0,
            row.rate,
            row.images_per_second
        );
    }
    outln!("{}", run_summary(report));
    outln!("{}: model.onnx, report.html, report.json, journal.jsonl, recipe.yaml", folder.display());
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

/// What a repair at initialisation did, in a sentence.
fn init_repair(rows: &[resprout::lipschitz::LipschitzRow]) -> String {
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

/// What came out of a run, in a sentence or two.
pub fn run_summary(report: &resprout_train::run::RunReport) -> String {
    let outcome = &report.outcome;
    let percent =
        |e: &resprout::eval::Estimate| format!("{:.2} % [{:.2}, {:.2}]", e.value * 100.0, e.low * 100.0, e.high * 100.0);
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
