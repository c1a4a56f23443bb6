//! The equations of a group of outputs that read the same inputs.

use crate::calibrate::WeightSite;
use crate::calibrate::normal::{CurrentRows, InputSums};
use resprout_kernels::gram::CsrRow;
use std::collections::HashMap;
use std::sync::Arc;

/// The left side of a group's equations, and what turns products with targets into right sides.
pub(super) struct Equations {
    /// `[K][K + 1]`: covariances of the inputs, or mean products where the layer cannot take an intercept.
    pub matrix: Vec<f64>,
    /// Weights of an output.
    pub len: usize,
    means: Vec<f64>,
    count: f64,
    centred: bool,
    /// The ridge of an output with one weight.
    ridge: f64,
}

/// The kept weights of some outputs.
pub(super) struct Support {
    /// Their indices in each of the outputs.
    pub indices: Arc<[u32]>,
    /// The outputs.
    pub outputs: Vec<usize>,
}

/// A fitted output.
#[derive(Clone)]
pub(super) struct RowSystem {
    /// The indices of its weights.
    pub support: Arc<[u32]>,
    /// Its weights.
    pub weights: Vec<f64>,
    /// Its intercept.
    pub intercept: f64,
}

impl Equations {
    /// From the sums over the rows of the inputs.
    pub fn new(site: &WeightSite, sums: InputSums, damp: f64) -> Equations {
        let centred = site.norm.is_some() || site.bias.is_some();
        let (len, count) = (sums.width - 1, sums.count);
        let (matrix, means) = sums.into_matrix(centred);
        let mut equations = Equations { matrix, len, means, count, centred, ridge: 0.0 };
        let trace: f64 = (0..len).map(|i| equations.diagonal(i)).sum();
        // Fewer images determine the weights of a row less well.
        equations.ridge = damp * trace / len.max(1) as f64 / site.images() as f64;
        equations
    }

    /// From a covariance matrix `[len][len]` and the ridge of an output with one weight.
    #[cfg(test)]
    pub fn of_matrix(covariance: &[f64], len: usize, ridge: f64) -> Equations {
        let matrix = covariance.chunks_exact(len).flat_map(|row| row.iter().copied().chain([0.0])).collect();
        Equations { matrix, len, means: vec![0.0; len], count: 1.0, centred: true, ridge }
    }

    /// Columns of the matrix and of products with targets.
    pub fn width(&self) -> usize {
        self.len + 1
    }

    /// A variance.
    pub fn diagonal(&self, i: usize) -> f64 {
        self.matrix[i * self.width() + i]
    }

    /// The ridge of an output with these kept weights: above rounding, and above zero.
    pub fn ridge(&self, support: &[u32]) -> f64 {
        let mean = support.iter().map(|&i| self.diagonal(i as usize)).sum::<f64>() / support.len().max(1) as f64;
        (self.ridge * support.len() as f64).max(mean * 1e-12).max(1e-300)
    }

    /// Covariances of inputs and target from the sums of their products. `own` is the bias of an output whose bias stays.
    pub fn right_side(&self, support: &[u32], cross: &[f64], own: f64) -> Vec<f64> {
        let target = if self.centred { cross[self.len] / self.count } else { own };
        support.iter().map(|&i| cross[i as usize] / self.count - self.means[i as usize] * target).collect()
    }

    /// A row with its intercept; `None` if a value is not finite.
    pub fn row(&self, support: &Arc<[u32]>, weights: Vec<f64>, cross: &[f64]) -> Option<RowSystem> {
        let explained: f64 = support.iter().zip(&weights).map(|(&i, w)| self.means[i as usize] * w).sum();
        let intercept = if self.centred { cross[self.len] / self.count - explained } else { 0.0 };
        let finite = intercept.is_finite() && weights.iter().all(|&w| (w as f32).is_finite());
        finite.then(|| RowSystem { support: support.clone(), weights, intercept })
    }
}

/// Groups outputs with the same kept weights, which share a decomposition. Groups are in the order of their first outputs.
pub(super) fn supports(site: &WeightSite, outputs: &[usize]) -> Vec<Support> {
    let mut supports: Vec<Support> = Vec::new();
    let mut seen: HashMap<Arc<[u32]>, usize> = HashMap::new();
    for &output in outputs {
        let kept = (0..site.weights.len).filter(|&i| site.weights.kept(output, i)).map(|i| i as u32);
        let indices: Arc<[u32]> = kept.collect();
        let at = *seen.entry(indices.clone()).or_insert(supports.len());
        if at == supports.len() {
            supports.push(Support { indices, outputs: Vec::new() });
        }
        supports[at].outputs.push(output);
    }
    supports
}

/// The kept weights of each of the consecutive `outputs`.
pub(super) fn kept<'s>(supports: &'s [Support], outputs: &[usize]) -> Vec<&'s [u32]> {
    let mut kept: Vec<&[u32]> = vec![&[]; outputs.len()];
    for support in supports {
        support.outputs.iter().for_each(|output| kept[output - outputs[0]] = &support.indices);
    }
    kept
}

/// The current weights of outputs: the solutions so far, or the weights they had.
pub(super) fn current(site: &WeightSite, first: usize, members: &[usize], found: &[Option<RowSystem>]) -> CurrentRows {
    let mut current = CurrentRows { weights: Vec::new(), intercepts: Vec::new() };
    let takes_intercept = site.norm.is_some() || site.bias.is_some();
    for (&member, row) in members.iter().zip(found) {
        let output = first + member;
        let own = site.bias_of(output);
        let (weights, intercept) = match row {
            Some(row) => {
                let values = row.weights.iter().map(|&w| w as f32).collect();
                let intercept = if takes_intercept { row.intercept } else { own };
                (CsrRow { indices: row.support.to_vec(), values }, intercept)
            }
            None => {
                let weights = site.weights.row(output);
                let kept = (0..site.weights.len).filter(|&i| site.weights.kept(output, i));
                let (indices, values) = kept.map(|i| (i as u32, weights[i])).unzip();
                (CsrRow { indices, values }, own)
            }
        };
        current.weights.push(weights);
        current.intercepts.push(intercept as f32);
    }
    current
}
