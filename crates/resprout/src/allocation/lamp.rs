//! Layer-adaptive magnitude: global selection by `w_u^2 / sum of w_v^2 over all v at least as large`.

use super::{Allocation, Build, LayerScores, Totals};
use crate::error::Result;
use crate::select::{ScoreList, global_counts};
use crate::table::Entry;
use std::borrow::Cow;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "lamp",
    about: "layer-adaptive: scores relative to what is left of the layer; every layer keeps its largest weight",
    paper: "Lee et al., Layer-adaptive sparsity for the magnitude-based pruning, ICLR 2021",
    options: &[],
    build: |_| Ok(Box::new(Lamp)),
};

/// The allocation `lamp`, layer-adaptive magnitude (Lee et al., ICLR 2021): scores relative to what is left of the layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lamp;

impl Allocation for Lamp {
    fn allocate(&self, layers: &[LayerScores], totals: Totals) -> Result<Vec<usize>> {
        let lists: Vec<Ranked> = layers.iter().map(|layer| Ranked(layer.scores)).collect();
        Ok(global_counts(&lists, totals.keep))
    }
}

/// The LAMP scores of a layer in ascending order. The number that stays does not depend on the order.
struct Ranked<'a>(&'a dyn ScoreList);

impl ScoreList for Ranked<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn scores(&self) -> Cow<'_, [f64]> {
        let mut scores = self.0.scores().into_owned();
        scores.sort_unstable_by(f64::total_cmp);
        relative(&mut scores);
        Cow::Owned(scores)
    }
}

/// Replaces each ascending score by its square, relative to the sum of squares from there on. The sum runs down from the
/// largest score, in f64: a prefix subtracted from the total would cancel where precision matters most. Of equal scores the
/// earlier has the larger sum.
fn relative(ascending: &mut [f64]) {
    let mut suffix = 0.0;
    for score in ascending.iter_mut().rev() {
        let square = *score * *score;
        suffix += square;
        // All scores of an all-zero layer are 0.
        *score = if suffix > 0.0 { square / suffix } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn four_weights_by_hand() {
        // Squares 1, 4, 9, 16: suffix sums 30, 29, 25, 16.
        assert_eq!(*Ranked(&vec![3.0, 1.0, 4.0, 2.0]).scores(), [1.0 / 30.0, 4.0 / 29.0, 9.0 / 25.0, 1.0]);
        assert_eq!(*Ranked(&vec![0.0, 0.0]).scores(), [0.0, 0.0]);
    }

    #[test]
    fn a_million_small_weights_stay_monotone_with_a_maximum_of_one() {
        let mut random = SplitMix64::new(1, 0);
        let scores: Vec<f64> = (0..1_000_000).map(|_| 0.02 * f64::from(random.next_f64() as f32)).collect();
        let lamp = Ranked(&scores).scores().into_owned();
        assert!(lamp.is_sorted());
        assert_eq!(lamp.last(), Some(&1.0));
    }
}
