//! What the outputs of a layer should be in the pruned network.

use super::NormParams;
use super::site::WeightSite;
use super::sweep::Sweep;
use crate::error::Result;
use resprout_kernels::Activation;

/// What an output should be, position by position.
pub(crate) trait Target: Sync {
    /// The target of `channel` at `positions` of an image.
    fn fill(&self, chunk: usize, image: usize, channel: usize, positions: &[u32], out: &mut [f32]);
}

/// What the dense network computes there, or what makes good an error of the sum behind, or whatever
/// the activation behind makes the same of.
///
/// All in units behind the dense network's BatchNormalization, for which a fit is made: the layer's
/// output `z` becomes `u = scale * z + shift`, the sum `u + other`, and then the activation's.
pub(crate) struct DenseTarget<'s> {
    site: &'s WeightSite<'s>,
    dense: &'s Sweep,
    /// Scale and shift of the dense network's BatchNormalization (or 1 and 0), per channel.
    dense_affine: Vec<(f64, f64)>,
    /// The same for what the pruned network's output is multiplied by now.
    sparse_affine: Vec<(f64, f64)>,
    /// Below this scale a channel's output is left alone: what is behind hardly sees it.
    least_scale: f64,
    /// Whether the sum's error is to be made good.
    sum: bool,
    /// The activation's bounds, where errors behind them do not count.
    bounds: Option<(f64, f64)>,
}

/// Share of the layer's largest scale below which a channel is not adjusted.
const LEAST_SCALE: f64 = 1e-4;

impl<'s> DenseTarget<'s> {
    /// With `sum` the layer makes good what the other summand behind it has lost; with `activation`
    /// (which needs the pruned network's current output) errors behind its bounds do not count.
    pub fn new(site: &'s WeightSite<'s>, sum: bool, activation: bool) -> Result<DenseTarget<'s>> {
        let affine = |norm: &Option<NormParams>| match norm {
            Some(norm) => (0..norm.channels()).map(|c| (norm.scale(c), norm.shift(c))).collect(),
            None => vec![(1.0, 0.0); site.weights.rows],
        };
        let dense_affine: Vec<(f64, f64)> = affine(&site.dense_norm);
        let largest = dense_affine.iter().fold(0f64, |largest, (scale, _)| largest.max(scale.abs()));
        let bounds = match site.follow.activation {
            Activation::Clamp { low, high } if activation => Some((f64::from(low), f64::from(high))),
            _ => None,
        };
        Ok(DenseTarget {
            site,
            dense: site.dense()?,
            sparse_affine: affine(&site.norm),
            least_scale: LEAST_SCALE * largest,
            dense_affine,
            sum: sum && site.follow.other.is_some(),
            bounds,
        })
    }

    /// A channel of a value at some positions of an image.
    fn values(&self, sweep: &Sweep, slot: usize, chunk: usize, image: usize, channel: usize, positions: &[u32]) -> Vec<f32> {
        let channels = self.site.weights.rows;
        let value = sweep.value(chunk, slot);
        let image_len = value.len() / sweep.batch();
        let image = &value.data[image * image_len..][..image_len];
        let (start, step) = if self.site.channels_last() { (channel, channels) } else { (channel * (image_len / channels), 1) };
        positions.iter().map(|&position| image[start + position as usize * step]).collect()
    }
}

impl Target for DenseTarget<'_> {
    fn fill(&self, chunk: usize, image: usize, c: usize, positions: &[u32], out: &mut [f32]) {
        let slot = self.site.step.output();
        let values = |sweep: &Sweep, slot: usize| self.values(sweep, slot, chunk, image, c, positions);
        out.copy_from_slice(&values(self.dense, slot));
        let (scale, shift) = self.dense_affine[c];
        if scale.abs() <= self.least_scale || !(self.sum || self.bounds.is_some()) {
            return;
        }
        let other = self.site.follow.other.map(|slot| values(self.site.sweep, slot));
        let dense_other = self.site.follow.other.filter(|_| self.sum).map(|slot| values(self.dense, slot));
        let now = self.bounds.map(|bounds| (bounds, values(self.site.sweep, slot)));
        let at = |values: &Option<Vec<f32>>, i: usize| values.as_ref().map_or(0.0, |values| f64::from(values[i]));
        for (i, out) in out.iter_mut().enumerate() {
            let other = at(&other, i);
            let mut wanted = f64::from(*out) * scale + shift + if self.sum { at(&dense_other, i) } else { other };
            if let Some(((low, high), now)) = &now {
                let (a, b) = self.sparse_affine[c];
                let is = f64::from(now[i]) * a + b + other;
                if wanted <= *low {
                    wanted = is.min(*low);
                } else if wanted >= *high {
                    wanted = is.max(*high);
                }
            }
            *out = ((wanted - other - shift) / scale) as f32;
        }
    }
}
