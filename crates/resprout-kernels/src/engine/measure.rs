//! Times of operations, and the autotuning of blockings.

use super::arena::Arena;
use super::blocking::{Blocking, Paths};
use super::build::{Builder, Convolution};
use super::layout::VectorLayout;
use super::op::Op;
use super::place::{Base, Placed};
use super::pool::{Loops, ThreadPool, Worker};
use super::program::Program;
use super::shapes::CHANNEL_BLOCKS;
use super::tiled_conv::TiledConv;
use crate::isa::Isa;
use crate::{Activation, ConvShape};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A path that takes this many times as long as the fastest one is not measured in full.
const MAX_SLOWDOWN: f64 = 2.0;

/// A blocking whose first runs take this many times as long as the fastest one is not run again.
const EARLY_STOP: f64 = 1.3;

impl Program {
    /// Seconds of every operation: the least of `runs` runs. In one arena all threads share each operation. With an arena for each
    /// thread, every thread runs its own images, and the time is that of all.
    ///
    /// # Panics
    /// As [`run`](Self::run), or if there are several arenas and not as many as threads.
    pub fn time(
        &self,
        arenas: &mut [Arena],
        pool: &mut ThreadPool,
        inputs: &[&[f32]],
        outputs: &mut [&mut [f32]],
        runs: usize,
    ) -> Vec<f64> {
        let pointers = self.check(&arenas[0], inputs, outputs);
        let mut bases = Bases::new(arenas, self, pool);
        bases.0[0] = Base::new(&mut arenas[0], pointers.as_ptr());
        let tasks: Vec<OpTask> = self.ops.iter().map(|op| OpTask { isa: self.isa, op, inputs }).collect();
        bases.time(pool, &tasks, runs)
    }

    /// Measures blockings of each convolution, within about `limit`, and applies the fastest on these paths. Arenas are as for
    /// [`time`](Self::time). Returns the fastest blocking of each convolution on the dense path.
    ///
    /// # Panics
    /// As [`time`](Self::time).
    pub fn tune(&mut self, arenas: &mut [Arena], pool: &mut ThreadPool, limit: Duration, paths: Paths) -> Vec<Blocking> {
        let start = Instant::now();
        let bases = Bases::new(arenas, self, pool);
        let mut known: Vec<(Signature, Fastest)> = Vec::new();
        let mut left = self.convs().count();
        let isa = self.isa;
        let mut dense = Vec::new();
        for op in &mut self.ops {
            let Op::Conv(conv) = op else { continue };
            let signature = conv.signature();
            let found = known.iter().find(|(known, _)| *known == signature).map(|(_, fastest)| *fastest);
            let fastest = found.unwrap_or_else(|| {
                let share = limit.saturating_sub(start.elapsed()) / u32::try_from(left).unwrap_or(1);
                conv.fastest(isa, &bases, pool, share, paths)
            });
            if conv.blocking != fastest.of_all {
                conv.apply(isa, fastest.of_all);
            }
            dense.push(fastest.dense);
            known.push((signature, fastest));
            left -= 1;
        }
        dense
    }
}

/// Where the threads of a pool work: all in one arena, sharing each task, or each alone in its own.
struct Bases(Vec<Base>);

impl Bases {
    fn new(arenas: &mut [Arena], program: &Program, pool: &ThreadPool) -> Bases {
        assert!(arenas.iter().all(|arena| program.fits(arena)), "an arena of another program");
        assert!(arenas.len() == 1 || arenas.len() == pool.threads(), "one arena, or one for each thread");
        Bases(arenas.iter_mut().map(|arena| Base::new(arena, std::ptr::null())).collect())
    }

    /// How many threads share a task.
    fn sharing(&self, pool: &ThreadPool) -> usize {
        if self.0.len() == 1 { pool.threads() } else { 1 }
    }

    /// Seconds of each task: the least of several rounds.
    fn time(&self, pool: &mut ThreadPool, tasks: &[impl Task], rounds: usize) -> Vec<f64> {
        let clock = Clock { last: Instant::now(), least: vec![f64::INFINITY; tasks.len()] };
        let timed = Timed { bases: self, tasks, rounds, clock: Mutex::new(clock) };
        pool.run(&timed);
        timed.clock.into_inner().unwrap_or_else(PoisonError::into_inner).least
    }
}

/// A part of a program that is timed.
trait Task: Sync {
    /// The first item of a worker's share, or past the last one.
    fn first(&self, base: Base, worker: Worker) -> usize;

    /// Runs an item.
    ///
    /// # Safety
    /// `base` must be that of an arena of the task's program, which no other task uses, and `item` must run on this worker only. All
    /// workers must have the same `worker.count`.
    unsafe fn run(&self, base: Base, item: usize, worker: Worker);

    /// Runs all items on one thread.
    ///
    /// # Safety
    /// `base` must be that of an arena of the task's program, which nothing else uses.
    unsafe fn run_alone(&self, base: Base) {
        let items = self.first(base, Worker { index: 1, count: 1 });
        // SAFETY: the caller vouches for the arena; items run one after another on the only worker.
        (0..items).for_each(|item| unsafe { self.run(base, item, Worker { index: 0, count: 1 }) });
    }
}

/// An operation.
struct OpTask<'a> {
    isa: Isa,
    op: &'a Op<Placed>,
    inputs: &'a [&'a [f32]],
}

impl Task for OpTask<'_> {
    fn first(&self, base: Base, worker: Worker) -> usize {
        self.op.first(base, worker)
    }

    unsafe fn run(&self, base: Base, item: usize, worker: Worker) {
        // SAFETY: the caller vouches for the arena and the item; `Program::time` has checked inputs and outputs.
        unsafe { self.op.run_item(self.isa, base, self.inputs, item, worker) };
    }
}

impl Task for &TiledConv {
    fn first(&self, _base: Base, worker: Worker) -> usize {
        TiledConv::first(self, worker)
    }

    unsafe fn run(&self, base: Base, item: usize, worker: Worker) {
        // SAFETY: the caller's contract is the same.
        unsafe { TiledConv::run(self, base, item, worker) };
    }
}

/// Several tasks one after another, for so many rounds. The worker that ends a loop notes its time.
struct Timed<'a, T> {
    bases: &'a Bases,
    tasks: &'a [T],
    rounds: usize,
    clock: Mutex<Clock>,
}

struct Clock {
    last: Instant,
    least: Vec<f64>,
}

impl<T: Task> Loops for Timed<'_, T> {
    fn count(&self) -> usize {
        self.tasks.len() * self.rounds
    }

    fn first(&self, index: usize, worker: Worker) -> usize {
        match self.bases.0[..] {
            [base] => self.tasks[index % self.tasks.len()].first(base, worker),
            // A task in an arena is an item.
            _ => worker.index,
        }
    }

    fn run(&self, index: usize, item: usize, worker: Worker) {
        let task = &self.tasks[index % self.tasks.len()];
        // SAFETY: `Bases::new` has checked the arenas, which are borrowed for the run. A pool runs one task at a time and gives each
        // item to one worker. Without sharing, each item has its own arena.
        unsafe {
            match self.bases.0[..] {
                [base] => task.run(base, item, worker),
                _ => task.run_alone(self.bases.0[item]),
            }
        }
    }

    fn done(&self, index: usize) {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let seconds = (now - clock.last).as_secs_f64();
        let least = &mut clock.least[index % self.tasks.len()];
        *least = least.min(seconds);
        clock.last = now;
    }
}

/// What decides which blocking is the fastest.
#[derive(PartialEq)]
struct Signature {
    shape: ConvShape,
    layout: VectorLayout,
    added: bool,
    /// In sixteenths of a doubling.
    nonzero: i32,
}

/// The fastest blockings of a convolution.
#[derive(Clone, Copy)]
struct Fastest {
    of_all: Blocking,
    dense: Blocking,
}

impl TiledConv {
    fn signature(&self) -> Signature {
        Signature {
            shape: self.conv.shape.clone(),
            layout: self.conv.to.extent.layout,
            added: self.conv.added.is_some(),
            nonzero: ((self.conv.work() as f64).log2() * 16.0).round() as i32,
        }
    }

    /// Measures candidates, each a few times, within about `limit`.
    fn fastest(&mut self, isa: Isa, bases: &Bases, pool: &mut ThreadPool, limit: Duration, paths: Paths) -> Fastest {
        let start = Instant::now();
        let likely = self.conv.default_blocking(isa, paths);
        let others = [Paths::Sparse, Paths::Dense].map(|paths| self.conv.default_blocking(isa, paths));
        let mut tried: Vec<(f64, Blocking)> = Vec::new();
        for blocking in [likely].into_iter().chain(others.into_iter().filter(|_| paths == Paths::Any)) {
            if tried.iter().all(|(_, known)| *known != blocking) {
                self.apply(isa, blocking);
                tried.push((self.measure(bases, pool, f64::INFINITY), blocking));
            }
        }
        let best = |tried: &[(f64, Blocking)], of: &dyn Fn(&Blocking) -> bool| {
            tried.iter().filter(|(_, blocking)| of(blocking)).copied().min_by(|a, b| a.0.total_cmp(&b.0))
        };
        let mut least = best(&tried, &|_| true).map_or(f64::INFINITY, |(seconds, _)| seconds);
        let largest = self.conv.largest_block(isa);
        let is_near = |channel_block: usize| {
            tried.iter().any(|(seconds, blocking)| blocking.channel_block == channel_block && *seconds < MAX_SLOWDOWN * least)
        };
        // Sizes between the ends are measured where the largest is near the fastest.
        let channel_blocks: Vec<usize> = CHANNEL_BLOCKS
            .into_iter()
            .filter(|&channel_block| {
                self.conv.fits_block(isa, channel_block) && if channel_block == 1 { is_near(1) } else { is_near(largest) }
            })
            .filter(|&channel_block| paths != Paths::Dense || channel_block == largest)
            .collect();
        let mut candidates = self.conv.candidates(isa, bases.sharing(pool), &channel_blocks);
        // The likely ones come first. All tiles of a block are neighbours, so that its weights are packed once.
        candidates.sort_by_key(|blocking| {
            let far = blocking.block.max(1).ilog2().abs_diff(likely.block.max(1).ilog2());
            (
                far,
                blocking.channel_block != likely.channel_block && blocking.channel_block != largest,
                blocking.channel_block,
                blocking.block,
            )
        });
        for blocking in candidates {
            if start.elapsed() > limit {
                break;
            }
            self.apply(isa, blocking);
            let seconds = self.measure(bases, pool, least);
            least = least.min(seconds);
            tried.push((seconds, blocking));
        }
        let of_all = best(&tried, &|_| true).map_or(likely, |(_, blocking)| blocking);
        let dense = best(&tried, &|blocking| blocking.channel_block == largest).map_or(others[1], |(_, blocking)| blocking);
        Fastest { of_all, dense }
    }

    /// The least time of a few runs; of fewer where the first are much slower than `best`.
    fn measure(&self, bases: &Bases, pool: &mut ThreadPool, best: f64) -> f64 {
        let mut run = || bases.time(pool, &[self], 2)[0];
        let first = run();
        if first > EARLY_STOP * best { first } else { first.min(run()) }
    }
}

/// The peak of this machine's roofline: multiply-accumulates per second of `threads` threads. It is measured on a dense convolution
/// whose numbers all lie in the first-level cache.
pub fn peak(threads: usize) -> std::io::Result<f64> {
    const CHANNELS: [usize; 2] = [32, 16];
    const SIZE: [usize; 2] = [4, 12];
    const WEIGHTS: usize = CHANNELS[0] * CHANNELS[1];
    let shape = ConvShape::pointwise(CHANNELS[0], SIZE, CHANNELS[1]);
    let weight = [0.5; WEIGHTS];
    let mut builder = Builder::new(Isa::best(), 1, 1);
    let input = builder.input(CHANNELS[0], SIZE);
    let convolution = Convolution { shape, weight: &weight, bias: &[], activation: Activation::None, added: None };
    let output = builder.conv("peak", input, convolution);
    builder.output(output);
    let Some(program) = builder.finish() else { return Ok(f64::NAN) };
    let mut pool = ThreadPool::new(threads)?;
    let mut arenas: Vec<Arena> = (0..pool.threads()).map(|_| program.arena()).collect();
    let bases = Bases::new(&mut arenas, &program, &pool);
    let repeated: Vec<Repeated> = program.convs().map(Repeated).collect();
    let seconds = bases.time(&mut pool, &repeated, 5)[0];
    Ok((threads * RUNS * WEIGHTS * SIZE[0] * SIZE[1]) as f64 / seconds)
}

/// Runs of a convolution that are timed at once.
const RUNS: usize = 2000;

/// A convolution that runs many times.
struct Repeated<'a>(&'a TiledConv);

impl Task for Repeated<'_> {
    fn first(&self, base: Base, worker: Worker) -> usize {
        Task::first(&self.0, base, worker)
    }

    unsafe fn run(&self, base: Base, item: usize, worker: Worker) {
        // SAFETY: the caller's contract is the same.
        (0..RUNS).for_each(|_| unsafe { Task::run(&self.0, base, item, worker) });
    }
}
