//! Uniform, but the first convolution dense and a fifth of the last layer kept.

use super::{Allocation, Build, LayerScores, Totals};
use crate::error::{Error, Result};
use crate::select::largest_remainder;
use crate::table::Entry;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "uniform+",
    about: "uniform, but the first convolution stays dense and the last layer keeps at least 20 %",
    paper: "Gale, Elsen, Hooker, The state of sparsity in deep neural networks, 2019",
    options: &[],
    build: |_| Ok(Box::new(UniformPlus)),
};

/// The last layer keeps at least this share.
const LAST_SHARE: f64 = 0.2;

/// The allocation `uniform+`: uniform, except for a dense first convolution and a last layer that keeps at least 20 %.
///
/// Source: Gale, Elsen, Hooker, The state of sparsity in deep neural networks, 2019.
#[derive(Clone, Copy, Debug, Default)]
pub struct UniformPlus;

impl Allocation for UniformPlus {
    fn allocate(&self, layers: &[LayerScores], totals: Totals) -> Result<Vec<usize>> {
        let sizes: Vec<usize> = layers.iter().map(|layer| layer.scores.len()).collect();
        let Some(last) = sizes.len().checked_sub(1) else { return Ok(vec![]) };
        let total: usize = sizes.iter().sum();
        let removed = total - totals.keep.min(total);
        let first_dense = layers[0].shape.len() == 4 && last > 0;
        let start = usize::from(first_dense);
        let rest: usize = sizes[start..].iter().sum();
        let floor = (LAST_SHARE * sizes[last] as f64).round_ties_even() as usize;
        let share = removed as f64 / rest.max(1) as f64;
        // Evenly, unless the last layer would fall below its floor.
        let last_kept = ((1.0 - share) * sizes[last] as f64).round_ties_even();
        let (end, to_remove) =
            if last_kept < floor as f64 { (last, removed.saturating_sub(sizes[last] - floor)) } else { (last + 1, removed) };
        let open: usize = sizes[start..end].iter().sum();
        if to_remove > open {
            return Err(Error::option(format!(
                "uniform+: {removed} of {total} weights cannot be removed: the first convolution stays dense and the last layer keeps {floor}"
            )));
        }
        let shares: Vec<f64> = sizes[start..end].iter().map(|&n| n as f64 * to_remove as f64 / open.max(1) as f64).collect();
        let removals = largest_remainder(&shares, to_remove);
        let mut kept = sizes.clone();
        kept[start..end].iter_mut().zip(removals).for_each(|(n, removal)| *n -= removal);
        if end == last {
            kept[last] = floor;
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocate(sparsity: f64, keep: usize) -> Result<Vec<usize>> {
        let scores = [10, 70, 20].map(|n| vec![0.0; n]);
        let shapes: [&[usize]; 3] = [&[1, 1, 1, 10], &[1, 1, 1, 70], &[1, 20]];
        let layer = |i: usize| LayerScores { name: "w", shape: shapes[i], scores: &scores[i] };
        UniformPlus.allocate(&[layer(0), layer(1), layer(2)], Totals { sparsity, keep })
    }

    #[test]
    fn first_dense_last_a_fifth() {
        // f = 45 / 90 = 0.5 leaves 10 of the last 20, above the floor.
        assert_eq!(allocate(0.45, 55).unwrap(), [10, 35, 10]);
        // f = 80 / 90 would leave 2 of the last 20. It keeps 4, and the middle loses 64.
        assert_eq!(allocate(0.8, 20).unwrap(), [10, 6, 4]);
        assert!(allocate(0.9, 10).is_err(), "10 + 4 are more than 10");
    }
}
