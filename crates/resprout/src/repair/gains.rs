//! Gains per channel that give a pruned network's values their spread back: what the variance
//! repairs share.

use crate::calibrate::{ChannelStats, PairStats, WeightSite};
use crate::linalg::median;

/// Added to variances, by the median of the dense ones, so that a ratio is always finite.
const FLOOR: f64 = 1e-12;

/// Two values' spread per channel, and which channels have anything to multiply.
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
    /// Of a measured pair.
    pub fn new(pair: &PairStats) -> Spread {
        let (dense, sparse) = (pair.dense.var.clone(), pair.sparse.var.clone());
        let correlation = (0..dense.len()).map(|c| pair.correlation(c)).collect();
        let live = sparse.iter().map(|&var| var > 0.0).collect();
        let floor = FLOOR * median(&dense);
        Spread { dense, sparse, correlation, live, floor }
    }

    /// Variance matching of one channel: the ratio of the standard deviations; 1 for a dead channel.
    pub fn channel(&self, c: usize) -> f64 {
        match self.live[c] {
            true => ((self.dense[c] + self.floor) / (self.sparse[c] + self.floor)).sqrt(),
            false => 1.0,
        }
    }

    /// Variance matching of the whole layer: the ratio of the summed variances, as deviations.
    pub fn layer(&self) -> f64 {
        let (dense, sparse): (f64, f64) = (self.dense.iter().sum(), self.sparse.iter().sum());
        if sparse > 0.0 && dense > 0.0 { (dense / sparse).sqrt() } else { 1.0 }
    }

    /// What is left of the dense variance, per channel.
    pub fn kept(&self, c: usize) -> f64 {
        self.sparse[c] / (self.dense[c] + self.floor).max(f64::MIN_POSITIVE)
    }

    /// The channels that are not dead.
    pub fn live(&self) -> impl Iterator<Item = usize> {
        (0..self.live.len()).filter(|&c| self.live[c])
    }
}

/// Statistics behind `scale * x + shift`, per channel.
pub fn behind(pair: &PairStats, dense: (Vec<f64>, Vec<f64>), sparse: (Vec<f64>, Vec<f64>)) -> PairStats {
    let through = |stats: &ChannelStats, (scale, shift): &(Vec<f64>, Vec<f64>)| ChannelStats {
        count: stats.count,
        mean: (0..scale.len()).map(|c| scale[c] * stats.mean[c] + shift[c]).collect(),
        var: (0..scale.len()).map(|c| scale[c] * scale[c] * stats.var[c]).collect(),
    };
    let cov = (0..pair.cov.len()).map(|c| pair.cov[c] * dense.0[c] * sparse.0[c]).collect();
    PairStats { dense: through(&pair.dense, &dense), sparse: through(&pair.sparse, &sparse), cov }
}

/// What happens to the mean of a layer's output when its channels are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// It becomes the dense network's, where no BatchNormalization follows and the layer can have a bias.
    WithoutNorm,
    /// It becomes the dense network's, by bias or by the running mean of the BatchNormalization.
    Always,
    /// It is multiplied too.
    Never,
    /// It stays as it is.
    Keep,
}

/// Multiplies every output of a layer by its gain.
pub fn apply(site: &mut WeightSite, pair: &PairStats, gains: &[f64], shift: Shift) {
    for (row, &gain) in gains.iter().enumerate() {
        site.weights.row_mut(row).iter_mut().for_each(|w| *w = (f64::from(*w) * gain) as f32);
        let (dense, sparse) = (pair.dense.mean[row], pair.sparse.mean[row]);
        // What must be added behind the multiplication for the mean that is wanted.
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
