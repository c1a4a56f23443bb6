//! Layer-adaptive magnitude: global selection by `w_u^2 / sum of w_v^2 over all v at least as large`.

use super::{Allocation, Budget, Build, LayerScores};
use crate::error::Result;
use crate::select::global_counts;
use crate::table::Entry;
use rayon::prelude::*;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "lamp",
    about: "layer-adaptive: scores relative to what is left of the layer; every layer keeps its largest weight",
    paper: "Lee et al., Layer-adaptive sparsity for the magnitude-based pruning, ICLR 2021",
    options: &[],
    build: |_| Ok(Box::new(Lamp)),
};

struct Lamp;

impl Allocation for Lamp {
    fn allocate(&self, layers: &[LayerScores], budget: Budget) -> Result<Vec<usize>> {
        let scores: Vec<Vec<f64>> = layers.par_iter().map(|layer| lamp_scores(layer.scores)).collect();
        let views: Vec<&[f64]> = scores.iter().map(Vec::as_slice).collect();
        Ok(global_counts(&views, budget.keep))
    }
}

/// The suffix sum runs from the largest score down, in f64: subtracting a prefix from the total
/// would cancel exactly where it matters most.
fn lamp_scores(scores: &[f64]) -> Vec<f64> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    // Stable: equal scores stay in index order, so the earlier one has the larger denominator.
    order.sort_by(|&a, &b| scores[a as usize].total_cmp(&scores[b as usize]));
    let mut out = vec![0.0; scores.len()];
    let mut suffix = 0.0;
    for &index in order.iter().rev() {
        let square = scores[index as usize] * scores[index as usize];
        suffix += square;
        // An all-zero layer has nothing worth keeping.
        out[index as usize] = if suffix > 0.0 { square / suffix } else { 0.0 };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn four_weights_by_hand() {
        // Squares 1, 4, 9, 16: suffix sums 30, 29, 25, 16.
        assert_eq!(lamp_scores(&[3.0, 1.0, 4.0, 2.0]), [9.0 / 25.0, 1.0 / 30.0, 1.0, 4.0 / 29.0]);
        assert_eq!(lamp_scores(&[0.0, 0.0]), [0.0, 0.0]);
    }

    #[test]
    fn a_million_small_weights_stay_monotone_with_a_maximum_of_one() {
        let mut random = SplitMix64::new(1, 0);
        let scores: Vec<f64> = (0..1_000_000).map(|_| 0.02 * f64::from(random.next_f64() as f32)).collect();
        let lamp = lamp_scores(&scores);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        assert!(order.windows(2).all(|pair| lamp[pair[0]] <= lamp[pair[1]]));
        assert_eq!(lamp[*order.last().unwrap()], 1.0);
    }
}
