//! `resprout bench`: latency and throughput, alone or alternating with ONNX Runtime.

use super::contend::Contenders;
use super::{check_json_target, file_info, read_computable, read_model, write_json};
use crate::args::{BenchArgs, SessionArgs};
use crate::render::text;
use anyhow::Context;
use resprout::data::{Preprocess, gaussian};
use resprout::forward::LayerTime;
use resprout::model::{ElementType, Model};
use resprout::progress::Progress;
use resprout::report::{FileInfo, SCHEMA_VERSION};
use resprout::session::{Paths, PlanFile, Session, SessionOptions, StoredPlan, break_evens, cpu_name};
use resprout::tensor::Tensor;
use resprout::{Error, ErrorKind, Result};
use serde::Serialize;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The baseline's program.
const BASELINE: &str = include_str!("../../assets/baseline.py");

/// Batches of a turn that count.
const TURN: usize = 3;

/// Before each turn of ours: the baseline's threads wait by spinning, which would cost us cores.
const PAUSE: Duration = Duration::from_millis(50);

/// For so long, and for one batch at the least, batches of a turn do not count: they find caches, threads and clocks cold.
const WARM: Duration = PAUSE;

/// Runs of which each operation's least time is taken.
const LAYER_RUNS: usize = 20;

#[derive(Serialize)]
pub struct Bench {
    schema_version: u32,
    tool_version: &'static str,
    pub cpu: String,
    /// The instruction set.
    pub isa: String,
    pub model: FileInfo,
    pub image: Vec<usize>,
    /// Busy threads that ran beside.
    pub contend: u16,
    pub load: Load,
    /// One per batch size and number of threads.
    pub rows: Vec<BenchRow>,
    pub warnings: Vec<String>,
}

#[derive(Serialize)]
pub struct BenchRow {
    pub batch: usize,
    pub threads: usize,
    /// Images that run together, in each stage of the network.
    pub microbatch: Vec<usize>,
    pub ours: Times,
    pub baseline: Option<Baseline>,
    /// Multiply-accumulates with weights that are not zero, per second, that the machine can do at the most: a convolution
    /// whose numbers all lie in the first-level cache.
    pub peak: f64,
    pub layers: Vec<LayerTime>,
    pub plans: Option<Plans>,
    pub break_even: Vec<BreakEvenRow>,
}

/// Seconds from the file to a session that is ready, without measuring plans: medians.
#[derive(Serialize)]
pub struct Load {
    pub ours: f64,
    pub baseline: Option<f64>,
    /// The median of the baseline's time by ours.
    pub ratio: Option<f64>,
}

/// What the plan is worth.
#[derive(Serialize)]
pub struct Plans {
    /// Seconds of one batch: the median.
    pub planned: f64,
    pub all_sparse: f64,
    pub all_dense: f64,
    /// The better of the other two by the plan: the lesser median of the ratios turn by turn.
    pub ratio: f64,
    /// Of the layers that the plan computes sparse, the least ratio of the dense path's time to the plan's.
    pub worst_layer: Option<f64>,
    /// One per convolution.
    pub layers: Vec<PlanLayer>,
}

/// Seconds of a convolution.
#[derive(Serialize)]
pub struct PlanLayer {
    pub name: String,
    pub density: f64,
    pub planned_sparse: bool,
    pub planned: f64,
    pub sparse: f64,
    pub dense: f64,
}

/// A shape of convolution with random masks.
#[derive(Serialize)]
pub struct BreakEvenRow {
    /// The first layer of this shape.
    pub layer: String,
    pub shape: String,
    /// Seconds on the dense path.
    pub dense: f64,
    /// Density, and seconds on the sparse path.
    pub sparse: Vec<(f64, f64)>,
    /// Below it the sparse path is faster.
    pub density: f64,
}

/// Of one batch, in seconds.
#[derive(Serialize)]
pub struct Times {
    pub p50: f64,
    pub p90: f64,
    /// Where other programs interrupt batches, this says more than the median: it counts the interruptions in their proportion.
    pub mean: f64,
    pub images_per_second: f64,
}

#[derive(Serialize)]
pub struct Baseline {
    pub name: String,
    pub times: Times,
    /// The median of the baseline's time by ours, turn by turn: above 1 we are faster.
    pub ratio: f64,
    /// The largest difference of the outputs, by the largest output; only where both run the same file.
    pub difference: Option<f64>,
}

pub fn run(args: &BenchArgs, threads: Option<usize>, progress: &dyn Progress) -> anyhow::Result<()> {
    check_json_target(args.json.as_deref())?;
    if args.rounds == 0 {
        return Err(Error::new(ErrorKind::Option, "--rounds 0: a number from 1 on is needed").into());
    }
    let model = read_computable(&args.model, &args.network)?;
    let image = image(args, &model)?;
    let threads = threads.map_or_else(|| args.bench_threads.clone(), |threads| vec![threads]);
    let mut warnings = Vec::new();
    let mut rows = Vec::new();
    let _contenders = Contenders::start(args.contend).context("--contend: cannot start threads")?;
    progress.begin("bench", (args.batch.len() * args.rounds) as u64);
    for &batch in &args.batch {
        let images = noise(&image, batch, takes_bytes(&model))?;
        let mut entrants = Vec::new();
        for &threads in &threads {
            progress.check()?;
            let options = session_options(&args.session, threads, batch);
            let (session, notes) = open_session(&args.model, &model, &image, &options, args.session.plan.as_deref())?;
            for note in notes.into_iter().chain(thread_note(&options)) {
                if !warnings.contains(&note) {
                    warnings.push(note);
                }
            }
            entrants.push(Entrant::new(args, session, options, &images)?);
        }
        for _ in 0..args.rounds {
            progress.check()?;
            entrants.iter_mut().try_for_each(|entrant| entrant.turn(&images))?;
            // Whoever comes behind another finds the machine as that has left it.
            entrants.reverse();
            progress.advance(1);
        }
        if args.rounds % 2 == 1 {
            entrants.reverse();
        }
        for entrant in entrants {
            rows.push(entrant.row(args, &model, &images)?);
        }
    }
    progress.end();
    let first = session_options(&args.session, threads[0], args.batch[0]);
    let bench = Bench {
        schema_version: SCHEMA_VERSION,
        tool_version: env!("CARGO_PKG_VERSION"),
        cpu: cpu_name(),
        isa: first.isa_name(),
        model: file_info(&args.model)?,
        contend: args.contend,
        load: load(args, &image, takes_bytes(&model), &first)?,
        image,
        rows,
        warnings,
    };
    if write_json(&bench, args.json.as_deref())? {
        text::bench(&bench, args.layers);
    }
    Ok(())
}

/// The options of a session.
pub fn session_options(args: &SessionArgs, threads: usize, batch: usize) -> SessionOptions {
    SessionOptions { threads, batch, tune: args.tune, isa: args.isa.clone(), paths: Paths::Any, pin: args.pin }
}

/// A session with a plan of the file, if it has one for this model, CPU and options; otherwise the plan is measured and kept,
/// unless the machine was too busy. Notes say what was not done.
pub fn open_session(
    path: &Path,
    model: &Model,
    image: &[usize],
    options: &SessionOptions,
    plans: Option<&Path>,
) -> Result<(Session, Vec<String>)> {
    let own = |session: &Session| session.note().map(str::to_string);
    let Some(plans) = plans else {
        let session = Session::new(model, image, options)?;
        let note = own(&session);
        return Ok((session, note.into_iter().collect()));
    };
    let mut file = PlanFile::open(plans);
    let key = StoredPlan::key(file_info(path)?.sha256, image, options);
    if let Some(chosen) = file.find(&key) {
        return Ok((Session::with_plan(model, image, options, &chosen.clone())?, Vec::new()));
    }
    let session = Session::new(model, image, options)?;
    let (own, note) = (own(&session), file.note.clone());
    if own.is_none() {
        file.keep(StoredPlan { chosen: session.chosen(), ..key })?;
    }
    Ok((session, own.into_iter().chain(note).collect()))
}

/// Where fewer threads run than were asked for.
pub fn thread_note(options: &SessionOptions) -> Option<String> {
    let (asked, started) = (options.threads, options.started_threads());
    (started < asked).then(|| format!("--threads {asked}: this process can use {started} at once, so {started} run"))
}

fn image(args: &BenchArgs, model: &Model) -> Result<Vec<usize>> {
    match (&args.input_shape, resprout::model::fixed_image(model)) {
        (Some(shape), _)
            if !shape.contains(&0)
                && let &[c, h, w] = &shape[..] =>
        {
            Ok(model.graph.image_layout().shape([c, h, w]).to_vec())
        }
        (Some(shape), _) => {
            Err(Error::new(ErrorKind::Option, format!("--input-shape {shape:?}: three numbers from 1 on are needed")))
        }
        (None, Some(image)) => Ok(image),
        (None, None) => {
            let message = "the model leaves the size of its images free; give --input-shape C,H,W";
            Err(Error::new(ErrorKind::Option, message))
        }
    }
}

/// A session that is measured in turns with others, and the baseline beside it.
struct Entrant {
    options: SessionOptions,
    session: Session,
    /// What the session computes of the images.
    first: Tensor,
    baseline: Option<BaselineProcess>,
    ours: Vec<f64>,
    theirs: Vec<f64>,
    ratios: Vec<f64>,
}

impl Entrant {
    fn new(args: &BenchArgs, mut session: Session, options: SessionOptions, images: &Tensor) -> anyhow::Result<Entrant> {
        let baseline = args.against.as_ref().map(|_| BaselineProcess::start(args, images, &options)).transpose()?;
        let first = session.run(images)?.swap_remove(0);
        Ok(Entrant { options, session, first, baseline, ours: Vec::new(), theirs: Vec::new(), ratios: Vec::new() })
    }

    fn turn(&mut self, images: &Tensor) -> anyhow::Result<()> {
        if self.baseline.is_some() {
            std::thread::sleep(PAUSE);
        }
        let mine = turn(|| seconds(&mut self.session, images))?;
        if let Some(baseline) = &mut self.baseline {
            let its = turn(|| baseline.ask("go"))?;
            self.ratios.push(percentile(&its, 0.5) / percentile(&mine, 0.5));
            self.theirs.extend(its);
        }
        self.ours.extend(mine);
        Ok(())
    }

    fn row(self, args: &BenchArgs, model: &Model, images: &Tensor) -> anyhow::Result<BenchRow> {
        let Entrant { options, mut session, first, baseline, ours, theirs, ratios } = self;
        let baseline = baseline.map(|baseline| {
            let same = args.baseline_model.is_none();
            anyhow::Ok(Baseline {
                name: format!("onnxruntime {}", baseline.version),
                times: times(&theirs, options.batch),
                ratio: percentile(&ratios, 0.5),
                difference: if same { Some(baseline.difference(&first)?) } else { None },
            })
        });
        let peak = resprout_kernels::engine::peak(options.started_threads()).context("cannot start threads")?;
        Ok(BenchRow {
            batch: options.batch,
            threads: options.threads,
            microbatch: session.microbatch(),
            ours: times(&ours, options.batch),
            baseline: baseline.transpose()?,
            peak,
            layers: if args.layers { session.layers(LAYER_RUNS) } else { Vec::new() },
            plans: if args.plans { Some(plans(args, model, &mut session, images, &options)?) } else { None },
            break_even: if args.break_even { break_even(model, &images.shape[1..], &options)? } else { Vec::new() },
        })
    }
}

/// Times that a model is loaded.
const LOADS: usize = 5;

fn load(args: &BenchArgs, image: &[usize], bytes: bool, options: &SessionOptions) -> anyhow::Result<Load> {
    let options = SessionOptions { tune: 0.0, ..options.clone() };
    let mut baseline = args
        .against
        .as_ref()
        .map(|_| BaselineProcess::start(args, &noise(image, options.batch, bytes)?, &options))
        .transpose()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..LOADS {
        let start = Instant::now();
        Session::new(&read_model(&args.model, &args.network)?, image, &options)?;
        ours.push(start.elapsed().as_secs_f64());
        if let Some(baseline) = &mut baseline {
            theirs.push(baseline.ask("load")?);
        }
    }
    let ratios: Vec<f64> = theirs.iter().zip(&ours).map(|(its, mine)| its / mine).collect();
    let median = |all: &[f64]| (!all.is_empty()).then(|| percentile(all, 0.5));
    Ok(Load { ours: percentile(&ours, 0.5), baseline: median(&theirs), ratio: median(&ratios) })
}

fn takes_bytes(model: &Model) -> bool {
    model.graph.inputs.first().is_some_and(|input| input.element == ElementType::Uint8)
}

fn noise(image: &[usize], batch: usize, bytes: bool) -> anyhow::Result<Tensor> {
    let &[channels, height, width] = image else { anyhow::bail!("images of shape {image:?}, three axes are needed") };
    // The axes are in the model's order already.
    Ok(gaussian(batch, [channels, height, width], &Preprocess { bytes, ..Preprocess::default() }, 0))
}

/// The plan beside all layers on one path.
fn plans(
    args: &BenchArgs,
    model: &Model,
    planned: &mut Session,
    images: &Tensor,
    options: &SessionOptions,
) -> anyhow::Result<Plans> {
    let on = |paths| Session::new(model, &images.shape[1..], &SessionOptions { paths, ..options.clone() });
    let (mut sparse, mut dense) = (on(Paths::Sparse)?, on(Paths::Dense)?);
    let mut seconds = [const { Vec::new() }; 3];
    let mut ratios = [const { Vec::new() }; 2];
    for round in 0..args.rounds {
        let mut sessions = [&mut *planned, &mut sparse, &mut dense];
        let mut medians = [0.0; 3];
        // Another one is the first each time: who follows whom must not matter.
        for index in (0..3).map(|step| (round + step) % 3) {
            let times = turn(|| self::seconds(sessions[index], images))?;
            medians[index] = percentile(&times, 0.5);
            seconds[index].extend(times);
        }
        ratios.iter_mut().zip(&medians[1..]).for_each(|(ratios, other)| ratios.push(other / medians[0]));
    }
    // The better of both is better in the median: the lesser of two in each turn would mostly be the luckier one.
    let [sparse_ratio, dense_ratio] = ratios.map(|ratios| percentile(&ratios, 0.5));
    let layers = plan_layers(planned, &mut sparse, &mut dense);
    let slower =
        layers.iter().filter(|layer| layer.planned_sparse && layer.density < 1.0).map(|layer| layer.dense / layer.planned);
    let [planned, all_sparse, all_dense] = seconds.map(|times| percentile(&times, 0.5));
    Ok(Plans {
        planned,
        all_sparse,
        all_dense,
        ratio: sparse_ratio.min(dense_ratio),
        worst_layer: slower.min_by(f64::total_cmp),
        layers,
    })
}

/// Convolutions that all three compute, one session after the other for several turns: the least time of each counts.
fn plan_layers(planned: &mut Session, sparse: &mut Session, dense: &mut Session) -> Vec<PlanLayer> {
    let planned_sparse = planned.sparse_layers();
    let mut rows: Vec<PlanLayer> = Vec::new();
    for _ in 0..LAYER_RUNS / TURN {
        let [planned, sparse, dense] = [&mut *planned, &mut *sparse, &mut *dense].map(convolutions);
        let infinite = |(layer, &planned_sparse): (&(String, f64, f64), &bool)| PlanLayer {
            name: layer.0.clone(),
            density: layer.1,
            planned_sparse,
            planned: f64::INFINITY,
            sparse: f64::INFINITY,
            dense: f64::INFINITY,
        };
        if rows.is_empty() {
            rows = planned.iter().zip(&planned_sparse).map(infinite).collect();
        }
        for (row, ((planned, sparse), dense)) in rows.iter_mut().zip(planned.iter().zip(&sparse).zip(&dense)) {
            row.planned = row.planned.min(planned.2);
            row.sparse = row.sparse.min(sparse.2);
            row.dense = row.dense.min(dense.2);
        }
    }
    rows
}

/// Name, density and seconds per image of each: sessions need not run the same number of images together.
fn convolutions(session: &mut Session) -> Vec<(String, f64, f64)> {
    let layers = session.layers(TURN).into_iter();
    layers.filter_map(|layer| Some((layer.name, layer.density?, layer.seconds / layer.images as f64))).collect()
}

/// Densities that are measured.
const DENSITIES: [f64; 7] = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7];

/// Seconds for each of their measurements.
const BREAK_EVEN_SECONDS: f64 = 0.1;

fn break_even(model: &Model, image: &[usize], options: &SessionOptions) -> Result<Vec<BreakEvenRow>> {
    let all = break_evens(model, image, options, &DENSITIES, BREAK_EVEN_SECONDS)?;
    let row = |(layer, shape, found): (String, resprout_kernels::ConvShape, resprout_kernels::engine::BreakEven)| BreakEvenRow {
        layer,
        shape: format!(
            "{}x{} {} > {} at {}x{}, step {}",
            shape.kernel[0], shape.kernel[1], shape.in_channels, shape.out_channels, shape.in_h, shape.in_w, shape.stride[0]
        ),
        density: found.density(),
        dense: found.dense,
        sparse: found.sparse,
    };
    Ok(all.into_iter().map(row).collect())
}

/// The time of one batch.
fn seconds(session: &mut Session, images: &Tensor) -> anyhow::Result<f64> {
    let start = Instant::now();
    session.run(images)?;
    Ok(start.elapsed().as_secs_f64())
}

/// The times of a few batches, once warm.
fn turn(mut batch: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<Vec<f64>> {
    let start = Instant::now();
    batch()?;
    while start.elapsed() < WARM {
        batch()?;
    }
    (0..TURN).map(|_| batch()).collect()
}

fn times(all: &[f64], batch: usize) -> Times {
    let p50 = percentile(all, 0.5);
    let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
    Times { p50, p90: percentile(all, 0.9), mean, images_per_second: batch as f64 / p50 }
}

/// The value below which so large a share lies; of an even number the lower one.
fn percentile(all: &[f64], share: f64) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (share * (sorted.len().max(1) - 1) as f64).floor() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// ONNX Runtime in a process of its own.
struct BaselineProcess {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    version: String,
    folder: tempfile::TempDir,
}

impl BaselineProcess {
    fn start(args: &BenchArgs, images: &Tensor, options: &SessionOptions) -> anyhow::Result<BaselineProcess> {
        let folder = tempfile::tempdir().context("a temporary folder")?;
        let path = |name: &str| folder.path().join(name);
        let shape: Vec<String> = images.shape[1..].iter().map(usize::to_string).collect();
        for (name, bytes) in
            [("baseline.py", BASELINE.into()), ("images.shape", shape.join(" ").into_bytes()), ("images", images.to_le_bytes())]
        {
            std::fs::write(path(name), bytes).with_context(|| format!("cannot write {name}"))?;
        }
        let model = args.baseline_model.as_ref().unwrap_or(&args.model);
        let mut process = Command::new(&args.python)
            .arg(path("baseline.py"))
            .arg(model)
            .args([options.batch.to_string(), options.threads.to_string()])
            .args([path("images"), path("output")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("--python {}: cannot be started", args.python.display()))?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            anyhow::bail!("no pipe to the baseline")
        };
        let mut opponent = BaselineProcess { process, input, output: BufReader::new(output), version: String::new(), folder };
        opponent.version =
            opponent.line().context("--against onnxruntime: needs Python with the packages onnxruntime and numpy")?;
        Ok(opponent)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            anyhow::bail!("the baseline has stopped");
        }
        Ok(line.trim().to_string())
    }

    /// Seconds of what it is asked to do.
    fn ask(&mut self, what: &str) -> anyhow::Result<f64> {
        writeln!(self.input, "{what}")?;
        self.input.flush()?;
        Ok(self.line()?.parse()?)
    }

    fn difference(&self, ours: &Tensor) -> anyhow::Result<f64> {
        let bytes = std::fs::read(self.folder.path().join("output"))?;
        let theirs: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        anyhow::ensure!(
            theirs.len() == ours.data.len(),
            "the baseline's output has {} numbers, ours {}",
            theirs.len(),
            ours.data.len()
        );
        let largest = theirs.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
        let difference = theirs.iter().zip(&ours.data).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        Ok(f64::from(difference / largest))
    }
}

impl Drop for BaselineProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
