//! Options of `eval`, `run`, `bench` and `inspect`.

use super::images::ImageArgs;
use super::network::NetworkArgs;
use clap::Args;
use std::num::NonZeroUsize;
use std::path::PathBuf;

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
    #[arg(long = "kernel", hide = true, value_name = "NAME", value_parser = renamed("--isa"))]
    old_kernel: Option<String>,
    /// Keep each thread on a CPU of its own: only where nothing else runs there
    #[arg(long)]
    pub pin: bool,
}

/// Refuses an option that has another name now, and tells the name.
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
    pub against: Option<BaselineEngine>,
    /// The file that the baseline runs, if it is another one: the dense model, whose time it takes for a sparse one too
    #[arg(long, value_name = "FILE", requires = "against")]
    pub baseline_model: Option<PathBuf>,
    #[arg(long = "rival-model", hide = true, value_name = "FILE", value_parser = renamed("--baseline-model"))]
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

/// An engine to compare with.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum BaselineEngine {
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
