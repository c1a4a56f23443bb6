//! `resprout compare`: runs, reports, studies and models side by side.

mod times;

use super::{check_json_target, check_target, file_info, images, model_files, read_computable, read_model, write_json};
use crate::args::{CompareArgs, TableFormat};
use crate::commands::sweep::STUDY;
use crate::render::{compare_page, text};
use crate::reports::compare::Compared;
use resprout::eval::{self, Evaluation};
use resprout::formats::atomic;
use resprout::forward::{Network, PlanOptions};
use resprout::model::{Model, PrunableRule};
use resprout::progress::Progress;
use resprout::report::{self, Report, SparsityInfo};
use resprout::study::Analysis;
use resprout::study::analysis::ModelStudy;
use resprout::study::curves::{Configuration, Point};
use resprout::{Error, ErrorKind, Result};
use resprout_train::run::RunReport;
use resprout_train::study::TrainAnalysis;
use resprout_train::study::analysis::TrainPoint;
use serde_json::Value;
use std::path::Path;

pub fn run(args: &CompareArgs, progress: &dyn Progress) -> anyhow::Result<()> {
    check_json_target(args.json.as_deref())?;
    check_target(args.page.as_deref(), "--page")?;
    if args.format != TableFormat::Table && args.json.as_deref() == Some(Path::new("-")) {
        return Err(Error::new(ErrorKind::Option, "--json -: prints the rows as --format does; give one of them").into());
    }
    let mut rows = Vec::new();
    let mut benches = Vec::new();
    let mut models: Vec<(usize, Model)> = Vec::new();
    for path in &args.paths {
        match report_of(path).map(|file| read_json(&file).map(|value| (file, value))).transpose()? {
            Some((file, value)) if times::is_bench(&value) => benches.push(times::read(&file, value)?),
            Some((file, value)) => rows.extend(read_report(path, &file, value, args.filter.as_deref())?),
            None => {
                let model = match args.data.is_some() {
                    true => read_computable(path, &args.network)?,
                    false => read_model(path, &args.network)?,
                };
                rows.push(of_model(path, &model, models.first().map(|(_, first)| first))?);
                models.push((rows.len() - 1, model));
            }
        }
    }
    let mut notes = match &args.data {
        Some(data) => measure(args, data, &models, &mut rows, progress)?,
        None => Vec::new(),
    };
    notes.extend(times::add(&benches, &mut rows));
    if let Some(page) = &args.page {
        let written = compare_page::page(&rows, &notes).ok_or_else(|| {
            let what = "no row has both a time and an accuracy or agreement";
            let advice = "add files of `resprout bench --json` for the same networks, and --data or reports of prune";
            Error::new(ErrorKind::Option, format!("--page {}: {what}; {advice}", page.display()))
        })?;
        atomic::write(page, written.as_bytes())?;
    }
    if write_json(&rows, args.json.as_deref())? {
        print(&rows, args.format)?;
        // Where programs read, notes are not for them.
        match args.format {
            TableFormat::Table => text::warnings(&notes),
            _ => notes.iter().for_each(|note| eprintln!("warning: {note}")),
        }
    }
    Ok(())
}

fn print(rows: &[Compared], format: TableFormat) -> anyhow::Result<()> {
    match format {
        TableFormat::Table => text::comparison(rows),
        TableFormat::Md => text::comparison_in_markdown(rows),
        TableFormat::Json => outln!("{}", serde_json::to_string_pretty(rows)?),
        TableFormat::Csv => {
            let mut csv = csv::Writer::from_writer(Vec::new());
            rows.iter().try_for_each(|row| csv.serialize(row))?;
            outln!("{}", String::from_utf8(csv.into_inner()?)?.trim_end());
        }
    }
    Ok(())
}

/// The report that a path stands for, if it is not a model.
fn report_of(path: &Path) -> Option<std::path::PathBuf> {
    if path.is_dir() {
        // A study has a report of its own name beside others.
        let file = [STUDY, "report.json"].map(|name| path.join(name)).into_iter().find(|file| file.is_file());
        return Some(file.unwrap_or_else(|| path.join("report.json")));
    }
    path.extension().is_some_and(|extension| extension == "json").then(|| path.to_path_buf())
}

fn wrong(file: &Path) -> impl Fn(serde_json::Error) -> Error {
    move |e| Error::new(ErrorKind::Format, format!("{}: {e}", file.display()))
}

fn read_json(file: &Path) -> Result<Value> {
    let bytes = std::fs::read(file).map_err(|e| Error::io(file, e))?;
    serde_json::from_slice(&bytes).map_err(wrong(file))
}

fn read_report(path: &Path, file: &Path, mut value: Value, filter: Option<&str>) -> Result<Vec<Compared>> {
    let name = path.display().to_string();
    let wrong = wrong(file);
    if value.get("study_schema_version") == Some(&Value::from(1)) {
        rename_keys(&mut value);
    }
    let has = |key: &str| value.get(key).is_some();
    if has("study_schema_version") {
        let study: Analysis = serde_json::from_value(value).map_err(wrong)?;
        return Ok(of_study(&name, &study, filter.unwrap_or_default()));
    }
    if has("train_study_schema_version") {
        let study: TrainAnalysis = serde_json::from_value(value).map_err(wrong)?;
        return Ok(of_train_study(&name, &study, filter.unwrap_or_default()));
    }
    if has("outcome") {
        return Ok(vec![of_run(name, &serde_json::from_value(value).map_err(wrong)?)]);
    }
    if has("sparsity") && has("layers") {
        return Ok(of_report(&name, &serde_json::from_value(value).map_err(wrong)?));
    }
    Err(Error::new(ErrorKind::Format, format!("{}: is no report of prune, train, sweep or bench", file.display())))
}

/// Keys of a study of schema version 1, and their names since version 2.
const RENAMED: [(&str, &str); 3] = [("deaths", "collapses"), ("signs", "diagnostics"), ("way", "configuration")];

fn rename_keys(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(rename_keys),
        Value::Object(fields) => {
            for (old, new) in RENAMED {
                if let Some(content) = fields.remove(old) {
                    fields.insert(new.into(), content);
                }
            }
            fields.values_mut().for_each(rename_keys);
        }
        _ => {}
    }
}

fn measured(row: Compared, evaluation: &Evaluation) -> Compared {
    Compared {
        top1: evaluation.top1.map(|e| e.value),
        agreement: evaluation.agreement.map(|e| e.value),
        kl: evaluation.kl.map(|e| e.value),
        ..row
    }
}

/// One row for each network that the report has measured.
fn of_report(name: &str, report: &Report) -> Vec<Compared> {
    let mut sparse = Compared {
        name: name.into(),
        sparsity: Some(report.sparsity.of_prunable),
        compression_ratio: Some(report.sparsity.compression_ratio),
        macs: report.sparsity.macs_sparse,
        theoretical_speedup: report.sparsity.theoretical_speedup,
        bytes: report.size.as_ref().and_then(|size| size.sparse.gzip),
        sha256: report.output.as_ref().map(|file| file.sha256.clone()),
        ..Compared::default()
    };
    // With its channels, a smaller network loses biases and normalisations too.
    if let (Some(shrunk), Some(size)) = (&report.shrunk, &report.size) {
        let left = (size.sparse.nonzero / 4).max(1);
        sparse.compression_ratio = Some(shrunk.parameters[0] as f64 / left as f64);
    }
    let Some(evaluation) = &report.evaluation else { return vec![sparse] };
    let dense = Compared {
        sparsity: Some(0.0),
        compression_ratio: Some(1.0),
        macs: report.sparsity.macs_dense,
        bytes: report.size.as_ref().and_then(|size| size.dense.gzip),
        sha256: Some(report.reference.as_ref().unwrap_or(&report.model).sha256.clone()),
        ..Compared::default()
    };
    // The last network is the one that was written.
    let written = evaluation.networks.last().map(|(network, _)| network);
    let row = |(network, evaluation): &(String, Evaluation)| {
        let row = match network.as_str() {
            "dense" => dense.clone(),
            _ if Some(network) == written => sparse.clone(),
            _ => Compared { sha256: None, ..sparse.clone() },
        };
        measured(Compared { name: format!("{name} · {network}"), ..row }, evaluation)
    };
    evaluation.networks.iter().map(row).collect()
}

fn of_run(name: String, report: &RunReport) -> Compared {
    let how = match &report.recipe.prune_at_init {
        Some(method) => format!("{method} before training"),
        None => report.recipe.method.clone(),
    };
    Compared {
        name: format!("{name} · {how}"),
        sparsity: Some(report.outcome.sparsity),
        top1: report.outcome.test.as_ref().map(|test| test.value),
        ..Compared::default()
    }
}

fn of_study(name: &str, study: &Analysis, filter: &str) -> Vec<Compared> {
    let point = |model: &ModelStudy, configuration: &Configuration, point: &Point| Compared {
        name: format!("{name} · {} · {}", model.name, configuration.name()),
        sparsity: Some(point.realised),
        compression_ratio: Some(point.compression_ratio),
        macs: None,
        theoretical_speedup: point.theoretical_speedup,
        bytes: Some(point.sparse_bytes),
        top1: (model.metric == resprout::study::Metric::Top1).then_some(point.value),
        agreement: (model.metric == resprout::study::Metric::Agreement).then_some(point.value),
        kl: point.kl,
        ..Compared::default()
    };
    let mut rows = Vec::new();
    for model in &study.models {
        for curve in &model.curves {
            rows.extend(
                curve.points.iter().map(|p| point(model, &curve.configuration, p)).filter(|row| row.name.contains(filter)),
            );
        }
    }
    rows
}

fn of_train_study(name: &str, study: &TrainAnalysis, filter: &str) -> Vec<Compared> {
    let mut rows = Vec::new();
    for network in &study.networks {
        for curve in &network.curves {
            let row = |point: &TrainPoint| Compared {
                name: format!("{name} · {} · {}", network.name, curve.configuration.name()),
                sparsity: Some(point.realised),
                compression_ratio: Some(point.compression_ratio),
                theoretical_speedup: point.theoretical_speedup,
                bytes: Some(point.sparse_bytes),
                top1: Some(point.test.value),
                ..Compared::default()
            };
            rows.extend(curve.points.iter().map(row).filter(|row| row.name.contains(filter)));
        }
    }
    rows
}

/// A model, as what is left of the first one if it is a smaller form of that.
fn of_model(path: &Path, model: &Model, first: Option<&Model>) -> Result<Compared> {
    let own = sparsity(model)?;
    let whole = match first.filter(|first| is_shrunk(model, first)) {
        Some(first) => sparsity(first)?,
        None => own.clone(),
    };
    let left = (own.parameters - (own.prunable - own.kept)).max(1);
    Ok(Compared {
        name: path.display().to_string(),
        sparsity: Some(1.0 - own.kept as f64 / whole.prunable.max(1) as f64),
        compression_ratio: Some(whole.parameters as f64 / left as f64),
        macs: own.macs_sparse,
        theoretical_speedup: whole.macs_dense.zip(own.macs_sparse).map(|(whole, left)| whole as f64 / left.max(1) as f64),
        bytes: Some(report::gzip_files(&model_files(path)?)?),
        sha256: Some(file_info(path)?.sha256),
        ..Compared::default()
    })
}

fn sparsity(model: &Model) -> Result<SparsityInfo> {
    let (layers, _) = model.prunable(&PrunableRule::default())?;
    let macs = resprout::model::fixed_image(model).and_then(|image| resprout::forward::layer_macs(model, &image).ok());
    let rows = report::layer_rows(model, &layers, macs.as_ref())?;
    Ok(report::sparsity_info(model, &rows, None, macs.as_ref()))
}

/// Whether channels were cut out of `first` to make `model`: the same weights, none larger and some smaller.
fn is_shrunk(model: &Model, first: &Model) -> bool {
    let weights = |model: &Model| model.prunable(&PrunableRule::default()).map(|(layers, _)| layers).unwrap_or_default();
    let (small, large) = (weights(model), weights(first));
    let fits = small.iter().zip(&large).all(|(small, large)| {
        let mut axes = small.shape.iter().zip(&large.shape);
        small.param == large.param && small.shape.len() == large.shape.len() && axes.all(|(a, b)| a <= b)
    });
    fits && small.len() == large.len() && model.params.float_count() < first.params.float_count()
}

/// Measures the models, the first of which is the dense one; returns notes on the images.
fn measure(
    args: &CompareArgs,
    data: &Path,
    models: &[(usize, Model)],
    rows: &mut [Compared],
    progress: &dyn Progress,
) -> Result<Vec<String>> {
    let Some((_, first)) = models.first() else {
        return Err(Error::new(ErrorKind::Option, "--data: there is no model among what is compared, nothing can be measured"));
    };
    let (preprocess, notes) = images::preprocess(&args.images, first)?;
    let set = images::open(data, &args.images)?;
    let image = images::shape(&set, first, &preprocess)?;
    let ready: Result<Vec<Network>> =
        models.iter().map(|(_, model)| Network::new(model, &image, &PlanOptions::default())).collect();
    let run = eval::evaluate(&ready?.iter().collect::<Vec<_>>(), &set, &preprocess, true, progress)?;
    for ((index, _), evaluation) in models.iter().zip(&run.networks) {
        rows[*index] = measured(rows[*index].clone(), evaluation);
    }
    Ok(notes.into_iter().chain(set.left_out()).collect())
}
