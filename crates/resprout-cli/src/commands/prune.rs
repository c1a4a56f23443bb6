//! `resprout prune`: prune, repair, measure, write, report.

use super::{check_json_target, check_writable, file_info, images, read_model, write_json};
use crate::args::PruneArgs;
use crate::render::text;
use resprout::data::{ImageSet, LabelSource, Preprocess};
use resprout::forward::{Network, PlanOptions};
use resprout::model::{Model, PrunableRule};
use resprout::progress::Progress;
use resprout::prune::{PruneOptions, PruneOutcome, check_sparsity};
use resprout::repair::{REPAIRS, Repair, RepairOutcome};
use resprout::report::{self, Calibration, EvaluationReport, Report, SizeInfo};
use resprout::tensor::Tensor;
use resprout::{Error, ErrorKind, Result, eval, formats, table};
use std::path::Path;
use std::time::Instant;

pub fn run(args: &PruneArgs, progress: &dyn Progress) -> anyhow::Result<()> {
    let options = prune_options(args)?;
    let repair = build_repair(args)?;
    check_writable(&args.output, "--output")?;
    check_json_target(args.json.as_deref())?;
    let mut clock = Clock::start();
    let dense = read_model(&args.model, args.weights.as_deref())?;
    let data = Data::open(args, &dense, repair.needs_images())?;
    clock.lap("read");

    let mut pruned = dense.clone();
    let outcome = resprout::prune::prune(&mut pruned, &options, progress)?;
    clock.lap("prune");
    let mut repaired = pruned.clone();
    let empty = Tensor::default();
    let calibration = data.calibration.as_ref().map_or(&empty, |(images, _)| images);
    let repair_outcome = repair.repair(&mut repaired, calibration, progress)?;
    clock.lap("repair");
    let mut networks = vec![("dense", &dense), ("pruned", &pruned)];
    if repair.needs_images() {
        networks.push(("repaired", &repaired));
    }
    let evaluation = if args.no_evaluation { None } else { data.evaluate(&networks, progress)? };
    clock.lap("evaluate");

    progress.check()?;
    write_model(&repaired, &args.output, data.calibration.as_ref().map(|(images, _)| images))?;
    clock.lap("write");
    let mut report = build_report(args, (&dense, &repaired), &outcome, &repair_outcome, data, evaluation)?;
    clock.lap("report");
    report.seconds = clock.laps;
    if write_json(&report, args.json.as_deref())? {
        text::report(&report);
    }
    Ok(())
}

/// Seconds per stage.
struct Clock {
    last: Instant,
    laps: Vec<(String, f64)>,
}

impl Clock {
    fn start() -> Clock {
        Clock { last: Instant::now(), laps: Vec::new() }
    }

    fn lap(&mut self, stage: &str) {
        self.laps.push((stage.to_string(), self.last.elapsed().as_secs_f64()));
        self.last = Instant::now();
    }
}

fn prune_options(args: &PruneArgs) -> Result<PruneOptions> {
    check_sparsity(args.sparsity, "--sparsity")?;
    let layer = |text: &String| {
        let wrong = || Error::new(ErrorKind::Option, format!("--layer {text:?}: NAME=SPARSITY is needed"));
        let (name, sparsity) = text.rsplit_once('=').ok_or_else(wrong)?;
        Ok((name.to_string(), sparsity.parse().map_err(|_| wrong())?))
    };
    Ok(PruneOptions {
        sparsity: args.sparsity,
        criterion: args.criterion.clone(),
        allocation: args.allocation.clone(),
        rule: PrunableRule { ignore: args.ignore.clone(), include_grouped: args.include_grouped },
        layers: args.layer.iter().map(layer).collect::<Result<_>>()?,
        min_per_layer: args.min_per_layer,
        min_per_channel: args.min_per_channel,
        seed: args.seed,
    })
}

fn build_repair(args: &PruneArgs) -> Result<Box<dyn Repair>> {
    let (entry, options) = table::find(REPAIRS, "--repair", &args.repair)?;
    let repair = (entry.build)(&options)?;
    if repair.needs_images() && args.calibration.is_none() {
        return Err(Error::new(
            ErrorKind::Option,
            format!("--repair {}: needs --calibration, a folder of unlabelled images", args.repair),
        ));
    }
    Ok(repair)
}

/// Every image that the command works with.
struct Data {
    preprocess: Option<(Preprocess, Option<String>)>,
    calibration: Option<(Tensor, ImageSet)>,
    evaluation: Option<ImageSet>,
    /// Whether the calibration images are more than a check of the written file.
    repair_uses_images: bool,
}

impl Data {
    fn open(args: &PruneArgs, model: &Model, repair_uses_images: bool) -> Result<Data> {
        if args.calibration.is_none() && args.data.is_none() {
            return Ok(Data { preprocess: None, calibration: None, evaluation: None, repair_uses_images });
        }
        let (preprocess, note) = images::preprocess(&args.images, model)?;
        let calibration = args.calibration.as_ref().map(|path| {
            // Labels are not even read: nothing behind this line could use them.
            let mut set = ImageSet::open(path, &LabelSource::None)?;
            set.truncate(args.calibration_images.get());
            let count = if repair_uses_images { set.len() } else { set.len().min(VERIFY_IMAGES) };
            Ok((set.load(0..count, images::channels(model), &preprocess)?, set))
        });
        let evaluation = args.data.as_ref().map(|path| images::open(path, &args.images));
        Ok(Data {
            preprocess: Some((preprocess, note)),
            calibration: calibration.transpose()?,
            evaluation: evaluation.transpose()?,
            repair_uses_images,
        })
    }

    /// Measures the networks, the first of which is the dense one, where there are images.
    fn evaluate(&self, networks: &[(&str, &Model)], progress: &dyn Progress) -> Result<Option<EvaluationReport>> {
        let Some((preprocess, _)) = &self.preprocess else { return Ok(None) };
        let fallback = self.calibration.as_ref().map(|(_, set)| set);
        let Some(set) = self.evaluation.as_ref().or(fallback) else { return Ok(None) };
        let image = images::shape(set, networks[0].1, preprocess)?;
        let (names, models): (Vec<&str>, Vec<&Model>) = networks.iter().copied().unzip();
        let ready: Result<Vec<Network>> =
            models.iter().map(|model| Network::new(model, &image, &PlanOptions::default())).collect();
        let run = eval::evaluate(&ready?.iter().collect::<Vec<_>>(), set, preprocess, true, progress)?;
        Ok(Some(EvaluationReport::new(run, &names, set.path().display().to_string(), self.evaluation.is_none())))
    }
}

/// Images on which the written file is compared with what was measured.
const VERIFY_IMAGES: usize = 4;

/// Writes the model; an ONNX file is read back and must give the very same outputs.
fn write_model(model: &Model, path: &Path, images: Option<&Tensor>) -> Result<()> {
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        return formats::safetensors::write(model, path);
    }
    formats::onnx::write(model, path, |back| {
        let Some(images) = images.filter(|images| !images.is_empty()) else { return Ok(()) };
        let count = images.shape[0].min(VERIFY_IMAGES);
        let image_len: usize = images.shape[1..].iter().product();
        let shape = [&[count], &images.shape[1..]].concat();
        let some = Tensor::new(shape, images.data[..count * image_len].to_vec());
        let run = |model: &Model| Network::new(model, &images.shape[1..], &PlanOptions::default())?.run(&some);
        match run(model)?.iter().zip(&run(back)?).all(|(a, b)| a.same_bits(b)) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Format, "the written model does not compute what was measured; nothing was kept")),
        }
    })
}

fn build_report(
    args: &PruneArgs,
    (dense, model): (&Model, &Model),
    outcome: &PruneOutcome,
    repair: &RepairOutcome,
    data: Data,
    evaluation: Option<EvaluationReport>,
) -> Result<Report> {
    let image = data.calibration.as_ref().map(|(images, _)| images.shape[1..].to_vec()).or_else(|| report::fixed_image(model));
    let macs = image.and_then(|image| report::layer_macs(model, &image).ok());
    let layers = report::layer_rows(model, &outcome.layers, macs.as_ref())?;
    let (dense_file, dense_bytes) = file_info(&args.model)?;
    let (sparse_file, sparse_bytes) = file_info(&args.output)?;
    let mut warnings = report::layer_warnings(&layers);
    warnings.extend(repair.warnings.iter().cloned());
    let (preprocess, note) = data.preprocess.unzip();
    warnings.extend(note.flatten());
    let used = |(images, set): (Tensor, ImageSet)| {
        Some(Calibration {
            path: set.path().display().to_string(),
            images: images.shape[0],
            images_sha256: eval::images_sha256(&images),
            preprocess: preprocess.clone()?,
        })
    };
    Ok(Report {
        schema_version: report::SCHEMA_VERSION,
        tool_version: env!("CARGO_PKG_VERSION").into(),
        sparsity: report::sparsity_info(model, &layers, args.sparsity, macs.as_ref()),
        size: Some(SizeInfo { dense: report::sizes(dense, &dense_bytes)?, sparse: report::sizes(model, &sparse_bytes)? }),
        model: dense_file,
        output: Some(sparse_file),
        options: options_json(args, preprocess.as_ref()),
        seed: args.seed,
        calibration: data.calibration.filter(|_| data.repair_uses_images).and_then(used),
        layers,
        left_dense: outcome.left_dense.clone(),
        evaluation,
        warnings,
        seconds: Vec::new(),
    })
}

/// Every option, as given or by default.
fn options_json(args: &PruneArgs, preprocess: Option<&Preprocess>) -> serde_json::Value {
    serde_json::json!({
        "sparsity": args.sparsity,
        "criterion": args.criterion,
        "allocation": args.allocation,
        "repair": args.repair,
        "calibration": args.calibration,
        "calibration_images": args.calibration_images,
        "data": args.data,
        "no_evaluation": args.no_evaluation,
        "labels": args.images.labels,
        "limit": args.images.limit,
        "preset": args.images.preset,
        "preprocess": preprocess,
        "ignore": args.ignore,
        "layer": args.layer,
        "min_per_layer": args.min_per_layer,
        "min_per_channel": args.min_per_channel,
        "include_grouped": args.include_grouped,
        "weights": args.weights,
    })
}
