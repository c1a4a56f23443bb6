//! Gains per channel that restore the variance of a pruned network's values. The variance repairs share them.

use crate::calibrate::{ChannelStats, PairStats, WeightSite};
use crate::linalg::median;

/// Added to variances, relative to the median of the dense ones, so that ratios are finite.
const FLOOR: f64 = 1e-12;

/// The variances of a value in both networks, per channel.
pub struct Spread {
    /// Variance in the dense network, `[C]`.
    pub dense: Vec<f64>,
    /// Variance in the pruned network, `[C]`.
    pub sparse: Vec<f64>,
    /// Correlation, `[C]`.
    pub correlation: Vec<f64>,
    /// Whether the channel varies at all in the pruned network.
    pub live: Vec<bool>,
    floor: f64,
}

impl Spread {
    /// From the statistics of both networks.
    pub fn new(pair: &PairStats) -> Spread {
        let (dense, sparse) = (pair.dense.var.clone(), pair.sparse.var.clone());
        let correlation = (0..dense.len()).map(|c| pair.correlation(c)).collect();
        let live = sparse.iter().map(|&var| var > 0.0).collect();
        let floor = FLOOR * median(&dense);
        Spread { dense, sparse, correlation, live, floor }
    }

    /// The gain of one channel: the ratio of the standard deviations, or 1 for a dead channel.
    pub fn channel(&self, c: usize) -> f64 {
        match self.live[c] {
            true => ((self.dense[c] + self.floor) / (self.sparse[c] + self.floor)).sqrt(),
            false => 1.0,
        }
    }

    /// The gain of the whole layer: the square root of the ratio of the summed variances.
    pub fn layer(&self) -> f64 {
        let (dense, sparse): (f64, f64) = (self.dense.iter().sum(), self.sparse.iter().sum());
        if sparse > 0.0 && dense > 0.0 { (dense / sparse).sqrt() } else { 1.0 }
    }

    /// The share of the dense variance that a channel keeps.
    pub fn kept(&self, c: usize) -> f64 {
        self.sparse[c] / (self.dense[c] + self.floor).max(f64::MIN_POSITIVE)
    }

    /// The channels that are not dead.
    pub fn live(&self) -> impl Iterator<Item = usize> {
        (0..self.live.len()).filter(|&c| self.live[c])
    }
}

/// The statistics of `scale * x + shift`, per channel.
pub fn transformed(pair: &PairStats, dense: (Vec<f64>, Vec<f64>), sparse: (Vec<f64>, Vec<f64>)) -> PairStats {
    let through = |stats: &ChannelStats, (scale, shift): &(Vec<f64>, Vec<f64>)| ChannelStats {
        count: stats.count,
        mean: (0..scale.len()).map(|c| scale[c] * stats.mean[c] + shift[c]).collect(),
        var: (0..scale.len()).map(|c| scale[c] * scale[c] * stats.var[c]).collect(),
    };
    let cov = (0..pair.cov.len()).map(|c| pair.cov[c] * dense.0[c] * sparse.0[c]).collect();
    PairStats { dense: through(&pair.dense, &dense), sparse: through(&pair.sparse, &sparse), cov }
}

/// The mean of a layer's output after its channels are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// The dense network's, where no BatchNormalization follows and the layer can have a bias.
    WithoutNorm,
    /// The dense network's, by bias or by the running mean of the BatchNormalization.
    Always,
    /// Multiplied by the gain.
    Never,
    /// Unchanged.
    Keep,
}

/// Multiplies every output of a layer by its gain.
pub fn apply(site: &mut WeightSite, pair: &PairStats, gains: &[f64], shift: Shift) {
    for (row, &gain) in gains.iter().enumerate() {
        site.weights.row_mut(row).iter_mut().for_each(|w| *w = (f64::from(*w) * gain) as f32);
        let (dense, sparse) = (pair.dense.mean[row], pair.sparse.mean[row]);
        // What must be added after the multiplication.
        let missing = match shift {
            Shift::Never => 0.0,
            Shift::Keep => sparse - gain * sparse,
            Shift::WithoutNorm | Shift::Always => dense - gain * sparse,
        };
        let by_norm = site.norm.is_some() && shift == Shift::Always;
        let by_bias = site.norm.is_none();
        if let Some(bias) = &mut site.bias {
            bias[row] = gain * bias[row] + if by_bias { missing } else { 0.0 };
        }
        if let Some(norm) = site.norm.as_mut().filter(|_| by_norm) {
            norm.mean[row] -= missing;
        }
    }
    site.touch();
}
