//! The allocation that is chosen by measurement. Images and repairs take part, so that [`crate::sparsify`] makes the choice.

use super::{Allocation, Build, LayerScores, Totals};
use crate::error::{Error, Result};
use crate::select::{apply_caps, largest_remainder};
use crate::table::{Entry, OptionSpec, Options};
use std::collections::HashMap;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: Measured::NAME,
    about: "the best of several allocations by the label-free loss after least squares; then layers exchange weights; needs images",
    paper: "a coordinate search of its own",
    options: &[
        OptionSpec { name: "images", about: "the most calibration images that it measures with", default: "256" },
        OptionSpec { name: "mixtures", about: "how often mixtures of the two best are tried", default: "2" },
        OptionSpec { name: "passes", about: "how often each layer is offered more weights, or fewer", default: "1" },
    ],
    build: |options| Ok(Box::new(Measured::parse(options)?)),
};

/// The options of the allocation `measured`. By itself it cannot allocate: [`Sparsify`](crate::sparsify::Sparsify) measures.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Measured {
    /// The most calibration images that it measures with, from 4 on.
    pub images: usize,
    /// How often mixtures of the two best allocations are tried.
    pub mixtures: usize,
    /// How often each layer is offered more weights than the best allocation gives it, or fewer.
    pub passes: usize,
}

impl Measured {
    pub(crate) const NAME: &str = "measured";

    pub(crate) fn parse(options: &Options) -> Result<Measured> {
        Ok(Measured {
            images: options.parse("images", "a number from 4 on", |&n: &usize| n >= 4)?,
            mixtures: options.parse("mixtures", "a number up to 20", |&n: &usize| n <= 20)?,
            passes: options.parse("passes", "a number up to 20", |&n: &usize| n <= 20)?,
        })
    }
}

impl Allocation for Measured {
    fn allocate(&self, _: &[LayerScores], _: Totals) -> Result<Vec<usize>> {
        Err(Error::option(
            "allocation measured: it measures pruned networks on calibration images; `prune` and `Sparsify` do that",
        ))
    }
}

/// Counts by the name of the weight, such as an earlier pruning's.
#[derive(Clone, Debug)]
pub(crate) struct Counts(pub HashMap<String, usize>);

impl Allocation for Counts {
    fn allocate(&self, layers: &[LayerScores], totals: Totals) -> Result<Vec<usize>> {
        let counts: Vec<usize> = layers.iter().map(|layer| self.0.get(layer.name).copied().unwrap_or(0)).collect();
        let sum: usize = counts.iter().sum();
        if sum == totals.keep {
            return Ok(counts);
        }
        let shares: Vec<f64> = counts.iter().map(|&count| totals.keep as f64 * count as f64 / sum.max(1) as f64).collect();
        let sizes: Vec<usize> = layers.iter().map(|layer| layer.scores.len()).collect();
        Ok(apply_caps(&largest_remainder(&shares, totals.keep), &sizes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_scaled_to_the_budget() {
        let scores = [vec![1.0; 10], vec![1.0; 10]];
        let layers = [("a", &scores[0]), ("b", &scores[1])].map(|(name, scores)| LayerScores { name, shape: &[], scores });
        let counts = Counts([("a".to_string(), 2), ("b".to_string(), 4)].into());
        assert_eq!(counts.allocate(&layers, Totals { sparsity: 0.7, keep: 6 }).unwrap(), [2, 4]);
        assert_eq!(counts.allocate(&layers, Totals { sparsity: 0.55, keep: 9 }).unwrap(), [3, 6]);
        assert_eq!(counts.allocate(&layers, Totals { sparsity: 0.1, keep: 18 }).unwrap(), [8, 10]);
    }
}
