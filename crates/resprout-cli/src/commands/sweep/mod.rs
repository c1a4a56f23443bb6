//! `resprout sweep`: a grid of ways to prune and repair, or to train, measured once, kept, analysed and shown.

mod recipe;
mod slurm;
mod training;

use super::{check_json_target, write_json};
use crate::args::{Launcher, SweepArgs};
use crate::render::{study_page, text};
use anyhow::bail;
use recipe::{StudyRecipe, SweepRecipe};
use resprout::formats::atomic;
use resprout::progress::Progress;
use resprout::study::recommend::Constraints;
use resprout::study::regime::Thresholds;
use resprout::study::schedule::{Done, RunOutcome};
use resprout::study::{self, Analysis, Journal, Record, StudyOptions, journal};
use resprout::{Error, ErrorKind, Result};
use resprout_train::REPAIRS;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// The journal of a whole sweep.
const JOURNAL: &str = "journal.jsonl";
/// The study as data.
pub const STUDY: &str = "study.json";

pub fn run(args: &SweepArgs, threads: Option<usize>, progress: &dyn Progress) -> anyhow::Result<()> {
    let recipe = SweepRecipe::read(args.recipe.as_deref())?;
    let (thresholds, constraints) = (thresholds(args)?, constraints(args)?);
    check_json_target(args.json.as_deref())?;
    if matches!(recipe, SweepRecipe::Training(_)) {
        training::check_options(args)?;
    }
    if args.launcher == Launcher::Slurm {
        create(&args.output)?;
        return Ok(slurm::submit(args, threads)?);
    }
    let json = recipe.to_json()?;
    match recipe {
        SweepRecipe::Repairs(recipe) => repairs(args, &recipe, json, thresholds, constraints, progress),
        SweepRecipe::Training(study) => training::run(args, &study, json, progress),
    }
}

/// A grid of ways to prune and repair trained networks.
fn repairs(
    args: &SweepArgs,
    recipe: &StudyRecipe,
    json: Value,
    thresholds: Thresholds,
    constraints: Constraints,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let (mut failures, mut notes) = (Vec::new(), recipe.grid.notes());
    let outcome = measure(args, &json, |done, journal| {
        let (subjects, unusable, more) = recipe.subjects()?;
        failures.extend(unusable);
        notes.extend(more);
        let options = StudyOptions {
            jobs: args.jobs.get(),
            memory: recipe.memory_bytes(),
            diagnostic_images: recipe.diagnostic_images,
            repair_rows: REPAIRS,
            shard: args.shard,
        };
        study::run(&subjects, done, journal, &options, progress)
    })?;
    failures.extend(outcome.failures);
    if args.shard.is_none() {
        let records: Vec<Record> = outcome.lines.into_iter().map(|(_, record, _)| record).collect();
        let analysis = Analysis::new(&records, failures.clone(), json, thresholds, constraints, notes);
        atomic::write(&args.output.join(STUDY), &serde_json::to_vec(&analysis)?)?;
        study_page::write(&analysis, &args.output)?;
        if write_json(&analysis, args.json.as_deref())? {
            text::study(&analysis, outcome.measured, &args.output);
        }
    }
    report_failures(failures.iter().map(|failure| format!("{}: {}", failure.cell.model, failure.error)), args)
}

fn create(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))
}

/// Measures what the journals of the folder do not have. Without shards their lines become one journal.
fn measure<C, R>(
    args: &SweepArgs,
    recipe: &Value,
    run: impl FnOnce(Done<C, R>, &Journal) -> Result<RunOutcome<C, R>>,
) -> Result<RunOutcome<C, R>>
where
    Record<C, R>: DeserializeOwned,
{
    create(&args.output)?;
    let own = args.output.join(match args.shard {
        Some((part, parts)) => format!("journal-{part}-of-{parts}.jsonl"),
        None => JOURNAL.into(),
    });
    let journals = Journals::open(args, &own)?;
    atomic::write(&args.output.join("recipe.json"), format!("{recipe:#}\n").as_bytes())?;
    let outcome = run(journals.merged, &journals.own)?;
    if args.shard.is_none() {
        // The same cells give the same file, in whatever order and on however many machines they were measured.
        let keys: HashSet<&str> = outcome.lines.iter().map(|(key, _, _)| key.as_str()).collect();
        let others = journals.lines.iter().filter(|(key, _)| !keys.contains(key.as_str())).map(|(_, line)| line.as_str());
        journal::write(&own, outcome.lines.iter().map(|(_, _, line)| line.as_str()).chain(others))?;
    } else if args.json.as_deref() != Some(Path::new("-")) {
        outln!("{} cells measured; {} holds this shard", outcome.measured, own.display());
    }
    Ok(outcome)
}

/// Fails if any cell has.
fn report_failures(failures: impl ExactSizeIterator<Item = String>, args: &SweepArgs) -> anyhow::Result<()> {
    let count = failures.len();
    failures.for_each(|failure| eprintln!("failed: {failure}"));
    if count > 0 {
        bail!("{count} of the study could not be measured; all else is in {}", args.output.display());
    }
    Ok(())
}

/// The journals that are there.
struct Journals<C, R> {
    own: Journal,
    merged: Done<C, R>,
    /// Keys and lines, sorted.
    lines: Vec<(String, String)>,
}

impl<C, R> Journals<C, R>
where
    Record<C, R>: DeserializeOwned,
{
    /// Those of the output folder, this shard's own first, and those that are named.
    fn open(args: &SweepArgs, own: &Path) -> Result<Journals<C, R>> {
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
            let mut lines = journal::read::<Record<C, R>>(path)?;
            if args.repair_journal && !lines.corrupt.is_empty() && lines.foreign.is_empty() {
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
    let given = |value: Option<f64>, most: f64, option: &str| value.map(|value| within(value, most, option)).transpose();
    let Thresholds { delta, kappa, dead } = Thresholds::default();
    Ok(Thresholds {
        delta: given(args.delta, 100.0, "--delta")?.map_or(delta, |points| points / 100.0),
        kappa: given(args.kappa, 1.0, "--kappa")?.unwrap_or(kappa),
        dead: given(args.dead, 1.0, "--dead")?.unwrap_or(dead),
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
