//! From a dense network to a repaired sparse one: prune and repair, in one step or in several, with one repair or the best
//! of several.

mod builder;
mod measured;

pub use builder::{AnyAllocation, AnyCriterion, AnyRepair, Budget, Sparsify};
pub use measured::AllocationLoss;

use crate::calibrate::{ActivationCache, Dense};
use crate::error::{Error, ErrorKind, Result};
use crate::eval::{images_sha256, sha256};
use crate::formats::{atomic, safetensors};
use crate::lock::FolderLock;
use crate::model::{Layer, Model};
use crate::progress::{Progress, Renamed};
use crate::prune::{PruneOptions, PruneOutcome, check_present, prune, weights_left};
use crate::repair::{AUTO, Candidate, Chain, Judge, RepairOptions, RepairOutcome, Rows};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How [`sparsify()`] prunes and repairs a model.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct SparsifyOptions {
    /// How it is pruned. The sparsity is that of the last step.
    pub prune: PruneOptions,
    /// Repairs, as [`Chain::parse_with`] reads them, or [`AUTO`]. `none` for no repair.
    pub repair: String,
    /// Repairs of other crates, beside [`REPAIRS`](crate::repair::REPAIRS); `&[]` for none.
    pub repair_rows: Rows,
    /// How repairs run.
    pub repair_options: RepairOptions,
    /// The number of steps of pruning and repair, from 1 to 1000: see [`schedule`].
    pub steps: usize,
    /// A folder that keeps the last step of several, so that an interrupted run resumes there.
    pub checkpoint: Option<PathBuf>,
}

/// The result of pruning and repair.
#[derive(Clone, Debug)]
pub struct Sparsified {
    /// The dense weights under the final mask, without repair.
    pub pruned: Model,
    /// The pruned and repaired network.
    pub repaired: Model,
    /// What was pruned.
    pub outcome: PruneOutcome,
    /// The result of the last step's repair.
    pub repair: RepairOutcome,
    /// The candidates that were tried, if the repair is [`AUTO`].
    pub candidates: Vec<Candidate>,
    /// The allocations that the last step has tried, if the allocation is [`Measured`](crate::allocation::Measured).
    pub allocations: Vec<AllocationLoss>,
    /// The sparsity of every step.
    pub steps: Vec<f64>,
}

/// Prunes and repairs `dense`. `images: [N, C, H, W]` are preprocessed. They may be empty if criterion and repairs need
/// none. Weights that its masks have pruned stay pruned, and count.
///
/// # Errors
/// As [`Sparsify::run`]. Also `Interrupted`, `Io` for the checkpoint, and `Option` for a checkpoint of another run.
#[doc(hidden)]
pub fn sparsify(dense: &Model, images: &Tensor, options: &SparsifyOptions, progress: &dyn Progress) -> Result<Sparsified> {
    sparsify_from(dense, dense, images, options, progress)
}

/// As [`sparsify()`] for a network `start` that is pruned already. `dense` has the same layers and is the target of repairs.
///
/// # Errors
/// As [`sparsify()`], and of kind `Data` if the layers differ.
#[doc(hidden)]
pub fn sparsify_from(
    start: &Model,
    dense: &Model,
    images: &Tensor,
    options: &SparsifyOptions,
    progress: &dyn Progress,
) -> Result<Sparsified> {
    check_same_layers(start, dense)?;
    let steps = schedule_of(start, options)?;
    if options.repair != AUTO {
        let chain = Chain::parse_with(&options.repair, options.repair_rows)?;
        return in_steps(start, dense, images, &chain, &steps, options, progress);
    }
    let all = images.shape.first().copied().unwrap_or(0);
    if all < 4 {
        return Err(Error::data(format!(
            "repair auto: {all} calibration images; at least 4 are needed, every fourth to judge by"
        )));
    }
    let (seen, held_out) = Judge::split(images);
    let judge = Judge::new(dense, held_out)?;
    let cache = ActivationCache::new(dense, &seen, options.repair_options.memory, progress)?;
    let dense = Dense::cached(dense, &cache);
    let started = Instant::now();
    choose(&judge, &candidates(options), |text| {
        let mut options = options.clone();
        let left = |seconds: f64| (seconds - started.elapsed().as_secs_f64()).max(0.0);
        options.repair_options.seconds = options.repair_options.seconds.map(left);
        gradual(start, dense, &seen, &Chain::parse_with(text, options.repair_rows)?, &steps, &options, progress)
    })
}

/// The sparsity of every step, from the present sparsity of `start` on. With a target for the operations it counts operations.
fn schedule_of(start: &Model, options: &SparsifyOptions) -> Result<Vec<f64>> {
    check_present(start, &options.prune)?;
    let (left, total) = weights_left(start, &options.prune)?;
    let (density, target) = match options.prune.macs {
        Some(share) => (1.0, 1.0 - share),
        None => (left as f64 / total.max(1) as f64, options.prune.sparsity),
    };
    schedule_from(density, target, options.steps)
}

/// Prunes and repairs in steps. The dense network's activations are cached if several steps read them.
fn in_steps(
    start: &Model,
    dense: &Model,
    images: &Tensor,
    chain: &Chain,
    steps: &[f64],
    options: &SparsifyOptions,
    progress: &dyn Progress,
) -> Result<Sparsified> {
    let cache = match chain.needs_dense(dense) && steps.len() > 1 {
        true => ActivationCache::new(dense, images, options.repair_options.memory, progress)?,
        false => None,
    };
    gradual(start, Dense::cached(dense, &cache), images, chain, steps, options, progress)
}

/// The chains that [`AUTO`] tries. Repairs of crates above this one take as long as they are given, so they are tried last, behind
/// the strongest of this crate, and only with a limit on the time.
fn candidates(options: &SparsifyOptions) -> Vec<String> {
    let own = Judge::CANDIDATES.map(String::from);
    let strongest = Judge::CANDIDATES[Judge::CANDIDATES.len() - 1];
    let rows = options.repair_rows.iter().filter(|_| options.repair_options.seconds.is_some());
    own.into_iter().chain(rows.map(|row| format!("{strongest},{}", row.name))).collect()
}

/// Runs every candidate and returns the best.
fn choose(judge: &Judge, texts: &[String], run: impl Fn(&str) -> Result<Sparsified>) -> Result<Sparsified> {
    let (mut candidates, mut results) = (Vec::new(), Vec::new());
    for text in texts {
        let result = run(text).and_then(|result| Ok((judge.judge(&result.repaired)?, result)));
        let (evaluation, result, error) = match result {
            Ok((evaluation, result)) => (Some(evaluation), Some(result), None),
            Err(error) if error.kind() == ErrorKind::Interrupted || results.is_empty() => return Err(error),
            Err(error) => (None, None, Some(error.to_string())),
        };
        candidates.push(Candidate { repair: text.clone(), evaluation, error, chosen: false });
        results.push(result);
    }
    let best = Judge::choose(&candidates);
    candidates[best].chosen = true;
    let result = results.swap_remove(best).ok_or_else(|| Error::data("no repair has worked"))?;
    Ok(Sparsified { candidates, ..result })
}

/// Fails unless the layers of both compute the same operations on parameters of the same shapes.
fn check_same_layers(start: &Model, dense: &Model) -> Result<()> {
    let (a, b) = (&start.graph.layers, &dense.graph.layers);
    let shape = |model: &Model, name: &str| model.params.get(name).map(|param| param.shape.clone());
    let same = |(a, b): (&Layer, &Layer)| {
        let mut inputs = a.inputs.iter().zip(&b.inputs);
        // Attributes are compared by their debug output.
        format!("{:?}", a.op) == format!("{:?}", b.op)
            && a.inputs.len() == b.inputs.len()
            && inputs.all(|(a, b)| shape(start, a) == shape(dense, b))
    };
    let other = a.iter().zip(b).find(|pair| !same(*pair)).map(|(layer, _)| layer.name.as_str());
    match other.or_else(|| (a.len() != b.len()).then_some("the last one of one of them")) {
        None => Ok(()),
        Some(name) => Err(Error::data(format!(
            "reference: has other layers than the model ({name:?}, {} layers in the model and {} in the reference); it must be \
             the same network before it was pruned",
            a.len(),
            b.len()
        ))),
    }
}

/// Repeats pruning and repair for every step.
fn gradual(
    start: &Model,
    dense: Dense,
    images: &Tensor,
    chain: &Chain,
    steps: &[f64],
    options: &SparsifyOptions,
    progress: &dyn Progress,
) -> Result<Sparsified> {
    let started = Instant::now();
    let mut model = start.clone();
    let mut last = None;
    let keeper = match &options.checkpoint {
        Some(folder) if steps.len() > 1 => Some(Keeper::open(folder, [start, dense.model()], images, chain, steps, options)?),
        _ => None,
    };
    // The last step always runs, because the report needs its results.
    let done = match &keeper {
        Some(keeper) => keeper.load(&mut model)?.min(steps.len() - 1),
        None => 0,
    };
    for (index, &sparsity) in steps.iter().enumerate().skip(done) {
        let in_step = |stage: &str| match steps.len() {
            1 => stage.to_string(),
            all => format!("{stage}, step {} of {all}", index + 1),
        };
        let progress = &Renamed::new(progress, in_step);
        let macs = options.prune.macs.map(|_| 1.0 - sparsity);
        let prune_options = PruneOptions { sparsity, macs, ..options.prune.clone() };
        let (prune_options, allocations) =
            measured::resolve(&model, dense.model(), images, prune_options, &options.repair_options, progress)?;
        let outcome = prune(&mut model, &prune_options, images, progress)?;
        // The remaining steps share the remaining time.
        let share = |seconds: f64| (seconds - started.elapsed().as_secs_f64()).max(0.0) / (steps.len() - index) as f64;
        let repair_options =
            RepairOptions { seconds: options.repair_options.seconds.map(share), ..options.repair_options.clone() };
        let repair = chain.repair(&mut model, dense, images, &repair_options, progress)?;
        last = Some((outcome, repair, allocations));
        if let Some(keeper) = keeper.as_ref().filter(|_| index + 1 < steps.len()) {
            keeper.save(&model, index + 1)?;
        }
    }
    let (outcome, repair, allocations) = last.ok_or_else(|| Error::option("steps 0: at least one is needed"))?;
    let pruned = match chain.needs_images() {
        true => {
            let mut pruned = start.clone();
            pruned.masks.clone_from(&model.masks);
            pruned.apply_masks();
            pruned
        }
        // Without a repair both share their weights.
        false => model.clone(),
    };
    Ok(Sparsified { pruned, repaired: model, outcome, repair, candidates: Vec::new(), allocations, steps: steps.to_vec() })
}

/// Stores the network of the last finished step in a folder.
struct Keeper {
    folder: PathBuf,
    name: String,
    key: String,
    _lock: FolderLock,
}

/// The state beside the stored network.
#[derive(Serialize, Deserialize)]
struct State {
    key: String,
    steps_done: usize,
}

impl Keeper {
    /// The file name identifies the repair. The key identifies everything that determines the result.
    fn open(
        folder: &Path,
        [start, dense]: [&Model; 2],
        images: &Tensor,
        chain: &Chain,
        steps: &[f64],
        options: &SparsifyOptions,
    ) -> Result<Keeper> {
        let lock = FolderLock::take(folder)?;
        let mut weights = sha256(&safetensors::encode(dense)?);
        if !std::ptr::eq(start, dense) {
            weights += &sha256(&safetensors::encode(start)?);
        }
        let repair = (chain.text(), &options.repair_options);
        let key = format!("{weights} {} {repair:?} {steps:?} {:?}", images_sha256(images), options.prune);
        let name = sha256(chain.text().as_bytes())[..16].to_string();
        Ok(Keeper { folder: folder.to_path_buf(), name, key: sha256(key.as_bytes()), _lock: lock })
    }

    fn state(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.name))
    }

    /// The network after so many steps.
    fn network(&self, steps_done: usize) -> PathBuf {
        self.folder.join(format!("{}-{steps_done}.safetensors", self.name))
    }

    /// Loads the stored network into `model`, and returns its number of finished steps.
    fn load(&self, model: &mut Model) -> Result<usize> {
        let path = self.state();
        let Ok(text) = std::fs::read_to_string(&path) else { return Ok(0) };
        let state: State = serde_json::from_str(&text).map_err(|e| Error::data(format!("{}: {e}", path.display())))?;
        if state.key != self.key {
            return Err(Error::option(format!(
                "checkpoint {}: holds a run with another model, other images or other options; remove it or name another folder",
                path.display()
            )));
        }
        let network = self.network(state.steps_done);
        let bytes = std::fs::read(&network).map_err(|e| Error::io(&network, e))?;
        safetensors::decode_into(model, &bytes).map_err(|e| e.at(network.display()))?;
        Ok(state.steps_done)
    }

    /// The state names the network's file, so that an interruption in between leaves the step before.
    fn save(&self, model: &Model, steps_done: usize) -> Result<()> {
        safetensors::write(model, &self.network(steps_done))?;
        let state = State { key: self.key.clone(), steps_done };
        let text = serde_json::to_string(&state).map_err(|e| Error::data(e.to_string()))?;
        atomic::write(&self.state(), text.as_bytes())?;
        // A file that is left takes space and nothing else.
        let _ = std::fs::remove_file(self.network(steps_done - 1));
        Ok(())
    }
}

/// The sparsities of `steps` steps up to `target`. The density falls by the same factor in every step. The first step may go
/// as far as one half.
///
/// ```
/// # use resprout::sparsify::schedule;
/// let steps = schedule(0.875, 3).unwrap();
/// assert!(steps.iter().zip([0.5, 0.75, 0.875]).all(|(step, expected)| (step - expected).abs() < 1e-12));
/// ```
///
/// # Errors
/// Of kind `Option` unless `steps` is from 1 to 1000.
#[doc(hidden)]
pub fn schedule(target: f64, steps: usize) -> Result<Vec<f64>> {
    schedule_from(1.0, target, steps)
}

/// As [`schedule`] for a network with a share `density` of its weights left.
fn schedule_from(density: f64, target: f64, steps: usize) -> Result<Vec<f64>> {
    if !(1..=1000).contains(&steps) {
        return Err(Error::option(format!("steps {steps}: a number from 1 to 1000 is needed")));
    }
    let last = 1.0 - target;
    let start = density.max(last);
    let equal = start * (last / start).powf(1.0 / steps as f64);
    let first = if last < 0.5 { equal.min(0.5) } else { equal };
    let density = |k: usize| first * (last / first).powf(k as f64 / (steps - 1) as f64);
    Ok((0..steps).map(|k| if k + 1 == steps { target } else { 1.0 - density(k) }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        assert_eq!(schedule(0.9, 1).unwrap(), [0.9]);
        let close = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-12);
        // One half first, then equal factors.
        assert!(close(&schedule(0.875, 3).unwrap(), &[0.5, 0.75, 0.875]));
        // Two equal factors of 0.1 lead below one half at once.
        assert!(close(&schedule(0.99, 2).unwrap(), &[0.9, 0.99]));
        // More than one half of the weights stays.
        assert!(close(&schedule(0.36, 2).unwrap(), &[0.2, 0.36]));
        assert!(schedule(0.5, 0).is_err());
        // From 60 % on, two equal factors of one half.
        assert!(close(&schedule_from(0.4, 0.9, 2).unwrap(), &[0.8, 0.9]));
        assert_eq!(schedule_from(0.4, 0.0, 2).unwrap(), [0.0, 0.0]);
    }
}
