//! Trains the cells that are missing in a journal.

use super::{CollapsedLayer, EpochPoint, TrainCell, TrainResult, TrainStudy};
use crate::recipe::Recipe;
use crate::run::{Data, Outcome, RunOptions, train};
use resprout::forward::layer_macs;
use resprout::hash::files_sha256;
use resprout::model::Model;
use resprout::progress::Progress;
use resprout::study::Journal;
use resprout::study::journal;
use resprout::study::schedule::{CellGroup, Done, Finished, RunOutcome, Share, schedule};
use resprout::{Error, ErrorKind, Result, report};
use std::path::{Path, PathBuf};

/// The folder of a study in which cells that are not finished keep their run.
pub const RUNS: &str = "runs";

/// Threads that load images, for each job.
const WORKERS: usize = 2;

/// Where networks and images come from.
pub struct Source<'a> {
    /// A hash of the images, their labels and their preprocessing.
    pub sha256: String,
    /// The fresh network and the images of a recipe.
    pub open: &'a (dyn Fn(&Recipe) -> Result<(Model, Data)> + Sync),
}

/// Trains every cell that is not in `done`, and appends each to the journal. [`merge`](resprout::study::journal::merge) makes
/// `done`. A cell that is interrupted keeps its run in `folder`, and the next call resumes it there.
///
/// # Errors
/// Of kind `Io` or `Interrupted`, and `Io` for files of weights that cannot be read.
pub fn run(
    study: &TrainStudy,
    source: &Source,
    folder: &Path,
    done: Done<TrainCell, TrainResult>,
    journal: &Journal,
    share: &Share,
    progress: &dyn Progress,
) -> Result<RunOutcome<TrainCell, TrainResult>> {
    let files = Files::new(&study.recipe, source)?;
    let cells = study.cells().into_iter().map(|cell| Training::new(study, source, &files, folder, cell));
    let cells: Vec<Training> = cells.collect::<Result<_>>()?;
    // A run whose cell is in the journal was killed before its files were removed.
    for cell in cells.iter().filter(|cell| done.contains_key(&cell.key)) {
        remove(&cell.folder)?;
    }
    let outcome = schedule(&cells, done, journal, share, progress)?;
    // It stays where runs are left: those of failures, and of other shards.
    drop(std::fs::remove_dir(folder.join(RUNS)));
    Ok(outcome)
}

/// Hashes of the files that a recipe names.
struct Files {
    images: String,
    model: Option<String>,
    weights: Option<String>,
}

impl Files {
    fn new(recipe: &Recipe, source: &Source) -> Result<Files> {
        let hash = |path: &Option<String>| path.as_ref().map(|path| Ok(files_sha256(&[path.into()])?.0)).transpose();
        Ok(Files { images: source.sha256.clone(), model: hash(&recipe.model)?, weights: hash(&recipe.weights)? })
    }

    /// The recipe with contents in place of file names: it is the same wherever the files lie.
    fn pin(&self, recipe: Recipe) -> Recipe {
        let (model, weights) = (self.model.clone(), self.weights.clone());
        Recipe { data: self.images.clone(), test: None, preset: None, model, weights, ..recipe }
    }
}

/// One cell.
struct Training<'a> {
    cell: TrainCell,
    recipe: Recipe,
    pinned: Recipe,
    key: String,
    source: &'a Source<'a>,
    /// That of the run.
    folder: PathBuf,
}

impl<'a> Training<'a> {
    fn new(study: &TrainStudy, source: &'a Source, files: &Files, folder: &Path, cell: TrainCell) -> Result<Training<'a>> {
        let recipe = study.recipe(&cell);
        let pinned = files.pin(recipe.clone());
        let key = journal::key(&pinned.to_yaml()?);
        let folder = folder.join(RUNS).join(&key);
        Ok(Training { cell, recipe, pinned, key, source, folder })
    }

    fn train(&self, progress: &dyn Progress) -> Result<TrainResult> {
        let (mut model, data) = (self.source.open)(&self.recipe)?;
        let options = RunOptions { folder: Some(self.folder.clone()), resume: true, workers: WORKERS };
        let (outcome, _) = train(&mut model, &self.pinned, &data, &options, progress)?;
        self.result(&model, &data, outcome)
    }

    fn result(&self, model: &Model, data: &Data, outcome: Outcome) -> Result<TrainResult> {
        let missing = || Error::new(ErrorKind::Data, "the images have no test part to measure on");
        let (test, examples) = outcome.test.zip(data.test.as_ref()).ok_or_else(missing)?;
        let (layers, _) = model.prunable(&self.recipe.prune_options(self.cell.sparsity, false).rule)?;
        let macs = layer_macs(model, &examples.image()?).ok();
        let rows = report::layer_rows(model, &layers, macs.as_ref())?;
        let requested = (!self.cell.is_dense()).then_some(self.cell.sparsity);
        let sparsity = report::sparsity_info(model, &rows, requested, macs.as_ref());
        let emptied = outcome.rows.iter().flat_map(|row| row.emptied.iter().map(move |layer| (row.epoch, layer)));
        Ok(TrainResult {
            sparse_bytes: 4 * report::nonzero_parameters(model) as u64 + (sparsity.prunable as u64).div_ceil(8),
            sparsity,
            test,
            images: examples.indices.len(),
            best: outcome.best,
            collapsed: emptied.map(|(epoch, layer)| CollapsedLayer { param: layer.param.clone(), epoch }).collect(),
            epochs: outcome
                .rows
                .iter()
                .map(|row| EpochPoint {
                    epoch: row.epoch,
                    loss: row.loss,
                    train_accuracy: row.train_accuracy,
                    validation_accuracy: row.validation_accuracy,
                    sparsity: row.sparsity,
                })
                .collect(),
            warnings: report::layer_warnings(&rows),
        })
    }
}

impl CellGroup for Training<'_> {
    type Cell = TrainCell;
    type Result = TrainResult;

    fn cells(&self) -> Vec<(&str, &TrainCell)> {
        vec![(&self.key, &self.cell)]
    }

    fn measure(&self, todo: &[usize], progress: &dyn Progress, finished: &mut Finished<TrainResult>) -> Result<()> {
        for &index in todo {
            let result = self.train(progress);
            let whole = result.is_ok();
            finished(index, result)?;
            if whole {
                remove(&self.folder)?;
            }
        }
        Ok(())
    }
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(folder, e)),
        _ => Ok(()),
    }
}
