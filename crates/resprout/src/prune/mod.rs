//! Pruning: score, allocate, select, set to zero.
//!
//! [`prune()`] does it all. [`score_layers`] and [`prune_scored`] do it in two parts, for several sparsities by the same scores.

pub mod channel;
mod options;

pub use options::{OwnMethods, PruneOptions, PruneOutcome, check_sparsity};

use crate::allocation::{LayerScores, Totals};
use crate::criteria::{Criterion, ScoreInput, score_with_images};
use crate::error::{Error, Result};
use crate::model::prunable::NamePattern;
use crate::model::{LeftDense, Mask, Model, Param, Prunable, PrunableRule};
use crate::progress::Progress;
use crate::select::{ScoreList, apply_caps, apply_floors, kept_alone, kept_of_all, mask_with_floor};
use crate::structure::{Pattern, nm};
use crate::tensor::{Tensor, Value};
use rayon::prelude::*;
use std::borrow::Cow;
use std::sync::Arc;

/// Prunes the model in place: fills its mask table and sets pruned weights to 0.0. Weights that an earlier mask has pruned stay
/// pruned, and count.
///
/// `images: [N, C, H, W]` are preprocessed. They are read by criteria that [need them](PruneOptions::needs_images), and may be
/// `Tensor::default()` for others. [`PruneOptions::macs`] counts for images of their shape, or of the one that the model fixes.
///
/// # Errors
/// * `Option` for unknown methods, a sparsity outside of `[0, 1)`, floors or sparsities of layers that cannot be met, and a
///   network without a prunable layer.
/// * `Data` for images, weights or scores that are not finite or do not fit the network.
/// * `Unsupported` where a criterion measures a network that cannot be computed; `Interrupted`.
pub fn prune(model: &mut Model, options: &PruneOptions, images: &Tensor, progress: &dyn Progress) -> Result<PruneOutcome> {
    check_sparsity(options.sparsity, "sparsity")?;
    if options.pattern == Pattern::Channel {
        model.check_finite()?;
        return channel::prune(model, options, images, progress);
    }
    let scored = score_layers(model, options, images, progress)?;
    prune_scored(model, &scored, options)
}

impl PruneOptions {
    /// Whether criterion or allocation read calibration images.
    ///
    /// # Errors
    /// Of kind `Option` for an unknown criterion; `Io`, `Format` or `Data` for a file of scores.
    pub fn needs_images(&self) -> Result<bool> {
        match self.pattern {
            Pattern::Channel => Ok(channel::find(&self.criterion)?.needs_images),
            _ => Ok(self.build_criterion()?.needs_images() || self.measures()),
        }
    }
}

/// The layers that a pattern can prune, and their scores. Prunings to several sparsities share it: see [`score_layers`].
#[doc(hidden)]
pub struct Scored {
    layers: Vec<Prunable>,
    left_dense: Vec<LeftDense>,
    scores: Vec<LayerScore>,
}

impl Scored {
    /// The layers, in order.
    pub(crate) fn layers(&self) -> &[Prunable] {
        &self.layers
    }
}

/// The scores of one layer.
enum LayerScore {
    /// Measured, or given by the caller.
    Held(Vec<f64>),
    /// Computed from the weights on every use.
    ByWeights { criterion: Arc<dyn Criterion>, weights: Arc<Value>, layer: Prunable, index: usize },
}

impl ScoreList for LayerScore {
    fn len(&self) -> usize {
        match self {
            LayerScore::Held(scores) => scores.len(),
            LayerScore::ByWeights { weights, .. } => weights.shape().iter().product(),
        }
    }

    fn scores(&self) -> Cow<'_, [f64]> {
        match self {
            LayerScore::Held(scores) => Cow::Borrowed(scores),
            LayerScore::ByWeights { criterion, weights, layer, index } => {
                let weights = weights.as_f32().map_or(&[][..], |tensor| &tensor.data);
                Cow::Owned(criterion.score(&ScoreInput { weights, layer, index: *index }))
            }
        }
    }
}

/// Scores under an earlier mask. Its pruned weights rank lowest, below kept weights of score 0.
struct Masked<'a> {
    scores: &'a LayerScore,
    mask: Option<Arc<Mask>>,
}

impl ScoreList for Masked<'_> {
    fn len(&self) -> usize {
        self.scores.len()
    }

    fn scores(&self) -> Cow<'_, [f64]> {
        let Some(mask) = &self.mask else { return self.scores.scores() };
        let mut scores = self.scores.scores().into_owned();
        for (score, kept) in scores.iter_mut().zip(&mask.0) {
            *score = if *kept { score.max(f64::MIN_POSITIVE) } else { 0.0 };
        }
        Cow::Owned(scores)
    }
}

/// Scores the model's layers, for [`prune_scored`]. The pattern is any but channels, which [`prune()`] scores itself.
///
/// # Errors
/// As [`prune()`].
#[doc(hidden)]
pub fn score_layers(model: &Model, options: &PruneOptions, images: &Tensor, progress: &dyn Progress) -> Result<Scored> {
    model.check_finite()?;
    let (mut layers, mut left_dense) = model.prunable(&options.rule)?;
    if let Pattern::Nm { m, .. } | Pattern::Mixed { m } = options.pattern {
        layers = nm::divisible(layers, m, &mut left_dense)?;
    }
    if layers.is_empty() {
        let example = left_dense.first().map_or(String::new(), |left| format!(" ({}: {})", left.param, left.reason));
        return Err(Error::option(format!(
            "no layer is left to prune: every layer with weights is ignored or cannot be pruned{example}"
        )));
    }
    let scores = score(model, &layers, options, images, progress)?;
    Ok(Scored { layers, left_dense, scores })
}

/// Prunes the model that was scored to the sparsity of `options`. The pattern is the one of the scores.
///
/// # Errors
/// As [`prune()`].
#[doc(hidden)]
pub fn prune_scored(model: &mut Model, scored: &Scored, options: &PruneOptions) -> Result<PruneOutcome> {
    check_sparsity(options.sparsity, "sparsity")?;
    select(model, scored, options)
}

/// As [`prune_scored`] with scores of the caller: one list per layer that [`Model::prunable`] lists, in its order, finite and
/// not negative. It prunes single weights.
///
/// # Errors
/// As [`prune()`], of kind `Option` for another pattern than [`Pattern::Unstructured`], and of kind `Data` for lists of other
/// lengths.
pub fn prune_by_scores(model: &mut Model, options: &PruneOptions, scores: Vec<Vec<f64>>) -> Result<PruneOutcome> {
    check_sparsity(options.sparsity, "sparsity")?;
    if options.pattern != Pattern::Unstructured {
        return Err(Error::option("pattern: given scores prune single weights alone"));
    }
    let (layers, left_dense) = model.prunable(&options.rule)?;
    if layers.len() != scores.len() {
        return Err(Error::data("the scores are not of this model's prunable layers"));
    }
    layers.par_iter().zip(&scores).try_for_each(|(layer, scores)| check_scores(layer, scores))?;
    let scores = scores.into_iter().map(LayerScore::Held).collect();
    select(model, &Scored { layers, left_dense, scores }, options)
}

/// Fails unless a layer has one score per weight, finite and not negative.
fn check_scores(layer: &Prunable, scores: &[f64]) -> Result<()> {
    let name = &layer.layer;
    if scores.len() != layer.len() {
        return Err(Error::data(format!("layer {name:?}: {} scores for {} weights", scores.len(), layer.len())));
    }
    match scores.iter().find(|score| !(score.is_finite() && **score >= 0.0)) {
        Some(score) => Err(Error::data(format!("layer {name:?}: a score is {score}; it must be finite and not negative"))),
        None => Ok(()),
    }
}

/// Fails unless an allocation gives every layer a count up to its size.
fn check_counts(name: &str, layers: &[LayerScores], counts: &[usize]) -> Result<()> {
    if layers.len() != counts.len() {
        return Err(Error::data(format!("allocation {name}: {} counts for {} layers", counts.len(), layers.len())));
    }
    match layers.iter().zip(counts).find(|(layer, count)| **count > layer.scores.len()) {
        Some((layer, count)) => {
            let (layer, size) = (layer.name, layer.scores.len());
            Err(Error::data(format!("allocation {name}: layer {layer:?} is to keep {count} of {size} weights")))
        }
        None => Ok(()),
    }
}

/// From scores to masks.
fn select(model: &mut Model, scored: &Scored, options: &PruneOptions) -> Result<PruneOutcome> {
    let Scored { layers, left_dense, scores } = scored;
    let masked = |(layer, scores): (&Prunable, _)| Masked { scores, mask: model.masks.shared(&layer.param) };
    let scores: Vec<Masked> = layers.iter().zip(scores).map(masked).collect();
    let budget = match options.pattern {
        Pattern::Nm { .. } => Vec::new(),
        _ => counts(model, layers, &scores, options)?,
    };
    let masks: Vec<Mask> = match options.pattern {
        Pattern::Nm { m, .. } | Pattern::Mixed { m } => {
            let kept = nm::kept_of_group(options.pattern, options.sparsity, layers, &budget);
            let jobs = layers.par_iter().zip(&scores).zip(kept);
            jobs.map(|((layer, scores), n)| nm::mask(layer, &scores.scores(), n, m)).collect()
        }
        _ => {
            let jobs = layers.par_iter().zip(&scores).zip(&budget);
            let mask = |((layer, scores), &kept): ((&Prunable, &Masked), &usize)| {
                mask_with_floor(layer, &scores.scores(), kept, options.min_per_channel, scores.mask.as_deref())
            };
            jobs.map(mask).collect()
        }
    };
    let mut kept = Vec::with_capacity(layers.len());
    for (layer, mut mask) in layers.iter().zip(masks) {
        if let Some(older) = model.masks.get(&layer.param) {
            mask.intersect(older);
        }
        kept.push(mask.kept());
        model.masks.insert(layer.param.clone(), mask);
    }
    model.apply_masks();
    Ok(PruneOutcome { layers: layers.clone(), kept, left_dense: left_dense.clone() })
}

/// The number of prunable weights that earlier masks have left, and the number of all.
///
/// # Errors
/// As [`Model::prunable`], and of kind `Option` if the pattern fits no layer.
#[doc(hidden)]
pub fn weights_left(model: &Model, options: &PruneOptions) -> Result<(usize, usize)> {
    let rule = match options.pattern {
        Pattern::Channel => PrunableRule { include_grouped: true, ..options.rule.clone() },
        _ => options.rule.clone(),
    };
    let (mut layers, mut left_dense) = model.prunable(&rule)?;
    if let Pattern::Nm { m, .. } | Pattern::Mixed { m } = options.pattern {
        layers = nm::divisible(layers, m, &mut left_dense)?;
    }
    Ok((layers.iter().map(|layer| left(model, layer)).sum(), layers.iter().map(Prunable::len).sum()))
}

/// Fails on a sparsity below that of earlier masks, because pruned weights do not come back. Sparsity 0 prunes nothing. n:m and
/// a share of the operations have no sparsity to compare.
///
/// # Errors
/// Of kind `Option`, with the counts, and as [`weights_left`].
#[doc(hidden)]
pub fn check_present(model: &Model, options: &PruneOptions) -> Result<()> {
    if options.sparsity == 0.0 || options.macs.is_some() || options.pattern.sparsity().is_some() {
        return Ok(());
    }
    let (left, total) = weights_left(model, options)?;
    if kept_of_all(total, options.sparsity) <= left {
        return Ok(());
    }
    let gone = total - left;
    Err(Error::option(format!(
        "sparsity {}: {gone} of {total} prunable weights ({:.4} %) are gone already, and stay so; give a higher sparsity, 0 to \
         repair alone, or regrow them",
        options.sparsity,
        100.0 * gone as f64 / total as f64
    )))
}

fn score(
    model: &Model,
    layers: &[Prunable],
    options: &PruneOptions,
    images: &Tensor,
    progress: &dyn Progress,
) -> Result<Vec<LayerScore>> {
    let criterion = options.build_criterion()?;
    if criterion.needs_images() {
        let scores = score_with_images(&*criterion, model, layers, images, progress)?;
        layers.iter().zip(&scores).try_for_each(|(layer, scores)| check_scores(layer, scores))?;
        return Ok(scores.into_iter().map(LayerScore::Held).collect());
    }
    let by_weights = |(index, layer): (usize, &Prunable)| {
        let weights = model.params.get(&layer.param).and_then(Param::value).filter(|value| value.as_f32().is_some());
        let weights =
            weights.ok_or_else(|| Error::data(format!("parameter {:?}: not a tensor of 32-bit floats", layer.param)))?;
        Ok(LayerScore::ByWeights { criterion: criterion.clone(), weights: weights.clone(), layer: layer.clone(), index })
    };
    let scores: Vec<LayerScore> = layers.iter().enumerate().map(by_weights).collect::<Result<_>>()?;
    if !options.has_foreign_scores() {
        return Ok(scores);
    }
    // Scores from outside are not trusted: they are computed once and checked.
    let held = |(layer, score): (&Prunable, &LayerScore)| {
        let scores = score.scores().into_owned();
        check_scores(layer, &scores)?;
        Ok(LayerScore::Held(scores))
    };
    layers.par_iter().zip(&scores).map(held).collect()
}

/// The number of weights that each layer keeps: overrides first, then the allocation, then the floors. No layer keeps more than
/// earlier masks have left; the excess of an allocation goes to the others.
fn counts(model: &Model, layers: &[Prunable], scores: &[Masked], options: &PruneOptions) -> Result<Vec<usize>> {
    let allocation = options.build_allocation()?;
    let caps: Vec<usize> = layers.iter().map(|layer| left(model, layer)).collect();
    let fixed = overrides(layers, &caps, &options.layers)?;
    let total: usize = layers.iter().map(Prunable::len).sum();
    let all_left: usize = caps.iter().sum();
    let keep = kept_of_all(total, options.sparsity).min(all_left);
    if keep == all_left && options.layers.is_empty() {
        return Ok(caps);
    }
    let open: Vec<usize> = (0..layers.len()).filter(|&i| fixed[i].is_none()).collect();
    let of_open = |all: &[usize]| open.iter().map(|&i| all[i]).collect::<Vec<usize>>();
    let totals = open_totals(layers, &fixed, &open, keep, of_open(&caps).iter().sum(), options)?;
    let views: Vec<LayerScores> =
        open.iter().map(|&i| LayerScores { name: &layers[i].param, shape: &layers[i].shape, scores: &scores[i] }).collect();
    let allocated = allocation.allocate(&views, totals)?;
    check_counts(&options.allocation, &views, &allocated)?;
    let allocated = apply_caps(&allocated, &of_open(&caps));
    let floors: Vec<usize> = layers.iter().map(|layer| floor(model, layer, options)).collect();
    let allocated = apply_floors(&allocated, &of_open(&floors))?;
    let mut kept: Vec<usize> = fixed.iter().map(|count| count.unwrap_or(0)).collect();
    open.iter().zip(allocated).for_each(|(&i, count)| kept[i] = count);
    check_channel_floor(model, layers, &kept, options.min_per_channel)?;
    Ok(kept)
}

/// The number of weights of a layer that earlier masks have left.
fn left(model: &Model, layer: &Prunable) -> usize {
    model.masks.get(&layer.param).map_or(layer.len(), Mask::kept)
}

/// The budget of the layers without a sparsity of their own.
fn open_totals(
    layers: &[Prunable],
    fixed: &[Option<usize>],
    open: &[usize],
    keep: usize,
    left: usize,
    options: &PruneOptions,
) -> Result<Totals> {
    let taken: usize = fixed.iter().flatten().sum();
    let size: usize = open.iter().map(|&i| layers[i].len()).sum();
    if taken == 0 && open.len() == layers.len() && keep == kept_of_all(size, options.sparsity) {
        return Ok(Totals { sparsity: options.sparsity, keep });
    }
    match keep.checked_sub(taken) {
        Some(rest) if rest <= left => Ok(Totals { sparsity: 1.0 - rest as f64 / size.max(1) as f64, keep: rest }),
        _ => Err(Error::option(format!(
            "layer: the layers with a sparsity of their own keep {taken} weights and the others have {left}; sparsity {} needs \
             {keep} in all",
            options.sparsity
        ))),
    }
}

/// The counts of layers with a sparsity of their own.
fn overrides(layers: &[Prunable], caps: &[usize], sparsities: &[(String, f64)]) -> Result<Vec<Option<usize>>> {
    let mut fixed = vec![None; layers.len()];
    for (text, sparsity) in sparsities {
        check_sparsity(*sparsity, &format!("layer {text:?}: sparsity"))?;
        let pattern = NamePattern::parse(text, "layer")?;
        let hits: Vec<usize> = (0..layers.len()).filter(|&i| pattern.matches(&layers[i].layer, &layers[i].param)).collect();
        if hits.is_empty() {
            return Err(Error::option(format!(
                "layer {text:?}: no prunable layer or weight has this name; see `resprout inspect`"
            )));
        }
        for i in hits {
            let kept = kept_alone(layers[i].len(), *sparsity);
            if kept > caps[i] && *sparsity > 0.0 {
                return Err(Error::option(format!(
                    "layer {text:?}: sparsity {sparsity}: layer {:?} has {} of {} weights left, and pruned ones do not come back",
                    layers[i].layer,
                    caps[i],
                    layers[i].len()
                )));
            }
            fixed[i] = Some(kept.min(caps[i]));
        }
    }
    Ok(fixed)
}

fn floor(model: &Model, layer: &Prunable, options: &PruneOptions) -> usize {
    options.min_per_layer.min(left(model, layer)).max(channel_floor(model, layer, options.min_per_channel))
}

/// The sum of the channels' floors: `per_channel` weights each, or those that earlier masks have left there.
fn channel_floor(model: &Model, layer: &Prunable, per_channel: usize) -> usize {
    let Some(mask) = model.masks.get(&layer.param).filter(|_| per_channel > 0) else {
        return per_channel.saturating_mul(layer.channels()).min(layer.len());
    };
    let mut of_channel = vec![0; layer.channels()];
    mask.0.iter().enumerate().filter(|(_, kept)| **kept).for_each(|(index, _)| of_channel[layer.channel_of(index)] += 1);
    of_channel.into_iter().map(|left: usize| left.min(per_channel)).sum()
}

fn check_channel_floor(model: &Model, layers: &[Prunable], kept: &[usize], per_channel: usize) -> Result<()> {
    let short = layers.iter().zip(kept).find(|(layer, kept)| **kept < channel_floor(model, layer, per_channel));
    match short {
        Some((layer, kept)) => Err(Error::option(format!(
            "at least {per_channel} weights per channel: layer {:?} keeps {kept} weights for {} channels",
            layer.layer,
            layer.channels()
        ))),
        None => Ok(()),
    }
}
