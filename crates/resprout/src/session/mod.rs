//! Fast inference: a network compiled to programs on lines (see [`resprout_kernels::lanes`]), with zero weights left out.
//!
//! ```
//! use resprout::{formats::onnx, session::*, tensor::Tensor};
//!
//! # fn main() -> resprout::Result<()> {
//! # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../resprout-cli/assets");
//! let model = onnx::read(&folder.join("digits.onnx"))?;
//! let mut session = Session::new(&model, &[1, 8, 8], &SessionOptions { threads: 2, ..SessionOptions::default() })?;
//! let outputs = session.run(&Tensor::new(vec![3, 1, 8, 8], vec![0.5; 3 * 64]))?;
//! assert_eq!(outputs[0].shape, [3, 10]);
//! # Ok(())
//! # }
//! ```

mod plan;

pub use plan::{PlanFile, StoredPlan, cpu_name};

use crate::error::{Error, ErrorKind, Result};
use crate::forward::{Compiled, LayerTime, PlanOptions, fixed_batch, join, usual_together};
use crate::model::Model;
use crate::tensor::Tensor;
pub use resprout_kernels::lanes::Paths;
use resprout_kernels::lanes::{Arena, BreakEven, Choice, LANES, Team, break_even};
use resprout_kernels::{ConvShape, KERNELS, Kernel};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// How a session is made.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Threads that work on a batch; where there are several, the calling one sleeps meanwhile.
    pub threads: usize,
    /// Images of a usual batch: the plan is made for it. Any other number runs too.
    pub batch: usize,
    /// Seconds for measuring which plan is the fastest; 0 for one that is chosen without.
    pub tune: f64,
    /// A row of the kernels, instead of the best one of this CPU.
    pub kernel: Option<String>,
    /// Ways to compute convolutions that may be chosen.
    pub paths: Paths,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions { threads: 1, batch: 1, tune: 0.0, kernel: None, paths: Paths::Any }
    }
}

/// How often the plan that was measured is compared with the one before.
const PROOFS: usize = 3;

/// Runs of which each layer's least time is taken then.
const PROOF_RUNS: usize = 5;

/// A network ready to run images of one size.
pub struct Session {
    compiled: Compiled,
    arenas: Vec<Vec<Arena>>,
    team: Team,
    image: Vec<usize>,
}

/// What a session has chosen: the same network on the same CPU starts with it at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// Images that run together.
    pub together: usize,
    /// Rows, columns, block, group and split of every convolution, program by program.
    pub cuts: Vec<Vec<[usize; 5]>>,
}

impl Session {
    /// Compiles `model` for images of shape `[C, H, W]`.
    pub fn new(model: &Model, image: &[usize], options: &SessionOptions) -> Result<Session> {
        Session::with_plan(model, image, options, None)
    }

    /// The same, with what an earlier session has [`chosen`](Self::chosen), so that nothing is measured.
    pub fn with_plan(model: &Model, image: &[usize], options: &SessionOptions, chosen: Option<&Chosen>) -> Result<Session> {
        let positive = |value: usize, name: &str| match value {
            0 => Err(Error::option(format!("{name} 0: a number from 1 on is needed"))),
            value => Ok(value),
        };
        positive(options.threads, "--threads")?;
        positive(options.batch, "--batch")?;
        let kernel = find_kernel(options.kernel.as_deref())?;
        let mut best: Option<(f64, Session)> = None;
        let sizes = match chosen {
            _ if fixed_batch(model).is_some() => vec![only(model)?],
            Some(chosen) => vec![chosen.together.clamp(1, LANES).next_power_of_two().min(LANES)],
            None => together(options, image),
        };
        let limit = Duration::from_secs_f64(options.tune.clamp(0.0, 3600.0) / sizes.len() as f64);
        for &together in &sizes {
            let team = Team::new(options.threads).map_err(|e| Error::new(ErrorKind::Io, format!("cannot start threads: {e}")))?;
            let mut compiled = Compiled::new(model, image, together, kernel, &PlanOptions::default())?;
            if options.paths != Paths::Any {
                compiled.programs_mut().for_each(|program| program.restrict(options.paths));
            }
            let mut session = Session { arenas: Vec::new(), compiled, team, image: image.to_vec() };
            if let Some(chosen) = chosen {
                session.choose(chosen);
            } else if options.tune > 0.0 {
                session.tune(limit, options)?;
            }
            if sizes.len() == 1 {
                return Ok(session);
            }
            let seconds = session.seconds(options.batch)?;
            if best.as_ref().is_none_or(|(least, _)| seconds < *least) {
                best = Some((seconds, session));
            }
        }
        best.map(|(_, session)| session).ok_or_else(|| Error::data("no number of images to run together"))
    }

    /// Images that run together.
    pub fn together(&self) -> usize {
        self.compiled.together
    }

    /// Runs `images: [N, C, H, W]`; returns the network's outputs, each with `N` as its first axis.
    pub fn run(&mut self, images: &Tensor) -> Result<Vec<Tensor>> {
        let count = images.shape.first().copied().unwrap_or(0);
        if count == 0 || images.shape[1..] != self.image {
            return Err(Error::data(format!("images of shape {:?}, the session is for [N, {:?}]", images.shape, self.image)));
        }
        let together = self.compiled.together;
        let each: usize = self.image.iter().product();
        let chunks: Vec<&[f32]> = images.data.chunks(together * each).collect();
        let threads = self.team.threads();
        // Fewer chunks than threads: all threads share each layer. Otherwise each takes whole chunks.
        let shared = threads > 1 && chunks.len() < threads;
        let lanes = if shared { 1 } else { threads };
        while self.arenas.len() < lanes {
            self.arenas.push(self.compiled.arenas());
        }
        let mut results: Vec<Option<Vec<Tensor>>> = vec![None; chunks.len()];
        if shared {
            for (chunk, result) in chunks.iter().zip(&mut results) {
                *result = Some(self.compiled.run(chunk, &mut self.arenas[0], Some(&mut self.team)));
            }
        } else {
            self.run_apart(&chunks, &mut results);
        }
        let results: Vec<Vec<Tensor>> = results.into_iter().flatten().collect();
        Ok(join(&results, &self.compiled.plan.result_shapes, count))
    }

    /// Every thread takes whole chunks.
    fn run_apart(&mut self, chunks: &[&[f32]], results: &mut [Option<Vec<Tensor>>]) {
        let threads = self.team.threads();
        let compiled = &self.compiled;
        let share = chunks.len().div_ceil(threads).max(1);
        let parts = chunks.chunks(share).zip(results.chunks_mut(share)).zip(&mut self.arenas);
        let jobs: Vec<std::sync::Mutex<_>> =
            parts.map(|((chunks, results), arenas)| std::sync::Mutex::new((chunks, results, arenas))).collect();
        self.team.run(&|member| {
            let Some(mut job) = jobs.get(member.index).and_then(|job| job.lock().ok()) else { return };
            let (chunks, results, arenas) = &mut *job;
            for (chunk, result) in chunks.iter().zip(results.iter_mut()) {
                *result = Some(compiled.run(chunk, arenas, None));
            }
        });
    }

    /// What was chosen, to be kept.
    pub fn chosen(&self) -> Chosen {
        let cut = |choice: Choice| [choice.rows, choice.columns, choice.block, choice.group, usize::from(choice.by_channel)];
        let cuts = self.compiled.programs().map(|program| program.choices().into_iter().map(cut).collect()).collect();
        Chosen { together: self.compiled.together, cuts }
    }

    /// Of each convolution, whether its plan is to skip zeros.
    pub fn sparse_layers(&self) -> Vec<bool> {
        self.compiled.programs().flat_map(|program| program.choices()).map(|choice| choice.group == 1).collect()
    }

    fn choose(&mut self, chosen: &Chosen) {
        let choice =
            |&[rows, columns, block, group, split]: &[usize; 5]| Choice { rows, columns, block, group, by_channel: split > 0 };
        for (program, cuts) in self.compiled.programs_mut().zip(&chosen.cuts) {
            program.choose(&cuts.iter().map(choice).collect::<Vec<_>>());
        }
    }

    fn tune(&mut self, limit: Duration, options: &SessionOptions) -> Result<()> {
        let before = self.chosen();
        let start = Instant::now();
        let mut arenas = self.compiled.arenas();
        let team = &mut self.team;
        for (program, arena) in self.compiled.programs_mut().zip(&mut arenas) {
            program.tune(arena, team, limit.saturating_sub(start.elapsed()), options.paths);
        }
        self.arenas = vec![arenas];
        // A machine that was busy for a moment can have spoiled a measurement: every layer must prove itself.
        let measured = self.chosen();
        let proven = self.better_of(&before, &measured);
        self.choose(&proven);
        let mut seconds = [f64::INFINITY; 2];
        for _ in 0..PROOFS {
            for (plan, least) in [&before, &proven].into_iter().zip(&mut seconds) {
                self.choose(plan);
                *least = least.min(self.seconds(options.batch)?);
            }
        }
        if seconds[0] < seconds[1] {
            self.choose(&before);
        }
        Ok(())
    }

    /// Of each convolution the cut that takes less time between the others.
    fn better_of(&mut self, first: &Chosen, second: &Chosen) -> Chosen {
        let mut least: [Vec<f64>; 2] = Default::default();
        for _ in 0..PROOFS {
            for (plan, least) in [first, second].into_iter().zip(&mut least) {
                self.choose(plan);
                let times =
                    self.layers(PROOF_RUNS).into_iter().filter(|layer| layer.density.is_some()).map(|layer| layer.seconds);
                least.resize(first.cuts.iter().map(Vec::len).sum(), f64::INFINITY);
                least.iter_mut().zip(times).for_each(|(least, seconds)| *least = least.min(seconds));
            }
        }
        let mut second_wins = least[0].iter().zip(&least[1]).map(|(first, second)| second < first);
        let mut better = first.clone();
        for (cut, other) in better.cuts.iter_mut().flatten().zip(second.cuts.iter().flatten()) {
            if second_wins.next() == Some(true) {
                *cut = *other;
            }
        }
        better
    }

    /// The median of a few batches.
    fn seconds(&mut self, batch: usize) -> Result<f64> {
        let images = Tensor::new([&[batch], &self.image[..]].concat(), vec![0.5; batch * self.image.iter().product::<usize>()]);
        let mut all = Vec::new();
        for _ in 0..5 {
            let start = Instant::now();
            self.run(&images)?;
            all.push(start.elapsed().as_secs_f64());
        }
        all.sort_by(f64::total_cmp);
        Ok(all[all.len() / 2])
    }

    /// Name, seconds, multiply-accumulates of what is left, and density (both of convolutions) of every operation of one
    /// batch of [`together`](Self::together) images.
    pub fn layers(&mut self, runs: usize) -> Vec<LayerTime> {
        self.compiled.time(&mut self.team, runs)
    }
}

/// Measures, for every shape of convolution in the network, from which density on zeros are worth computing. `seconds` is
/// for each measurement. Names the first layer of each shape.
pub fn break_evens(
    model: &Model,
    image: &[usize],
    options: &SessionOptions,
    densities: &[f64],
    seconds: f64,
) -> Result<Vec<(String, ConvShape, BreakEven)>> {
    let session = Session::new(model, image, &SessionOptions { tune: 0.0, ..options.clone() })?;
    let (kernel, mut team) = (find_kernel(options.kernel.as_deref())?, session.team);
    let mut all: Vec<(String, ConvShape, BreakEven)> = Vec::new();
    for program in session.compiled.programs() {
        let names = program.names().filter_map(|(name, conv)| conv.map(|_| name));
        for (name, shape) in names.zip(program.shapes()) {
            if all.iter().any(|(_, known, _)| known == shape) {
                continue;
            }
            let limit = Duration::from_secs_f64(seconds.clamp(0.0, 60.0));
            let found = break_even(kernel, shape, session.compiled.together, densities, &mut team, limit);
            all.extend(found.map(|found| (name.to_string(), shape.clone(), found)));
        }
    }
    Ok(all)
}

/// The number of images that a model insists on.
fn only(model: &Model) -> Result<usize> {
    match fixed_batch(model) {
        Some(batch) if batch.is_power_of_two() && batch <= LANES => Ok(batch),
        batch => Err(Error::unsupported(format!(
            "the model is for batches of {} images only; 1, 2, 4, 8, 16 or any number can be run",
            batch.unwrap_or(0)
        ))),
    }
}

fn find_kernel(name: Option<&str>) -> Result<Kernel> {
    let Some(name) = name else { return Ok(Kernel::best()) };
    let names = || KERNELS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
    let row = KERNELS.iter().find(|row| row.name == name);
    let row = row.ok_or_else(|| Error::option(format!("--kernel {name:?} is not known; there are {}", names())))?;
    row.open().ok_or_else(|| Error::option(format!("--kernel {name}: this CPU does not have it ({})", row.about)))
}

/// Numbers of images that may be worth running together for this batch.
fn together(options: &SessionOptions, image: &[usize]) -> Vec<usize> {
    let batch = options.batch;
    let largest = (1 << batch.ilog2()).min(LANES);
    if options.tune <= 0.0 {
        return vec![usual_together(image, largest)];
    }
    (0..=largest.ilog2()).map(|shift| 1 << shift).collect()
}
