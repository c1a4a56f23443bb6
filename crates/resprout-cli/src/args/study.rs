//! Options of `sweep` and `compare`.

use super::images::ImageArgs;
use super::network::NetworkArgs;
use clap::Args;
use std::num::NonZeroUsize;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct SweepArgs {
    /// The recipe, .yaml, of a grid of repairs or of training; without one, the embedded network with every allocation and every repair
    pub recipe: Option<PathBuf>,
    /// The study's folder: journal, study.json, report.html, tables, figures
    #[arg(short, long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Cells that are measured at a time, which share the threads; each takes the recipe's memory, or that of a run of training
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
    /// Transition regime: points by which a repair must be better than recalibration [default: 5]
    #[arg(long, value_name = "POINTS", allow_negative_numbers = true)]
    pub delta: Option<f64>,
    /// Transition regime: share of the way from chance to the dense network that a repair must reach [default: 0.1]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub kappa: Option<f64>,
    /// Share of the dense variance below which a layer is dead [default: 0.01]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub dead: Option<f64>,
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
    /// Models, reports (report.json), run folders, studies, or times of models as `resprout bench --json` writes them
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
    /// Write a page with accuracy or agreement against latency, as a picture
    #[arg(long, value_name = "FILE")]
    pub page: Option<PathBuf>,
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
