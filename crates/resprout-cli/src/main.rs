//! The command `resprout`: a map of what it can do, one function per command.
#![forbid(unsafe_code)]

#[macro_use]
mod output;
mod args;
mod commands;
mod download;
mod embedded;
mod progress;
mod render;
mod reports;

use anyhow::Context;
use args::{Cli, Command, DataCommand};
use clap::Parser;
use resprout::{Error, ErrorKind};
use std::num::NonZeroUsize;
use std::process::ExitCode;

/// Exit codes: 0 done, 1 failed, 2 wrong usage.
fn main() -> ExitCode {
    resprout_kernels::memory::give_back_large_blocks();
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let usage = error.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::Option);
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let progress = progress::Terminal::new(cli.quiet)?;
    let mut pool = rayon::ThreadPoolBuilder::new();
    if let Some(threads) = cli.threads {
        pool = pool.num_threads(threads.get());
    }
    let pool = pool.build().context("cannot start threads")?;
    pool.install(|| match &cli.command {
        Command::Prune(args) => commands::prune::run(args, &progress),
        Command::Eval(args) => commands::eval::run(args, &progress),
        Command::Run(args) => commands::run::run(args, rayon::current_num_threads(), &progress),
        Command::Bench(args) => commands::bench::run(args, cli.threads.map(NonZeroUsize::get), &progress),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Train(args) => commands::train::run(args, &progress),
        Command::Score(args) => commands::score::run(args, &progress),
        Command::Sweep(args) => commands::sweep::run(args, cli.threads.map(NonZeroUsize::get), &progress),
        Command::Compare(args) => commands::compare::run(args, &progress),
        Command::Convert(args) => commands::convert::run(args),
        Command::Data { command: DataCommand::Fetch(args) } => commands::data::fetch(args, &progress),
        Command::List(args) => commands::list::run(args),
        Command::Demo(args) => commands::demo::run(args, &progress),
        Command::Completions(args) => commands::shell::completions(args),
        Command::Man(args) => commands::shell::man(args),
    })
}
