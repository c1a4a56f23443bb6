//! Pruning at initialisation: masks from a network that has not been trained.
//!
//! A method is a list of rounds (the sparsity after each) and a score; the loop, the selection and the
//! allocation are the same for all.

pub mod ablation;
mod criterion;
mod grasp;
mod snip;
mod synflow;

use crate::error::{data, option};
use crate::gradients::gradients_at;
use crate::loader::{self, Augment, Examples};
use crate::engine::{Hold, Mode};
use rayon::prelude::*;
use resprout::Result;
use resprout::model::{Model, Prunable};
use resprout::progress::Progress;
use resprout::prune::{PruneOptions, prune_by_scores};
use resprout::select::kept_of_all;
use resprout::table::{self, Entry, OptionSpec, Options};
use resprout::tensor::Tensor;
use std::collections::BTreeMap;

/// Labelled, preprocessed images that are scored together: `[N, C, H, W]` and one class each.
pub type LabelledImages = (Tensor, Vec<usize>);

/// What scores are computed from.
pub struct Input<'a> {
    /// Labelled images, for methods that look at any.
    pub batches: &'a [LabelledImages],
    /// Channels, height and width of an image.
    pub image: [usize; 3],
    /// A row of the devices.
    pub device: &'a str,
    /// Seed of random scores.
    pub seed: u64,
}

/// Scores by parameter name: finite, the higher the more worth keeping.
pub type Scores = BTreeMap<String, Vec<f64>>;

/// Scores the weights of a network.
pub trait Score {
    /// A score for each weight of `layers`. `model` is masked, `fresh` has the weights of before.
    fn score(&self, model: &Model, fresh: &Model, layers: &[Prunable], input: &Input) -> Result<Scores>;

    /// Changes the weights before a round.
    fn rescale(&self, _model: &mut Model) -> Result<()> {
        Ok(())
    }
}

/// A method that is ready to run.
pub struct Method {
    /// The sparsity after each round, rising to the one asked for.
    pub rounds: Vec<f64>,
    /// Whether weights that are pruned in one round may come back in the next.
    pub returns: bool,
    /// Batches of labelled images that it looks at.
    pub batches: usize,
    /// What it scores by.
    pub score: Box<dyn Score>,
}

/// Builds a method for a sparsity.
pub type Build = fn(&Options, sparsity: f64) -> Result<Method>;

/// All methods of pruning at initialisation.
pub static AT_INIT: &[Entry<Build>] = &[
    criterion::MAGNITUDE,
    criterion::RANDOM,
    snip::SNIP,
    snip::ITERATIVE,
    snip::FORCE,
    grasp::ENTRY,
    synflow::SYNFLOW,
    synflow::RESYNFLOW,
];

/// The method that a text names.
pub fn find(text: &str, sparsity: f64) -> Result<Method> {
    let (entry, options) = table::find(AT_INIT, "--prune-at-init", text)?;
    (entry.build)(&options, sparsity)
}

/// Prunes `model` in place and returns the last round's scores. The options' criterion is not used: `method` is.
pub fn prune_at_init(
    model: &mut Model,
    method: &Method,
    options: &PruneOptions,
    input: &Input,
    progress: &dyn Progress,
) -> Result<Scores> {
    if input.batches.len() < method.batches {
        return Err(option(format!(
            "--prune-at-init: {} batches of images are needed, {} are there",
            method.batches,
            input.batches.len()
        )));
    }
    let (layers, _) = model.prunable(&options.rule)?;
    check_budget(&layers, options.sparsity)?;
    let fresh = model.clone();
    let mut last = Scores::new();
    progress.begin("score", method.rounds.len() as u64);
    for (round, &sparsity) in method.rounds.iter().enumerate() {
        progress.check()?;
        method.score.rescale(model)?;
        let scores = method.score.score(model, &fresh, &layers, input)?;
        if round + 1 == method.rounds.len() {
            last = scores.clone();
        }
        let lists = in_order(scores, &layers)?;
        if method.returns {
            *model = fresh.clone();
        }
        prune_by_scores(model, &PruneOptions { sparsity, ..options.clone() }, lists)?;
        progress.advance(1);
    }
    progress.end();
    Ok(last)
}

/// Up to `count` batches of training images as they are, in an order that no epoch has.
pub fn batches(examples: &Examples, count: usize, batch: usize, seed: u64) -> Result<Vec<LabelledImages>> {
    let tensor = |batch: Result<loader::Batch>| {
        let loader::Batch { images, shape, labels } = batch?;
        Ok((Tensor::new([&[labels.len()][..], &shape].concat(), images), labels))
    };
    examples.epoch(batch, Augment::default(), seed, u64::MAX - 1, 1)?.take(count).map(tensor).collect()
}

/// Fewer weights than layers cannot connect the network's ends.
fn check_budget(layers: &[Prunable], sparsity: f64) -> Result<()> {
    let total: usize = layers.iter().map(Prunable::len).sum();
    let keep = kept_of_all(total, sparsity);
    if keep < layers.len() {
        return Err(option(format!("--sparsity {sparsity}: leaves {keep} weights for {} layers", layers.len())));
    }
    Ok(())
}

/// Lists in the layers' order, moved up where the lowest is negative: allocations take none below zero.
fn in_order(mut scores: Scores, layers: &[Prunable]) -> Result<Vec<Vec<f64>>> {
    let list =
        |layer: &Prunable| scores.remove(&layer.param).ok_or_else(|| data(format!("layer {:?}: has no scores", layer.layer)));
    let mut lists: Vec<Vec<f64>> = layers.iter().map(list).collect::<Result<_>>()?;
    let lowest = |(layer, list): (&Prunable, &Vec<f64>)| match list.iter().find(|score| !score.is_finite()) {
        Some(score) => Err(data(format!("layer {:?}: a score is {score}", layer.layer))),
        None => Ok(list.iter().copied().fold(0.0, f64::min)),
    };
    let lowest: Vec<f64> = layers.par_iter().zip(&lists).map(lowest).collect::<Result<_>>()?;
    let lowest = lowest.into_iter().fold(0.0, f64::min);
    if lowest < 0.0 {
        lists.par_iter_mut().flatten().for_each(|score| *score -= lowest);
    }
    Ok(lists)
}

/// The gradients of the mean loss over all batches with respect to the layers' weights, by batch statistics.
fn mean_gradients(model: &Model, layers: &[Prunable], input: &Input) -> Result<Scores> {
    mean_gradients_with(model, layers, input, 1.0, |_| Hold::Free)
}

/// The same with logits divided by a temperature, and with the gates of each batch noted or held.
fn mean_gradients_with<'g>(
    model: &Model,
    layers: &[Prunable],
    input: &Input,
    temperature: f64,
    mut hold: impl FnMut(usize) -> Hold<'g>,
) -> Result<Scores> {
    let mut sums: Scores = layers.iter().map(|layer| (layer.param.clone(), vec![0.0; layer.len()])).collect();
    for (index, (images, labels)) in input.batches.iter().enumerate() {
        let gradients = gradients_at(model, images, labels, Mode::Training, temperature, hold(index), input.device)?;
        for (name, sum) in &mut sums {
            let gradient =
                gradients.by_name.get(name).ok_or_else(|| data(format!("{name:?}: the loss does not depend on it")))?;
            if gradient.data.iter().any(|value| !value.is_finite()) {
                return Err(data(format!("{name:?}: its gradient is not finite")));
            }
            let share = 1.0 / input.batches.len() as f64;
            sum.iter_mut().zip(&gradient.data).for_each(|(sum, &value)| *sum += f64::from(value) * share);
        }
    }
    Ok(sums)
}

const ROUNDS: OptionSpec = OptionSpec { name: "rounds", about: "how many times it scores and prunes", default: "10" };
const BATCHES: OptionSpec = OptionSpec { name: "batches", about: "batches of labelled images to score by", default: "1" };
const SCHEDULE: OptionSpec = OptionSpec {
    name: "schedule",
    about: "how the density falls over the rounds: exponential (by equal factors) or linear (by equal steps)",
    default: "exponential",
};

fn whole(options: &Options, name: &str) -> Result<usize> {
    options.parse(name, "a whole number from 1 on", |&value: &usize| value > 0)
}

/// The sparsity after each round.
fn rounds(options: &Options, sparsity: f64) -> Result<Vec<f64>> {
    let count = whole(options, "rounds")?;
    let share = |round: usize| round as f64 / count as f64;
    let at: fn(f64, f64) -> f64 = match options.text("schedule") {
        "exponential" => |sparsity, share| 1.0 - (1.0 - sparsity).powf(share),
        "linear" => |sparsity, share| sparsity * share,
        _ => return Err(options.error("schedule", "exponential or linear")),
    };
    Ok((1..=count).map(|round| if round == count { sparsity } else { at(sparsity, share(round)) }).collect())
}
