//! The state of a run.

use crate::checkpoint::{Emptied, EpochRow, Position};
use crate::device;
use crate::engine::TrainProgram;
use crate::error::option;
use crate::loader::{Examples, batch_count};
use crate::methods::{Before, TrainSegment};
use crate::optimiser::Sgd;
use crate::parameters::Parameters;
use crate::rates::{self, Schedule};
use crate::recipe::Recipe;
use resprout::Result;
use resprout::lipschitz::LipschitzRow;
use resprout::model::Model;
use std::collections::HashMap;
use std::path::PathBuf;

/// The data of a run. [`layouts::open`](resprout::data::layouts::open) finds training and test images in a folder.
#[derive(Clone)]
pub struct Data {
    /// Training images.
    pub train: Examples,
    /// Validation images, which choose the best epoch; `None` for no choice.
    pub validation: Option<Examples>,
    /// Test images, which measure and choose nothing.
    pub test: Option<Examples>,
}

/// How a run is executed. None of it changes the result.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The folder for the run's files (see [`checkpoint`](crate::checkpoint)); `None` for no files.
    pub folder: Option<PathBuf>,
    /// Whether it resumes from the folder's last checkpoint, if there is one.
    pub resume: bool,
    /// Threads that load images beside those that train; from 1 on.
    pub workers: usize,
}

/// A run between two steps.
pub(super) struct Run<'a> {
    pub recipe: &'a Recipe,
    pub data: &'a Data,
    pub options: &'a RunOptions,
    pub model: &'a mut Model,
    pub initial: Model,
    pub segments: Vec<TrainSegment>,
    pub schedule: Box<dyn Schedule>,
    pub optimiser: Sgd,
    pub parameters: Parameters,
    /// One program per batch size.
    pub programs: HashMap<usize, TrainProgram>,
    pub image: [usize; 3],
    pub classes: usize,
    pub steps_per_epoch: usize,
    pub position: Position,
    pub rows: Vec<EpochRow>,
    /// Those of the current epoch.
    pub emptied: Vec<Emptied>,
    pub init_repair: Vec<LipschitzRow>,
    /// The best epoch, its validation accuracy and its model.
    pub best: Option<(usize, f64, Model)>,
    pub rewind: Option<Model>,
    pub trained_seconds: f64,
    pub waited_seconds: f64,
    pub trained_images: usize,
}

impl<'a> Run<'a> {
    pub(super) fn new(model: &'a mut Model, recipe: &'a Recipe, data: &'a Data, options: &'a RunOptions) -> Result<Run<'a>> {
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
            examples.check_labels(classes)?;
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
            emptied: Vec::new(),
            init_repair: Vec::new(),
            best: None,
            rewind: None,
            trained_seconds: 0.0,
            waited_seconds: 0.0,
            trained_images: 0,
        })
    }

    pub(super) fn finished(&self) -> bool {
        self.position.segment == self.segments.len()
    }

    pub(super) fn segment(&self) -> &TrainSegment {
        &self.segments[self.position.segment]
    }

    /// The step whose weights a later segment rewinds to.
    pub(super) fn needs_rewind(&self) -> Option<usize> {
        self.segments.iter().find_map(|segment| match segment.before {
            Before::PruneAndRewind { to, .. } => Some(self.steps(to)),
            _ => None,
        })
    }

    pub(super) fn steps(&self, epochs: f64) -> usize {
        (epochs * self.steps_per_epoch as f64).round() as usize
    }
}
