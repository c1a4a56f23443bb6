//! `resprout score`: prune an untrained network, and show what is left of every layer.

use super::{check_json_target, check_writable, format_of, open_source, train, write_json, write_model};
use crate::args::{ScoreArgs, WriteArgs};
use crate::render::text;
use crate::reports::score::ScoreReport;
use resprout::architectures::Shape;
use resprout::formats::safetensors;
use resprout::lipschitz::{self, LipschitzRow};
use resprout::model::{Model, PrunableRule};
use resprout::progress::Progress;
use resprout::prune::PruneOptions;
use resprout::report::{self, SCHEMA_VERSION};
use resprout::tensor::Tensor;
use resprout::{Error, ErrorKind, Result};
use resprout_train::at_init::ablation::{self, Pruning};
use resprout_train::at_init::{self, Input, LabelledImages, Scores};
use resprout_train::recipe::Recipe;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

/// Images per batch, as papers score by.
const BATCH: usize = 128;

pub fn run(args: &ScoreArgs, progress: &dyn Progress) -> anyhow::Result<()> {
    check_json_target(args.json.as_deref())?;
    check_writable(&args.output, "--output")?;
    if let Some(path) = &args.scores {
        check_writable(path, "--scores")?;
    }
    let options = options(args);
    options.check_without_images()?;
    let method = at_init::find(&args.method, args.sparsity)?;
    let ablation = ablation::find(&args.ablation)?;
    let with_weights = args.source.model.is_some() || args.source.network.weights.is_some();
    ablation.check(&args.ablation, true, with_weights)?;
    let repair = lipschitz::find(&args.repair_init)?;
    let (shape, batches) = images(args, method.batches)?;
    let mut model = open_source(&args.source, &shape, args.ablation != "none")?;
    let image = shape.image.or_else(|| resprout::model::fixed_image(&model).and_then(|axes| axes.try_into().ok()));
    let missing = || Error::new(ErrorKind::Option, "--input-shape: the model leaves the size of an image free; give C,H,W");
    let image = image.ok_or_else(missing)?;
    let input = Input { batches: &batches, image, device: &args.device, seed: args.source.seed };
    let started = Instant::now();
    let pruning = Pruning { method: &method, options: &options, input: &input, init: args.source.init() };
    let scores = ablation.prune(&mut model, &pruning, progress).map_err(|e| of_model(e, args.source.model.as_deref()))?;
    let seconds = started.elapsed().as_secs_f64();
    let init_repair = repair.map_or(Ok(Vec::new()), |how| lipschitz::repair(&mut model, how))?;
    write_model(&model, &args.output, format_of(&args.output, &WriteArgs::default())?, None)?;
    if let Some(path) = &args.scores {
        write_scores(&model, &scores, path)?;
    }
    let scored = describe(args, &options, &model, image, init_repair, seconds)?;
    if write_json(&scored, args.json.as_deref())? {
        text::scored(&scored, &args.output);
    }
    Ok(())
}

/// Names the model's file where it is the model that cannot be scored.
fn of_model(error: Error, file: Option<&Path>) -> Error {
    match (error.kind(), file) {
        (ErrorKind::Unsupported, Some(file)) => error.at(file.display()),
        _ => error,
    }
}

fn write_scores(model: &Model, scores: &Scores, path: &Path) -> Result<()> {
    let tensor = |(name, scores): (&String, &Vec<f64>)| {
        let values = scores.iter().map(|&score| score as f32).collect();
        Ok((name.clone(), Tensor::new(model.weight(name)?.shape.clone(), values)))
    };
    let tensors: Result<Vec<(String, Tensor)>> = scores.iter().map(tensor).collect();
    safetensors::write_tensors(&tensors?, path)
}

fn options(args: &ScoreArgs) -> PruneOptions {
    PruneOptions {
        sparsity: args.sparsity,
        allocation: args.allocation.clone(),
        rule: PrunableRule { ignore: args.ignore.clone(), include_grouped: args.include_grouped },
        seed: args.source.seed,
        ..PruneOptions::default()
    }
}

/// What is known of the images, and those that the method looks at.
fn images(args: &ScoreArgs, count: usize) -> Result<(Shape, Vec<LabelledImages>)> {
    if let Some(data) = &args.data {
        let (preset, seed) = (args.preset.clone(), args.source.seed);
        let recipe = Recipe { data: data.clone(), preset, validation: 0.0, seed, ..Recipe::default() };
        let examples = train::open_data(&recipe)?.train;
        let batches = at_init::batches(&examples, count, args.batch.map_or(BATCH, NonZeroUsize::get), seed)?;
        return Ok((train::shape(&examples)?, batches));
    }
    if count > 0 {
        let message = format!("--data: {} scores by labelled images, and none are given", args.method);
        return Err(Error::new(ErrorKind::Option, message));
    }
    let Some(axes) = &args.input_shape else { return Ok((Shape { classes: None, image: None }, Vec::new())) };
    let image = <[usize; 3]>::try_from(&axes[..]);
    let image = image.map_err(|_| Error::new(ErrorKind::Option, format!("--input-shape {axes:?}: C,H,W is needed")))?;
    Ok((Shape { classes: None, image: Some(image) }, Vec::new()))
}

fn describe(
    args: &ScoreArgs,
    options: &PruneOptions,
    model: &Model,
    image: [usize; 3],
    init_repair: Vec<LipschitzRow>,
    seconds: f64,
) -> Result<ScoreReport> {
    let (prunable, left_dense) = model.prunable(&options.rule)?;
    let macs = resprout::forward::layer_macs(model, &image)?;
    let layers = report::layer_rows(model, &prunable, Some(&macs))?;
    let mut warnings = report::layer_warnings(&layers);
    warnings.extend(report::path_warnings(model, &prunable, &layers));
    Ok(ScoreReport {
        schema_version: SCHEMA_VERSION,
        tool_version: env!("CARGO_PKG_VERSION"),
        method: args.method.clone(),
        allocation: args.allocation.clone(),
        ablation: args.ablation.clone(),
        seed: args.source.seed,
        sparsity: report::sparsity_info(model, &layers, Some(args.sparsity), Some(&macs)),
        layers,
        left_dense,
        init_repair,
        warnings,
        seconds,
    })
}
