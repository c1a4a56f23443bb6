//! The command `resprout` as a function, for the program and for packages that carry it: a map of what it can do, one function
//! per command.
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
use std::ffi::OsString;
use std::num::NonZeroUsize;

/// Runs the command with these arguments, the program's name first, and returns the exit code: 0 done, 1 failed, 2 wrong usage.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and versions are errors of the parser too, with exit code 0. Who has closed the output needs no message.
            let _ = error.print();
            return error.exit_code().try_into().unwrap_or(2);
        }
    };
    match run(&cli) {
        Ok(()) => 0,
        Err(error) => {
            let kind = error.downcast_ref::<Error>().map(Error::kind);
            let text = message(&error);
            let kept = if text == INTERRUPTED { kept(&cli.command) } else { "" };
            eprintln!("error: {text}{kept}");
            if kind == Some(ErrorKind::Option) { 2 } else { 1 }
        }
    }
}

/// The library's message where a run of it was stopped, which cannot say what the command has kept.
const INTERRUPTED: &str = "interrupted";

/// What an interrupted command has kept.
fn kept(command: &Command) -> &'static str {
    match command {
        Command::Prune(args) if args.checkpoint.is_some() => "; finished steps are kept, and the same command goes on",
        Command::Compress(_) => "; measured networks are kept, and the same command goes on",
        _ => "; nothing was written",
    }
}

/// The messages of an error, from the outside in. One of the library says all itself, with what caused it.
fn message(error: &anyhow::Error) -> String {
    let own = error.chain().position(|cause| cause.is::<Error>());
    let causes = error.chain().take(own.map_or(usize::MAX, |own| own + 1));
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
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
        Command::Compress(args) => commands::compress::run(args, rayon::current_num_threads(), &progress),
        Command::Eval(args) => commands::eval::run(args, &progress),
        Command::Run(args) => commands::run::run(args, rayon::current_num_threads(), &progress),
        Command::Bench(args) => commands::bench::run(args, cli.threads.map(NonZeroUsize::get), &progress),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Train(args) => commands::train::run(args, rayon::current_num_threads(), &progress),
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
