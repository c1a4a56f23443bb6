//! What can be typed. No work is done here.

use clap::{Args, Parser, Subcommand};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Prune trained vision networks, repair them without labels, and tell the truth about the result.
#[derive(Parser, Debug)]
#[command(
    name = "resprout",
    version,
    propagate_version = true,
    after_help = "Try `resprout demo`: it needs nothing but this program.\n\nExit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Threads to use [default: all cores]; the result does not depend on it
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// No progress bars
    #[arg(long, global = true)]
    pub quiet: bool,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Prune a model, repair it without labels, write it, and report
    #[command(
        after_help = "Example:\n  resprout prune model.onnx --sparsity 0.8 --repair auto --calibration images/ -o sparse.onnx\n  resprout prune model.onnx --sparsity 0.9 --allocation global --repair least-squares --steps 10 --calibration images/ -o sparse.onnx\n  resprout prune model.onnx --pattern channel --macs 0.5 --repair least-squares --calibration images/ --shrink -o small.onnx"
    )]
    Prune(Box<PruneArgs>),
    /// Measure a model, alone or against the dense one
    #[command(
        after_help = "Example:\n  resprout eval sparse.onnx --reference model.onnx --data test_images/ --labels labels.csv"
    )]
    Eval(EvalArgs),
    /// Classify images with a network, pruned weights left out
    #[command(after_help = "Example:\n  resprout run sparse.onnx images/ --top 3")]
    Run(RunArgs),
    /// Measure latency and throughput, layer by layer, alone or alternating with ONNX Runtime
    #[command(
        after_help = "Examples:\n  resprout bench sparse.onnx --tune 30 --layers\n  resprout bench sparse.onnx --batch 1,8 --against onnxruntime --baseline-model dense.onnx"
    )]
    Bench(BenchArgs),
    /// Show a model's layers, what can be pruned, and what the forward cannot compute
    #[command(after_help = "Example:\n  resprout inspect model.onnx --input-shape 3,224,224")]
    Inspect(InspectArgs),
    /// Train a network, pruned before, during or after; a run folder is kept, and resumed
    #[command(
        after_help = "Examples:\n  resprout train --arch lenet-300-100 --data digits --sparsity 0.9 -o run\n  resprout train --arch resnet-20 --data cifar-10-batches-bin --method gmp --epochs 160 --crop 4 --flip -o run\n  resprout train recipe.yaml -o run --resume"
    )]
    Train(Box<TrainArgs>),
    /// Prune an untrained network by a score, without training it
    #[command(
        after_help = "Examples:\n  resprout score --arch resnet-20 --method synflow --sparsity 0.95 -o masks.safetensors\n  resprout score --arch vgg-16-bn-cifar --method snip --data cifar-10-batches-bin --sparsity 0.98 -o masks.safetensors"
    )]
    Score(ScoreArgs),
    /// Measure a grid of ways to prune and repair; killed, the same command goes on; a report to look at
    #[command(
        after_help = "Examples:\n  resprout sweep -o study (the embedded network; nothing else is needed)\n  resprout sweep recipe.yaml -o study --jobs 2 --at-most-loss 1\n  resprout sweep recipe.yaml -o study --launcher slurm --shards 8 --slurm-option=--cpus-per-task=4"
    )]
    Sweep(Box<SweepArgs>),
    /// Put runs, reports, studies and models side by side
    #[command(
        after_help = "Examples:\n  resprout compare dense.onnx sparse.onnx --data test_images/\n  resprout compare run-a run-b sparse-report.json study --filter asr"
    )]
    Compare(CompareArgs),
    /// Write a model, or an architecture with weights, in another format
    #[command(
        after_help = "Examples:\n  resprout convert resnet18.pth --arch resnet-18 -o resnet18.onnx\n  resprout convert model.onnx -o model.safetensors\n  resprout convert sparse.onnx --format safetensors-sparse -o small.safetensors"
    )]
    Convert(ConvertArgs),
    /// Download datasets from their official addresses
    #[command(after_help = "Example:\n  resprout data fetch mnist -o mnist/", subcommand_required = true)]
    Data {
        #[command(subcommand)]
        command: DataCommand,
    },
    /// Show every method, architecture, kind of data, schedule and kernel there is
    #[command(after_help = "Example:\n  resprout list --json")]
    List(ListArgs),
    /// Prune an embedded network at several sparsities and show collapse and recovery, offline
    #[command(after_help = "Example:\n  resprout demo --output resprout-demo")]
    Demo(DemoArgs),
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  resprout completions bash > ~/.local/share/bash-completion/completions/resprout")]
    Completions(CompletionsArgs),
    /// Write manual pages, one for each command
    #[command(after_help = "Example:\n  resprout man -o ~/.local/share/man/man1")]
    Man(ManArgs),
}

#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
pub struct ManArgs {
    /// The folder for the pages
    #[arg(short, long, value_name = "FOLDER")]
    pub output: PathBuf,
}

#[derive(Args, Debug)]
pub struct PruneArgs {
    /// The trained model, .onnx, or its weights with --arch
    pub model: PathBuf,
    /// Where to write: .onnx, .safetensors for weights and masks, or .pth for PyTorch
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub how: WriteArgs,
    /// Share of the prunable weights to remove, from 0 (repair alone) up to but not including 1; not where the pattern tells
    #[arg(short, long, value_name = "S", allow_negative_numbers = true)]
    pub sparsity: Option<f64>,
    /// Let the zeros of a model that came sparse become weights again; without it they are its mask
    #[arg(long)]
    pub regrow: bool,
    /// The dense model that repair and measurement compare with, for a model that came sparse [default: the model itself]
    #[arg(long, value_name = "FILE")]
    pub reference: Option<PathBuf>,
    /// Which weights go together (see `resprout list`): unstructured, n:m as 2:4, mixed:m=4, or channel
    #[arg(long, default_value = "unstructured", value_name = "PATTERN")]
    pub pattern: String,
    /// For channels, instead of --sparsity: share of the operations that may be left
    #[arg(long, value_name = "SHARE", conflicts_with = "sparsity", allow_negative_numbers = true)]
    pub macs: Option<f64>,
    /// Cut channels out that nothing reads any more: a smaller network that computes the same
    #[arg(long)]
    pub shrink: bool,
    /// How weights or channels are scored (see `resprout list`); options as name:option=value [default: magnitude,
    /// for channels l2]
    #[arg(long, value_name = "NAME")]
    pub criterion: Option<String>,
    /// How many weights each layer keeps, or which channels go (see `resprout list`) [default: lamp, for channels global]
    #[arg(long, value_name = "NAME")]
    pub allocation: Option<String>,
    /// Repairs with the calibration images, in order, as first,second (see `resprout list`); auto tries
    /// several and takes the one that comes closest to the dense network on images it has not seen
    #[arg(long, default_value = "none", value_name = "NAME,..")]
    pub repair: String,
    /// In how many steps of pruning and repair the sparsity is reached
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub steps: usize,
    /// Unlabelled images for criterion and repair
    #[arg(long, value_name = "PATH")]
    pub calibration: Option<PathBuf>,
    /// How many of them to use, from the first on; auto: until the network's statistics settle, of up to 4096
    #[arg(long, default_value = "1024", value_name = "N|auto")]
    pub calibration_images: CalibrationCount,
    /// Calibrate on noise where there are no images: a stand-in that may do more harm than good
    #[arg(long, conflicts_with = "calibration")]
    pub data_free: bool,
    /// The most memory for the calibration images' values, in GB; fewer images are used if need be
    #[arg(long, default_value_t = 4.0, value_name = "GB")]
    pub memory: f64,
    /// About the most seconds that the repair may take: where these are not enough for least squares everywhere, layers that gain
    /// least per second get statistics only
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seconds: Option<f64>,
    /// A folder where every step is kept, so that the same command goes on where it was interrupted
    #[arg(long, value_name = "FOLDER")]
    pub checkpoint: Option<PathBuf>,
    /// Images to measure on; without them the calibration images serve, and the report says so
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Measure nothing: only prune, repair and write
    #[arg(long, conflicts_with = "data")]
    pub no_evaluation: bool,
    /// Compress large files too, to report their bytes after gzip and Zstandard
    #[arg(long)]
    pub sizes: bool,
    #[command(flatten)]
    pub images: ImageArgs,
    /// Leave these layers dense: name of a layer or weight, or re:REGEX; may be given several times
    #[arg(long, value_name = "NAME")]
    pub ignore: Vec<String>,
    /// A sparsity of its own for a layer: NAME=S, or re:REGEX=S; may be given several times
    #[arg(long, value_name = "NAME=S")]
    pub layer: Vec<String>,
    /// Every layer keeps at least this many weights
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub min_per_layer: usize,
    /// Every output channel keeps at least this many weights
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub min_per_channel: usize,
    /// Prune depthwise and grouped convolutions too
    #[arg(long)]
    pub include_grouped: bool,
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Seed of everything random
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// Write the report as JSON; - prints it instead of the tables
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct SweepArgs {
    /// The recipe, .yaml; without one, the embedded network with every allocation and every repair
    pub recipe: Option<PathBuf>,
    /// The study's folder: journal, study.json, report.html, figures
    #[arg(short, long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Cells that are measured at a time, on as many of the threads each; each takes the recipe's memory
    #[arg(short, long, default_value = "1", value_name = "N")]
    pub jobs: NonZeroUsize,
    /// Do part I of N of the work, in a journal of its own; without --shard all journals of the folder merge
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    pub shard: Option<(usize, usize)>,
    /// Take the finished cells of another journal too; may be given several times
    #[arg(long, value_name = "JOURNAL")]
    pub merge: Vec<PathBuf>,
    /// Drop corrupt lines of the journals, and measure their cells again
    #[arg(long)]
    pub repair_journal: bool,
    /// Where it runs: here, or as an array job of a Slurm cluster
    #[arg(long, default_value = "local", value_name = "NAME")]
    pub launcher: Launcher,
    /// For slurm: jobs of the array
    #[arg(long, default_value = "4", value_name = "N")]
    pub shards: NonZeroUsize,
    /// For slurm: an option of sbatch, such as --partition=cpu; may be given several times
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub slurm_option: Vec<String>,
    /// Transition regime: points by which a repair must be better than recalibration
    #[arg(long, default_value_t = 5.0, value_name = "POINTS", allow_negative_numbers = true)]
    pub delta: f64,
    /// Transition regime: share of the way from chance to the dense network that a repair must reach
    #[arg(long, default_value_t = 0.1, value_name = "SHARE", allow_negative_numbers = true)]
    pub kappa: f64,
    /// Share of the dense variance below which a layer is dead
    #[arg(long, default_value_t = 0.01, value_name = "SHARE", allow_negative_numbers = true)]
    pub dead: f64,
    /// Recommend the smallest network that loses at most so many points
    #[arg(long, value_name = "POINTS", allow_negative_numbers = true)]
    pub at_most_loss: Option<f64>,
    /// Recommend among networks whose sparse file takes at most so many bytes, as 4MB or 300kB
    #[arg(long, value_name = "SIZE")]
    pub at_most_bytes: Option<ByteCount>,
    /// Recommend among networks with at least this theoretical speed-up
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    pub at_least_speedup: Option<f64>,
    /// Write the study as JSON; - prints it instead of the tables
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Where a sweep runs.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    Local,
    Slurm,
}

fn parse_shard(text: &str) -> Result<(usize, usize), String> {
    let numbers = text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
    match numbers {
        Some((part, parts)) if 1 <= part && part <= parts => Ok((part, parts)),
        _ => Err("I/N is needed, with I from 1 to N".into()),
    }
}

/// A number of bytes.
#[derive(Clone, Debug)]
pub struct ByteCount(pub u64);

impl std::str::FromStr for ByteCount {
    type Err = String;

    fn from_str(text: &str) -> Result<ByteCount, String> {
        let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let factor = match text[split..].to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "kb" => 1e3,
            "mb" => 1e6,
            "gb" => 1e9,
            "kib" => 1024.0,
            "mib" => 1024.0 * 1024.0,
            _ => return Err("bytes, or a number of kB, MB, GB, KiB or MiB, is needed".into()),
        };
        let number: f64 = text[..split].trim().parse().map_err(|_| "a number of bytes is needed, as 4MB".to_string())?;
        let bytes = number * factor;
        if (0.0..1e18).contains(&bytes) {
            Ok(ByteCount(bytes as u64))
        } else {
            Err("a number of bytes from 0 on is needed".into())
        }
    }
}

#[derive(Args, Debug)]
pub struct CompareArgs {
    /// Models, reports (report.json), run folders, or studies
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Measure the models on these images, the first one as the dense one
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Of studies, only the rows whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    #[command(flatten)]
    pub images: ImageArgs,
    #[command(flatten)]
    pub network: NetworkArgs,
    /// How the rows are printed: a table, comma-separated values in full, a table in Markdown, or JSON
    #[arg(long, value_enum, default_value_t = TableFormat::Table, value_name = "FORMAT")]
    pub format: TableFormat,
    /// Write the rows as JSON; - prints them instead of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// How rows are printed.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFormat {
    /// Aligned columns
    Table,
    /// Comma-separated values, numbers in full
    Csv,
    /// A table in Markdown
    Md,
    /// JSON
    Json,
}

/// A number of calibration images, or as many as it takes.
#[derive(Clone, Copy, Debug)]
pub enum CalibrationCount {
    Auto,
    Exactly(NonZeroUsize),
}

impl std::str::FromStr for CalibrationCount {
    type Err = String;

    fn from_str(text: &str) -> Result<CalibrationCount, String> {
        match text {
            "auto" => Ok(CalibrationCount::Auto),
            _ => text.parse().map(CalibrationCount::Exactly).map_err(|_| "a number from 1 on, or auto, is needed".into()),
        }
    }
}

impl std::fmt::Display for CalibrationCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CalibrationCount::Auto => f.write_str("auto"),
            CalibrationCount::Exactly(count) => count.fmt(f),
        }
    }
}

/// Where a network comes from, besides its file.
#[derive(Args, Debug, Clone)]
pub struct NetworkArgs {
    /// The architecture that a file of weights alone belongs to (see `resprout list`)
    #[arg(long, value_name = "NAME")]
    pub arch: Option<String>,
    /// Its number of classes [default: the architecture's]
    #[arg(long, value_name = "N", requires = "arch")]
    pub classes: Option<NonZeroUsize>,
    /// Replace the model's weights by these: .safetensors (with masks), .pth, .pt or .th
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Compute weights that an ONNX file makes of constants (weight normalisation, masks, quantised weights), so that
    /// they can be pruned; the file that is written holds the result
    #[arg(long)]
    pub fold_weights: bool,
}

impl NetworkArgs {
    /// The same network with the weights of its own file.
    pub fn without_weights(&self) -> NetworkArgs {
        NetworkArgs { weights: None, ..self.clone() }
    }
}

#[derive(Args, Debug)]
pub struct ImageArgs {
    /// Labels of --data: auto (class folders, labels.csv, fields of the file), none, or a .csv, .npy or IDX file
    #[arg(long, default_value = "auto", value_name = "WHERE")]
    pub labels: String,
    /// Measure on this many images, from the first on [default: all]
    #[arg(long, value_name = "N")]
    pub limit: Option<NonZeroUsize>,
    /// Preprocessing (see `resprout list`) [default: chosen by the model's input, and reported]
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Mean per channel, after scaling
    #[arg(long, value_name = "M,..", value_delimiter = ',', allow_hyphen_values = true)]
    pub mean: Option<Vec<f32>>,
    /// Standard deviation per channel, after scaling
    #[arg(long, value_name = "D,..", value_delimiter = ',')]
    pub std: Option<Vec<f32>>,
    /// Factor of every pixel, before mean and deviation
    #[arg(long, value_name = "F")]
    pub scale: Option<f32>,
    /// Resize the shorter side to this many pixels first; 0 for no resize
    #[arg(long, value_name = "PIXELS")]
    pub resize: Option<usize>,
    /// Then cut out the centre: SIZE or HEIGHTxWIDTH; 0 for no crop
    #[arg(long, value_name = "SIZE")]
    pub crop: Option<String>,
}

#[derive(Args, Debug)]
pub struct EvalArgs {
    /// The model to measure, .onnx, or its weights with --arch
    pub model: PathBuf,
    /// Images to measure on
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// The dense model to compare with, .onnx, or its weights with --arch
    #[arg(long, value_name = "FILE")]
    pub reference: Option<PathBuf>,
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    pub images: ImageArgs,
    /// Write the result as JSON; - prints it instead of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// How a network is prepared to run.
#[derive(Args, Debug)]
pub struct SessionArgs {
    /// Seconds for measuring which plan is the fastest here; 0 for one chosen without
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS", value_parser = parse_seconds, allow_negative_numbers = true)]
    pub tune: f64,
    /// A file that keeps plans, for each model, CPU, batch and number of threads
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// The instruction set to use (see `resprout list`) [default: the best one of this CPU]
    #[arg(long, value_name = "NAME")]
    pub isa: Option<String>,
    #[arg(long = "kernel", hide = true, value_parser = renamed("--isa"))]
    old_kernel: Option<String>,
    /// Keep each thread on a CPU of its own: only where nothing else runs there
    #[arg(long)]
    pub pin: bool,
}

/// Reads the value of an option that has another name now: never well.
fn renamed(name: &'static str) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync {
    move |_| Err(format!("this option is called {name} now"))
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "a number of seconds from 0 to 3600 is needed".into())
}

#[derive(Args, Debug)]
pub struct RunArgs {
    /// The model, .onnx, or its weights with --arch
    pub model: PathBuf,
    /// The images
    pub data: PathBuf,
    /// Classes to show of each image
    #[arg(long, default_value = "5", value_name = "N")]
    pub top: NonZeroUsize,
    #[command(flatten)]
    pub session: SessionArgs,
    #[command(flatten)]
    pub images: ImageArgs,
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Write the classes as JSON; - prints them instead of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct BenchArgs {
    /// The model, .onnx, or its weights with --arch
    pub model: PathBuf,
    /// Images of a batch; several sizes one after another
    #[arg(long, default_value = "1", value_name = "N,..", value_delimiter = ',')]
    pub batch: Vec<usize>,
    /// Numbers of threads, where --threads does not name one
    #[arg(long, default_value = "2", value_name = "N,..", value_delimiter = ',')]
    pub bench_threads: Vec<usize>,
    /// Channels, height and width of an image, where the model leaves them free
    #[arg(long, value_name = "C,H,W", value_delimiter = ',')]
    pub input_shape: Option<Vec<usize>>,
    /// Turns of a few batches each
    #[arg(long, default_value_t = 15, value_name = "N")]
    pub rounds: usize,
    /// Keep so many other threads busy meanwhile, as other programs on the machine would
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub contend: u16,
    /// Show every operation with its time
    #[arg(long)]
    pub layers: bool,
    /// Compare the plan with all layers computed sparse and all computed dense, layer by layer
    #[arg(long)]
    pub plans: bool,
    /// Measure, for every shape of convolution in the model, below which density it is faster sparse
    #[arg(long)]
    pub break_even: bool,
    /// Alternate with this engine, from Python's package of that name
    #[arg(long, value_name = "NAME")]
    pub against: Option<Baseline>,
    /// The file that the baseline runs, if it is another one: the dense model, whose time it takes for a sparse one too
    #[arg(long, value_name = "FILE", requires = "against")]
    pub baseline_model: Option<PathBuf>,
    #[arg(long = "rival-model", hide = true, value_parser = renamed("--baseline-model"))]
    old_rival_model: Option<String>,
    /// The Python that has the baseline
    #[arg(long, default_value = "python3", value_name = "PROGRAM")]
    pub python: PathBuf,
    #[command(flatten)]
    pub session: SessionArgs,
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Write the times as JSON; - prints them instead of the tables
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Other engines.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum Baseline {
    Onnxruntime,
}

#[derive(Args, Debug)]
pub struct InspectArgs {
    /// The model, .onnx, or its weights with --arch
    pub model: PathBuf,
    /// Channels, height and width of an image, where the model leaves them free
    #[arg(long, value_name = "C,H,W", value_delimiter = ',')]
    pub input_shape: Option<Vec<usize>>,
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Count depthwise and grouped convolutions as prunable
    #[arg(long)]
    pub include_grouped: bool,
    /// Write the result as JSON; - prints it instead of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// How a network is written.
#[derive(Args, Debug, Clone, Default)]
pub struct WriteArgs {
    /// How it is written [default: by the file's name]
    #[arg(long, value_name = "NAME")]
    pub format: Option<Format>,
    /// Put the numbers of an ONNX file into a file beside it, NAME.data; done by itself above 2 GiB
    #[arg(long)]
    pub external_data: bool,
    /// Fuse every BatchNormalization into the layer in front of it before writing, as quantisers need it
    #[arg(long)]
    pub fold_bn: bool,
}

/// A format of files.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// ONNX
    Onnx,
    /// ONNX with sparse initializers: for ONNX Runtime, which fills the zeros in again; most other tools do not read it
    OnnxSparse,
    /// ONNX with the numbers in a file beside it (NAME.data), as needed above 2 GiB
    OnnxExternal,
    /// Weights and masks alone
    Safetensors,
    /// The whole network, of pruned tensors a bitmask and the values left: the smallest file
    SafetensorsSparse,
    /// A state dict for PyTorch
    Pth,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        clap::ValueEnum::to_possible_value(self).map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

#[derive(Args, Debug)]
pub struct ConvertArgs {
    /// Where to write: .onnx, .safetensors or .pth
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub how: WriteArgs,
    #[command(flatten)]
    pub source: SourceArgs,
}

/// A model file, or an architecture with weights of a file or fresh ones.
#[derive(Args, Debug)]
pub struct SourceArgs {
    /// The model, .onnx, or its weights with --arch; without one, --arch gets fresh weights
    #[arg(required_unless_present = "arch")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub network: NetworkArgs,
    /// How fresh weights are drawn (see `resprout list`) [default: kaiming-out]
    #[arg(long, value_name = "NAME")]
    pub init: Option<String>,
    /// Seed of fresh weights
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
}

impl SourceArgs {
    /// How fresh weights are drawn.
    pub fn init(&self) -> &str {
        self.init.as_deref().unwrap_or("kaiming-out")
    }
}

#[derive(Args, Debug)]
pub struct ScoreArgs {
    /// Where to write the pruned model: .safetensors (weights and masks), .onnx or .pth
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub source: SourceArgs,
    /// Write the last round's scores too, .safetensors
    #[arg(long, value_name = "FILE")]
    pub scores: Option<PathBuf>,
    /// How it scores (see `resprout list`, pruning at initialisation); options as name:option=value
    #[arg(long, default_value = "synflow", value_name = "NAME")]
    pub method: String,
    /// Share of the prunable weights to remove
    #[arg(short, long, default_value_t = 0.9, value_name = "S", allow_negative_numbers = true)]
    pub sparsity: f64,
    /// How many weights each layer keeps (see `resprout list`)
    #[arg(long, default_value = "global", value_name = "NAME")]
    pub allocation: String,
    /// Leave these layers dense: name of a layer or weight, or re:REGEX; may be given several times
    #[arg(long, value_name = "NAME")]
    pub ignore: Vec<String>,
    /// Prune depthwise and grouped convolutions too
    #[arg(long)]
    pub include_grouped: bool,
    /// A check of what matters about the pruning (see `resprout list`)
    #[arg(long, default_value = "none", value_name = "NAME")]
    pub ablation: String,
    /// What is done to the weights that are left (see `resprout list`, repairs at initialisation)
    #[arg(long, default_value = "none", value_name = "NAME")]
    pub repair_init: String,
    /// Labelled images, for methods that look at any: a folder of a known layout, a path of images, or digits
    #[arg(long, value_name = "PATH")]
    pub data: Option<String>,
    /// Preprocessing (see `resprout list`) [default: chosen by the images' size]
    #[arg(long, value_name = "NAME", requires = "data")]
    pub preset: Option<String>,
    /// Images per batch [default: 128]
    #[arg(short, long, value_name = "N", requires = "data")]
    pub batch: Option<NonZeroUsize>,
    /// Channels, height and width of an image [default: those of the images, the model or the architecture]
    #[arg(long, value_name = "C,H,W", value_delimiter = ',', conflicts_with = "data")]
    pub input_shape: Option<Vec<usize>>,
    /// Where it runs (see `resprout list`)
    #[arg(long, default_value = "cpu", value_name = "NAME")]
    pub device: String,
    /// Write the report as JSON; - prints it instead of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub enum DataCommand {
    /// Download a dataset, check it, and unpack it; what is there already is not downloaded again
    #[command(after_help = "Example:\n  resprout data fetch cifar-10 -o data/")]
    Fetch(FetchArgs),
}

#[derive(Args, Debug)]
pub struct FetchArgs {
    /// The dataset (see `resprout list`)
    pub name: String,
    /// The folder for its files
    #[arg(short, long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Take the files from this address instead: http(s)://HOST/FOLDER/ in front of their names
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
}

#[derive(Args, Debug)]
pub struct TrainArgs {
    /// A recipe, .yaml; options given beside it win
    pub recipe: Option<PathBuf>,
    /// The run's folder
    #[arg(short, long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Go on from the folder's last checkpoint, or begin if there is none
    #[arg(long)]
    pub resume: bool,
    /// Threads that load images; the result does not depend on it
    #[arg(long, default_value = "2", value_name = "N")]
    pub workers: NonZeroUsize,
    #[command(flatten)]
    pub overrides: RecipeArgs,
    /// Write the report as JSON; - prints it instead of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Every key of a recipe. What is not given keeps the recipe's value, or the default shown.
#[derive(Args, Debug)]
pub struct RecipeArgs {
    /// Architecture (see `resprout list`)
    #[arg(long, value_name = "NAME")]
    pub arch: Option<String>,
    /// A model to train instead, .onnx
    #[arg(long, value_name = "FILE")]
    pub model: Option<String>,
    /// Weights to start from: .safetensors, .pth, .pt or .th
    #[arg(long, value_name = "FILE")]
    pub weights: Option<String>,
    /// How fresh weights are drawn (see `resprout list`) [default: kaiming-out]
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    pub init: Option<String>,
    /// How it prunes before training (see `resprout list`); the method is then dense [default: it does not]
    #[arg(long, value_name = "NAME")]
    pub prune_at_init: Option<String>,
    /// A check of what matters about that pruning (see `resprout list`) [default: none]
    #[arg(long, value_name = "NAME")]
    pub ablation: Option<String>,
    /// What is done to weights before training, after any pruning there (see `resprout list`) [default: none]
    #[arg(long, value_name = "NAME")]
    pub repair_init: Option<String>,
    /// A folder of a known layout (see `resprout list`), a path of training images, or digits [default: digits]
    #[arg(long, value_name = "PATH")]
    pub data: Option<String>,
    /// Test images, where the folder's layout does not tell
    #[arg(long, value_name = "PATH")]
    pub test: Option<String>,
    /// Share of the training images kept apart to choose the best epoch by [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    pub validation: Option<f64>,
    /// Preprocessing (see `resprout list`) [default: chosen by the images' size]
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Cut training images at random out of a black border of this many pixels [default: 0]
    #[arg(long, value_name = "PIXELS")]
    pub crop: Option<usize>,
    /// Mirror every second training image
    #[arg(long)]
    pub flip: bool,
    /// When it prunes (see `resprout list`); options as name:option=value [default: progressive]
    #[arg(long, value_name = "NAME")]
    pub method: Option<String>,
    /// Share of the prunable weights to remove [default: 0.9]
    #[arg(short, long, value_name = "S", allow_negative_numbers = true)]
    pub sparsity: Option<f64>,
    /// How weights are scored (see `resprout list`) [default: magnitude]
    #[arg(long, value_name = "NAME")]
    pub criterion: Option<String>,
    /// How many weights each layer keeps (see `resprout list`) [default: global]
    #[arg(long, value_name = "NAME")]
    pub allocation: Option<String>,
    /// Leave these layers dense: name of a layer or weight, or re:REGEX; may be given several times
    #[arg(long, value_name = "NAME")]
    pub ignore: Vec<String>,
    /// Prune depthwise and grouped convolutions too
    #[arg(long)]
    pub include_grouped: bool,
    /// All epochs of the run together [default: 10]
    #[arg(short, long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Images per step [default: 128]
    #[arg(short, long, value_name = "N")]
    pub batch: Option<usize>,
    /// Initial learning rate [default: 0.1]
    #[arg(short, long, value_name = "R")]
    pub rate: Option<f64>,
    /// How the rate changes (see `resprout list`) [default: cosine]
    #[arg(long, value_name = "NAME")]
    pub schedule: Option<String>,
    /// Epochs over which the rate rises at first [default: 0]
    #[arg(long, value_name = "EPOCHS")]
    pub warm_up: Option<f64>,
    /// Momentum [default: 0.9]
    #[arg(long, value_name = "M")]
    pub momentum: Option<f64>,
    /// Let the momentum look ahead
    #[arg(long)]
    pub nesterov: bool,
    /// Weight decay [default: 0.0005]
    #[arg(long, value_name = "D")]
    pub weight_decay: Option<f64>,
    /// Whether biases and normalisation parameters decay too [default: true]
    #[arg(long, value_name = "BOOL")]
    pub decay_all: Option<bool>,
    /// Share of a target that is spread over all classes [default: 0]
    #[arg(long, value_name = "SHARE")]
    pub label_smoothing: Option<f64>,
    /// Seed of weights, order, augmentation and random masks [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Where it runs (see `resprout list`) [default: cpu]
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
}

impl RecipeArgs {
    /// Sets what was given.
    pub fn apply(&self, recipe: &mut resprout_train::recipe::Recipe) {
        macro_rules! set {
            ($($key:ident),*) => { $(if let Some(value) = &self.$key { recipe.$key = value.clone(); })* };
        }
        macro_rules! set_some {
            ($($key:ident),*) => { $(if self.$key.is_some() { recipe.$key.clone_from(&self.$key); })* };
        }
        set_some!(arch, model, weights, test, preset, prune_at_init);
        set!(init, ablation, repair_init, data, validation, method, sparsity, criterion, allocation, epochs, batch, rate);
        set!(schedule, warm_up, momentum, weight_decay, decay_all, label_smoothing, seed, device);
        // The two ways to name a network exclude each other; what is typed wins.
        if self.arch.is_some() {
            recipe.model.clone_from(&self.model);
        } else if self.model.is_some() {
            recipe.arch = None;
        }
        if self.prune_at_init.is_some() && self.method.is_none() {
            recipe.method = "dense".into();
        }
        if let Some(crop) = self.crop {
            recipe.augment.crop = crop;
        }
        if !self.ignore.is_empty() {
            recipe.ignore.clone_from(&self.ignore);
        }
        recipe.augment.flip |= self.flip;
        recipe.nesterov |= self.nesterov;
        recipe.include_grouped |= self.include_grouped;
    }
}

#[derive(Args, Debug)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Folder for the sparse models and the report
    #[arg(short, long, default_value = "resprout-demo", value_name = "FOLDER")]
    pub output: PathBuf,
    /// Print the report as JSON instead of the table
    #[arg(long)]
    pub json: bool,
}
