//! What can be typed. No work is done here.

mod compress;
mod files;
mod images;
mod inference;
mod network;
mod program;
mod prune;
mod study;
mod training;

pub use compress::{CompressArgs, Patterns};
pub use files::{ConvertArgs, Format, WriteArgs};
pub use images::{CalibrationCount, ImageArgs};
pub use inference::{BenchArgs, EvalArgs, InspectArgs, RunArgs, SessionArgs};
pub use network::{NetworkArgs, SourceArgs};
pub use program::{CompletionsArgs, DataCommand, DemoArgs, FetchArgs, ListArgs, ManArgs};
pub use prune::PruneArgs;
pub use study::{CompareArgs, Launcher, SweepArgs, TableFormat};
pub use training::{ScoreArgs, TrainArgs};

use clap::{Parser, Subcommand};
use std::num::NonZeroUsize;

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
    /// Find the network that keeps a wish: fast or small enough, and losing least
    #[command(
        after_help = "Examples:\n  resprout compress model.onnx --calibration images/ --faster 2 --max-loss 1 -o small\n  resprout compress model.onnx --calibration images/ --file-size 4MB --budget 60 -o small"
    )]
    Compress(Box<CompressArgs>),
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
    /// Measure a grid of ways to prune and repair, or to train; killed, the same command goes on; a report to look at
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
    /// Show every method, architecture, kind of data, schedule and instruction set
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
