//! Criteria of channels.

use crate::error::{Error, Result};
use crate::forward::{Network, PlanOptions};
use crate::model::{Model, Prunable};
use crate::ops::Op;
use crate::progress::Progress;
use crate::prune::options::PruneOptions;
use crate::random::SplitMix64;
use crate::structure::coupling::Coupling;
use crate::table::{self, Entry};
use crate::tensor::Tensor;
use std::collections::HashMap;

/// A layer whose output channels are scored.
#[doc(hidden)]
pub struct UnitLayer<'a> {
    /// The model.
    pub model: &'a Model,
    /// The layer.
    pub prunable: &'a Prunable,
    /// Its index, for random scores.
    pub index: usize,
    /// Seed of random scores.
    pub seed: u64,
    /// For each channel, the root mean square of its output on the calibration images.
    pub activations: Option<&'a [f64]>,
}

/// One score per output channel: not negative and comparable between layers.
#[doc(hidden)]
pub type Score = fn(&UnitLayer) -> Result<Vec<f64>>;

/// A criterion of channels, a row of [`CHANNEL_CRITERIA`].
#[doc(hidden)]
pub struct Criterion {
    /// Whether it reads images.
    pub needs_images: bool,
    score: Score,
}

/// All criteria of channels. The scores of coupled channels are added.
pub static CHANNEL_CRITERIA: &[Entry<Criterion>] = &[
    Entry {
        name: "l2",
        about: "root mean square of the channel's weights",
        paper: "He et al., Soft filter pruning, IJCAI 2018",
        options: &[],
        build: Criterion { needs_images: false, score: |layer| layer.of_weights(|w| w * w, f64::sqrt) },
    },
    Entry {
        name: "l1",
        about: "mean absolute value of the channel's weights",
        paper: "Li et al., Pruning filters for efficient convnets, ICLR 2017",
        options: &[],
        build: Criterion { needs_images: false, score: |layer| layer.of_weights(f64::abs, |mean| mean) },
    },
    Entry {
        name: "gamma",
        about: "absolute scale of the BatchNormalization behind the layer",
        paper: "Liu et al., Learning efficient convolutional networks through network slimming, ICCV 2017",
        options: &[],
        build: Criterion { needs_images: false, score: |layer| layer.of_gamma() },
    },
    Entry {
        name: "activation",
        about: "root mean square of what the channel makes of the calibration images, behind its activation",
        paper: "after Hu et al., Network trimming, 2016",
        options: &[],
        build: Criterion { needs_images: true, score: |layer| layer.of_activations() },
    },
    Entry {
        name: "random",
        about: "a random number, from the seed",
        paper: "the control that every criterion must beat",
        options: &[],
        build: Criterion { needs_images: false, score: |layer| layer.at_random() },
    },
];

/// Finds a criterion of channels by its name.
///
/// # Errors
/// Of kind `Option` for an unknown name.
#[doc(hidden)]
pub fn find(criterion: &str) -> Result<&'static Criterion> {
    table::find(CHANNEL_CRITERIA, "criterion", criterion).map(|(entry, _)| &entry.build)
}

/// The summed score of every unit; infinite for units that stay.
pub(super) fn scores(
    model: &Model,
    coupling: &Coupling,
    layers: &[Prunable],
    open: &[usize],
    options: &PruneOptions,
    images: &Tensor,
    progress: &dyn Progress,
) -> Result<Vec<f64>> {
    let criterion = find(&options.criterion)?;
    let by_param: HashMap<&str, (usize, &Prunable)> =
        layers.iter().enumerate().map(|(index, layer)| (layer.param.as_str(), (index, layer))).collect();
    let activations = if criterion.needs_images { activations(model, layers, images)? } else { HashMap::new() };
    let mut sums = vec![f64::INFINITY; coupling.frozen.len()];
    open.iter().for_each(|&unit| sums[unit] = 0.0);
    progress.begin("score", coupling.uses.len() as u64);
    for one in coupling.outputs().filter(|one| !coupling.is_frozen(one)) {
        progress.check()?;
        let Some(&(index, prunable)) = by_param.get(one.param.as_str()) else { continue };
        let activations = activations.get(&prunable.layer).map(Vec::as_slice);
        let layer = UnitLayer { model, prunable, index, seed: options.seed, activations };
        for (score, &unit) in (criterion.score)(&layer)?.iter().zip(&one.units) {
            sums[unit] += score;
        }
        progress.advance(1);
    }
    progress.end();
    Ok(sums)
}

impl UnitLayer<'_> {
    fn of_weights(&self, of: impl Fn(f64) -> f64, then: impl Fn(f64) -> f64) -> Result<Vec<f64>> {
        let weights = &self.model.weight(&self.prunable.param)?.data;
        let mut sums = vec![0.0; self.prunable.channels()];
        weights.iter().enumerate().for_each(|(i, &w)| sums[self.prunable.channel_of(i)] += of(f64::from(w)));
        let each = (self.prunable.len() / self.prunable.channels()) as f64;
        Ok(sums.into_iter().map(|sum| then(sum / each)).collect())
    }

    fn of_gamma(&self) -> Result<Vec<f64>> {
        let graph = &self.model.graph;
        let missing = || {
            Error::option(format!(
                "criterion gamma: layer {:?} has no BatchNormalization behind it; ignore it or take another criterion",
                self.prunable.layer
            ))
        };
        let layer = graph.layers.iter().find(|layer| layer.name == self.prunable.layer).ok_or_else(missing)?;
        let norm = graph.batch_norm_of(&layer.outputs[0]);
        let gamma = norm.and_then(|norm| self.model.params.f32(norm.input(1)?)).ok_or_else(missing)?;
        Ok(gamma.data.iter().map(|&gamma| f64::from(gamma.abs())).collect())
    }

    fn of_activations(&self) -> Result<Vec<f64>> {
        let missing = || Error::unsupported(format!("criterion activation: layer {:?} cannot be measured", self.prunable.layer));
        self.activations.map(<[f64]>::to_vec).ok_or_else(missing)
    }

    fn at_random(&self) -> Result<Vec<f64>> {
        let mut random = SplitMix64::new(self.seed, self.index as u64);
        Ok((0..self.prunable.channels()).map(|_| random.next_f64()).collect())
    }
}

/// For each layer, the root mean square of each channel after its normalisation and activation.
fn activations(model: &Model, layers: &[Prunable], images: &Tensor) -> Result<HashMap<String, Vec<f64>>> {
    if images.is_empty() {
        return Err(Error::option("criterion activation: needs calibration images"));
    }
    let readers = model.graph.reader_counts();
    let follow = |layer: &Prunable| {
        let first = model.graph.layers.iter().find(|other| other.name == layer.layer)?;
        // The channels of a convolution are the second axis, those of a matrix product the last.
        let axis = matches!(first.op, Op::Conv(_)).then_some(1);
        let mut value = &first.outputs[0];
        while readers.get(value.as_str()) == Some(&1) {
            let next = model.graph.layers.iter().find(|next| next.input(0) == Some(value));
            let Some(next) = next.filter(|next| matches!(next.op, Op::BatchNorm { .. } | Op::Unary(_) | Op::Clip { .. })) else {
                break;
            };
            value = &next.outputs[0];
        }
        Some((layer.layer.clone(), axis, value.clone()))
    };
    let followed: Vec<(String, Option<usize>, String)> = layers.iter().filter_map(follow).collect();
    let taps: Vec<String> = followed.iter().map(|(_, _, value)| value.clone()).collect();
    let outputs = model.graph.outputs.len();
    let network = Network::new(model, &images.shape[1..], &PlanOptions { taps, ..PlanOptions::default() })?;
    let mut sums: Vec<Vec<f64>> = vec![Vec::new(); followed.len()];
    // A few images at a time, because the values of all layers are large.
    let batch = 16;
    for first in (0..images.shape[0]).step_by(batch) {
        let last = images.shape[0].min(first + batch);
        let part = images.pick(&(first..last).collect::<Vec<usize>>());
        for ((sums, (_, axis, _)), value) in sums.iter_mut().zip(&followed).zip(&network.run(&part)?[outputs..]) {
            let axis = axis.unwrap_or(value.shape.len() - 1);
            let (channels, inner) = (value.shape[axis], value.shape[axis + 1..].iter().product::<usize>().max(1));
            let positions: usize = value.shape[1..].iter().product::<usize>() / channels.max(1);
            sums.resize(channels, 0.0);
            for (at, plane) in value.data.chunks_exact(inner).enumerate() {
                let square: f64 = plane.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
                sums[at % channels] += square / positions as f64;
            }
        }
    }
    let mean = |sums: Vec<f64>| sums.into_iter().map(|sum| (sum / images.shape[0] as f64).sqrt()).collect();
    Ok(followed.into_iter().map(|(layer, _, _)| layer).zip(sums.into_iter().map(mean)).collect())
}
