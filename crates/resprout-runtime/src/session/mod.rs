//! Fast inference: a network compiled to programs on lines (see [`resprout_kernels::engine`]), with zero weights left out.
//!
//! ```
//! use resprout_runtime::{formats::onnx, session::*, tensor::Tensor};
//!
//! # fn main() -> resprout_runtime::Result<()> {
//! # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../resprout-cli/assets");
//! let model = onnx::read(&folder.join("digits.onnx"))?;
//! let mut session = Session::new(&model, &[1, 8, 8], &SessionOptions { threads: 2, ..SessionOptions::default() })?;
//! let outputs = session.run(&Tensor::new(vec![3, 1, 8, 8], vec![0.5; 3 * 64]))?;
//! assert_eq!(outputs[0].shape, [3, 10]);
//! # Ok(())
//! # }
//! ```

mod noise;
mod pace;
mod plan;
mod stages;
mod tune;

pub use plan::{PlanFile, StoredBlocking, StoredPlan, cpu_name};
pub use stages::StageStart;

use crate::error::{Error, Result};
use crate::forward::{Compiled, LayerTime, SingleThreaded, parts, room};
use crate::model::Model;
use crate::table;
use crate::tensor::Tensor;
use pace::{Pace, Way};
pub use resprout_kernels::engine::Paths;
use resprout_kernels::engine::{Arena, Blocking, BreakEven, Loops, Program, ThreadPool, Worker, break_even, usable_threads};
use resprout_kernels::{ConvShape, ISAS, Isa};
use serde::{Deserialize, Serialize};
use stages::Parts;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How a session is made.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Threads that work on a batch, the calling one among them. Of more than this process can use at once (its CPUs, or its
    /// quota of their time), only so many are started.
    pub threads: usize,
    /// Images of a usual batch: the plan is made for it. Any other number runs too.
    pub batch: usize,
    /// Seconds for measuring which plan is the fastest; 0 for one that is chosen without.
    pub tune: f64,
    /// The name of an instruction set, instead of the best one of this CPU.
    pub isa: Option<String>,
    /// Ways to compute convolutions that may be chosen.
    pub paths: Paths,
    /// Whether each thread stays on a CPU of its own while it works. That helps only where nothing else runs there.
    pub pin: bool,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions { threads: 1, batch: 1, tune: 0.0, isa: None, paths: Paths::Any, pin: false }
    }
}

impl SessionOptions {
    /// The threads that will be started, the calling one among them.
    pub fn started_threads(&self) -> usize {
        self.threads.min(usable_threads())
    }

    /// The name of the instruction set that will be used.
    pub fn isa_name(&self) -> String {
        self.isa.clone().unwrap_or_else(|| Isa::best().name().into())
    }
}

/// A network ready to run images of one size.
pub struct Session {
    stages: Vec<Stage>,
    pool: ThreadPool,
    image: Vec<usize>,
    batch: usize,
    note: Option<String>,
}

/// A part of the network, and memory for each thread that runs it alone.
struct Stage {
    start: StageStart,
    compiled: Compiled,
    arenas: Vec<Vec<Arena>>,
    /// For the calling thread alone, once it does a run that is cut for several.
    single_threaded: Option<SingleThreaded>,
    /// Who does a run, where threads share an image and where each takes its own; none while plans are measured.
    paces: Option<[Pace; 2]>,
    /// Of the last run.
    outputs: Vec<Tensor>,
}

/// What a session has chosen: the same network on the same CPU starts with it at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// The parts of the network.
    pub stages: Vec<StageStart>,
    /// The blocking of every convolution, in order.
    pub blockings: Vec<StoredBlocking>,
}

impl Session {
    /// Compiles `model` for images of shape `[C, H, W]`.
    pub fn new(model: &Model, image: &[usize], options: &SessionOptions) -> Result<Session> {
        let parts = Parts::new(model, image, options)?;
        let session = match options.tune > 0.0 {
            true => tune::fastest(&parts, Duration::from_secs_f64(options.tune.min(3600.0))),
            false => parts.session(&parts.default_stages()),
        };
        session.map(Session::paced)
    }

    /// The same, with what an earlier session has [`chosen`](Self::chosen), so that nothing is measured.
    pub fn with_plan(model: &Model, image: &[usize], options: &SessionOptions, chosen: &Chosen) -> Result<Session> {
        let parts = Parts::new(model, image, options)?;
        let mut session = parts.session(&parts.possible(&chosen.stages))?;
        let blockings: Vec<Blocking> = chosen.blockings.iter().map(|&blocking| blocking.into()).collect();
        session.apply(&blockings);
        Ok(session.paced())
    }

    /// Finds out from now on whether threads pay.
    fn paced(mut self) -> Session {
        self.stages.iter_mut().for_each(|stage| stage.paces = Some(Default::default()));
        self
    }

    /// Images that run together, in each stage.
    pub fn microbatch(&self) -> Vec<usize> {
        self.stages.iter().map(|stage| stage.compiled.microbatch).collect()
    }

    /// Runs `images: [N, C, H, W]`; returns the network's outputs, each with `N` as its first axis.
    pub fn run(&mut self, images: &Tensor) -> Result<Vec<Tensor>> {
        let count = images.shape.first().copied().unwrap_or(0);
        if count == 0 || images.shape[1..] != self.image {
            return Err(Error::data(format!("images of shape {:?}, the session is for [N, {:?}]", images.shape, self.image)));
        }
        let Session { stages, pool, .. } = self;
        for index in 0..stages.len() {
            let (before, rest) = stages.split_at_mut(index);
            // Between two stages there is a single value.
            let input = before.last().and_then(|stage| stage.outputs.first()).unwrap_or(images);
            rest[0].run(input, pool);
        }
        Ok(stages.last_mut().map_or(Vec::new(), |last| std::mem::take(&mut last.outputs)))
    }

    /// Why the plan was not measured though it was to be: the machine was too busy.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// What was chosen, to be kept.
    pub fn chosen(&self) -> Chosen {
        Chosen {
            stages: self.stages.iter().map(|stage| stage.start).collect(),
            blockings: self.blockings().into_iter().map(Into::into).collect(),
        }
    }

    fn programs(&self) -> impl Iterator<Item = &Program> {
        self.stages.iter().flat_map(|stage| stage.compiled.programs())
    }

    /// Of all stages.
    fn blockings(&self) -> Vec<Blocking> {
        self.stages.iter().flat_map(Stage::blockings).collect()
    }

    /// Of each convolution, whether its plan is to skip zeros.
    pub fn sparse_layers(&self) -> Vec<bool> {
        self.programs().flat_map(Program::blockings).map(|blocking| blocking.channel_block == 1).collect()
    }

    fn apply(&mut self, blockings: &[Blocking]) {
        let mut blockings = blockings.iter().copied();
        for program in self.stages.iter_mut().flat_map(|stage| stage.compiled.programs_mut()) {
            let own: Vec<Blocking> = blockings.by_ref().take(program.blockings().len()).collect();
            program.apply(&own);
        }
    }

    /// Name, seconds, multiply-accumulates of what is left, and density (both of convolutions) of every operation.
    pub fn layers(&mut self, runs: usize) -> Vec<LayerTime> {
        self.stages.iter().flat_map(|stage| stage.compiled.time(&mut self.pool, self.batch, runs)).collect()
    }
}

impl Stage {
    fn blockings(&self) -> impl Iterator<Item = Blocking> {
        self.compiled.programs().flat_map(Program::blockings)
    }

    /// The default blockings on these paths.
    fn default_blockings(&self, paths: Paths) -> impl Iterator<Item = Blocking> {
        self.compiled.programs().flat_map(move |program| program.default_blockings(paths))
    }

    /// Runs `images: [N, ..]`; the outputs are kept.
    fn run(&mut self, images: &Tensor, pool: &mut ThreadPool) {
        let count = images.shape[0];
        if self.outputs.first().is_none_or(|output| output.shape[0] != count) {
            self.outputs = room(&self.compiled.plan.result_shapes, count);
        }
        let workers = self.compiled.workers(count, pool.threads());
        while self.arenas.len() < workers {
            self.arenas.push(self.compiled.arenas());
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        let each: usize = images.shape[1..].iter().product();
        let microbatch = self.compiled.microbatch;
        let chunks = images.data.chunks(microbatch * each).zip(parts(&mut outputs, microbatch));
        match workers {
            1 => chunks
                .for_each(|(images, mut part)| self.paced(0, 1, pool, |stage, pool| stage.run_shared(images, pool, &mut part))),
            _ => {
                let chunks: Vec<Chunk> = chunks.collect();
                self.paced(1, chunks.len(), pool, |stage, pool| stage.run_apart(chunks, pool));
            }
        }
        self.outputs = outputs;
    }

    /// Does so many chunks with all threads or, without a pool, with the calling one, whichever has been faster.
    fn paced(
        &mut self,
        pace: usize,
        chunks: usize,
        pool: &mut ThreadPool,
        run: impl FnOnce(&mut Stage, Option<&mut ThreadPool>),
    ) {
        let Some(path) = self.paces.as_ref().map(|paces| paces[pace].path()).filter(|_| pool.threads() > 1) else {
            return run(self, Some(pool));
        };
        if path == Way::Alone && pace == 0 && self.compiled.sharing > 1 && self.single_threaded.is_none() {
            self.single_threaded = self.compiled.single_threaded().ok();
        }
        let start = Instant::now();
        run(self, (path == Way::Shared).then_some(&mut *pool));
        let chunks = u32::try_from(chunks).unwrap_or(u32::MAX);
        let [elapsed, slept] = [start.elapsed(), pool.take_slept()].map(|time| time / chunks);
        self.paces.iter_mut().for_each(|paces| paces[pace].note(elapsed, slept, pool.threads()));
    }

    /// All threads share a chunk; without a pool the calling one does it alone.
    fn run_shared(&mut self, images: &[f32], pool: Option<&mut ThreadPool>, part: &mut [&mut [f32]]) {
        let Stage { compiled, arenas, single_threaded, .. } = self;
        match single_threaded.as_mut().filter(|_| pool.is_none()) {
            Some(single_threaded) => compiled.run_single_threaded(single_threaded, images, part),
            None => compiled.run(images, &mut arenas[0], pool, part),
        }
    }

    /// Every thread takes whole chunks.
    fn run_apart(&mut self, chunks: Vec<Chunk>, pool: Option<&mut ThreadPool>) {
        let Stage { compiled, arenas, .. } = self;
        let chunks = chunks.into_iter();
        let Some(pool) = pool else {
            return chunks.for_each(|(images, mut part)| compiled.run(images, &mut arenas[0], None, &mut part));
        };
        let arenas = arenas.iter_mut().map(Mutex::new).collect();
        pool.run(&Apart { compiled, chunks: chunks.map(Mutex::new).collect(), arenas });
    }
}

/// Images that run together, and the outputs that they are to fill.
type Chunk<'a> = (&'a [f32], Vec<&'a mut [f32]>);

/// One loop, whose items are chunks.
struct Apart<'a> {
    compiled: &'a Compiled,
    chunks: Vec<Mutex<Chunk<'a>>>,
    /// Of each worker.
    arenas: Vec<Mutex<&'a mut Vec<Arena>>>,
}

impl Loops for Apart<'_> {
    fn count(&self) -> usize {
        1
    }

    fn first(&self, _index: usize, worker: Worker) -> usize {
        worker.first_of(self.chunks.len())
    }

    fn run(&self, _index: usize, item: usize, worker: Worker) {
        // Nobody else asks for this chunk, nor for this worker's arenas.
        if let (Ok(mut chunk), Ok(mut arenas)) = (self.chunks[item].lock(), self.arenas[worker.index].lock()) {
            let (images, part) = &mut *chunk;
            self.compiled.run(images, &mut arenas, None, part);
        }
    }
}

/// Values to be timed with: `[count, ..]`.
fn dummy_input(count: usize, each: &[usize]) -> Tensor {
    let shape = [&[count], each].concat();
    let data = vec![0.5; shape.iter().product()];
    Tensor::new(shape, data)
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
    let (isa, mut pool) = (find_isa(options.isa.as_deref())?, session.pool);
    let mut all: Vec<(String, ConvShape, BreakEven)> = Vec::new();
    for compiled in session.stages.iter().map(|stage| &stage.compiled) {
        for program in compiled.programs() {
            let names = program.names().filter_map(|(name, conv)| conv.map(|_| name));
            for (name, shape) in names.zip(program.shapes()) {
                if all.iter().any(|(_, known, _)| known == shape) {
                    continue;
                }
                let limit = Duration::from_secs_f64(seconds.clamp(0.0, 60.0));
                let found = break_even(isa, shape, compiled.microbatch, densities, &mut pool, limit);
                all.extend(found.map(|found| (name.to_string(), shape.clone(), found)));
            }
        }
    }
    Ok(all)
}

fn find_isa(name: Option<&str>) -> Result<Isa> {
    let Some(name) = name else { return Ok(Isa::best()) };
    let names = || ISAS.iter().map(|row| row.name).collect::<Vec<_>>();
    let row = ISAS.iter().find(|row| row.name == name);
    let row = row.ok_or_else(|| table::unknown("isa", name, &names()))?;
    row.open().ok_or_else(|| Error::option(format!("isa {name}: this CPU does not have it ({})", row.about)))
}
