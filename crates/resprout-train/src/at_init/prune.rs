//! The loop that prunes by any method.

use super::method::{Input, LabelledImages, Method, Scores};
use crate::error::{data, option};
use crate::loader::{self, Augment, Examples};
use rayon::prelude::*;
use resprout::Result;
use resprout::model::{Model, Prunable};
use resprout::progress::Progress;
use resprout::prune::{PruneOptions, prune_by_scores};
use resprout::select::kept_of_all;
use resprout::tensor::Tensor;

/// Prunes `model` in place and returns the last round's scores. `method` replaces the criterion of `options`, and its rounds the
/// sparsity.
///
/// # Errors
/// Of kind `Option` for too few batches, or a sparsity that leaves fewer weights than layers. Of kind `Data` for scores that are
/// missing or not finite. Otherwise as [`gradients()`](crate::gradients()), and `Interrupted`.
pub fn prune_at_init(
    model: &mut Model,
    method: &Method,
    options: &PruneOptions,
    input: &Input,
    progress: &dyn Progress,
) -> Result<Scores> {
    if input.batches.len() < method.batches {
        return Err(option(format!(
            "pruning at initialisation: {} batches of images are needed, {} are there",
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

/// Up to `count` batches of `batch` training images without augmentation, in an order that no epoch uses.
///
/// # Errors
/// As [`Examples::epoch`], and those of images that cannot be loaded.
pub fn batches(examples: &Examples, count: usize, batch: usize, seed: u64) -> Result<Vec<LabelledImages>> {
    let tensor = |batch: Result<loader::Batch>| {
        let loader::Batch { images, shape, labels } = batch?;
        Ok((Tensor::new([&[labels.len()][..], &shape].concat(), images), labels))
    };
    examples.epoch(batch, Augment::default(), seed, u64::MAX - 1, 1)?.take(count).map(tensor).collect()
}

/// Fails on fewer weights than layers, which cannot connect input and output.
fn check_budget(layers: &[Prunable], sparsity: f64) -> Result<()> {
    let total: usize = layers.iter().map(Prunable::len).sum();
    let keep = kept_of_all(total, sparsity);
    if keep < layers.len() {
        return Err(option(format!("sparsity {sparsity}: leaves {keep} weights for {} layers", layers.len())));
    }
    Ok(())
}

/// The scores in the order of the layers. They are shifted if the lowest is negative, because allocations take none below zero.
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
