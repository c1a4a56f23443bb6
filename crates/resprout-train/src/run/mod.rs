//! One run: the loop over segments, epochs and steps, and the files in its folder.

mod accuracy;
mod checkpoints;
mod epoch;
mod report;
mod segments;
mod state;

pub use report::{Best, Outcome, RunReport};
pub use state::{Data, RunOptions};

use crate::recipe::Recipe;
use resprout::Result;
use resprout::lock::FolderLock;
use resprout::model::Model;
use resprout::progress::Progress;
use segments::sparsity;
use state::Run;

/// Trains `model` in place by the recipe. Returns the outcome, and the model of the best epoch if validation chose one.
///
/// The caller builds the model and opens the data. The recipe's keys for them (`arch`, `model`, `weights`, `data`, `test`,
/// `validation`, `preset`) are only checked and stored. `model` ends with the weights of the last epoch.
///
/// # Errors
/// * `Option` for an invalid recipe, too few images for a batch, and a folder that holds another run.
/// * `Data` for images without labels, of different sizes, or with labels that the model does not have.
/// * `Unsupported` for a layer that cannot be trained; `Io` for files of the run, or if another process writes them; `Interrupted`.
pub fn train(
    model: &mut Model,
    recipe: &Recipe,
    data: &Data,
    options: &RunOptions,
    progress: &dyn Progress,
) -> Result<(Outcome, Option<Model>)> {
    recipe.check()?;
    let mut run = Run::new(model, recipe, data, options)?;
    let _lock = options.folder.as_deref().map(FolderLock::take).transpose()?;
    run.start(progress)?;
    while !run.finished() {
        run.epoch(progress)?;
    }
    run.outcome(progress)
}

impl Run<'_> {
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
