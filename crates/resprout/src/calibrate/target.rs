//! What the outputs of a layer should be in the pruned network.

use super::inputs::Part;
use super::site::WeightSite;
use super::store::ActivationStore;
use crate::error::Result;
use resprout_kernels::Activation;

/// What an output should be, position by position.
///
/// The target is the dense network's output. With `sum` it also compensates for the error of the other summand. Where an
/// activation with bounds follows, any value that it maps to the same result counts as correct.
///
/// All values are in units after the dense network's BatchNormalization, because the fit is made there. The layer's output `z`
/// becomes `u = scale * z + shift`, then the sum `u + other`, then the activation of it.
pub(crate) struct DenseTarget<'s> {
    site: &'s WeightSite<'s>,
    dense: &'s ActivationStore,
    /// Scale and shift of the dense network's BatchNormalization (or 1 and 0), per channel.
    dense_affine: Vec<(f64, f64)>,
    /// Channels of a smaller scale are not adjusted: they hardly matter to the next layers.
    least_scale: f64,
    /// Whether the error of the other summand is compensated.
    sum: bool,
    /// The activation's bounds, beyond which errors do not count.
    bounds: Option<(f64, f64)>,
}

/// Share of the layer's largest scale below which a channel is not adjusted.
const LEAST_SCALE: f64 = 1e-4;

impl<'s> DenseTarget<'s> {
    /// With `sum` the layer compensates for the error of the other summand of the sum that follows.
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

    /// A channel of a value at the positions of a part.
    fn values(&self, store: &ActivationStore, slot: usize, part: &Part, channel: usize) -> Vec<f32> {
        let channels = self.site.weights.rows;
        let value = store.value(part.chunk, slot);
        let image_len = value.len() / store.batch();
        let image = &value.data[part.image * image_len..][..image_len];
        let (start, step) = if self.site.channels_last() { (channel, channels) } else { (channel * (image_len / channels), 1) };
        let positions = &part.positions;
        match (positions.first(), positions.last()) {
            // Most samples are whole images, which are copied at once.
            (Some(&first), Some(&last)) if step == 1 && (last - first) as usize + 1 == positions.len() => {
                image[start + first as usize..][..positions.len()].to_vec()
            }
            _ => positions.iter().map(|&position| image[start + position as usize * step]).collect(),
        }
    }

    /// The target of channel `c` at the positions of a part. With `behind`, errors beyond the activation's bounds do not count;
    /// `out` then holds the pruned network's current output, in units before the BatchNormalization.
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
            let mut target = f64::from(dense) * scale + shift + if self.sum { at(&dense_other, i) } else { other };
            if let Some((low, high)) = bounds {
                let current = f64::from(*out) * scale + shift + other;
                if target <= low {
                    target = current.min(low);
                } else if target >= high {
                    target = current.max(high);
                }
            }
            *out = ((target - other - shift) / scale) as f32;
        }
    }
}
