//! `resprout prune`: prune, repair, measure, write, report.

use super::{
    ONNX_SPARSE, VERIFY_IMAGES, check_computable, check_json_target, check_writable, file_info, fold_batch_norm, format_of,
    images, model_files, outputs, read_model, read_model_and_notes, write_json, write_model,
};
use crate::args::{CalibrationCount, Format, PruneArgs};
use crate::render::text;
use resprout::calibrate::{Checkup, checkup};
use resprout::data::{ImageSet, LabelSource, Preprocess, gaussian};
use resprout::forward::{Network, PlanOptions};
use resprout::model::{CameSparse, MergedNorms, Model, PrunableRule};
use resprout::ops::Op;
use resprout::progress::Progress;
use resprout::prune::channel;
use resprout::prune::{PruneOptions, check_sparsity};
use resprout::random::SplitMix64;
use resprout::repair::{AUTO, Chain, RepairOptions};
use resprout::report::{self, Calibration, Compress, EvaluationReport, RepairReport, Report, SizeInfo};
use resprout::sparsify::{self, Sparsified, SparsifyOptions, sparsify, sparsify_from};
use resprout::structure::Pattern;
use resprout::structure::shrink::{Cut, shrink};
use resprout::tensor::Tensor;
use resprout::{Error, ErrorKind, Result, eval};
use std::time::Instant;

pub fn run(args: &PruneArgs, progress: &dyn Progress) -> anyhow::Result<()> {
    let options = sparsify_options(args)?;
    let needs_images = check_images(args, &options.prune)?;
    check_writable(&args.output, "--output")?;
    let format = format_of(&args.output, &args.how)?;
    check_json_target(args.json.as_deref())?;
    let mut clock = Clock::start();
    let (mut model, notes) = read_model_and_notes(&args.model, &args.network)?;
    if needs_images || args.calibration.is_some() || args.data.is_some() {
        check_computable(&model, &args.model)?;
    }
    let came_sparse = model.keep_zeros(&options.prune.rule, args.regrow)?;
    let model = model;
    let reference = args.reference.as_ref().map(|path| read_model(path, &args.network.without_weights())).transpose()?;
    let dense = reference.as_ref().unwrap_or(&model);
    let mut data = Data::open(args, dense, needs_images)?;
    clock.lap("read");
    let checkup = data.check_up(args, dense, &options, progress)?;
    clock.lap("check images");

    let empty = Tensor::default();
    let images = data.images().unwrap_or(&empty);
    let result = match &reference {
        Some(dense) => sparsify_from(&model, dense, images, &options, progress)?,
        None => sparsify(&model, images, &options, progress)?,
    };
    clock.lap("prune and repair");
    let mut networks = vec![("dense", dense), ("pruned", &result.pruned)];
    if args.repair != "none" {
        networks.push(("repaired", &result.repaired));
    }
    let evaluation = if args.no_evaluation { None } else { data.evaluate(&networks, progress)? };
    clock.lap("evaluate");

    progress.check()?;
    let channels = options.prune.pattern == Pattern::Channel;
    let cut = if args.shrink || channels { Some(shrink(&result.repaired)?) } else { None };
    if let Some((small, _)) = cut.as_ref().filter(|(_, cuts)| !cuts.is_empty()) {
        check_same(&result.repaired, small, data.images())?;
    }
    let (mut written, cuts) = cut.filter(|_| args.shrink).unwrap_or_else(|| (result.repaired.clone(), Vec::new()));
    let norms = if args.how.fold_bn { Some(fold_batch_norm(&mut written)?) } else { None };
    write_model(&written, &args.output, format, data.images())?;
    clock.lap("write");
    let outcome = Outcome { result: &result, written: &written, format, cuts, norms, checkup, evaluation, came_sparse, notes };
    let mut report = build_report(args, &options.prune, &model, outcome, data)?;
    clock.lap("report");
    report.seconds = clock.laps;
    if write_json(&report, args.json.as_deref())? {
        text::report(&report);
    }
    Ok(())
}

/// Outputs of the network before and after channels were cut out, relative to the largest.
const SAME: f32 = 1e-4;

/// Fails if the network without its pruned channels computes something else than the masked one, or cannot be compared: sums
/// in another order may differ in the last digits.
fn check_same(masked: &Model, small: &Model, images: Option<&Tensor>) -> Result<()> {
    let refused = |why: String| Err(Error::new(ErrorKind::Data, format!("--pattern channel: {why}; nothing was written")));
    let (before, images) = match images.filter(|images| !images.is_empty()) {
        Some(images) => {
            let images = images.first(images.shape[0].min(VERIFY_IMAGES));
            (outputs(masked, &images), images)
        }
        None => outputs_of_noise(masked),
    };
    let (before, after) = match before.and_then(|before| Ok((before, outputs(small, &images)?))) {
        Ok(both) => both,
        Err(e) => {
            return refused(format!("whether the cut changes the outputs cannot be checked, the network does not run: {e}"));
        }
    };
    for (a, b) in before.iter().zip(&after) {
        let largest = a.data.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a - b).abs() <= SAME * largest;
        if a.shape != b.shape || !a.data.iter().zip(&b.data).all(same) {
            return refused("without the pruned channels the network computes something else".into());
        }
    }
    Ok(())
}

/// What the model makes of two images of noise, and these: of the size that it fixes, or the first usual one that it takes.
fn outputs_of_noise(model: &Model) -> (Result<Vec<Tensor>>, Tensor) {
    let mut tried = (Err(Error::new(ErrorKind::Data, "it has no input")), Tensor::default());
    for image in resprout::model::possible_images(model) {
        let shape = [&[2], &image[..]].concat();
        let mut random = SplitMix64::new(0, 0);
        let data = (0..shape.iter().product()).map(|_| (2.0 * random.next_f64() - 1.0) as f32).collect();
        let images = Tensor::new(shape, data);
        let result = outputs(model, &images);
        let runs = result.is_ok();
        tried = (result, images);
        if runs {
            break;
        }
    }
    tried
}

/// What `prune` has come to.
struct Outcome<'a> {
    result: &'a Sparsified,
    written: &'a Model,
    format: Format,
    cuts: Vec<Cut>,
    norms: Option<MergedNorms>,
    checkup: Option<Checkup>,
    evaluation: Option<EvaluationReport>,
    came_sparse: Option<CameSparse>,
    /// What reading the model has to say.
    notes: Vec<String>,
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

fn sparsify_options(args: &PruneArgs) -> Result<SparsifyOptions> {
    let bytes = args.memory * 1e9;
    if !(1.0..1e18).contains(&bytes) {
        return Err(Error::new(ErrorKind::Option, format!("--memory {}: a number of gigabytes above 0 is needed", args.memory)));
    }
    if let Some(seconds) = args.seconds.filter(|seconds| !(*seconds > 0.0 && seconds.is_finite())) {
        return Err(Error::new(ErrorKind::Option, format!("--seconds {seconds}: a number above 0 is needed")));
    }
    if args.seconds.is_some() && args.repair == "none" {
        return Err(Error::new(ErrorKind::Option, "--seconds: bounds a repair, and there is none; see --repair"));
    }
    let options = SparsifyOptions {
        prune: prune_options(args)?,
        repair: args.repair.clone(),
        repair_options: RepairOptions { memory: bytes as usize, seconds: args.seconds },
        steps: args.steps,
        checkpoint: args.checkpoint.clone(),
    };
    sparsify::schedule(options.prune.sparsity, args.steps)?;
    if args.checkpoint.is_some() && args.steps < 2 {
        return Err(Error::new(ErrorKind::Option, "--checkpoint: keeps steps, and there is only one; see --steps"));
    }
    Ok(options)
}

fn prune_options(args: &PruneArgs) -> Result<PruneOptions> {
    let pattern = Pattern::parse(&args.pattern)?;
    let wrong = |message: String| Err(Error::new(ErrorKind::Option, message));
    let sparsity = match (pattern.sparsity(), args.sparsity, args.macs) {
        (Some(_), Some(sparsity), _) => {
            return wrong(format!("--sparsity {sparsity}: --pattern {} has a sparsity of its own; see mixed", args.pattern));
        }
        (_, _, Some(macs)) if pattern != Pattern::Channel => {
            return wrong(format!("--macs {macs}: goes with --pattern channel, not with {}", args.pattern));
        }
        (Some(sparsity), None, _) | (None, Some(sparsity), _) => sparsity,
        (None, None, Some(_)) => 0.0,
        (None, None, None) => return wrong("--sparsity: is needed, unless --pattern n:m or --macs says how much goes".into()),
    };
    check_sparsity(sparsity, "--sparsity")?;
    args.macs.map_or(Ok(()), channel::check_share)?;
    if let (Pattern::Nm { .. }, Some(allocation)) = (pattern, &args.allocation) {
        return wrong(format!("--allocation {allocation}: --pattern {} keeps the same in every layer; see mixed", args.pattern));
    }
    let (criterion, allocation) = pattern.default_methods();
    let layer = |text: &String| {
        let wrong = || Error::new(ErrorKind::Option, format!("--layer {text:?}: NAME=SPARSITY is needed"));
        let (name, sparsity) = text.rsplit_once('=').ok_or_else(wrong)?;
        Ok((name.to_string(), sparsity.parse().map_err(|_| wrong())?))
    };
    Ok(PruneOptions {
        sparsity,
        criterion: args.criterion.clone().unwrap_or_else(|| criterion.into()),
        allocation: args.allocation.clone().unwrap_or_else(|| allocation.into()),
        rule: PrunableRule { ignore: args.ignore.clone(), include_grouped: args.include_grouped },
        layers: args.layer.iter().map(layer).collect::<Result<_>>()?,
        min_per_layer: args.min_per_layer,
        min_per_channel: args.min_per_channel,
        seed: args.seed,
        pattern,
        macs: args.macs,
        ..PruneOptions::default()
    })
}

/// Whether criterion or repair need images; an error where they are missing.
fn check_images(args: &PruneArgs, options: &PruneOptions) -> Result<bool> {
    let repair = args.repair == AUTO || Chain::parse(&args.repair)?.needs_images();
    let criterion = options.needs_images()?;
    if (repair || criterion) && args.calibration.is_none() && !args.data_free {
        let option = if repair { format!("--repair {}", args.repair) } else { format!("--criterion {}", options.criterion) };
        return Err(Error::new(
            ErrorKind::Option,
            format!("{option}: needs --calibration, a folder of unlabelled images (or --data-free, noise instead)"),
        ));
    }
    Ok(repair || criterion)
}

/// Every image that the command works with.
struct Data {
    preprocess: Option<(Preprocess, Vec<String>)>,
    calibration: Option<(Tensor, Origin)>,
    evaluation: Option<ImageSet>,
    /// Whether the calibration images are more than a check of the written file.
    used: bool,
}

/// Where calibration images come from.
enum Origin {
    Set(ImageSet),
    Noise,
}

/// Of so many images `--calibration-images auto` takes what it needs.
const MOST_IMAGES: usize = 4096;

impl Data {
    fn open(args: &PruneArgs, model: &Model, used: bool) -> Result<Data> {
        if args.calibration.is_none() && args.data.is_none() && !args.data_free {
            return Ok(Data { preprocess: None, calibration: None, evaluation: None, used });
        }
        let (preprocess, notes) = images::preprocess(&args.images, model)?;
        let count = match args.calibration_images {
            CalibrationCount::Exactly(count) => count.get(),
            CalibrationCount::Auto => MOST_IMAGES,
        };
        let calibration = match &args.calibration {
            Some(path) => {
                // Labels are not even read: nothing behind this line could use them.
                let mut set = ImageSet::open(path, &LabelSource::None)?;
                set.truncate(count);
                let count = if used { set.len() } else { set.len().min(VERIFY_IMAGES) };
                Some((set.load(0..count, images::channels(model), &preprocess)?, Origin::Set(set)))
            }
            None if args.data_free => Some((noise(args, model, &preprocess, count.min(1024))?, Origin::Noise)),
            None => None,
        };
        let evaluation = args.data.as_ref().map(|path| images::open(path, &args.images));
        Ok(Data { preprocess: Some((preprocess, notes)), calibration, evaluation: evaluation.transpose()?, used })
    }

    /// What was not read of the folders.
    fn left_out(&self) -> Vec<String> {
        let calibration = match &self.calibration {
            Some((_, Origin::Set(set))) => Some(set),
            _ => None,
        };
        let other = self.evaluation.as_ref().filter(|set| calibration.is_none_or(|other| other.path() != set.path()));
        calibration.into_iter().chain(other).flat_map(ImageSet::left_out).collect()
    }

    fn images(&self) -> Option<&Tensor> {
        self.calibration.as_ref().map(|(images, _)| images)
    }

    /// Looks at the images that will be used, and takes no more of them than it takes, if that is asked.
    fn check_up(
        &mut self,
        args: &PruneArgs,
        dense: &Model,
        options: &SparsifyOptions,
        progress: &dyn Progress,
    ) -> Result<Option<Checkup>> {
        let Some((images, origin)) = self.calibration.as_mut().filter(|_| self.used) else { return Ok(None) };
        if matches!(origin, Origin::Noise) {
            return Ok(None);
        }
        let found = checkup(dense, images, options.repair_options.memory, progress)?;
        if let (CalibrationCount::Auto, Some(settled)) = (args.calibration_images, found.settled) {
            // From there to twice as many nothing moved: the larger number is the safe one.
            *images = images.first((2 * settled).min(images.shape[0]));
        }
        Ok(Some(found))
    }

    /// Measures the networks, the first of which is the dense one, where there are images.
    fn evaluate(&self, networks: &[(&str, &Model)], progress: &dyn Progress) -> Result<Option<EvaluationReport>> {
        let Some((preprocess, _)) = &self.preprocess else { return Ok(None) };
        let fallback = match &self.calibration {
            Some((_, Origin::Set(set))) => Some(set),
            _ => None,
        };
        let Some(set) = self.evaluation.as_ref().or(fallback) else { return Ok(None) };
        let image = images::shape(set, networks[0].1, preprocess)?;
        let (names, models): (Vec<&str>, Vec<&Model>) = networks.iter().copied().unzip();
        let ready: Result<Vec<Network>> =
            models.iter().map(|model| Network::new(model, &image, &PlanOptions::default())).collect();
        let run = eval::evaluate(&ready?.iter().collect::<Vec<_>>(), set, preprocess, true, progress)?;
        Ok(Some(EvaluationReport::new(run, &names, set.path().display().to_string(), self.evaluation.is_none())))
    }
}

/// Noise in the shape of the model's images.
fn noise(args: &PruneArgs, model: &Model, preprocess: &Preprocess, count: usize) -> Result<Tensor> {
    let shape = match (images::fixed_size(model), preprocess.crop) {
        (Some(shape), _) => shape,
        (_, Some([height, width])) => [images::channels(model), height, width],
        _ => {
            let message = match resprout::model::fixed_image(model) {
                Some(shape) => {
                    format!("--data-free: noise is drawn as images, not in the shape {shape:?}; give --calibration, an .npy file")
                }
                None => "--data-free: the model leaves the size of its images free; give --crop".into(),
            };
            return Err(Error::new(ErrorKind::Option, message));
        }
    };
    Ok(gaussian(count, shape, preprocess, args.seed))
}

fn build_report(args: &PruneArgs, options: &PruneOptions, dense: &Model, all: Outcome, data: Data) -> Result<Report> {
    let Outcome { result, written, format, cuts, norms, checkup, evaluation, came_sparse, notes } = all;
    let (model, outcome) = (&result.repaired, &result.outcome);
    let image = data.images().map(|images| images.shape[1..].to_vec()).or_else(|| resprout::model::fixed_image(model));
    let macs = image.as_ref().and_then(|image| resprout::forward::layer_macs(model, image).ok());
    let layers = report::layer_rows(model, &outcome.layers, macs.as_ref())?;
    let (dense_file, sparse_file) = (file_info(&args.model)?, file_info(&args.output)?);
    let mut warnings = warnings(args, format, result, checkup.as_ref(), &data, &layers);
    warnings.splice(0..0, notes);
    warnings.extend(without_reference(args, came_sparse.as_ref()));
    warnings.extend(folded_threshold(options, dense));
    let compress = if args.sizes { Compress::Always } else { Compress::WhereQuick };
    let preprocess = data.preprocess.map(|(preprocess, _)| preprocess);
    let used = |(images, origin): (Tensor, Origin)| {
        Some(Calibration {
            path: match &origin {
                Origin::Set(set) => set.path().display().to_string(),
                Origin::Noise => "noise".into(),
            },
            data_free: matches!(origin, Origin::Noise),
            images: images.shape[0],
            images_sha256: eval::images_sha256(&images),
            preprocess: preprocess.clone()?,
        })
    };
    let chosen = result.candidates.iter().find(|candidate| candidate.chosen);
    Ok(Report {
        schema_version: report::SCHEMA_VERSION,
        tool_version: env!("CARGO_PKG_VERSION").into(),
        sparsity: report::sparsity_info(model, &layers, args.macs.is_none().then_some(options.sparsity), macs.as_ref()),
        size: Some(SizeInfo {
            dense: report::sizes(dense, &model_files(&args.model)?, compress)?,
            sparse: report::sizes(written, &model_files(&args.output)?, compress)?,
        }),
        model: dense_file,
        reference: args.reference.as_ref().map(|path| file_info(path)).transpose()?,
        came_sparse,
        output: Some(sparse_file),
        shrunk: (!cuts.is_empty()).then(|| report::shrunk(model, written, image.as_deref(), cuts)),
        options: options_json(args, options, format, preprocess.as_ref()),
        seed: args.seed,
        calibration: data.calibration.filter(|_| data.used).and_then(used),
        repair: (args.repair != "none").then(|| RepairReport {
            chain: chosen.map_or(&args.repair, |candidate| &candidate.repair).clone(),
            steps: result.steps.clone(),
            changed: result.repair.changed,
            batch_norms: result.repair.batch_norms,
            folded: result.repair.folded,
            added_bias: result.repair.added_bias.clone(),
            fitted: result.repair.fitted.clone(),
            statistics_only: result.repair.statistics_only.clone(),
            expected_seconds: result.repair.expected_seconds,
            seconds: result.repair.seconds,
            candidates: result.candidates.clone(),
            checkup,
        }),
        layers,
        left_dense: outcome.left_dense.clone(),
        merged_norms: norms,
        evaluation,
        warnings,
        seconds: Vec::new(),
    })
}

/// What the user should know, in the order in which it came about.
fn warnings(
    args: &PruneArgs,
    format: Format,
    result: &Sparsified,
    checkup: Option<&Checkup>,
    data: &Data,
    layers: &[report::LayerRow],
) -> Vec<String> {
    let outcome = &result.outcome;
    let prunable = outcome.layers.iter().map(|layer| layer.len()).sum();
    let mut warnings: Vec<String> = report::reach_warning(prunable, &outcome.left_dense).into_iter().collect();
    warnings.extend(report::layer_warnings(layers));
    warnings.extend(report::path_warnings(&result.repaired, &result.outcome.layers, layers));
    if args.data_free && data.used {
        warnings.push(
            "DATA-FREE: calibrated on noise, not on images; this may do more harm than no repair: measure it before use".into(),
        );
    }
    warnings.extend(checkup.into_iter().flat_map(Checkup::warnings));
    warnings.extend(result.repair.warnings.iter().cloned());
    let added = &result.repair.added_bias;
    if !added.is_empty() {
        warnings.push(format!("{} layers were given a bias: {}", added.len(), added.join(", ")));
    }
    warnings.extend(data.preprocess.iter().flat_map(|(_, notes)| notes.clone()));
    warnings.extend(data.left_out());
    warnings.extend((format == Format::OnnxSparse).then(|| ONNX_SPARSE.into()));
    warnings
}

/// One threshold on the magnitudes of all layers means little where weights were multiplied by BatchNormalizations.
fn folded_threshold(options: &PruneOptions, dense: &Model) -> Option<String> {
    let threshold =
        options.pattern == Pattern::Unstructured && options.criterion == "magnitude" && options.allocation == "global";
    let norms = dense.graph.layers.iter().any(|layer| matches!(layer.op, Op::BatchNorm { .. }));
    (threshold && !norms && !dense.folded_norms().is_empty()).then(|| {
        "--allocation global: BatchNormalization may be folded into these weights, and one threshold on their magnitudes then \
         prunes far worse; lamp and erk compare within layers"
            .into()
    })
}

/// A repair by the dense network has nothing to go by where there is only what is left of it.
fn without_reference(args: &PruneArgs, came_sparse: Option<&CameSparse>) -> Option<String> {
    let kept = came_sparse.is_some_and(|came| !came.regrown);
    (kept && args.reference.is_none() && args.repair != "none").then(|| {
        "the model came sparse, and is compared with itself: what its zeros have cost is not seen; give the network from before \
         as --reference"
            .into()
    })
}

/// Every option, as given or by default.
fn options_json(args: &PruneArgs, options: &PruneOptions, format: Format, preprocess: Option<&Preprocess>) -> serde_json::Value {
    serde_json::json!({
        "sparsity": args.macs.is_none().then_some(options.sparsity),
        "regrow": args.regrow,
        "reference": args.reference,
        "pattern": args.pattern,
        "macs": args.macs,
        "shrink": args.shrink,
        "format": format.to_string(),
        "criterion": options.criterion,
        "allocation": options.allocation,
        "repair": args.repair,
        "calibration": args.calibration,
        "calibration_images": args.calibration_images.to_string(),
        "data_free": args.data_free,
        "memory": args.memory,
        "seconds": args.seconds,
        "steps": args.steps,
        "checkpoint": args.checkpoint,
        "data": args.data,
        "no_evaluation": args.no_evaluation,
        "sizes": args.sizes,
        "labels": args.images.labels,
        "limit": args.images.limit,
        "preset": args.images.preset,
        "preprocess": preprocess,
        "ignore": args.ignore,
        "layer": args.layer,
        "min_per_layer": args.min_per_layer,
        "min_per_channel": args.min_per_channel,
        "include_grouped": args.include_grouped,
        "weights": args.network.weights,
        "fold_weights": args.network.fold_weights,
        "external_data": args.how.external_data,
        "fold_bn": args.how.fold_bn,
        "arch": args.network.arch,
    })
}
