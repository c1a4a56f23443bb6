//! What the outputs of a layer should be in the pruned network.

use super::normal::Part;
use super::site::WeightSite;
use super::store::ActivationStore;
use crate::error::Result;
use resprout_kernels::Activation;

/// What an output should be, position by position: what the dense network computes there, or what makes good an error of the sum behind, or whatever
/// the activation behind makes the same of.
///
/// All in units behind the dense network's BatchNormalization, for which a fit is made: the layer's
/// output `z` becomes `u = scale * z + shift`, the sum `u + other`, and then the activation's.
pub(crate) struct DenseTarget<'s> {
    site: &'s WeightSite<'s>,
    dense: &'s ActivationStore,
    /// Scale and shift of the dense network's BatchNormalization (or 1 and 0), per channel.
    dense_affine: Vec<(f64, f64)>,
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
    /// With `sum` the layer makes good what the other summand behind it has lost.
    pub fn new(site: &'s WeightSite<'s>, sum: bool) -> Result<DenseTarget<'s>> {
        let dense_affine: Vec<(f64, f64)> = match &site.dense_norm {
            Some(norm) => (0..norm.channels()).map(|c| (norm.scale(c), norm.shift(c))).collect(),
            None => vec![(1.0, 0.0); site.weights.rows],
        };
        let largest = dense_affine.iter().fold(0f64, |largest, (scale, _)| largest.max(scale.abs()));
        let bounds = match site.follow.activation {
            Activation::Clamp { low, high } => Some((f64::from(low), f64::from(high))),
            _ => None,
        };
        Ok(DenseTarget {
            site,
            dense: site.dense()?,
            least_scale: LEAST_SCALE * largest,
            dense_affine,
            sum: sum && site.follow.other.is_some(),
            bounds,
        })
    }

    /// A channel of a value at some positions of an image.
    fn values(&self, store: &ActivationStore, slot: usize, part: &Part, channel: usize) -> Vec<f32> {
        let channels = self.site.weights.rows;
        let value = store.value(part.chunk, slot);
        let image_len = value.len() / store.batch();
        let image = &value.data[part.image * image_len..][..image_len];
        let (start, step) = if self.site.channels_last() { (channel, channels) } else { (channel * (image_len / channels), 1) };
        let positions = &part.positions;
        match (positions.first(), positions.last()) {
            // Most layers' samples are whole images: nothing to be looked up one by one.
            (Some(&first), Some(&last)) if step == 1 && (last - first) as usize + 1 == positions.len() => {
                image[start + first as usize..][..positions.len()].to_vec()
            }
            _ => positions.iter().map(|&position| image[start + position as usize * step]).collect(),
        }
    }

    /// The target of channel `c` at the positions of a part of an image. With `behind`, errors behind the activation's bounds do
    /// not count: then `out` holds what the pruned network's output is now, in units before the BatchNormalization.
    pub(super) fn fill(&self, part: &Part, c: usize, behind: bool, out: &mut [f32]) {
        let values = |store: &ActivationStore, slot: usize| self.values(store, slot, part, c);
        let dense = values(self.dense, self.site.step.output());
        let (scale, shift) = self.dense_affine[c];
        let bounds = self.bounds.filter(|_| behind);
        if scale.abs() <= self.least_scale || !(self.sum || bounds.is_some()) {
            out.copy_from_slice(&dense);
            return;
        }
        let other = self.site.follow.other.map(|slot| values(self.site.store, slot));
        let dense_other = self.site.follow.other.filter(|_| self.sum).map(|slot| values(self.dense, slot));
        let at = |values: &Option<Vec<f32>>, i: usize| values.as_ref().map_or(0.0, |values| f64::from(values[i]));
        for (i, (out, dense)) in out.iter_mut().zip(dense).enumerate() {
            let other = at(&other, i);
            let mut wanted = f64::from(dense) * scale + shift + if self.sum { at(&dense_other, i) } else { other };
            if let Some((low, high)) = bounds {
                let is = f64::from(*out) * scale + shift + other;
                if wanted <= low {
                    wanted = is.min(low);
                } else if wanted >= high {
                    wanted = is.max(high);
                }
            }
            *out = ((wanted - other - shift) / scale) as f32;
        }
    }
}
