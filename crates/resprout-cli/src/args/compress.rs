//! Options of `compress`.

use super::images::ImageArgs;
use super::network::NetworkArgs;
use super::study::ByteCount;
use clap::Args;
use std::num::NonZeroUsize;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct CompressArgs {
    /// The trained model, .onnx, or its weights with --arch
    pub model: PathBuf,
    /// The folder for the network, the report, its page and every candidate; the same command goes on where it was interrupted
    #[arg(short, long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Unlabelled images: two of three repair, the others choose and check
    #[arg(long, value_name = "PATH")]
    pub calibration: PathBuf,
    /// How many of them to use, from the first on
    #[arg(long, default_value = "1536", value_name = "N")]
    pub calibration_images: NonZeroUsize,
    /// Wish: at least so many times as fast as the dense network, measured here in turns
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    pub faster: Option<f64>,
    /// Wish: a file of at most so many bytes as sparse safetensors, as 4MB or 300kB
    #[arg(long, value_name = "SIZE")]
    pub file_size: Option<ByteCount>,
    /// Wish: at most this share of the operations
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub macs: Option<f64>,
    /// Wish: at most this share of the parameters
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub parameters: Option<f64>,
    /// Wish: loses at most so many points (of accuracy with labels, of agreement with the dense network without)
    #[arg(long, value_name = "POINTS", allow_negative_numbers = true)]
    pub max_loss: Option<f64>,
    /// About how long the search may take, in minutes; a repair that has begun is finished
    #[arg(long, default_value_t = 20.0, value_name = "MINUTES", allow_negative_numbers = true)]
    pub budget: f64,
    /// What may be pruned: single weights, whole channels, or channels and then single weights
    #[arg(long, value_delimiter = ',', default_values = ["unstructured", "channel", "both"], value_name = "PATTERN,..")]
    pub pattern: Vec<Patterns>,
    /// Images of a batch whose time is measured
    #[arg(long, default_value = "1", value_name = "N")]
    pub batch: NonZeroUsize,
    /// The most memory for the calibration images' values, in GB
    #[arg(long, default_value_t = 4.0, value_name = "GB")]
    pub memory: f64,
    /// Images for the final measurement; without them a sixth of the calibration images serves
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub images: ImageArgs,
    /// Leave these layers dense: name of a layer or weight, or re:REGEX; may be given several times
    #[arg(long, value_name = "NAME")]
    pub ignore: Vec<String>,
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Write the report as JSON here too; - prints it instead of the tables
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What a search may prune.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patterns {
    Unstructured,
    Channel,
    Both,
}
