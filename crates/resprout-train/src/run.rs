//! One run: the loop over segments, epochs and steps, and what it leaves in its folder.

use crate::at_init;
use crate::at_init::ablation::{self, Pruning};
use crate::checkpoint::{self, Checkpoint, EpochRow, Position};
use crate::error::{data, option};
use crate::loader::{Batch, Examples, batch_count};
use crate::loss;
use crate::engine::{Mode, TrainProgram};
use crate::methods::{Before, TrainSegment};
use crate::parameters::Parameters;
use crate::rates::{self, Schedule};
use crate::recipe::{RECIPE, Recipe};
use crate::{device, optimiser::Sgd};
use resprout::eval::{self, Estimate};
use resprout::forward::{Network, PlanOptions};
use resprout::lipschitz::{self, LipschitzRow};
use resprout::model::Model;
use resprout::progress::{Progress, Quiet};
use resprout::prune::prune;
use resprout::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

/// Images that are evaluated together.
const EVALUATED: usize = 256;

/// The data of a run.
#[derive(Clone)]
pub struct Data {
    /// To train on.
    pub train: Examples,
    /// To choose the best epoch by.
    pub validation: Option<Examples>,
    /// To measure on at the end.
    pub test: Option<Examples>,
}

/// How a run is carried out; none of it changes the result.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The run's folder, if it is to leave anything.
    pub folder: Option<PathBuf>,
    /// Whether to go on from the folder's last checkpoint.
    pub resume: bool,
    /// Threads that load images.
    pub workers: usize,
}

/// What a run has given.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// One row per epoch.
    pub rows: Vec<EpochRow>,
    /// What the repair at initialisation did to each layer; empty if none was asked for.
    pub init_repair: Vec<LipschitzRow>,
    /// The last epoch's accuracy on the test images.
    pub test: Option<Estimate>,
    /// Epoch with the highest validation accuracy after which nothing was pruned any more, and its
    /// accuracy on the test images.
    pub best: Option<Best>,
    /// Share of the prunable weights that is zero.
    pub sparsity: f64,
    /// Images per second of the training steps alone, over the whole run.
    pub images_per_second: f64,
    /// Share of the time in which training waited for images.
    pub waiting: f64,
}

/// The epoch that validation chose.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Best {
    /// Counted from 1.
    pub epoch: usize,
    /// Its accuracy on the validation images.
    pub validation: f64,
    /// Its accuracy on the test images.
    pub test: Option<Estimate>,
}

/// Trains `model` in place by the recipe and returns what happened, and the best epoch's model if validation chose one.
pub fn train(
    model: &mut Model,
    recipe: &Recipe,
    data: &Data,
    options: &RunOptions,
    progress: &dyn Progress,
) -> Result<(Outcome, Option<Model>)> {
    recipe.check()?;
    let mut run = Run::new(model, recipe, data, options)?;
    run.start(progress)?;
    while !run.finished() {
        run.epoch(progress)?;
    }
    run.outcome(progress)
}

struct Run<'a> {
    recipe: &'a Recipe,
    data: &'a Data,
    options: &'a RunOptions,
    model: &'a mut Model,
    initial: Model,
    segments: Vec<TrainSegment>,
    schedule: Box<dyn Schedule>,
    optimiser: Sgd,
    parameters: Parameters,
    programs: HashMap<usize, TrainProgram>,
    image: [usize; 3],
    classes: usize,
    steps_per_epoch: usize,
    position: Position,
    rows: Vec<EpochRow>,
    init_repair: Vec<LipschitzRow>,
    best: Option<(usize, f64, Model)>,
    rewind: Option<Model>,
    trained_seconds: f64,
    waited_seconds: f64,
    trained_images: usize,
}

impl<'a> Run<'a> {
    fn new(model: &'a mut Model, recipe: &'a Recipe, data: &'a Data, options: &'a RunOptions) -> Result<Run<'a>> {
        model.check_finite()?;
        let segments = recipe.segments()?;
        device::check(&recipe.device)?;
        let parameters = Parameters::new(model)?;
        let steps_per_epoch = batch_count(data.train.indices.len(), recipe.batch);
        if steps_per_epoch == 0 {
            return Err(option(format!("{} training images make no batch", data.train.indices.len())));
        }
        let image = data.train.image()?;
        let count = recipe.batch.min(data.train.indices.len());
        let program = TrainProgram::new(model, &parameters, &[&[count][..], &image].concat())?;
        let classes = program.classes();
        for examples in [Some(&data.train), data.validation.as_ref(), data.test.as_ref()].into_iter().flatten() {
            check_labels(examples, classes)?;
        }
        let initial = model.clone();
        Ok(Run {
            optimiser: recipe.optimiser(),
            schedule: rates::find(&recipe.schedule)?,
            programs: HashMap::from([(count, program)]),
            recipe,
            data,
            options,
            model,
            initial,
            segments,
            parameters,
            image,
            classes,
            steps_per_epoch,
            position: Position::default(),
            rows: Vec::new(),
            init_repair: Vec::new(),
            best: None,
            rewind: None,
            trained_seconds: 0.0,
            waited_seconds: 0.0,
            trained_images: 0,
        })
    }

    /// Begins, or takes the last checkpoint up.
    fn start(&mut self, progress: &dyn Progress) -> Result<()> {
        let Some(folder) = &self.options.folder else {
            return self.begin(progress);
        };
        let (last, kept) = (folder.join(checkpoint::LAST), folder.join(RECIPE));
        if self.options.resume && kept.exists() && Recipe::read(&kept)? != *self.recipe {
            return Err(option(format!("--resume: {} holds another recipe; its run can only go on as it began", kept.display())));
        }
        if !self.options.resume && last.exists() {
            return Err(option(format!(
                "{}: holds a run already; give --resume to go on with it, or another --output",
                folder.display()
            )));
        }
        if !last.exists() {
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
            self.recipe.write(&kept)?;
            return self.begin(progress);
        }
        let Checkpoint { position, rows, momentum, init_repair, best, seconds } = checkpoint::read(&last, self.model)?;
        self.parameters.load(self.model)?;
        for (name, values) in &momentum {
            let index = self.parameters.index(name).ok_or_else(|| data(format!("{}: momentum of {name:?}", last.display())))?;
            self.parameters.set_momentum(index, values);
        }
        (self.position, self.rows, self.init_repair) = (position, rows, init_repair);
        (self.trained_seconds, self.waited_seconds, self.trained_images) = seconds;
        if let Some((epoch, validation)) = best {
            let mut model = self.initial.clone();
            checkpoint::read(&folder.join(checkpoint::BEST), &mut model)?;
            self.best = Some((epoch, validation, model));
        }
        if self.needs_rewind().is_some_and(|step| self.position.step > step) {
            let mut model = self.initial.clone();
            checkpoint::read(&folder.join(checkpoint::REWIND), &mut model)?;
            self.rewind = Some(model);
        }
        checkpoint::write_journal(folder, &self.rows)?;
        if self.position.epoch == 0 && !self.finished() && self.position.segment > 0 {
            self.begin_segment(progress)?;
        }
        Ok(())
    }

    /// What comes before the first step.
    fn begin(&mut self, progress: &dyn Progress) -> Result<()> {
        self.begin_segment(progress)?;
        let Some(how) = lipschitz::find(&self.recipe.repair_init)? else { return Ok(()) };
        self.parameters.store(self.model);
        self.init_repair = lipschitz::repair(self.model, how)?;
        self.parameters.load(self.model)
    }

    fn finished(&self) -> bool {
        self.position.segment == self.segments.len()
    }

    fn segment(&self) -> &TrainSegment {
        &self.segments[self.position.segment]
    }

    /// The step to whose weights a later segment goes back.
    fn needs_rewind(&self) -> Option<usize> {
        self.segments.iter().find_map(|segment| match segment.before {
            Before::PruneAndRewind { to, .. } => Some(self.steps(to)),
            _ => None,
        })
    }

    fn steps(&self, epochs: f64) -> usize {
        (epochs * self.steps_per_epoch as f64).round() as usize
    }

    fn begin_segment(&mut self, progress: &dyn Progress) -> Result<()> {
        match self.segment().before {
            Before::Nothing => Ok(()),
            Before::Prune(sparsity) => self.prune(sparsity, false, progress),
            Before::PruneAtInit(sparsity) => self.prune_at_init(sparsity, progress),
            Before::PruneAtRandom(sparsity) => self.prune(sparsity, true, progress),
            Before::PruneAndRewind { sparsity, .. } => {
                self.prune(sparsity, false, progress)?;
                let early = self.rewind.as_ref().ok_or_else(|| data("the weights to rewind to are missing"))?;
                let masks = std::mem::take(&mut self.model.masks);
                *self.model = early.clone();
                self.model.masks = masks;
                self.model.apply_masks();
                self.parameters.load(self.model)
            }
        }
    }

    /// Prunes by the weights as they are now. What an earlier mask has pruned stays so.
    fn prune(&mut self, sparsity: f64, at_random: bool, progress: &dyn Progress) -> Result<()> {
        progress.check()?;
        self.parameters.store(self.model);
        let options = self.recipe.prune_options(sparsity, at_random);
        prune(self.model, &options, &Default::default(), &Quiet)?;
        self.parameters.set_masks(self.model);
        Ok(())
    }

    fn prune_at_init(&mut self, sparsity: f64, progress: &dyn Progress) -> Result<()> {
        let method = at_init::find(self.recipe.prune_at_init.as_deref().unwrap_or_default(), sparsity)?;
        let Recipe { batch, device, seed, .. } = self.recipe;
        let batches = at_init::batches(&self.data.train, method.batches, *batch, *seed)?;
        let input = at_init::Input { batches: &batches, image: self.image, device, seed: *seed };
        let options = self.recipe.prune_options(sparsity, false);
        let pruning = Pruning { method: &method, options: &options, input: &input, init: &self.recipe.init };
        ablation::find(&self.recipe.ablation)?.prune(self.model, &pruning, progress)?;
        self.parameters.load(self.model)
    }

    fn epoch(&mut self, progress: &dyn Progress) -> Result<()> {
        let examples = &self.data.train;
        progress.begin(&self.stage(), examples.indices.len() as u64);
        let stream = self.position.epoch as u64;
        let mut batches =
            examples.epoch(self.recipe.batch, self.recipe.augment, self.recipe.seed, stream, self.options.workers)?;
        let (mut losses, mut hits, mut images) = (0.0, 0, 0);
        let started = Instant::now();
        let mut waited = 0.0;
        for step in 0.. {
            let waiting = Instant::now();
            let Some(batch) = batches.next() else { break };
            waited += waiting.elapsed().as_secs_f64();
            progress.check()?;
            let count = batch.as_ref().map_or(0, |batch| batch.labels.len());
            let (loss, hit) = self.step(batch?, self.position.epoch * self.steps_per_epoch + step, progress)?;
            losses += loss * count as f64;
            hits += hit;
            images += count;
            progress.advance(count as u64);
        }
        let seconds = started.elapsed().as_secs_f64();
        self.trained_seconds += seconds;
        self.waited_seconds += waited;
        self.trained_images += images;
        progress.end();
        self.finish_epoch(losses / images as f64, hits as f64 / images as f64, images as f64 / seconds, progress)
    }

    /// What the progress line says.
    fn stage(&self) -> String {
        let mut text = format!("epoch {}/{}", self.rows.len() + 1, self.recipe.epochs);
        if let Some(row) = self.rows.last() {
            text += &format!(", loss {:.3}, train {:.1}%", row.loss, row.train_accuracy * 100.0);
            if let Some(validation) = row.validation_accuracy {
                text += &format!(", val {:.1}%", validation * 100.0);
            }
            text += &format!(", sparsity {:.1}%, {:.0} img/s", row.sparsity * 100.0, row.images_per_second);
        }
        text
    }

    /// One step of training: the loss and how many images were right.
    fn step(&mut self, batch: Batch, step: usize, progress: &dyn Progress) -> Result<(f64, usize)> {
        if self.position.segment == 0 && self.needs_rewind() == Some(step) {
            self.keep_early_weights()?;
        }
        if let Some(sparsity) = self.segment().ramp.and_then(|ramp| ramp.at(step, self.steps_per_epoch)) {
            self.prune(sparsity, false, progress)?;
        }
        let rate = self.rate(step);
        let count = batch.labels.len();
        let shape = [&[count][..], &self.image].concat();
        if batch.shape != self.image {
            return Err(data(format!("images of {:?}, the first one has {:?}", batch.shape, self.image)));
        }
        if !self.programs.contains_key(&count) {
            self.programs.insert(count, TrainProgram::new(self.model, &self.parameters, &shape)?);
        }
        let Some(program) = self.programs.get_mut(&count) else { return Err(data("a batch without a program")) };
        let forward = program.forward(&self.parameters, &batch.images, Mode::Training);
        let (value, gradient) = loss::cross_entropy(&forward.logits, &batch.labels, self.recipe.label_smoothing, 1.0);
        if !value.is_finite() {
            let layer = program.first_broken_layer(&self.parameters, &batch.images);
            return Err(self.broken(layer, step, value));
        }
        let hits = hits(&forward.logits, &batch.labels, self.classes);
        forward.update_statistics(&mut self.parameters);
        let gradients = program.backward(&self.parameters, forward, Mode::Training, &gradient);
        self.optimiser.step(&mut self.parameters, gradients, rate);
        Ok((value, hits))
    }

    /// A rewound segment goes on with the schedule where the weights it went back to stood.
    fn rate(&self, step: usize) -> f64 {
        let segment = self.segment();
        let skipped = match segment.before {
            Before::PruneAndRewind { to, .. } => self.steps(to),
            _ => 0,
        };
        let steps = segment.epochs * self.steps_per_epoch + skipped;
        let rate = self.recipe.rate * segment.rate;
        rates::rate(&*self.schedule, rate, step + skipped, steps, self.steps(self.recipe.warm_up))
    }

    fn keep_early_weights(&mut self) -> Result<()> {
        let mut early = self.model.clone();
        self.parameters.store(&mut early);
        if let Some(folder) = &self.options.folder {
            let checkpoint = Checkpoint { position: self.position, ..Checkpoint::default() };
            checkpoint::write(&folder.join(checkpoint::REWIND), &early, &checkpoint)?;
        }
        self.rewind = Some(early);
        Ok(())
    }

    fn broken(&self, layer: Option<String>, step: usize, loss: f64) -> Error {
        let layer = layer.map_or("the loss alone".into(), |layer| format!("layer {layer:?} first"));
        let epoch = self.rows.len() + 1;
        let step = step % self.steps_per_epoch + 1;
        let kept = match &self.options.folder {
            Some(folder) if !self.rows.is_empty() => {
                format!("; {} is the last good state", folder.join(checkpoint::LAST).display())
            }
            _ => String::new(),
        };
        data(format!(
            "the loss became {loss} in epoch {epoch}, step {step} ({layer}): a lower --rate or --warm-up may help{kept}"
        ))
    }

    fn finish_epoch(&mut self, loss: f64, train_accuracy: f64, images_per_second: f64, progress: &dyn Progress) -> Result<()> {
        let rate = self.rate((self.position.epoch + 1) * self.steps_per_epoch - 1);
        let segment = self.position.segment;
        self.position.epoch += 1;
        self.position.step += self.steps_per_epoch;
        // A ramp may end with the last step.
        if let Some(ramp) = self.segment().ramp
            && let Some(sparsity) = ramp.at(self.position.epoch * self.steps_per_epoch, self.steps_per_epoch)
            && self.position.epoch == self.segment().epochs
        {
            self.prune(sparsity, false, progress)?;
        }
        self.parameters.store(self.model);
        self.model.check_finite().map_err(|e| e.at(format!("after epoch {}", self.rows.len() + 1)))?;
        let validation = self.data.validation.clone();
        let validation =
            validation.map(|examples| self.accuracy(&self.model.clone(), &examples, "validate", progress)).transpose()?;
        let sparsity = sparsity(self.model, self.recipe)?;
        self.rows.push(EpochRow {
            epoch: self.rows.len() + 1,
            segment,
            rate,
            loss,
            train_accuracy,
            validation_accuracy: validation.map(|estimate| estimate.value),
            sparsity,
            images_per_second,
        });
        if self.position.epoch == self.segment().epochs {
            self.position = Position { segment: segment + 1, epoch: 0, ..self.position };
        }
        self.choose(validation, sparsity)?;
        self.save()?;
        if self.position.epoch == 0 && !self.finished() {
            self.begin_segment(progress)?;
        }
        Ok(())
    }

    /// Only epochs at the final sparsity are candidates: an earlier one is another network.
    fn choose(&mut self, validation: Option<Estimate>, sparsity: f64) -> Result<()> {
        let Some(validation) = validation.map(|estimate| estimate.value) else { return Ok(()) };
        let densest = self.rows.iter().map(|row| row.sparsity).fold(0.0, f64::max);
        let stale = self.best.as_ref().is_some_and(|(epoch, ..)| self.rows[*epoch - 1].sparsity < densest);
        let better = self.best.as_ref().is_none_or(|(_, best, _)| validation > *best);
        if sparsity >= densest && (stale || better) {
            self.best = Some((self.rows.len(), validation, self.model.clone()));
            if let Some(folder) = &self.options.folder {
                checkpoint::write(&folder.join(checkpoint::BEST), self.model, &Checkpoint::default())?;
            }
        }
        Ok(())
    }

    fn save(&self) -> Result<()> {
        let Some(folder) = &self.options.folder else { return Ok(()) };
        let momentum = self.parameters.trained.iter();
        let momentum = momentum.filter_map(|p| Some((p.name.clone(), p.momentum.clone()?))).collect();
        let checkpoint = Checkpoint {
            position: self.position,
            rows: self.rows.clone(),
            init_repair: self.init_repair.clone(),
            momentum,
            best: self.best.as_ref().map(|(epoch, validation, _)| (*epoch, *validation)),
            seconds: (self.trained_seconds, self.waited_seconds, self.trained_images),
        };
        checkpoint::write(&folder.join(checkpoint::LAST), self.model, &checkpoint)?;
        checkpoint::write_journal(folder, &self.rows)
    }

    fn accuracy(&self, model: &Model, examples: &Examples, stage: &str, progress: &dyn Progress) -> Result<Estimate> {
        let labels = examples.labels()?;
        let network = Network::new(model, &self.image, &PlanOptions::default())?;
        progress.begin(stage, labels.len() as u64);
        let mut hits = 0;
        for (indices, labels) in examples.indices.chunks(EVALUATED).zip(labels.chunks(EVALUATED)) {
            progress.check()?;
            let images = examples.set.load_picked(indices, examples.channels, &examples.preprocess)?;
            let results = network.run(&images)?.swap_remove(0);
            hits += results.data.chunks_exact(self.classes).zip(labels).filter(|(row, label)| largest(row) == **label).count();
            progress.advance(labels.len() as u64);
        }
        progress.end();
        Ok(Estimate::share(hits, examples.indices.len()))
    }

    fn outcome(mut self, progress: &dyn Progress) -> Result<(Outcome, Option<Model>)> {
        let test = |run: &Run, model: &Model| match &run.data.test {
            Some(examples) => run.accuracy(model, examples, "test", progress).map(Some),
            None => Ok(None),
        };
        let last = test(&self, self.model)?;
        let best = self.best.take();
        let (best, best_model) = match best {
            None => (None, None),
            Some((epoch, validation, model)) => {
                let test = if epoch == self.rows.len() { last } else { test(&self, &model)? };
                (Some(Best { epoch, validation, test }), Some(model))
            }
        };
        let outcome = Outcome {
            test: last,
            best,
            sparsity: sparsity(self.model, self.recipe)?,
            images_per_second: self.trained_images as f64 / self.trained_seconds,
            waiting: self.waited_seconds / self.trained_seconds,
            rows: self.rows,
            init_repair: self.init_repair,
        };
        Ok((outcome, best_model))
    }
}

/// Share of the prunable weights that is zero.
fn sparsity(model: &Model, recipe: &Recipe) -> Result<f64> {
    let (layers, _) = model.prunable(&recipe.prune_options(0.0, false).rule)?;
    let (mut zeros, mut all) = (0, 0);
    for layer in &layers {
        let weights = &model.weight(&layer.param)?.data;
        zeros += weights.iter().filter(|&&weight| weight == 0.0).count();
        all += weights.len();
    }
    Ok(zeros as f64 / (all as f64).max(1.0))
}

fn check_labels(examples: &Examples, classes: usize) -> Result<()> {
    let wrong = examples.labels()?.into_iter().find(|&label| label >= classes);
    match wrong {
        Some(label) => Err(Error::new(
            ErrorKind::Data,
            format!(
                "{}: label {label}, but the model has {classes} classes (0 to {})",
                examples.set.path().display(),
                classes - 1
            ),
        )),
        None => Ok(()),
    }
}

fn hits(logits: &[f32], labels: &[usize], classes: usize) -> usize {
    logits.chunks_exact(classes).zip(labels).filter(|(row, label)| largest(row) == **label).count()
}

fn largest(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

/// A report of a run, as it is written into its folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunReport {
    /// Version of this structure.
    pub schema_version: u32,
    /// Version of the program.
    pub tool_version: String,
    /// What was asked for.
    pub recipe: Recipe,
    /// What came out.
    pub outcome: Outcome,
    /// SHA-256 of the written model.
    pub model_sha256: String,
}

impl RunReport {
    /// Puts a report together.
    pub fn new(recipe: &Recipe, outcome: Outcome, model: &[u8]) -> RunReport {
        RunReport {
            schema_version: 1,
            tool_version: env!("CARGO_PKG_VERSION").into(),
            recipe: recipe.clone(),
            outcome,
            model_sha256: eval::sha256(model),
        }
    }
}
