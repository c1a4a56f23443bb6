//! Grids of training.

use super::{STUDY, measure, report_failures};
use crate::args::SweepArgs;
use crate::commands::train::{TrainImages, open_model};
use crate::commands::write_json;
use crate::render::{text, train_study_page, train_study_words};
use resprout::formats::atomic;
use resprout::progress::Progress;
use resprout::study::schedule::Share;
use resprout::{Error, ErrorKind, Result};
use resprout_train::study::{self, Source, TrainAnalysis, TrainRecord, TrainStudy};
use serde_json::Value;

/// Fails on options that only grids of repairs have.
pub fn check_options(args: &SweepArgs) -> Result<()> {
    let given = [
        ("--delta", args.delta.is_some()),
        ("--kappa", args.kappa.is_some()),
        ("--dead", args.dead.is_some()),
        ("--at-most-loss", args.at_most_loss.is_some()),
        ("--at-most-bytes", args.at_most_bytes.is_some()),
        ("--at-least-speedup", args.at_least_speedup.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(Error::new(ErrorKind::Option, format!("{option}: goes with grids of repairs, not of training"))),
        None => Ok(()),
    }
}

pub fn run(args: &SweepArgs, study: &TrainStudy, json: Value, progress: &dyn Progress) -> anyhow::Result<()> {
    let place = args.recipe.as_ref().map_or(String::new(), |path| format!("{}: train: data", path.display()));
    let images = open_images(study).map_err(|e| e.at(place))?;
    let open = |recipe: &_| {
        let data = images.split(recipe);
        Ok((open_model(recipe, &data)?, data))
    };
    let source = Source { sha256: images.sha256()?, open: &open };
    let share = Share { jobs: args.jobs.get(), shard: args.shard };
    let outcome =
        measure(args, &json, |done, journal| study::run(study, &source, &args.output, done, journal, &share, progress))?;
    if args.shard.is_none() {
        let records: Vec<TrainRecord> = outcome.lines.into_iter().map(|(_, record, _)| record).collect();
        let analysis = TrainAnalysis::new(&records, outcome.failures.clone(), json);
        atomic::write(&args.output.join(STUDY), &serde_json::to_vec(&analysis)?)?;
        train_study_page::write(&analysis, &args.output)?;
        if write_json(&analysis, args.json.as_deref())? {
            text::train_study(&analysis, outcome.measured, &args.output);
            text::warnings(&images.left_out().collect::<Vec<_>>());
        }
    }
    report_failures(outcome.failures.iter().map(train_study_words::failure), args)
}

/// The images of all cells. Cells are compared on test images, so that there must be some.
fn open_images(study: &TrainStudy) -> Result<TrainImages> {
    let images = TrainImages::open(&study.recipe)?;
    match images.has_test() {
        true => Ok(images),
        false => Err(Error::new(
            ErrorKind::Option,
            format!("{}: has no test images to compare on; name them with test", study.recipe.data),
        )),
    }
}
