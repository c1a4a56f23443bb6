//! Layer diagnostics: compares the output of each pruned layer with the dense one.

use crate::calibrate::{Dense, Needs, PairStats, Visitor, WeightSite, walk};
use crate::error::Result;
use crate::model::{Model, Prunable};
use crate::progress::Quiet;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// One value per pruned layer, in order, rounded to four decimals; `None` where the value is undefined.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerDiagnostics {
    /// The share of kept weights.
    pub density: Vec<f64>,
    /// The variance of the layer's outputs divided by that of the dense layer, both summed over channels, before any
    /// BatchNormalization. 0 is a collapsed layer.
    pub kept_variance: Vec<Option<f64>>,
    /// The correlation of the layer's outputs with those of the dense layer. It is the mean over channels, weighted by the dense
    /// variance.
    pub correlation: Vec<Option<f64>>,
    /// Relative Repairability: the share of the local damage that remains after every channel gets the dense mean and
    /// variance. Both layers read the dense network's inputs.
    pub unrepairable: Vec<Option<f64>>,
}

/// Rounds to four decimals.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Kept variance and correlation of every layer of a pruned or repaired network on `images`.
#[doc(hidden)]
pub fn diagnostics(model: &Model, dense: Dense, layers: &[Prunable], images: &Tensor) -> Result<[Vec<Option<f64>>; 2]> {
    let pairs = Pairs { local: false, pairs: Mutex::default() }.of(&mut model.clone(), dense, images)?;
    let of = |value: fn(&PairStats) -> f64| in_order(layers, &pairs, value);
    Ok([of(kept_variance), of(correlation)])
}

/// Relative Repairability of every layer under the masks of `pruned`.
#[doc(hidden)]
pub fn unrepairable(pruned: &Model, dense: Dense, layers: &[Prunable], images: &Tensor) -> Result<Vec<Option<f64>>> {
    let mut model = dense.model().clone();
    model.masks.clone_from(&pruned.masks);
    let pairs = Pairs { local: true, pairs: Mutex::default() }.of(&mut model, dense, images)?;
    Ok(in_order(layers, &pairs, residual))
}

fn in_order(layers: &[Prunable], pairs: &HashMap<String, PairStats>, value: fn(&PairStats) -> f64) -> Vec<Option<f64>> {
    layers.iter().map(|layer| Some(value(pairs.get(&layer.layer)?)).filter(|value| value.is_finite()).map(rounded)).collect()
}

fn kept_variance(pair: &PairStats) -> f64 {
    pair.sparse.var.iter().sum::<f64>() / pair.dense.var.iter().sum::<f64>()
}

fn correlation(pair: &PairStats) -> f64 {
    let weighted: f64 = pair.dense.var.iter().enumerate().map(|(c, var)| var * pair.correlation(c)).sum();
    weighted / pair.dense.var.iter().sum::<f64>()
}

/// The share of the damage that matching cannot repair. Matched mean and deviation leave `2 var (1 - correlation)` of a
/// channel. A constant channel can match the mean alone, which leaves `var`.
fn residual(pair: &PairStats) -> f64 {
    let (mut raw, mut left) = (0.0, 0.0);
    for (c, &var) in pair.dense.var.iter().enumerate() {
        let (mean, sparse) = (pair.dense.mean[c] - pair.sparse.mean[c], pair.sparse.var[c]);
        raw += mean * mean + var + sparse - 2.0 * pair.cov[c];
        left += if sparse > 0.0 { 2.0 * var * (1.0 - pair.correlation(c)) } else { var };
    }
    // A dense layer has no damage but rounding.
    if raw > NO_DAMAGE * pair.dense.var.iter().sum::<f64>() { left / raw } else { f64::NAN }
}

/// Damage below this share of a layer's variance counts as none.
const NO_DAMAGE: f64 = 1e-9;

/// Collects the statistics of every layer's outputs in both networks, and changes nothing.
struct Pairs {
    /// Whether each layer is measured under its mask in a network that is otherwise dense.
    local: bool,
    pairs: Mutex<HashMap<String, PairStats>>,
}

impl Pairs {
    fn of(self, model: &mut Model, dense: Dense, images: &Tensor) -> Result<HashMap<String, PairStats>> {
        walk(model, dense, images, &[&self], "look at the layers", &Quiet)?;
        Ok(self.pairs.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Visitor for Pairs {
    fn needs(&self) -> Needs {
        Needs { images: true, dense: true, weights: true, batch: None }
    }

    fn weights(&self, site: &mut WeightSite) -> Result<()> {
        let dense_weights = site.weights.data.clone();
        if self.local {
            site.touch();
        }
        let pair = site.pair()?;
        if self.local {
            site.weights.mask = None;
            site.weights.data = dense_weights;
            site.touch();
            // The layer is restored, so there is nothing to store.
            site.changed = false;
        }
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.insert(site.name.to_string(), pair);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::ChannelStats;

    fn pair(dense: [f64; 2], sparse: [f64; 2], cov: f64) -> PairStats {
        let stats = |[mean, var]: [f64; 2]| ChannelStats { count: 4, mean: vec![mean], var: vec![var] };
        PairStats { dense: stats(dense), sparse: stats(sparse), cov: vec![cov] }
    }

    #[test]
    fn repairability_by_hand() {
        // A scaled channel can be repaired completely: raw = (2-1)^2 + 4 + 1 - 2*2 = 2.
        assert_eq!(residual(&pair([2.0, 4.0], [1.0, 1.0], 2.0)), 0.0);
        // Correlation 1/2: 2*4*(1-1/2) = 4 of 4 + 1 - 2*1 = 3.
        assert!((residual(&pair([0.0, 4.0], [0.0, 1.0], 1.0)) - 4.0 / 3.0).abs() < 1e-12);
        // An unchanged layer has nothing to repair.
        assert!(residual(&pair([1.0, 4.0], [1.0, 4.0], 4.0 - 1e-12)).is_nan());
        // A dead channel can get its mean back, but not its variance: 4 of 1 + 4.
        assert!((residual(&pair([1.0, 4.0], [0.0, 0.0], 0.0)) - 0.8).abs() < 1e-12);
    }
}
