//! `resprout sweep`: a grid of ways to prune and repair, measured once, kept, analysed and shown.

mod recipe;
mod slurm;

use super::{check_json_target, write_json};
use crate::args::{Launcher, SweepArgs};
use crate::render::{study_page, text};
use anyhow::bail;
use recipe::StudyRecipe;
use resprout::formats::atomic;
use resprout::progress::Progress;
use resprout::study::recommend::Constraints;
use resprout::study::regime::Thresholds;
use resprout::study::{self, Analysis, Journal, Record, StudyOptions, journal};
use resprout::{Error, ErrorKind, Result};
use resprout_train::REPAIRS;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// The journal of a whole sweep.
const JOURNAL: &str = "journal.jsonl";
/// The study as data.
pub const STUDY: &str = "study.json";

pub fn run(args: &SweepArgs, threads: Option<usize>, progress: &dyn Progress) -> anyhow::Result<()> {
    let recipe = StudyRecipe::read(args.recipe.as_deref())?;
    let (thresholds, constraints) = (thresholds(args)?, constraints(args)?);
    check_json_target(args.json.as_deref())?;
    std::fs::create_dir_all(&args.output).map_err(|e| Error::io(&args.output, e))?;
    if args.launcher == Launcher::Slurm {
        return Ok(slurm::submit(args, threads)?);
    }
    let own = args.output.join(match args.shard {
        Some((part, parts)) => format!("journal-{part}-of-{parts}.jsonl"),
        None => JOURNAL.into(),
    });
    let journals = Journals::open(args, &own)?;
    let json = recipe.to_json()?;
    atomic::write(&args.output.join("recipe.json"), format!("{json:#}\n").as_bytes())?;

    let (subjects, mut failures, notes) = recipe.subjects()?;
    let options = StudyOptions {
        jobs: args.jobs.get(),
        memory: recipe.memory_bytes(),
        diagnostic_images: recipe.diagnostic_images,
        repair_rows: REPAIRS,
        shard: args.shard,
    };
    let outcome = study::run(&subjects, journals.merged, &journals.own, &options, progress)?;
    failures.extend(outcome.failures);
    if args.shard.is_none() {
        // The same cells give the same file, in whatever order and on however many machines they were measured.
        let keys: HashSet<&str> = outcome.lines.iter().map(|(key, _, _)| key.as_str()).collect();
        let others = journals.lines.iter().filter(|(key, _)| !keys.contains(key.as_str())).map(|(_, line)| line.as_str());
        journal::write(&own, outcome.lines.iter().map(|(_, _, line)| line.as_str()).chain(others))?;
        let records: Vec<Record> = outcome.lines.into_iter().map(|(_, record, _)| record).collect();
        let analysis =
            Analysis::new(&records, failures.clone(), json, thresholds, constraints, [recipe.grid.notes(), notes].concat());
        atomic::write(&args.output.join(STUDY), &serde_json::to_vec(&analysis)?)?;
        study_page::write(&analysis, &args.output)?;
        if write_json(&analysis, args.json.as_deref())? {
            text::study(&analysis, outcome.measured, &args.output);
        }
    } else if args.json.as_deref() != Some(Path::new("-")) {
        outln!("{} cells measured; {} holds this shard", outcome.measured, own.display());
    }
    if !failures.is_empty() {
        failures.iter().for_each(|failure| eprintln!("failed: {}: {}", failure.cell.model, failure.error));
        bail!("{} of the study could not be measured; all else is in {}", failures.len(), args.output.display());
    }
    Ok(())
}

/// The journals that are there.
struct Journals {
    own: Journal,
    merged: HashMap<String, (Record, String)>,
    /// Keys and lines, sorted.
    lines: Vec<(String, String)>,
}

impl Journals {
    /// Those of the output folder, this shard's own first, and those that are named.
    fn open(args: &SweepArgs, own: &Path) -> Result<Journals> {
        let mut paths = vec![own.to_path_buf()];
        if args.shard.is_none() {
            paths.extend(shards(&args.output)?);
        }
        for path in &args.merge {
            if !path.is_file() {
                return Err(Error::new(ErrorKind::Option, format!("--merge {}: there is no such journal", path.display())));
            }
            paths.push(path.clone());
        }
        let mut all = Vec::new();
        for path in &paths {
            let mut lines = journal::read(path)?;
            if args.repair_journal && !lines.corrupt.is_empty() {
                eprintln!("{}: {} corrupt lines were dropped", path.display(), lines.corrupt.len());
                journal::write(path, lines.lines.iter().map(|(_, _, line)| line.as_str()))?;
                lines.corrupt.clear();
            }
            journal::check(&lines, path)?;
            all.push(lines);
        }
        let journal = Journal::open(own, &all[0])?;
        let merged = journal::merge(all);
        let mut lines: Vec<(String, String)> = merged.iter().map(|(key, (_, line))| (key.clone(), line.clone())).collect();
        lines.sort_unstable();
        Ok(Journals { own: journal, merged, lines })
    }
}

/// Journals of shards in a folder, by name.
fn shards(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_shard = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("journal-") && name.ends_with(".jsonl"))
    };
    let mut paths: Vec<PathBuf> = paths.filter(is_shard).collect();
    paths.sort_unstable();
    Ok(paths)
}

fn thresholds(args: &SweepArgs) -> Result<Thresholds> {
    let within = |value: f64, most: f64, option: &str| match (0.0..=most).contains(&value) {
        true => Ok(value),
        false => Err(Error::new(ErrorKind::Option, format!("{option} {value}: a number from 0 to {most} is needed"))),
    };
    Ok(Thresholds {
        delta: within(args.delta, 100.0, "--delta")? / 100.0,
        kappa: within(args.kappa, 1.0, "--kappa")?,
        dead: within(args.dead, 1.0, "--dead")?,
    })
}

fn constraints(args: &SweepArgs) -> Result<Constraints> {
    let positive = |value: Option<f64>, option: &str| match value {
        Some(value) if !(value >= 0.0 && value.is_finite()) => {
            Err(Error::new(ErrorKind::Option, format!("{option} {value}: a number from 0 on is needed")))
        }
        value => Ok(value),
    };
    Ok(Constraints {
        at_most_loss: positive(args.at_most_loss, "--at-most-loss")?.map(|points| points / 100.0),
        at_most_bytes: args.at_most_bytes.as_ref().map(|bytes| bytes.0),
        at_least_speedup: positive(args.at_least_speedup, "--at-least-speedup")?,
    })
}
