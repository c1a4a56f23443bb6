//! What operations take, and which way to cut a convolution takes the least.

use super::arena::Arena;
use super::layout::VectorLayout;
use super::pool::{Loops, ThreadPool, Worker};
use super::program::{Blocking, Conv, Op, Paths, Program};
use super::run::Base;
use super::tile::CHANNEL_BLOCKS;
use crate::isa::Isa;
use crate::{Activation, ConvShape};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Times the better of two paths may be faster, at the first look, for the other to be looked at in full.
const MAX_SLOWDOWN: f64 = 2.0;

/// Times a blocking may be slower at its first runs for them not to be the last.
const EARLY_STOP: f64 = 1.3;

impl Program {
    /// Seconds of every operation: the least of `runs` runs. In one arena all threads share each operation; with an arena for
    /// each, every thread runs images of its own, and the time is that of all.
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
        let mut places = Places::new(arenas, self.vectors, pool);
        places.0[0] = Base::new(&mut arenas[0], pointers.as_ptr());
        let steps: Vec<TimedOp> = self.ops.iter().map(|op| TimedOp { program: self, op, inputs }).collect();
        places.time(pool, &steps, runs)
    }

    /// Tries ways to cut each convolution, within about `limit`, and keeps the fastest of those that are on these paths.
    /// Arenas as for [`time`](Self::time). Returns of each convolution the fastest that was found on the dense path.
    ///
    /// # Panics
    /// As [`time`](Self::time).
    pub fn tune(&mut self, arenas: &mut [Arena], pool: &mut ThreadPool, limit: Duration, paths: Paths) -> Vec<Blocking> {
        let start = Instant::now();
        let places = Places::new(arenas, self.vectors, pool);
        let mut known: Vec<(Signature, Fastest)> = Vec::new();
        let mut left = self.convs().count();
        let kernel = self.isa;
        let mut dense = Vec::new();
        for op in &mut self.ops {
            let Op::Conv(conv) = op else { continue };
            let signature = conv.signature();
            let found = known.iter().find(|(known, _)| *known == signature).map(|(_, fastest)| *fastest);
            let fastest = found.unwrap_or_else(|| {
                let share = limit.saturating_sub(start.elapsed()) / u32::try_from(left).unwrap_or(1);
                conv.fastest(kernel, &places, pool, share, paths)
            });
            if conv.blocking != fastest.of_all {
                conv.apply(kernel, fastest.of_all);
            }
            dense.push(fastest.dense);
            known.push((signature, fastest));
            left -= 1;
        }
        dense
    }
}

/// Where the threads of a pool work: all in one arena, sharing what is done, or each alone in its own.
struct Places(Vec<Base>);

impl Places {
    fn new(arenas: &mut [Arena], vectors: usize, pool: &ThreadPool) -> Places {
        assert!(arenas.iter().all(|arena| arena.len() == vectors), "an arena of another program");
        assert!(arenas.len() == 1 || arenas.len() == pool.threads(), "one arena, or one for each thread");
        Places(arenas.iter_mut().map(|arena| Base::new(arena, std::ptr::null())).collect())
    }

    /// How many threads share an operation.
    fn sharing(&self, pool: &ThreadPool) -> usize {
        if self.0.len() == 1 { pool.threads() } else { 1 }
    }

    /// Seconds of each work: the least of several rounds.
    fn time(&self, pool: &mut ThreadPool, works: &[impl Work], rounds: usize) -> Vec<f64> {
        let clock = Clock { last: Instant::now(), least: vec![f64::INFINITY; works.len()] };
        let timed = Timed { places: self, works, rounds, clock: Mutex::new(clock) };
        pool.run(&timed);
        timed.clock.into_inner().unwrap_or_else(PoisonError::into_inner).least
    }
}

/// A piece of a program that is timed.
trait Work: Sync {
    fn first(&self, base: Base, worker: Worker) -> usize;

    fn run(&self, base: Base, item: usize, worker: Worker);

    /// All of it on one thread.
    fn run_alone(&self, base: Base) {
        let items = self.first(base, Worker { index: 1, count: 1 });
        (0..items).for_each(|item| self.run(base, item, Worker::ALONE));
    }
}

/// An operation.
struct TimedOp<'a> {
    program: &'a Program,
    op: &'a Op,
    inputs: &'a [&'a [f32]],
}

impl Work for TimedOp<'_> {
    fn first(&self, base: Base, worker: Worker) -> usize {
        self.op.first(base, worker)
    }

    fn run(&self, base: Base, item: usize, worker: Worker) {
        self.program.run_item(self.op, base, self.inputs, item, worker);
    }
}

impl Work for &Conv {
    fn first(&self, _base: Base, worker: Worker) -> usize {
        Conv::first(self, worker)
    }

    fn run(&self, base: Base, item: usize, worker: Worker) {
        // SAFETY: as in `Program::run_item`; threads that do not share have arenas of their own.
        unsafe { Conv::run(self, base, item, worker) };
    }
}

/// Several works one after another, for so many rounds; whoever closes a loop takes its time.
struct Timed<'a, W> {
    places: &'a Places,
    works: &'a [W],
    rounds: usize,
    clock: Mutex<Clock>,
}

struct Clock {
    last: Instant,
    least: Vec<f64>,
}

impl<W: Work> Loops for Timed<'_, W> {
    fn count(&self) -> usize {
        self.works.len() * self.rounds
    }

    fn first(&self, index: usize, worker: Worker) -> usize {
        match self.places.0[..] {
            [base] => self.works[index % self.works.len()].first(base, worker),
            // A work in an arena is an item.
            _ => worker.index,
        }
    }

    fn run(&self, index: usize, item: usize, worker: Worker) {
        let work = &self.works[index % self.works.len()];
        match self.places.0[..] {
            [base] => work.run(base, item, worker),
            _ => work.run_alone(self.places.0[item]),
        }
    }

    fn done(&self, index: usize) {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let seconds = (now - clock.last).as_secs_f64();
        let least = &mut clock.least[index % self.works.len()];
        *least = least.min(seconds);
        clock.last = now;
    }
}

/// What decides which blocking is the fastest.
#[derive(PartialEq)]
struct Signature {
    shape: ConvShape,
    lanes: VectorLayout,
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

impl Conv {
    fn signature(&self) -> Signature {
        Signature {
            shape: self.shape.clone(),
            lanes: self.to.extent.layout,
            added: self.added.is_some(),
            nonzero: ((self.work() as f64).log2() * 16.0).round() as i32,
        }
    }

    /// Measures candidates, each a few times, as long as there is time.
    fn fastest(&mut self, isa: Isa, places: &Places, pool: &mut ThreadPool, limit: Duration, paths: Paths) -> Fastest {
        let start = Instant::now();
        let likely = self.default_blocking(isa, paths);
        let others = [Paths::Sparse, Paths::Dense].map(|paths| self.default_blocking(isa, paths));
        let mut tried: Vec<(f64, Blocking)> = Vec::new();
        for blocking in [likely].into_iter().chain(others.into_iter().filter(|_| paths == Paths::Any)) {
            if tried.iter().all(|(_, known)| *known != blocking) {
                self.apply(isa, blocking);
                tried.push((self.measure(places, pool, f64::INFINITY), blocking));
            }
        }
        let best = |tried: &[(f64, Blocking)], of: &dyn Fn(&Blocking) -> bool| {
            tried.iter().filter(|(_, blocking)| of(blocking)).copied().min_by(|a, b| a.0.total_cmp(&b.0))
        };
        let mut least = best(&tried, &|_| true).map_or(f64::INFINITY, |(seconds, _)| seconds);
        let largest = self.largest_block(isa);
        let candidate = |channel_block: usize| {
            tried.iter().any(|(seconds, blocking)| blocking.channel_block == channel_block && *seconds < MAX_SLOWDOWN * least)
        };
        // What is between both ends has hope where both have.
        let channel_blocks: Vec<usize> = CHANNEL_BLOCKS
            .into_iter()
            .filter(|&channel_block| {
                self.fits_block(isa, channel_block) && if channel_block == 1 { candidate(1) } else { candidate(largest) }
            })
            .filter(|&channel_block| paths != Paths::Dense || channel_block == largest)
            .collect();
        let mut candidates = self.candidates(isa, places.sharing(pool), &channel_blocks);
        // The likely ones come first, all tiles of a block together: its stream is laid out once.
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
            let seconds = self.measure(places, pool, least);
            least = least.min(seconds);
            tried.push((seconds, blocking));
        }
        let of_all = best(&tried, &|_| true).map_or(likely, |(_, blocking)| blocking);
        let dense = best(&tried, &|blocking| blocking.channel_block == largest).map_or(others[1], |(_, blocking)| blocking);
        Fastest { of_all, dense }
    }

    /// The least time of a few runs; of fewer where the first say that it will not come near `best`.
    fn measure(&self, places: &Places, pool: &mut ThreadPool, best: f64) -> f64 {
        let mut run = || places.time(pool, &[self], 2)[0];
        let first = run();
        if first > EARLY_STOP * best { first } else { first.min(run()) }
    }
}

/// Multiply-accumulates per second that `threads` threads can do on this machine at the most: a dense convolution all of
/// whose numbers lie in the first-level cache.
pub fn peak(threads: usize) -> std::io::Result<f64> {
    const CHANNELS: [usize; 2] = [32, 16];
    const SIZE: [usize; 2] = [4, 12];
    const WEIGHTS: usize = CHANNELS[0] * CHANNELS[1];
    let shape = ConvShape::pointwise(CHANNELS[0], SIZE, CHANNELS[1]);
    let weight = [0.5; WEIGHTS];
    let mut builder = super::Builder::new(Isa::best(), 1, 1);
    let input = builder.input(CHANNELS[0], SIZE);
    let convolution = super::Convolution { shape, weight: &weight, bias: &[], activation: Activation::None, added: None };
    let output = builder.conv("limit", input, convolution);
    builder.output(output);
    let Some(program) = builder.finish() else { return Ok(f64::NAN) };
    let mut pool = ThreadPool::new(threads)?;
    let mut arenas: Vec<Arena> = (0..pool.threads()).map(|_| program.arena()).collect();
    let places = Places::new(&mut arenas, program.vectors, &pool);
    let repeated: Vec<Repeated> = program.convs().map(Repeated).collect();
    let seconds = places.time(&mut pool, &repeated, 5)[0];
    Ok((threads * RUNS * WEIGHTS * SIZE[0] * SIZE[1]) as f64 / seconds)
}

/// Runs of a convolution that are timed as one.
const RUNS: usize = 2000;

/// A convolution, many times.
struct Repeated<'a>(&'a Conv);

impl Work for Repeated<'_> {
    fn first(&self, base: Base, worker: Worker) -> usize {
        Work::first(&self.0, base, worker)
    }

    fn run(&self, base: Base, item: usize, worker: Worker) {
        (0..RUNS).for_each(|_| Work::run(&self.0, base, item, worker));
    }
}
