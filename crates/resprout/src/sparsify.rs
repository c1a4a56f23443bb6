//! The whole way from a dense network to a sparse one that works: prune and repair, in one step or
//! in several, with one repair or the best of several.

mod builder;

pub use builder::{AnyAllocation, AnyCriterion, AnyRepair, Budget, Sparsify};

use crate::calibrate::{ActivationCache, Dense};
use crate::error::{Error, ErrorKind, Result};
use crate::eval::{images_sha256, sha256};
use crate::formats::{atomic, safetensors};
use crate::model::{Layer, Model};
use crate::progress::Progress;
use crate::prune::{PruneOptions, PruneOutcome, check_present, prune, weights_left};
use crate::repair::{AUTO, Candidate, Chain, Judge, RepairOptions, RepairOutcome};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct SparsifyOptions {
    /// How it is pruned; its sparsity is the last step's.
    pub prune: PruneOptions,
    /// Repairs, as [`Chain::parse`] reads them, or [`AUTO`].
    pub repair: String,
    /// How repairs run.
    pub repair_options: RepairOptions,
    /// In how many steps of pruning and repair.
    pub steps: usize,
    /// A folder where every step is kept, so that an interrupted run goes on where it was.
    pub checkpoint: Option<PathBuf>,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Sparsified {
    /// The dense weights under the final mask, without repair.
    pub pruned: Model,
    /// The pruned and repaired network.
    pub repaired: Model,
    /// What was pruned.
    pub outcome: PruneOutcome,
    /// What the repair of the last step did.
    pub repair: RepairOutcome,
    /// What was tried, where the choice was left to us.
    pub candidates: Vec<Candidate>,
    /// The sparsity of every step.
    pub steps: Vec<f64>,
}

/// Prunes and repairs `dense`. `images: [N, C, H, W]`, preprocessed; may be empty where nothing needs them. Weights that
/// masks of it have pruned stay so, and count.
pub fn sparsify(dense: &Model, images: &Tensor, options: &SparsifyOptions, progress: &dyn Progress) -> Result<Sparsified> {
    sparsify_from(dense, dense, images, options, progress)
}

/// The same for a network `start` that was pruned before: `dense` is what it is to compute, with the same layers.
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
        let chain = Chain::parse(&options.repair)?;
        return in_steps(start, dense, images, &chain, &steps, options, progress);
    }
    let all = images.shape.first().copied().unwrap_or(0);
    if all < 4 {
        return Err(Error::data(format!(
            "--repair auto: {all} calibration images; at least 4 are needed, every fourth to judge by"
        )));
    }
    let (seen, held_out) = Judge::split(images);
    let judge = Judge::new(dense, held_out)?;
    let recording = ActivationCache::new(dense, &seen, options.repair_options.memory, progress)?;
    let recorded = Dense::cached(dense, &recording);
    let began = Instant::now();
    choose(&judge, |text| {
        let mut options = options.clone();
        let left = |seconds: f64| (seconds - began.elapsed().as_secs_f64()).max(0.0);
        options.repair_options.seconds = options.repair_options.seconds.map(left);
        gradual(start, recorded, &seen, &Chain::parse(text)?, &steps, &options, progress)
    })
}

/// The sparsity of every step from what is left of `start`; it leads to a share of the operations as it does to one of the weights.
fn schedule_of(start: &Model, options: &SparsifyOptions) -> Result<Vec<f64>> {
    check_present(start, &options.prune)?;
    let (left, total) = weights_left(start, &options.prune)?;
    let (density, target) = match options.prune.macs {
        Some(share) => (1.0, 1.0 - share),
        None => (left as f64 / total.max(1) as f64, options.prune.sparsity),
    };
    schedule_from(density, target, options.steps)
}

/// What the dense network computes is recorded where several steps look at it.
fn in_steps(
    start: &Model,
    dense: &Model,
    images: &Tensor,
    chain: &Chain,
    steps: &[f64],
    options: &SparsifyOptions,
    progress: &dyn Progress,
) -> Result<Sparsified> {
    let recording = match chain.needs_dense(dense) && steps.len() > 1 {
        true => ActivationCache::new(dense, images, options.repair_options.memory, progress)?,
        false => None,
    };
    gradual(start, Dense::cached(dense, &recording), images, chain, steps, options, progress)
}

/// Runs every candidate and takes the best.
fn choose(judge: &Judge, run: impl Fn(&str) -> Result<Sparsified>) -> Result<Sparsified> {
    let (mut candidates, mut results) = (Vec::new(), Vec::new());
    for text in Judge::CANDIDATES {
        let result = run(text).and_then(|result| Ok((judge.judge(&result.repaired)?, result)));
        let (evaluation, result, error) = match result {
            Ok((evaluation, result)) => (Some(evaluation), Some(result), None),
            Err(error) if error.kind() == ErrorKind::Interrupted || results.is_empty() => return Err(error),
            Err(error) => (None, None, Some(error.to_string())),
        };
        candidates.push(Candidate { repair: text.into(), evaluation, error, chosen: false });
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
        // Attributes are compared as they are printed.
        format!("{:?}", a.op) == format!("{:?}", b.op)
            && a.inputs.len() == b.inputs.len()
            && inputs.all(|(a, b)| shape(start, a) == shape(dense, b))
    };
    let other = a.iter().zip(b).find(|pair| !same(*pair)).map(|(layer, _)| layer.name.as_str());
    match other.or_else(|| (a.len() != b.len()).then_some("the last one of one of them")) {
        None => Ok(()),
        Some(name) => Err(Error::data(format!(
            "--reference: has other layers than the model ({name:?}, {} layers in the model and {} in the reference); it must be \
             the same network before it was pruned",
            a.len(),
            b.len()
        ))),
    }
}

fn gradual(
    start: &Model,
    recorded: Dense,
    images: &Tensor,
    chain: &Chain,
    steps: &[f64],
    options: &SparsifyOptions,
    progress: &dyn Progress,
) -> Result<Sparsified> {
    let began = Instant::now();
    let mut model = start.clone();
    let mut last = None;
    let keeper = match &options.checkpoint {
        Some(folder) if steps.len() > 1 => Some(Keeper::open(folder, [start, recorded.model()], images, chain, steps, options)?),
        _ => None,
    };
    // The last step is always done: the report is made of what it says.
    let done = match &keeper {
        Some(keeper) => keeper.load(&mut model)?.min(steps.len() - 1),
        None => 0,
    };
    for (index, &sparsity) in steps.iter().enumerate().skip(done) {
        let progress = &InStep { inner: progress, step: index + 1, steps: steps.len() };
        let macs = options.prune.macs.map(|_| 1.0 - sparsity);
        let outcome = prune(&mut model, &PruneOptions { sparsity, macs, ..options.prune.clone() }, images, progress)?;
        // What is left of the time is for the steps that are left.
        let share = |seconds: f64| (seconds - began.elapsed().as_secs_f64()).max(0.0) / (steps.len() - index) as f64;
        let repair_options =
            RepairOptions { seconds: options.repair_options.seconds.map(share), ..options.repair_options.clone() };
        let repair = chain.repair(&mut model, recorded, images, &repair_options, progress)?;
        last = Some((outcome, repair));
        if let Some(keeper) = keeper.as_ref().filter(|_| index + 1 < steps.len()) {
            keeper.save(&model, index + 1)?;
        }
    }
    let (outcome, repair) = last.ok_or_else(|| Error::option("--steps 0: at least one is needed"))?;
    let pruned = match chain.needs_images() {
        true => {
            let mut pruned = start.clone();
            pruned.masks.clone_from(&model.masks);
            pruned.apply_masks();
            pruned
        }
        // Nothing was repaired: both share their weights.
        false => model.clone(),
    };
    Ok(Sparsified { pruned, repaired: model, outcome, repair, candidates: Vec::new(), steps: steps.to_vec() })
}

/// Progress that says in which step it is made.
struct InStep<'p> {
    inner: &'p dyn Progress,
    step: usize,
    steps: usize,
}

impl Progress for InStep<'_> {
    fn begin(&self, stage: &str, total: u64) {
        match self.steps {
            1 => self.inner.begin(stage, total),
            steps => self.inner.begin(&format!("{stage}, step {} of {steps}", self.step), total),
        }
    }

    fn advance(&self, units: u64) {
        self.inner.advance(units);
    }

    fn end(&self) {
        self.inner.end();
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }
}

/// Keeps the network of the last finished step in a folder.
struct Keeper {
    file: PathBuf,
    key: String,
}

/// What stands beside the network.
#[derive(Serialize, Deserialize)]
struct State {
    key: String,
    steps_done: usize,
}

impl Keeper {
    /// The file's name tells repairs apart, the key everything that the result depends on.
    fn open(
        folder: &Path,
        [start, dense]: [&Model; 2],
        images: &Tensor,
        chain: &Chain,
        steps: &[f64],
        options: &SparsifyOptions,
    ) -> Result<Keeper> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let mut weights = sha256(&safetensors::encode(dense)?);
        if !std::ptr::eq(start, dense) {
            weights += &sha256(&safetensors::encode(start)?);
        }
        let repair = (chain.text(), &options.repair_options);
        let key = format!("{weights} {} {repair:?} {steps:?} {:?}", images_sha256(images), options.prune);
        let name = sha256(chain.text().as_bytes());
        Ok(Keeper { file: folder.join(format!("{}.safetensors", &name[..16])), key: sha256(key.as_bytes()) })
    }

    fn state(&self) -> PathBuf {
        self.file.with_extension("json")
    }

    /// Puts the kept network into `model`, and says how many steps it has behind it.
    fn load(&self, model: &mut Model) -> Result<usize> {
        let path = self.state();
        let Ok(text) = std::fs::read_to_string(&path) else { return Ok(0) };
        let state: State = serde_json::from_str(&text).map_err(|e| Error::data(format!("{}: {e}", path.display())))?;
        if state.key != self.key {
            return Err(Error::option(format!(
                "--checkpoint {}: holds a run with another model, other images or other options; remove it or name another folder",
                path.display()
            )));
        }
        let bytes = std::fs::read(&self.file).map_err(|e| Error::io(&self.file, e))?;
        safetensors::decode_into(model, &bytes).map_err(|e| e.at(self.file.display()))?;
        Ok(state.steps_done)
    }

    /// The state is gone while the network is exchanged: a stop in between loses the steps, never
    /// counts one twice.
    fn save(&self, model: &Model, steps_done: usize) -> Result<()> {
        let _ = std::fs::remove_file(self.state());
        safetensors::write(model, &self.file)?;
        let state = State { key: self.key.clone(), steps_done };
        let text = serde_json::to_string(&state).map_err(|e| Error::data(e.to_string()))?;
        atomic::write(&self.state(), text.as_bytes())
    }
}

/// The sparsities of `steps` steps up to `target`: densities fall by the same factor from step to
/// step, after a first step to half of the weights (or less far, if equal factors lead there).
pub fn schedule(target: f64, steps: usize) -> Result<Vec<f64>> {
    schedule_from(1.0, target, steps)
}

/// The same for a network of which a share `density` of the weights is left.
fn schedule_from(density: f64, target: f64, steps: usize) -> Result<Vec<f64>> {
    if !(1..=1000).contains(&steps) {
        return Err(Error::option(format!("--steps {steps}: a number from 1 to 1000 is needed")));
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
        // Half first, then by the same factor.
        assert!(close(&schedule(0.875, 3).unwrap(), &[0.5, 0.75, 0.875]));
        // Two equal factors of 0.1 already lead below a half.
        assert!(close(&schedule(0.99, 2).unwrap(), &[0.9, 0.99]));
        // More than half of the weights stay.
        assert!(close(&schedule(0.36, 2).unwrap(), &[0.2, 0.36]));
        assert!(schedule(0.5, 0).is_err());
        // Of what came at 60 %, two equal factors of a half.
        assert!(close(&schedule_from(0.4, 0.9, 2).unwrap(), &[0.8, 0.9]));
        assert_eq!(schedule_from(0.4, 0.0, 2).unwrap(), [0.0, 0.0]);
    }
}
