//! One threshold for all layers.

use super::{Allocation, Build, LayerScores, Totals};
use crate::error::Result;
use crate::select::global_counts;
use crate::table::Entry;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "global",
    about: "the highest scores of the whole network",
    paper: "Frankle and Carbin, The lottery ticket hypothesis, ICLR 2019 (global magnitude)",
    options: &[],
    build: |_| Ok(Box::new(Global)),
};

/// The allocation `global`: the highest scores over all layers stay, so one threshold holds for all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Global;

impl Allocation for Global {
    fn allocate(&self, layers: &[LayerScores], totals: Totals) -> Result<Vec<usize>> {
        Ok(global_counts(layers, totals.keep))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_highest_of_all() {
        let scores = [vec![1.0, 4.0], vec![3.0, 2.0]];
        let layers = scores.each_ref().map(|scores| LayerScores { name: "w", shape: &[2], scores });
        let counts = Global.allocate(&layers, Totals { sparsity: 0.5, keep: 2 }).unwrap();
        assert_eq!(counts, [1, 1]);
    }
}
