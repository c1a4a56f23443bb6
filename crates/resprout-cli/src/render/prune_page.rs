//! The page of `prune`: one file, no network.

use super::cells;
use super::figure::bars::bars;
use super::figure::escape;
use super::numbers::{macs, percent};
use super::plain_page::{html_figure, html_list, html_table, plain_page};
use resprout::report::{EvaluationReport, Report};

/// The page.
pub fn page(report: &Report) -> String {
    let evaluation = report.evaluation.as_ref().map(evaluation).unwrap_or_default();
    let sizes = report.size.as_ref().map(|size| html_table(&cells::sizes(size))).unwrap_or_default();
    let reasons: Vec<String> = report.left_dense.iter().map(|left| format!("{}: {}", left.param, left.reason)).collect();
    let body = [
        summary(report).iter().map(|line| format!("<p>{}</p>\n", escape(line))).collect(),
        evaluation,
        kept_by_layer(report),
        sizes,
        repair(report),
        html_list("Warnings", &report.warnings),
        format!("<h2>Layers</h2>\n{}", html_table(&cells::layers(&report.layers))),
        html_list("Left dense", &reasons),
        options(report),
    ];
    let path = &report.model.path;
    plain_page(&format!("{path}: pruned by resprout"), path, "h2{margin-top:2rem}", &body.concat())
}

/// What was done, in sentences.
fn summary(report: &Report) -> Vec<String> {
    let sparsity = &report.sparsity;
    let mut lines = vec![format!(
        "{} of {} prunable weights are pruned. The network is {:.2} times smaller.",
        percent(sparsity.of_prunable),
        sparsity.prunable,
        sparsity.compression_ratio
    )];
    if let (Some(factor), dense, sparse) = (sparsity.theoretical_speedup, sparsity.macs_dense, sparsity.macs_sparse) {
        lines.push(format!(
            "Multiply-accumulates of an image: {} of {}, {factor:.2} times fewer. resprout bench measures the real speed.",
            macs(sparse),
            macs(dense)
        ));
    }
    if let Some(shrunk) = &report.shrunk {
        let [before, after] = shrunk.parameters;
        lines.push(format!("Channels were cut out: {after} of {before} parameters are left."));
    }
    lines
}

fn evaluation(run: &EvaluationReport) -> String {
    let note = match run.on_calibration_images {
        true => ". These are the calibration images: other images give lower numbers",
        false => "",
    };
    let caption = format!("{} images of {}{note}. In brackets: 95 % intervals.", run.images, run.path);
    format!("<h2>Before and after</h2>\n<p>{}</p>\n{}", escape(&caption), html_table(&cells::evaluation(run)))
}

fn kept_by_layer(report: &Report) -> String {
    let names: Vec<String> = report.layers.iter().map(|layer| layer.param.clone()).collect();
    let share = |of: fn(&resprout::report::LayerRow) -> usize| -> Vec<f64> {
        report.layers.iter().map(|layer| 100.0 * of(layer) as f64 / layer.weights.max(1) as f64).collect()
    };
    let mut series = vec![("kept".to_string(), share(|layer| layer.kept))];
    if report.layers.iter().any(|layer| layer.effective < layer.kept) {
        series.push(("on a path from input to output".into(), share(|layer| layer.effective)));
    }
    let title = "Kept weights of each layer, in percent";
    format!("<h2>What is left</h2>\n{}", html_figure(title, &bars(title, "percent", &names, &series)))
}

fn repair(report: &Report) -> String {
    let Some(repair) = &report.repair else { return String::new() };
    let steps: Vec<String> = repair.steps.iter().map(|step| percent(*step)).collect();
    let mut text = format!("<h2>Repair</h2>\n<p>{} in {:.1} s", escape(&repair.chain), repair.seconds);
    if steps.len() > 1 {
        text += &format!(", in steps of {}", steps.join(", "));
    }
    text += ".</p>\n";
    if !repair.candidates.is_empty() {
        text += "<p>Tried, and judged on every fourth calibration image, which the repair had not seen:</p>\n";
        text += &html_table(&cells::candidates(&repair.candidates));
    }
    text
}

/// Everything that decides the result.
fn options(report: &Report) -> String {
    let options = serde_json::to_string_pretty(&report.options).unwrap_or_default();
    format!(
        "<h2>Options</h2>\n<pre>{}</pre>\n<p>sha256 of the model: {}, resprout {}.</p>\n",
        escape(&options),
        report.model.sha256,
        escape(&report.tool_version)
    )
}
