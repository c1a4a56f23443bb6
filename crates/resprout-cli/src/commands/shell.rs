//! `resprout completions` and `resprout man`: what a shell and `man` want to know of this program, from its arguments.

use super::check_writable;
use crate::args::{Cli, CompletionsArgs, ManArgs};
use clap::CommandFactory;
use resprout::formats::atomic;
use resprout::{Error, ErrorKind};
use std::io::Write;

/// Prints the completions of a shell.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "resprout", &mut script);
    // A reader that has had enough is no error.
    let _ = std::io::stdout().write_all(&script);
    Ok(())
}

/// Writes a page for the program and one for each command.
pub fn man(args: &ManArgs) -> anyhow::Result<()> {
    if args.output.exists() && !args.output.is_dir() {
        let message = format!("--output {}: is a file, a folder is needed", args.output.display());
        return Err(Error::new(ErrorKind::Option, message).into());
    }
    std::fs::create_dir_all(&args.output).map_err(|e| Error::io(&args.output, e))?;
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    for (name, command) in pages("resprout".into(), program) {
        let mut page = Vec::new();
        clap_mangen::Man::new(command.display_name(&name)).render(&mut page)?;
        let path = args.output.join(format!("{name}.1"));
        check_writable(&path, "--output")?;
        atomic::write(&path, &page)?;
        outln!("{}", path.display());
    }
    Ok(())
}

/// A command and all below it, by the names that their pages have: `resprout-data-fetch`.
fn pages(name: String, command: clap::Command) -> Vec<(String, clap::Command)> {
    let below: Vec<(String, clap::Command)> = command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
        .flat_map(|below| pages(format!("{name}-{}", below.get_name()), below.clone()))
        .collect();
    [vec![(name, command)], below].concat()
}
