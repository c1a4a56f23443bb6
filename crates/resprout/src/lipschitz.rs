//! Layers of Lipschitz scale one: ReI on fresh weights, RePaIR on masked ones.
//!
//! A weight is a matrix `M: [outputs][n]` with the largest singular value `σ₁` and the variance `Var` of all its entries. A layer
//! with a BatchNormalization behind it multiplies its inputs by at most `γ σ₁ / √(½ n Var)`. The inputs are modelled as rectified
//! normal numbers with a mean square of one half. RePaIR divides the weights by `σ₁` and `γ` by `σ₁ / √(½ n Var)`.
//!
//! Source: the author's code of "RePaIR" (pruning at initialisation). `docs/methods.md` lists the differences.

use crate::error::{Error, Result};
use crate::linalg::spectral_norm;
use crate::model::{Layer, Model, Prunable, PrunableRule};
use crate::ops::Op;
use crate::table::{self, Entry, OptionSpec, Options};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Means up to this size are subtracted from the weights; larger ones are taken as intended.
const CENTRED_BELOW: f64 = 1e-2;

/// What is rescaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Weights alone, by `σ₁`.
    Weight,
    /// The scale of BatchNormalizations alone.
    Gamma,
    /// Both.
    Both,
}

/// How a layer finds its BatchNormalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matching {
    /// The only reader of its output.
    Graph,
    /// By names, as in the author's code: `convN` and `bnN`, or the next number. Shortcuts have none.
    Names,
}

/// How a network is repaired at initialisation, before training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lipschitz {
    /// What is rescaled.
    pub scope: Scope,
    /// Which BatchNormalization belongs to a layer.
    pub matching: Matching,
}

/// The change of [`repair`] to one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LipschitzRow {
    /// The weight's name.
    pub weight: String,
    /// The mean that was subtracted from the kept weights; 0 if none.
    pub centred: f64,
    /// The largest singular value of the centred weights. A layer with a value of 0 is not changed.
    pub sigma: f64,
    /// `σ₁ / √(½ n Var)`: the divisor of `γ`, where there is one.
    pub lipschitz: f64,
    /// The name of the divided scale.
    pub gamma: Option<String>,
}

/// Reads the repair's options; `None` for no repair.
pub type Build = fn(&Options) -> Result<Option<Lipschitz>>;

/// All repairs at initialisation.
pub static INIT_REPAIRS: &[Entry<Build>] = &[
    Entry { name: "none", about: "nothing", paper: "baseline", options: &[], build: |_| Ok(None) },
    Entry {
        name: "repair",
        about: "weights by their largest singular value, and scales of BatchNormalizations by the layer's Lipschitz bound",
        paper: "RePaIR (pruning at initialisation), the author's code; ReI where nothing is pruned",
        options: &[
            OptionSpec { name: "scope", about: "weight, gamma or both", default: "both" },
            OptionSpec {
                name: "match",
                about: "how a layer finds its BatchNormalization: graph (behind it) or names (convN and bnN, as the author's code)",
                default: "graph",
            },
        ],
        build: |options| {
            let scope = match options.text("scope") {
                "weight" => Scope::Weight,
                "gamma" => Scope::Gamma,
                "both" => Scope::Both,
                _ => return Err(options.error("scope", "weight, gamma or both")),
            };
            let matching = match options.text("match") {
                "graph" => Matching::Graph,
                "names" => Matching::Names,
                _ => return Err(options.error("match", "graph or names")),
            };
            Ok(Some(Lipschitz { scope, matching }))
        },
    },
];

/// Finds a repair, a row of [`INIT_REPAIRS`], by a text `name:option=value`; `None` for `none`.
///
/// # Errors
/// Of kind `Option`.
pub fn find(text: &str) -> Result<Option<Lipschitz>> {
    let (entry, options) = table::find(INIT_REPAIRS, "repair at initialisation", text)?;
    (entry.build)(&options)
}

/// Repairs every convolution and linear layer in place, and returns a row for each. Pruned weights stay zero.
///
/// A layer whose weights are all zero is not changed; its row has a `sigma` of 0. In a network without BatchNormalization
/// the weights are repaired. [`Scope::Gamma`] fails there.
pub fn repair(model: &mut Model, how: Lipschitz) -> Result<Vec<LipschitzRow>> {
    model.check_finite()?;
    let layers = layers(model)?;
    let changes: Result<Vec<Change>> = layers.par_iter().map(|layer| change(model, layer, how)).collect();
    let mut rows = Vec::new();
    let mut taken = HashSet::new();
    for (layer, Change { mut row, weights }) in layers.iter().zip(changes?) {
        let gamma = if how.scope == Scope::Weight { None } else { gamma_of(model, layer, how.matching) };
        if let Some(weights) = weights
            && let Some(tensor) = model.params.f32_mut(&layer.param)
        {
            tensor.data = weights;
        }
        // The first of several layers that share a BatchNormalization determines its scale.
        if let Some(gamma) = gamma.filter(|gamma| row.sigma > 0.0 && taken.insert(gamma.clone()))
            && let Some(tensor) = model.params.f32_mut(&gamma)
        {
            tensor.data.iter_mut().for_each(|gamma| *gamma = (f64::from(*gamma) / row.lipschitz) as f32);
            row.gamma = Some(gamma);
        }
        rows.push(row);
    }
    if how.scope == Scope::Gamma && taken.is_empty() {
        return Err(Error::option("repair at initialisation repair:scope=gamma: no layer has a BatchNormalization behind it"));
    }
    model.apply_masks();
    Ok(rows)
}

/// Every convolution, grouped or not, and every linear layer.
pub fn layers(model: &Model) -> Result<Vec<Prunable>> {
    Ok(model.prunable(&PrunableRule { include_grouped: true, ..PrunableRule::default() })?.0)
}

/// The largest singular value of a layer's weights as a matrix. It is the same for the transposed matrix.
pub fn sigma(layer: &Prunable, weights: &[f32]) -> f64 {
    let rows = layer.shape[0];
    spectral_norm(weights, rows, weights.len() / rows)
}

/// The new weights of a layer, if they change.
struct Change {
    row: LipschitzRow,
    weights: Option<Vec<f32>>,
}

fn change(model: &Model, layer: &Prunable, how: Lipschitz) -> Result<Change> {
    let mut weights = model.weight(&layer.param)?.data.clone();
    let mask = model.masks.get(&layer.param);
    let with_weights = how.scope != Scope::Gamma;
    let centred = if with_weights { centre(&mut weights, mask.map(|mask| &mask.0[..])) } else { 0.0 };
    let sigma = sigma(layer, &weights);
    let inputs = (layer.len() / layer.channels()) as f64;
    let bound = sigma / (0.5 * inputs * variance(&weights)).sqrt();
    let lipschitz = if bound.is_finite() && bound > 0.0 { bound } else { 1.0 };
    let row = LipschitzRow { weight: layer.param.clone(), centred, sigma, lipschitz, gamma: None };
    if !with_weights || sigma == 0.0 {
        return Ok(Change { row, weights: None });
    }
    weights.iter_mut().for_each(|weight| *weight = (f64::from(*weight) / sigma) as f32);
    Ok(Change { row, weights: Some(weights) })
}

/// Subtracts the mean of the kept weights from them if it is small, and returns it.
fn centre(weights: &mut [f32], mask: Option<&[bool]>) -> f64 {
    let kept = |i: usize| mask.is_none_or(|mask| mask[i]);
    let count = (0..weights.len()).filter(|&i| kept(i)).count();
    let sum: f64 = weights.iter().enumerate().filter(|(i, _)| kept(*i)).map(|(_, &w)| f64::from(w)).sum();
    let mean = sum / count.max(1) as f64;
    if mean.abs() > CENTRED_BELOW {
        return 0.0;
    }
    weights.iter_mut().enumerate().filter(|(i, _)| kept(*i)).for_each(|(_, w)| *w = (f64::from(*w) - mean) as f32);
    mean
}

/// The unbiased variance over all entries, zeros included.
fn variance(weights: &[f32]) -> f64 {
    let count = weights.len() as f64;
    let mean = weights.iter().map(|&w| f64::from(w)).sum::<f64>() / count;
    weights.iter().map(|&w| (f64::from(w) - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0)
}

/// The scale of the BatchNormalization that belongs to a layer.
fn gamma_of(model: &Model, layer: &Prunable, matching: Matching) -> Option<String> {
    match matching {
        Matching::Graph => {
            let output = &model.graph.layers.iter().find(|other| other.name == layer.layer)?.outputs[0];
            if model.graph.reader_counts().get(output.as_str()) != Some(&1) {
                return None;
            }
            model.graph.batch_norm_of(output)?.input(1).map(String::from)
        }
        Matching::Names => {
            let gamma = format!("{}.weight", name_of_norm(layer.param.strip_suffix(".weight")?)?);
            let is_scale = |layer: &Layer| matches!(layer.op, Op::BatchNorm { .. }) && layer.input(1) == Some(&gamma);
            model.graph.layers.iter().any(is_scale).then_some(gamma)
        }
    }
}

fn name_of_norm(layer: &str) -> Option<String> {
    let (path, last) = layer.rsplit_once('.').map_or((None, layer), |(path, last)| (Some(path), last));
    if path.is_some_and(|path| path.ends_with("downsample") || path.ends_with("shortcut")) {
        return None;
    }
    let norm = match (last.strip_prefix("conv"), last.parse::<usize>()) {
        (Some(number), _) => format!("bn{number}"),
        (None, Ok(number)) => (number + 1).to_string(),
        _ => return None,
    };
    Some(path.map_or(norm.clone(), |path| format!("{path}.{norm}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architectures::{Shape, build};
    use crate::progress::Quiet;
    use crate::prune::{PruneOptions, prune};

    const BOTH: Lipschitz = Lipschitz { scope: Scope::Both, matching: Matching::Graph };

    fn network(name: &str) -> Model {
        build(name, &Shape { classes: None, image: None }, "kaiming-in", 3).unwrap()
    }

    fn masked(name: &str, sparsity: f64) -> Model {
        let mut model = network(name);
        let options = PruneOptions { sparsity, allocation: "global".into(), ..PruneOptions::default() };
        prune(&mut model, &options, &Default::default(), &Quiet).unwrap();
        model
    }

    fn sigma(model: &Model, row: &LipschitzRow) -> f64 {
        let weight = model.weight(&row.weight).unwrap();
        spectral_norm(&weight.data, weight.shape[0], weight.len() / weight.shape[0])
    }

    #[test]
    fn repaired_weights_have_norm_one_and_scales_times_the_bound_are_the_old_ones() {
        for (mut model, what) in [(network("resnet-20"), "fresh"), (masked("resnet-20", 0.9), "masked")] {
            let before = model.clone();
            let rows = repair(&mut model, BOTH).unwrap();
            assert_eq!(rows.len(), 20, "{what}");
            for row in &rows {
                assert!((sigma(&model, row) - 1.0).abs() < 1e-6, "{what}: {row:?}");
                assert_eq!(row.gamma.is_some(), row.weight != "linear.weight", "{what}: {row:?}");
                let Some(gamma) = &row.gamma else { continue };
                let (old, new) = (before.params.f32(gamma).unwrap(), model.params.f32(gamma).unwrap());
                for (old, new) in old.data.iter().zip(&new.data) {
                    assert!((f64::from(*new) * row.lipschitz - f64::from(*old)).abs() < 1e-6, "{what}: {row:?}");
                }
                // With mean zero the bound depends on the stable rank alone.
                let weight = model.weight(&row.weight).unwrap();
                let square: f64 = weight.data.iter().map(|&w| f64::from(w).powi(2)).sum();
                let identity = (2.0 * weight.shape[0] as f64 / square).sqrt();
                assert!((identity / row.lipschitz - 1.0).abs() < 1e-2, "{what}: {identity} {row:?}");
            }
            for (name, mask) in model.masks.iter() {
                let weights = &model.weight(name).unwrap().data;
                assert!(weights.iter().zip(&mask.0).all(|(&w, &kept)| kept || w.to_bits() == 0), "{name}");
            }
        }
    }

    #[test]
    fn gaussian_kernels_have_the_bound_that_random_matrices_have() {
        let mut model = network("resnet-18-cifar");
        let rows = repair(&mut model, BOTH).unwrap();
        // sqrt(2) (1 + sqrt(outputs / n)): the edge of the Marchenko-Pastur law.
        for (weight, bound) in [("conv1.weight", 3.59), ("layer1.0.conv1.weight", 1.886), ("layer4.0.conv1.weight", 2.08)] {
            let row = rows.iter().find(|row| row.weight == weight).unwrap();
            assert!((row.lipschitz / bound - 1.0).abs() < 0.05, "{row:?}");
        }
    }

    #[test]
    fn each_scope_and_matching_changes_what_it_says() {
        let before = masked("resnet-18-cifar", 0.5);
        let changed = |scope, matching| {
            let mut model = before.clone();
            let rows = repair(&mut model, Lipschitz { scope, matching }).unwrap();
            let weights =
                rows.iter().filter(|row| model.weight(&row.weight).unwrap() != before.weight(&row.weight).unwrap()).count();
            (weights, rows.iter().filter(|row| row.gamma.is_some()).count())
        };
        assert_eq!(changed(Scope::Weight, Matching::Graph), (21, 0));
        assert_eq!(changed(Scope::Gamma, Matching::Graph), (0, 20));
        // Three shortcuts have a BatchNormalization that no name matches.
        assert_eq!(changed(Scope::Both, Matching::Names), (21, 17));
        let mut vgg = network("vgg-16-bn-cifar");
        let rows = repair(&mut vgg, Lipschitz { scope: Scope::Both, matching: Matching::Names }).unwrap();
        assert_eq!(rows.iter().filter(|row| row.gamma.is_some()).count(), 13);
    }

    #[test]
    fn layers_without_scale_or_weights_are_left_or_named() {
        let mut lenet = network("lenet-5");
        let rows = repair(&mut lenet, BOTH).unwrap();
        assert!(rows.iter().all(|row| row.gamma.is_none() && (sigma(&lenet, row) - 1.0).abs() < 1e-6));
        let error = repair(&mut lenet, Lipschitz { scope: Scope::Gamma, ..BOTH }).unwrap_err().to_string();
        assert!(error.contains("BatchNormalization"), "{error}");
        lenet.params.f32_mut("fc1.weight").unwrap().data.fill(0.0);
        let rows = repair(&mut lenet, BOTH).unwrap();
        let row = rows.iter().find(|row| row.weight == "fc1.weight").unwrap();
        assert_eq!((row.sigma, row.lipschitz), (0.0, 1.0));
        assert!(lenet.weight("fc1.weight").unwrap().data.iter().all(|&w| w == 0.0));
        lenet.params.f32_mut("fc2.weight").unwrap().data[0] = f32::NAN;
        assert!(repair(&mut lenet, BOTH).unwrap_err().to_string().contains("fc2.weight"));
    }
}
