//! Measures the cells that are missing in a journal.

use super::diagnostics::{diagnostics, rounded, unrepairable};
use super::grid::criterion_needs_images;
use super::journal::{self, Journal};
use super::schedule::{CellGroup, Finished, RunOutcome, Share, lock, schedule};
use super::{Cell, CellResult, LayerDiagnostics, Record};
use crate::calibrate::{ActivationCache, Dense};
use crate::error::{Error, Result};
use crate::eval::{self, OutputKind, images_sha256, sha256};
use crate::forward::LayerMacs;
use crate::forward::{Network, PlanOptions};
use crate::model::{Model, Prunable, PrunableRule};
use crate::progress::{Progress, Quiet};
use crate::prune::{PruneOptions, PruneOutcome, Scored, check_present, prune, prune_scored, score_layers};
use crate::random::SplitMix64;
use crate::repair::{Chain, RepairOptions, Rows};
use crate::report::{self, LayerRow};
use crate::structure::Pattern;
use crate::tensor::Tensor;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Decoded images, shared by models with the same preprocessing.
pub struct Images {
    /// `[N, C, H, W]`: the pool of calibration images.
    pub pool: Tensor,
    /// `[N, C, H, W]`: the test images.
    pub test: Tensor,
    /// One class per test image.
    pub labels: Option<Vec<usize>>,
}

/// A model of the study, and its cells.
pub struct Subject {
    /// Its name in the study.
    pub name: String,
    /// The dense model.
    pub model: Model,
    /// A hash of its contents.
    pub sha256: String,
    /// Its images.
    pub images: Arc<Images>,
    /// Which layers are pruned.
    pub rule: PrunableRule,
    /// The cells of the grid.
    pub cells: Vec<Cell>,
}

/// How a study runs. Only `memory` and `diagnostic_images` can change a result.
#[derive(Clone, Debug)]
pub struct StudyOptions {
    /// The number of cells that are measured at a time.
    pub jobs: usize,
    /// As [`RepairOptions::memory`], for each job. The dense network's activations are cached if they fit beside a job.
    pub memory: usize,
    /// The number of calibration images for [`LayerDiagnostics`]; 0 for no diagnostics.
    pub diagnostic_images: usize,
    /// Repairs of crates above this one, beside [`REPAIRS`](crate::repair::REPAIRS).
    pub repair_rows: Rows,
    /// The part `i` of `n` of the work, with `i` from 1 on.
    pub shard: Option<(usize, usize)>,
}

/// Cells with the same masks.
struct Group<'a> {
    subject: &'a Prepared<'a>,
    cells: Range<usize>,
    options: &'a StudyOptions,
}

/// Measures every cell that is not in `done`, and appends each to the journal. [`merge`](super::journal::merge) makes `done`. A
/// cell that cannot be measured is a [`Failure`](super::Failure), and the run goes on. Errors are of kind `Io` or `Interrupted`.
pub fn run(
    subjects: &[Subject],
    done: HashMap<String, (Record, String)>,
    journal: &Journal,
    options: &StudyOptions,
    progress: &dyn Progress,
) -> Result<RunOutcome> {
    let prepared: Vec<Prepared> = subjects.iter().map(|subject| Prepared::new(subject, options)).collect();
    let groups: Vec<Group> = prepared.iter().flat_map(|subject| subject.groups(options)).collect();
    schedule(&groups, done, journal, &Share { jobs: options.jobs, shard: options.shard }, progress)
}

impl CellGroup for Group<'_> {
    type Cell = Cell;
    type Result = CellResult;

    fn cells(&self) -> Vec<(&str, &Cell)> {
        let subject = self.subject;
        self.cells.clone().map(|i| (subject.keys[i].as_str(), &subject.subject.cells[i])).collect()
    }

    fn measure(&self, todo: &[usize], progress: &dyn Progress, finished: &mut Finished<CellResult>) -> Result<()> {
        let (subject, options) = (self.subject, self.options);
        let cells = &subject.subject.cells[self.cells.clone()];
        let masked = subject.masked(&cells[0], options);
        for &index in todo {
            progress.check()?;
            let result = match &masked {
                Ok(masked) => subject.measure(&cells[index], masked, options),
                Err(error) => Err(Error::new(error.kind(), error.to_string())),
            };
            finished(index, result)?;
        }
        Ok(())
    }
}

/// The number of cached scores.
const KEPT_SCORES: usize = 4;

/// A subject with everything that its cells share.
struct Prepared<'a> {
    subject: &'a Subject,
    /// One key per cell.
    keys: Vec<String>,
    /// Calibration images by number and seed.
    calibrations: HashMap<(usize, u64), Tensor>,
    shared: Mutex<Option<Arc<Shared>>>,
    scores: Mutex<HashMap<String, Arc<Scored>>>,
    /// The dense network's activations on the last calibration images.
    cache: Mutex<Option<Cached>>,
}

/// The activations of a number of images and a seed, if they fit in memory.
#[derive(Clone)]
struct Cached {
    choice: (usize, u64),
    cache: Arc<Option<ActivationCache>>,
}

/// The dense model's results on the test images.
struct Shared {
    outputs: Tensor,
    kind: OutputKind,
    macs: Option<LayerMacs>,
    /// The layers of the diagnostics, for any pattern.
    layers: Vec<Prunable>,
}

/// A model under its masks.
struct Masked {
    pruned: Model,
    rows: Vec<LayerRow>,
    unrepairable: Vec<Option<f64>>,
}

impl<'a> Prepared<'a> {
    fn new(subject: &'a Subject, options: &StudyOptions) -> Prepared<'a> {
        let Images { pool, test, labels } = &*subject.images;
        let mut calibrations = HashMap::new();
        for cell in subject.cells.iter().filter(|cell| !cell.is_dense()) {
            calibrations
                .entry((cell.calibration_images, cell.seed))
                .or_insert_with(|| draw(pool, cell.calibration_images, cell.seed));
        }
        let hashes: HashMap<_, _> = calibrations.iter().map(|(choice, images)| (*choice, images_sha256(images))).collect();
        let labels = labels.as_ref().map(|labels| sha256(format!("{labels:?}").as_bytes()));
        let tests = images_sha256(test);
        let masks = if subject.model.masks.iter().next().is_some() { " came sparse" } else { "" };
        let key = |cell: &Cell| {
            let calibration = hashes.get(&(cell.calibration_images, cell.seed));
            let of_subject = format!(
                "{} {tests} {labels:?} {:?} {calibration:?} {} {}{masks}",
                subject.sha256, subject.rule, options.memory, options.diagnostic_images
            );
            // It depends on the model's contents, not on its name.
            let cell = Cell { model: String::new(), ..cell.clone() };
            journal::key(&format!("{cell:?} {of_subject}"))
        };
        let keys = subject.cells.iter().map(key).collect();
        Prepared { subject, keys, calibrations, shared: Mutex::default(), scores: Mutex::default(), cache: Mutex::default() }
    }

    fn groups(&'a self, options: &'a StudyOptions) -> Vec<Group<'a>> {
        let cells = &self.subject.cells;
        let mut groups: Vec<Group> = Vec::new();
        for index in 0..cells.len() {
            match groups.last_mut() {
                Some(group) if cells[group.cells.start].same_masks(&cells[index]) => group.cells.end = index + 1,
                _ => groups.push(Group { subject: self, cells: index..index + 1, options }),
            }
        }
        groups
    }

    fn image(&self) -> &[usize] {
        &self.subject.images.test.shape[1..]
    }

    fn shared(&self) -> Result<Arc<Shared>> {
        let mut shared = lock(&self.shared);
        if let Some(shared) = &*shared {
            return Ok(shared.clone());
        }
        let model = &self.subject.model;
        let network = Network::new(model, self.image(), &PlanOptions::default())?;
        let everything = PrunableRule { include_grouped: true, ..self.subject.rule.clone() };
        let made = Arc::new(Shared {
            outputs: network.run(&self.subject.images.test)?.swap_remove(0),
            kind: eval::output_kind_of(network.plan()),
            macs: crate::forward::layer_macs(model, self.image()).ok(),
            layers: model.prunable(&everything)?.0,
        });
        *shared = Some(made.clone());
        Ok(made)
    }

    fn calibration(&self, cell: &Cell) -> Result<&Tensor> {
        let images = self.calibrations.get(&(cell.calibration_images, cell.seed));
        let images = images.ok_or_else(|| Error::data("no calibration images"))?;
        match images.shape[0] {
            found if found < cell.calibration_images => {
                Err(Error::data(format!("calibration_images: {} are needed, and there are {found}", cell.calibration_images)))
            }
            _ => Ok(images),
        }
    }

    /// The dense network's activations on the cell's calibration images. It waits while another job computes them.
    fn cache(&self, cell: &Cell, options: &StudyOptions) -> Result<Arc<Option<ActivationCache>>> {
        let choice = (cell.calibration_images, cell.seed);
        let mut last = lock(&self.cache);
        if let Some(known) = last.as_ref().filter(|known| known.choice == choice) {
            return Ok(known.cache.clone());
        }
        // The old cache is freed before the new one is computed.
        *last = None;
        let cache = Arc::new(ActivationCache::new(&self.subject.model, self.calibration(cell)?, options.memory, &Quiet)?);
        *last = Some(Cached { choice, cache: cache.clone() });
        Ok(cache)
    }

    fn masked(&self, cell: &Cell, options: &StudyOptions) -> Result<Masked> {
        let dense = &self.subject.model;
        let shared = self.shared()?;
        let mut pruned = dense.clone();
        let layers = match cell.is_dense() {
            true => dense.prunable(&self.subject.rule)?.0,
            false => self.prune(&mut pruned, cell)?.layers,
        };
        let rows = report::layer_rows(&pruned, &layers, shared.macs.as_ref())?;
        let unrepairable = match self.diagnostic_images(cell, options)? {
            Some(images) => {
                let cache = self.cache(cell, options)?;
                unrepairable(&pruned, Dense::cached(dense, &cache), &shared.layers, &images)?
            }
            None => Vec::new(),
        };
        Ok(Masked { pruned, rows, unrepairable })
    }

    fn diagnostic_images(&self, cell: &Cell, options: &StudyOptions) -> Result<Option<Tensor>> {
        if cell.is_dense() || options.diagnostic_images == 0 {
            return Ok(None);
        }
        let images = self.calibration(cell)?;
        Ok(Some(images.first(options.diagnostic_images.min(images.shape[0]))))
    }

    fn prune(&self, model: &mut Model, cell: &Cell) -> Result<PruneOutcome> {
        let options = PruneOptions {
            sparsity: cell.sparsity,
            criterion: cell.criterion.clone(),
            allocation: cell.allocation.clone(),
            rule: self.subject.rule.clone(),
            seed: cell.seed,
            pattern: Pattern::parse(&cell.pattern)?,
            ..PruneOptions::default()
        };
        check_present(model, &options)?;
        let images = self.calibration(cell)?;
        if options.pattern == Pattern::Channel {
            return prune(model, &options, images, &Quiet);
        }
        let with_images = criterion_needs_images(&cell.criterion, options.pattern, cell.seed)?;
        let count = if with_images { cell.calibration_images } else { 0 };
        let name = format!("{} {} {} {count}", cell.pattern, cell.criterion, cell.seed);
        let known = lock(&self.scores).get(&name).cloned();
        let scored = match known {
            Some(scored) => scored,
            None => {
                let scored = Arc::new(score_layers(model, &options, images, &Quiet)?);
                let mut scores = lock(&self.scores);
                if scores.len() >= KEPT_SCORES {
                    scores.clear();
                }
                scores.insert(name, scored.clone());
                scored
            }
        };
        prune_scored(model, &scored, &options)
    }

    fn measure(&self, cell: &Cell, masked: &Masked, options: &StudyOptions) -> Result<CellResult> {
        let dense = &self.subject.model;
        let shared = self.shared()?;
        let mut model = masked.pruned.clone();
        let mut warnings = report::layer_warnings(&masked.rows);
        if !cell.is_dense() {
            let repair_options = RepairOptions { memory: options.memory, ..RepairOptions::default() };
            let chain = Chain::parse_with(&cell.repair, options.repair_rows)?;
            let cache = if chain.needs_dense(dense) { self.cache(cell, options)? } else { Arc::default() };
            let cached = Dense::cached(dense, &cache);
            let outcome = chain.repair(&mut model, cached, self.calibration(cell)?, &repair_options, &Quiet)?;
            warnings.extend(outcome.warnings);
        }
        let images = &self.subject.images;
        let network = Network::new(&model, self.image(), &PlanOptions::default())?;
        let results = network.run(&images.test)?.swap_remove(0);
        let evaluation = eval::compare(&results, &shared.outputs, images.labels.as_deref(), shared.kind)?;
        let requested = (!cell.is_dense()).then_some(cell.sparsity);
        let sparsity = report::sparsity_info(&model, &masked.rows, requested, shared.macs.as_ref());
        let mut layer_diagnostics = LayerDiagnostics { unrepairable: masked.unrepairable.clone(), ..LayerDiagnostics::default() };
        if let Some(images) = self.diagnostic_images(cell, options)? {
            let cache = self.cache(cell, options)?;
            let cached = Dense::cached(dense, &cache);
            [layer_diagnostics.kept_variance, layer_diagnostics.correlation] =
                diagnostics(&model, cached, &shared.layers, &images)?;
            layer_diagnostics.density = shared.layers.iter().map(|layer| density(&model, layer)).collect();
        }
        Ok(CellResult {
            sparse_bytes: 4 * report::nonzero_parameters(&model) as u64 + (sparsity.prunable as u64).div_ceil(8),
            sparsity,
            evaluation,
            images: images.test.shape[0],
            classes: (shared.kind != OutputKind::Other).then(|| shared.outputs.shape[1]),
            layers: if cell.is_dense() { shared.layers.iter().map(|layer| layer.layer.clone()).collect() } else { Vec::new() },
            diagnostics: layer_diagnostics,
            warnings,
        })
    }
}

fn density(model: &Model, layer: &Prunable) -> f64 {
    let kept = model.masks.get(&layer.param).map_or(layer.len(), crate::model::Mask::kept);
    rounded(kept as f64 / layer.len() as f64)
}

/// `count` images: the first ones for seed 0, else drawn without replacement.
fn draw(pool: &Tensor, count: usize, seed: u64) -> Tensor {
    let all = pool.shape.first().copied().unwrap_or(0);
    if seed == 0 {
        return pool.first(count.min(all));
    }
    let mut order: Vec<usize> = (0..all).collect();
    SplitMix64::new(seed, 0).shuffle(&mut order);
    order.truncate(count);
    pool.pick(&order)
}
