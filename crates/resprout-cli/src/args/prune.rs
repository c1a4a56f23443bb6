//! Options of `prune`.

use super::files::WriteArgs;
use super::images::{CalibrationCount, ImageArgs};
use super::network::NetworkArgs;
use clap::Args;
use std::path::PathBuf;

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
    /// Take the scores of the weights from a file, .safetensors, such as `resprout score --scores` writes
    #[arg(long, value_name = "FILE", conflicts_with = "criterion")]
    pub scores: Option<PathBuf>,
    /// How many weights each layer keeps, or which channels go (see `resprout list`) [default: lamp, for channels global]
    #[arg(long, value_name = "NAME")]
    pub allocation: Option<String>,
    /// Repairs with the calibration images, in order, as first,second (see `resprout list`); auto tries
    /// several and takes the one closest to the dense network on images it has not seen
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
    /// Leave every K-th of them out of criterion and repair
    #[arg(long, value_name = "K", requires = "calibration", value_parser = clap::value_parser!(u32).range(2..))]
    pub hold_out: Option<u32>,
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
    /// Write the report as a page with pictures
    #[arg(long, value_name = "FILE")]
    pub page: Option<PathBuf>,
    /// Write the report as JSON; - prints it instead of the tables
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}
