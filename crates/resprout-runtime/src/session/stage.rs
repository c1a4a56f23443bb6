//! A stage: a part of the network with a microbatch of its own, and how threads run it.

use super::adaptive::{AdaptiveThreading, Threading};
use crate::forward::{Compiled, SingleThreaded, chunk_outputs, output_tensors};
use crate::tensor::Tensor;
use resprout_kernels::engine::{Arena, Blocking, Loops, Paths, Program, ThreadPool, Worker};
use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use std::time::Instant;

/// Where a stage, a part of the network with a microbatch of its own, begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageStart {
    /// The index of its first step in the network's [`Plan`](crate::forward::Plan).
    pub step: usize,
    /// Images per run of its programs.
    pub microbatch: usize,
}

/// A part of the network, and memory for each thread that runs it alone.
pub(super) struct Stage {
    pub start: StageStart,
    pub compiled: Compiled,
    /// For each worker, an arena of each program.
    pub arenas: Vec<Vec<Arena>>,
    /// For runs of the calling thread alone, where threads share each operation.
    single_threaded: Option<SingleThreaded>,
    /// For runs in which threads share a microbatch, and for runs in which each takes its own; none during autotuning.
    threading: Option<[AdaptiveThreading; 2]>,
    /// Of the last run.
    pub outputs: Vec<Tensor>,
}

/// The index of the threading of runs in which threads share a microbatch.
const SHARED: usize = 0;
/// The index of the threading of runs in which each thread takes microbatches of its own.
const SEPARATE: usize = 1;

impl Stage {
    pub fn new(start: StageStart, compiled: Compiled) -> Stage {
        Stage { start, compiled, arenas: Vec::new(), single_threaded: None, threading: None, outputs: Vec::new() }
    }

    /// Finds out from now on whether several threads pay.
    pub fn adapt(&mut self) {
        self.threading = Some(Default::default());
    }

    pub fn blockings(&self) -> impl Iterator<Item = Blocking> {
        self.compiled.programs().flat_map(Program::blockings)
    }

    /// The default blockings on these paths.
    pub fn default_blockings(&self, paths: Paths) -> impl Iterator<Item = Blocking> {
        self.compiled.programs().flat_map(move |program| program.default_blockings(paths))
    }

    /// Runs `count` images, one after another, and keeps the outputs.
    pub fn run(&mut self, images: &[f32], count: usize, pool: &mut ThreadPool) {
        if self.outputs.first().is_none_or(|output| output.shape[0] != count) {
            self.outputs = output_tensors(&self.compiled.plan.result_shapes, count);
        }
        let workers = self.compiled.workers(count, pool.threads());
        while self.arenas.len() < workers {
            self.arenas.push(self.compiled.arenas());
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        let each = images.len() / count.max(1);
        let microbatch = self.compiled.microbatch;
        let chunks = images.chunks((microbatch * each).max(1)).zip(chunk_outputs(&mut outputs, microbatch));
        match workers {
            1 => chunks.for_each(|(images, mut part)| {
                self.run_adaptive(SHARED, 1, pool, |stage, pool| stage.run_shared(images, pool, &mut part));
            }),
            _ => {
                let chunks: Vec<Chunk> = chunks.collect();
                self.run_adaptive(SEPARATE, chunks.len(), pool, |stage, pool| stage.run_separate(chunks, pool));
            }
        }
        self.outputs = outputs;
    }

    /// Does so many chunks with all threads or, without a pool, with the calling one: whichever has been faster.
    fn run_adaptive(
        &mut self,
        kind: usize,
        chunks: usize,
        pool: &mut ThreadPool,
        run: impl FnOnce(&mut Stage, Option<&mut ThreadPool>),
    ) {
        let next = self.threading.as_ref().map(|threading| threading[kind].next());
        let Some(next) = next.filter(|_| pool.threads() > 1) else {
            return run(self, Some(pool));
        };
        if next == Threading::Single && kind == SHARED && self.compiled.sharing > 1 && self.single_threaded.is_none() {
            self.single_threaded = self.compiled.single_threaded().ok();
        }
        let start = Instant::now();
        run(self, (next == Threading::Multi).then_some(&mut *pool));
        let chunks = u32::try_from(chunks).unwrap_or(u32::MAX);
        let [elapsed, slept] = [start.elapsed(), pool.take_slept()].map(|time| time / chunks);
        self.threading.iter_mut().for_each(|threading| threading[kind].note(elapsed, slept, pool.threads()));
    }

    /// All threads share a chunk. Without a pool, the calling one does it alone.
    fn run_shared(&mut self, images: &[f32], pool: Option<&mut ThreadPool>, part: &mut [&mut [f32]]) {
        let Stage { compiled, arenas, single_threaded, .. } = self;
        match single_threaded.as_mut().filter(|_| pool.is_none()) {
            Some(single_threaded) => compiled.run_single_threaded(single_threaded, images, part),
            None => compiled.run(images, &mut arenas[0], pool, part),
        }
    }

    /// Every thread takes whole chunks. Without a pool, the calling one takes all of them.
    fn run_separate(&mut self, chunks: Vec<Chunk>, pool: Option<&mut ThreadPool>) {
        let Stage { compiled, arenas, .. } = self;
        let chunks = chunks.into_iter();
        let Some(pool) = pool else {
            return chunks.for_each(|(images, mut part)| compiled.run(images, &mut arenas[0], None, &mut part));
        };
        let arenas = arenas.iter_mut().map(Mutex::new).collect();
        pool.run(&ChunkLoop { compiled, chunks: chunks.map(Mutex::new).collect(), arenas });
    }
}

/// The images of a microbatch, and the outputs that they fill.
type Chunk<'a> = (&'a [f32], Vec<&'a mut [f32]>);

/// One loop whose items are chunks.
struct ChunkLoop<'a> {
    compiled: &'a Compiled,
    chunks: Vec<Mutex<Chunk<'a>>>,
    /// Of each worker.
    arenas: Vec<Mutex<&'a mut Vec<Arena>>>,
}

impl Loops for ChunkLoop<'_> {
    fn count(&self) -> usize {
        1
    }

    fn first(&self, _index: usize, worker: Worker) -> usize {
        worker.first_of(self.chunks.len())
    }

    fn run(&self, _index: usize, item: usize, worker: Worker) {
        // No other worker locks this chunk or these arenas.
        if let (Ok(mut chunk), Ok(mut arenas)) = (self.chunks[item].lock(), self.arenas[worker.index].lock()) {
            let (images, part) = &mut *chunk;
            self.compiled.run(images, &mut arenas, None, part);
        }
    }
}

/// A tensor `[count, ..]` for timing.
pub(super) fn dummy_input(count: usize, each: &[usize]) -> Tensor {
    let shape = [&[count], each].concat();
    let data = vec![0.5; shape.iter().product()];
    Tensor::new(shape, data)
}
