//! Epochs and steps of training.

use super::accuracy::hits;
use super::segments::sparsity;
use super::state::Run;
use crate::checkpoint::{self, EpochRow, Position};
use crate::engine::{Mode, TrainProgram};
use crate::error::data;
use crate::loader::Batch;
use crate::methods::Before;
use crate::rates;
use crate::step::Descent;
use resprout::progress::Progress;
use resprout::{Error, Result};
use std::time::Instant;

impl Run<'_> {
    pub(super) fn epoch(&mut self, progress: &dyn Progress) -> Result<()> {
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

    /// The name of the stage, with the results of the last epoch.
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

    /// One step of training. Returns the loss and the number of correct images.
    fn step(&mut self, batch: Batch, step: usize, progress: &dyn Progress) -> Result<(f64, usize)> {
        if self.position.segment == 0 && self.needs_rewind() == Some(step) {
            self.keep_early_weights()?;
        }
        if let Some(sparsity) = self.segment().ramp.and_then(|ramp| ramp.at(step, self.steps_per_epoch)) {
            self.prune(sparsity, false, step % self.steps_per_epoch, progress)?;
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
        let descent = Descent { optimiser: &self.optimiser, label_smoothing: self.recipe.label_smoothing, rate };
        let (value, logits) = descent.step(program, &mut self.parameters, &batch.images, &batch.labels);
        if !value.is_finite() {
            let layer = program.first_broken_layer(&self.parameters, &batch.images, Mode::Training);
            return Err(self.broken(layer, step, value));
        }
        Ok((value, hits(&logits, &batch.labels, self.classes)))
    }

    /// The learning rate of a step. A rewound segment continues the schedule from the step of its weights.
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

    /// The error for a loss that is not finite.
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
        data(format!("the loss became {loss} in epoch {epoch}, step {step} ({layer}): a lower rate or a warm-up may help{kept}"))
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
            self.prune(sparsity, false, self.steps_per_epoch, progress)?;
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
            emptied: std::mem::take(&mut self.emptied),
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
}
