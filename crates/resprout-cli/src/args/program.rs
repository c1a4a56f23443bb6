//! Options of the commands that need no network of the user: `data`, `list`, `demo`, `completions`, `man`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

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
