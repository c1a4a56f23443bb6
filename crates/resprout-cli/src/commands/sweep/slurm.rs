//! A sweep as an array job of a Slurm cluster, and a job behind it that merges and reports.

use crate::args::SweepArgs;
use resprout::formats::atomic;
use resprout::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Writes both scripts into the output folder and hands them to `sbatch`.
pub fn submit(args: &SweepArgs, threads: Option<usize>) -> Result<()> {
    let program = std::env::current_exe().map_err(|e| Error::io(Path::new("resprout"), e))?;
    let command = [quoted(&program), "--quiet".into()].into_iter().chain(threads.map(|n| format!("--threads {n}")));
    let command: Vec<String> = command.chain(["sweep".into()]).chain(arguments(args)?).collect();
    let command = command.join(" ");
    let shards = args.shards.get();
    let array = script(
        args,
        "sweep",
        &format!("#SBATCH --array=1-{shards}\n"),
        "%a",
        &format!("{command} --shard \"$SLURM_ARRAY_TASK_ID/{shards}\""),
    )?;
    let merge = script(args, "merge", "", "merge", &command)?;
    let job = sbatch(&[], &array)?;
    // Whatever has failed in the array is tried again by the last job, which reports what fails for good.
    let last = sbatch(&[&format!("--dependency=afterany:{job}")], &merge)?;
    outln!("array job {job} of {shards} shards, then job {last}, which merges and reports to {}", args.output.display());
    Ok(())
}

/// What the jobs are told of the options given here.
fn arguments(args: &SweepArgs) -> Result<Vec<String>> {
    let mut words = Vec::new();
    if let Some(recipe) = &args.recipe {
        words.push(quoted(&absolute(recipe)?));
    }
    words.push(format!("--output {}", quoted(&absolute(&args.output)?)));
    words.push(format!("--jobs {}", args.jobs));
    for (option, value) in [("delta", args.delta), ("kappa", args.kappa), ("dead", args.dead)] {
        words.extend(value.map(|value| format!("--{option}={value}")));
    }
    words.extend(args.at_most_loss.map(|loss| format!("--at-most-loss={loss}")));
    words.extend(args.at_most_bytes.as_ref().map(|bytes| format!("--at-most-bytes={}", bytes.0)));
    words.extend(args.at_least_speedup.map(|factor| format!("--at-least-speedup={factor}")));
    words.extend(args.json.as_ref().map(|path| absolute(path).map(|path| format!("--json {}", quoted(&path)))).transpose()?);
    Ok(words)
}

fn script(args: &SweepArgs, name: &str, more: &str, log: &str, command: &str) -> Result<PathBuf> {
    let output = absolute(&args.output)?;
    let options: String = args.slurm_option.iter().map(|option| format!("#SBATCH {option}\n")).collect();
    let log = output.join(format!("slurm-{log}.log"));
    let text = format!(
        "#!/bin/sh\n#SBATCH --job-name=resprout-{name}\n#SBATCH --output={}\n{more}{options}exec {command}\n",
        quoted_for_sbatch(&log)
    );
    let path = output.join(format!("{name}.sbatch"));
    atomic::write(&path, text.as_bytes())?;
    Ok(path)
}

fn sbatch(options: &[&str], script: &Path) -> Result<String> {
    let output = Command::new("sbatch").arg("--parsable").args(options).arg(script).output();
    let failed =
        |why: String| Error::new(ErrorKind::Io, format!("--launcher slurm: sbatch {why}; the script is {}", script.display()));
    let output = output.map_err(|e| failed(format!("cannot be started ({e})")))?;
    if !output.status.success() {
        return Err(failed(format!("failed: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    // `job` or `job;cluster`.
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.trim().split(';').next().unwrap_or_default().to_string())
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io(path, e))
}

/// For the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// For an `#SBATCH` line, where a percent sign begins a pattern.
fn quoted_for_sbatch(path: &Path) -> String {
    let text = path.display().to_string();
    let (folder, file) = text.rsplit_once('/').unwrap_or(("", &text));
    format!("\"{}/{file}\"", folder.replace('%', "%%"))
}
