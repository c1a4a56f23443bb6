//! `resprout train --bench`: the time of a step, layer by layer.

use super::bench::timing::times;
use crate::reports::train_bench::{TrainBenchReport, TrainBenchRow};
use resprout::model::Model;
use resprout::progress::{Progress, Quiet};
use resprout::prune::prune;
use resprout::report::SCHEMA_VERSION;
use resprout::session::cpu_name;
use resprout::{Error, Result};
use resprout_train::bench::{StepTimes, Stepper, time};
use resprout_train::recipe::Recipe;
use resprout_train::run::Data;

/// Times steps on the first training images: of the network as it is, and as the recipe's criterion and allocation prune it at once.
pub fn run(
    model: &Model,
    recipe: &Recipe,
    data: &Data,
    rounds: usize,
    threads: usize,
    progress: &dyn Progress,
) -> Result<TrainBenchReport> {
    let examples = &data.train;
    let first: Vec<usize> = examples.indices.iter().copied().cycle().take(recipe.batch).collect();
    let images = examples.set.load_picked(&first, examples.channels, &examples.preprocess)?;
    let labels: Vec<usize> = examples.labels()?.into_iter().cycle().take(recipe.batch).collect();
    let image = examples.image()?;
    let stepper = |model: &Model| Stepper::new(model, image, recipe.batch, recipe.optimiser());
    let (mut networks, mut steppers) = (vec![("dense", 0.0)], vec![stepper(model)?]);
    examples.check_labels(steppers[0].classes())?;
    if recipe.sparsity > 0.0 {
        let mut pruned = model.clone();
        let outcome = prune(&mut pruned, &recipe.prune_options(recipe.sparsity, false), &Default::default(), &Quiet)?;
        networks.push(("pruned", outcome.sparsity()));
        steppers.push(stepper(&pruned)?);
    }
    let timed = time(&mut steppers, &images.data, &labels, recipe.rate, rounds, progress)?;
    let row = |((name, sparsity), timed): ((&'static str, f64), StepTimes)| TrainBenchRow {
        name,
        sparsity,
        step: times(&timed.seconds, recipe.batch),
        layers: timed.layers,
    };
    Ok(TrainBenchReport {
        schema_version: SCHEMA_VERSION,
        tool_version: env!("CARGO_PKG_VERSION"),
        network: recipe.arch.clone().or_else(|| recipe.model.clone()).unwrap_or_default(),
        cpu: cpu_name(),
        threads,
        batch: recipe.batch,
        image,
        rounds,
        peak: resprout_kernels::engine::peak(threads).map_err(|e| Error::data(format!("cannot start threads: {e}")))?,
        networks: networks.into_iter().zip(timed).map(row).collect(),
    })
}
