//! `resprout train`: train an architecture or a model file, prune on the way, and leave a run folder.

use super::{check_json_target, train_bench, write_json, write_model};
use crate::args::{Format, TrainArgs};
use crate::embedded;
use crate::render::{run_page, run_words, text};
use resprout::architectures::{self, Shape};
use resprout::data::layouts::{self, Splits};
use resprout::data::{ImageSet, LabelSource, Preprocess};
use resprout::eval;
use resprout::formats::{atomic, onnx, weights};
use resprout::model::{Dim, ElementType, Layout, Model};
use resprout::progress::Progress;
use resprout::random::SplitMix64;
use resprout::{Error, ErrorKind, Result};
use resprout_train::checkpoint::{JOURNAL, LAST};
use resprout_train::loader::Examples;
use resprout_train::recipe::{RECIPE, Recipe};
use resprout_train::run::{self, Data, RunOptions, RunReport};
use std::path::Path;
use std::sync::Arc;

/// Images on which the written model is compared with the trained one.
const COMPARED: usize = 4;

pub fn run(args: &TrainArgs, threads: usize, progress: &dyn Progress) -> anyhow::Result<()> {
    check_json_target(args.json.as_deref())?;
    let recipe = recipe(args)?;
    recipe.check()?;
    let data = open_data(&recipe)?;
    let mut model = open_model(&recipe, &data)?;
    if let Some(rounds) = args.bench {
        let report = train_bench::run(&model, &recipe, &data, rounds.get(), threads, progress);
        let report = report.map_err(|error| of_model(error, recipe.model.as_deref()))?;
        if write_json(&report, args.json.as_deref())? {
            text::train_bench(&report);
        }
        return Ok(());
    }
    let folder = args.output.as_ref().ok_or_else(|| Error::new(ErrorKind::Option, "--output: the run needs a folder"))?;
    let options = RunOptions { folder: Some(folder.clone()), resume: args.resume, workers: args.workers.get() };
    let trained = run::train(&mut model, &recipe, &data, &options, progress);
    let (outcome, best) = trained.map_err(|error| of_model(interrupted(error, folder), recipe.model.as_deref()))?;
    let examples = data.test.as_ref().unwrap_or(&data.train);
    let some: Vec<usize> = examples.indices.iter().copied().take(COMPARED).collect();
    let images = examples.set.load_picked(&some, examples.channels, &examples.preprocess)?;
    write_model(&model, &folder.join("model.onnx"), Format::Onnx, Some(&images))?;
    if let Some(best) = &best {
        write_model(best, &folder.join("best.onnx"), Format::Onnx, Some(&images))?;
    }
    let report = RunReport::new(&recipe, outcome, &onnx::encode(&model)?);
    write_json(&report, Some(&folder.join("report.json")))?;
    atomic::write(&folder.join("report.html"), run_page::page(&report).as_bytes())?;
    if write_json(&report, args.json.as_deref())? {
        text::run(&report, folder);
        let sets = [Some(&data.train), data.test.as_ref()];
        let left_out = sets.into_iter().flatten().flat_map(|examples| examples.set.left_out());
        text::warnings(&run_words::run_warnings(&report).into_iter().chain(left_out).collect::<Vec<_>>());
    }
    Ok(())
}

/// Names the model's file where it is the model that cannot be trained.
fn of_model(error: Error, file: Option<&str>) -> Error {
    match (error.kind(), file) {
        (ErrorKind::Unsupported, Some(file)) => error.at(file),
        _ => error,
    }
}

/// Says what an interrupted run has kept, and how it goes on.
fn interrupted(error: Error, folder: &Path) -> Error {
    if error.kind() != ErrorKind::Interrupted {
        return error;
    }
    let journal = std::fs::read_to_string(folder.join(JOURNAL)).unwrap_or_default();
    let kept = match (folder.join(LAST).exists(), journal.lines().count()) {
        (true, epochs) => format!("the run as it was after epoch {epochs} is kept in {}, and goes on there", folder.display()),
        (false, _) => {
            format!("the first epoch was not over; {} holds the recipe alone, and the run begins anew", folder.display())
        }
    };
    let message = format!("interrupted; {kept} with `resprout train -o {} --resume`", folder.display());
    Error::new(ErrorKind::Interrupted, message)
}

/// The recipe file, if there is one, with what was typed over it.
fn recipe(args: &TrainArgs) -> Result<Recipe> {
    let kept = args.output.as_ref().filter(|_| args.resume).map(|folder| folder.join(RECIPE)).filter(|kept| kept.exists());
    let mut recipe = match args.recipe.as_ref().or(kept.as_ref()) {
        Some(path) => Recipe::read(path)?,
        None => Recipe::default(),
    };
    args.overrides.apply(&mut recipe);
    Ok(recipe)
}

/// The splits of the recipe's data, with a part of the training images set apart for validation.
pub(super) fn open_data(recipe: &Recipe) -> Result<Data> {
    Ok(TrainImages::open(recipe)?.split(recipe))
}

/// The images of a recipe, for any seed and share of validation.
pub(super) struct TrainImages {
    train: Arc<ImageSet>,
    test: Option<Arc<ImageSet>>,
    preprocess: Preprocess,
    channels: usize,
}

impl TrainImages {
    pub fn open(recipe: &Recipe) -> Result<TrainImages> {
        let splits = match recipe.data.as_str() {
            "digits" => embedded::splits()?,
            path => layouts::open(Path::new(path))?,
        };
        let Splits { train, mut test, .. } = splits;
        if let Some(path) = &recipe.test {
            test = Some(ImageSet::open(Path::new(path), &LabelSource::Auto)?);
        }
        if train.labels().is_none() {
            return Err(Error::new(
                ErrorKind::Data,
                format!("{}: the images have no labels to train on", train.path().display()),
            ));
        }
        let preprocess = preprocess(recipe, &train)?;
        let channels = channels(&train, &preprocess)?;
        Ok(TrainImages { train: Arc::new(train), test: test.map(Arc::new), preprocess, channels })
    }

    pub fn split(&self, recipe: &Recipe) -> Data {
        let examples = |set: &Arc<ImageSet>, indices: Vec<usize>| Examples {
            set: set.clone(),
            indices: Arc::new(indices),
            preprocess: self.preprocess.clone(),
            channels: self.channels,
        };
        let train = &self.train;
        let held = (recipe.validation * train.len() as f64).round() as usize;
        let mut order: Vec<usize> = (0..train.len()).collect();
        // The split has a stream of random numbers that no epoch uses.
        SplitMix64::new(recipe.seed, u64::MAX).shuffle(&mut order);
        let validation = (held > 0).then(|| examples(train, order[..held].to_vec()));
        let mut rest = order[held..].to_vec();
        rest.sort_unstable();
        let test = self.test.as_ref().map(|set| examples(set, (0..set.len()).collect()));
        Data { train: examples(train, rest), validation, test }
    }

    pub fn has_test(&self) -> bool {
        self.test.is_some()
    }

    /// A hash of what training and measuring see of them.
    pub fn sha256(&self) -> Result<String> {
        let test = self.test.as_ref().map(|set| set.sha256()).transpose()?;
        let all = format!("{} {test:?} {:?} {}", self.train.sha256()?, self.preprocess, self.channels);
        Ok(eval::sha256(all.as_bytes()))
    }

    pub fn left_out(&self) -> impl Iterator<Item = String> {
        [Some(&self.train), self.test.as_ref()].into_iter().flatten().flat_map(|set| set.left_out())
    }
}

fn preprocess(recipe: &Recipe, train: &ImageSet) -> Result<Preprocess> {
    if let Some(name) = &recipe.preset {
        return Preprocess::preset(name);
    }
    if recipe.data == "digits" {
        return Ok(embedded::preprocess());
    }
    let raw = Preprocess::preset("raw")?;
    let one_channel = train.load_one(0, 1, &raw).map(|(_, shape)| shape);
    let three_channels = train.load_one(0, 3, &raw).map(|(_, shape)| shape);
    match (three_channels, one_channel) {
        (Ok([_, 32, 32]), _) => Preprocess::preset("cifar10"),
        (Ok([_, 64, 64]), _) => Ok(Preprocess { resize: None, crop: None, ..Preprocess::preset("imagenet")? }),
        (Ok(_), _) => Preprocess::preset("imagenet"),
        (_, Ok([_, 28, 28])) => Preprocess::preset("mnist"),
        (_, Ok(_)) => Ok(raw),
        (Err(error), _) => Err(error),
    }
}

/// Colour channels of the images: three, unless there is only one.
fn channels(train: &ImageSet, preprocess: &Preprocess) -> Result<usize> {
    match train.load_one(0, 3, preprocess) {
        Ok(_) => Ok(3),
        Err(error) => train.load_one(0, 1, preprocess).map(|_| 1).map_err(|_| error),
    }
}

/// The network that suits the images: their size, and as many classes as they name or have labels of.
pub(super) fn shape(examples: &Examples) -> Result<Shape> {
    let named = examples.set.class_names().map(<[String]>::len);
    let seen = examples.labels()?.iter().max().map_or(0, |largest| largest + 1);
    Ok(Shape { classes: Some(named.unwrap_or(seen)), image: Some(examples.image()?) })
}

pub(super) fn open_model(recipe: &Recipe, data: &Data) -> Result<Model> {
    let mut model = match (&recipe.arch, &recipe.model) {
        (Some(name), _) => architectures::build(name, &shape(&data.train)?, &recipe.init, recipe.seed)?,
        (None, Some(path)) => onnx::read(Path::new(path))?,
        (None, None) => return Err(Error::new(ErrorKind::Option, "--arch or --model: one of them is needed")),
    };
    if let Some(weights) = &recipe.weights {
        super::note(&weights::read_into(&mut model, Path::new(weights))?);
    }
    model.check_input_type().map_err(|e| of_model(e, recipe.model.as_deref()))?;
    if let Some(message) = wrong_input(&model, recipe.preset.as_deref()) {
        return Err(of_model(Error::new(ErrorKind::Unsupported, message), recipe.model.as_deref()));
    }
    if let Some(Dim::Fixed(batch)) = model.graph.inputs.first().and_then(|input| input.shape.first()) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("the model takes exactly {batch} images at once; export it with a free batch axis to train it"),
        ));
    }
    Ok(model)
}

/// Why the model's input does not go with how training images are fed.
fn wrong_input(model: &Model, preset: Option<&str>) -> Option<String> {
    let input = model.graph.inputs.first()?;
    if model.graph.image_layout() == Layout::ChannelsLast {
        return Some(format!(
            "input {:?} takes images as height, width, channels; training feeds channels first: export the model so",
            input.name
        ));
    }
    let normalised = input.element == ElementType::Uint8 && preset != Some("raw");
    normalised.then(|| format!("input {:?} takes bytes (uint8), and training normalises images: give --preset raw", input.name))
}
