//! The same sparsity in every layer.

use super::{Allocation, Build, LayerScores, Totals};
use crate::error::Result;
use crate::select::kept_alone;
use crate::table::Entry;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "uniform",
    about: "the same sparsity in every layer, each rounded on its own",
    paper: "baseline; Zhu and Gupta, To prune, or not to prune, 2017",
    options: &[],
    build: |_| Ok(Box::new(Uniform)),
};

/// The allocation `uniform`: the same sparsity in every layer, each rounded on its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uniform;

impl Allocation for Uniform {
    fn allocate(&self, layers: &[LayerScores], totals: Totals) -> Result<Vec<usize>> {
        Ok(layers.iter().map(|layer| kept_alone(layer.scores.len(), totals.sparsity)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_each_layer_half_to_even() {
        let scores = [4, 5, 7].map(|n| vec![0.0; n]);
        let layers = scores.each_ref().map(|scores| LayerScores { name: "w", shape: &[], scores });
        let counts = Uniform.allocate(&layers, Totals { sparsity: 0.5, keep: 8 }).unwrap();
        assert_eq!(counts, [2, 3, 3], "2.5 removed is 2, 3.5 removed is 4");
    }
}
