//! Networks that a search tries: what is pruned of them, and how they are repaired.

use crate::error::Result;
use crate::model::{Model, PrunableRule};
use crate::progress::Progress;
use crate::prune::PruneOptions;
use crate::repair::RepairOptions;
use crate::sparsify::{SparsifyOptions, sparsify};
use crate::structure::Pattern;
use crate::structure::shrink::shrink;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// What is pruned: whole channels, which are cut out, and then single weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The share of the multiply-accumulates that whole channels keep, in `(0, 1]`; `None` if all channels stay.
    pub channels: Option<f64>,
    /// Which single weights go; `None` for none.
    pub weights: Option<SingleWeights>,
}

/// Single weights that are removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SingleWeights {
    /// A row of [`ALLOCATIONS`](crate::allocation::ALLOCATIONS).
    pub allocation: String,
    /// The share of the prunable weights that goes.
    pub sparsity: f64,
}

/// How much a repair may take.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Effort {
    /// A chain of repairs.
    pub repair: String,
    /// Steps of pruning and repair.
    pub steps: usize,
    /// The most images that it reads.
    pub images: usize,
    /// Memory and time.
    pub options: RepairOptions,
}

impl Effort {
    /// No repair.
    fn none() -> Effort {
        Effort { repair: "none".into(), steps: 1, images: 0, options: RepairOptions::default() }
    }
}

/// A family of candidates: networks that differ only in how much is pruned.
#[derive(Clone, Debug, PartialEq)]
pub enum Family {
    /// Single weights, by an allocation.
    Weights(&'static str),
    /// Whole channels.
    Channels,
    /// Channels that keep a share of the operations, then single weights.
    Both(f64, &'static str),
}

/// Sparsities of single weights, in ascending order.
const SPARSITIES: [f64; 17] = [0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.875, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98];
/// Shares of the operations that channels keep, in descending order.
const SHARES: [f64; 12] = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.33, 0.25, 0.2, 0.15, 0.1, 0.07];

impl Family {
    /// Every family that is searched.
    pub const ALL: [Family; 7] = [
        Family::Weights("lamp"),
        Family::Weights("global"),
        Family::Weights("erk"),
        Family::Weights("uniform"),
        Family::Channels,
        Family::Both(0.8, "lamp"),
        Family::Both(0.6, "lamp"),
    ];

    /// The number of its candidates, its *rungs*.
    pub fn rungs(&self) -> usize {
        match self {
            Family::Channels => SHARES.len(),
            _ => SPARSITIES.len(),
        }
    }

    /// The candidate of a rung, from 0 on; a higher rung has fewer weights.
    pub fn candidate(&self, rung: usize) -> Candidate {
        let weights = |allocation: &str| {
            Some(SingleWeights { allocation: allocation.into(), sparsity: SPARSITIES[rung.min(SPARSITIES.len() - 1)] })
        };
        match *self {
            Family::Weights(allocation) => Candidate { channels: None, weights: weights(allocation) },
            Family::Channels => Candidate { channels: Some(SHARES[rung.min(SHARES.len() - 1)]), weights: None },
            Family::Both(share, allocation) => Candidate { channels: Some(share), weights: weights(allocation) },
        }
    }
}

impl Candidate {
    /// A short name for tables and files.
    pub fn name(&self) -> String {
        let channels = self.channels.map(|share| format!("channel {}", percent(share)));
        let weights = self.weights.as_ref().map(|weights| format!("{} {}", weights.allocation, percent(weights.sparsity)));
        channels.into_iter().chain(weights).collect::<Vec<_>>().join(" + ")
    }

    /// The network without a repair, for measuring what it costs.
    pub fn masked(&self, dense: &Model, rule: &PrunableRule, progress: &dyn Progress) -> Result<Model> {
        self.repaired(dense, rule, &Tensor::default(), &Effort::none(), progress)
    }

    /// The pruned and repaired network. Channels are cut out. Single weights are repaired towards the network without them.
    pub fn repaired(
        &self,
        dense: &Model,
        rule: &PrunableRule,
        images: &Tensor,
        effort: &Effort,
        progress: &dyn Progress,
    ) -> Result<Model> {
        let images = match effort.images.min(images.shape.first().copied().unwrap_or(0)) {
            0 => Tensor::default(),
            count => images.first(count),
        };
        let mut model = dense.clone();
        for options in self.passes(rule, effort) {
            let channels = options.prune.pattern == Pattern::Channel;
            model = sparsify(&model, &images, &options, progress)?.repaired;
            if channels {
                model = shrink(&model)?.0;
            }
        }
        Ok(model)
    }

    /// The options of one pass over the network, or of two.
    fn passes(&self, rule: &PrunableRule, effort: &Effort) -> Vec<SparsifyOptions> {
        let of = |prune: PruneOptions| {
            let (criterion, allocation) = prune.pattern.default_methods();
            let allocation = if prune.allocation.is_empty() { allocation.into() } else { prune.allocation.clone() };
            SparsifyOptions {
                prune: PruneOptions { criterion: criterion.into(), allocation, rule: rule.clone(), ..prune },
                repair: effort.repair.clone(),
                repair_rows: &[],
                repair_options: effort.options.clone(),
                steps: effort.steps,
                checkpoint: None,
            }
        };
        let default = || PruneOptions { allocation: String::new(), ..PruneOptions::default() };
        let channels = self.channels.map(|share| PruneOptions { macs: Some(share), pattern: Pattern::Channel, ..default() });
        let weights = self.weights.as_ref().map(|weights| PruneOptions {
            sparsity: weights.sparsity,
            allocation: weights.allocation.clone(),
            ..default()
        });
        channels.into_iter().chain(weights).map(of).collect()
    }

    /// The commands that make the network again, one for each pass. `how` are the arguments of repair and images.
    pub fn commands(&self, model: &str, output: &str, how: &str) -> Vec<String> {
        let between = format!("{output}.channels.onnx");
        let channels = self.channels.map(|share| {
            let to = if self.weights.is_some() { &between } else { output };
            format!("resprout prune {model} --pattern channel --macs {share} --shrink {how} -o {to}")
        });
        let weights = self.weights.as_ref().map(|weights| {
            let SingleWeights { allocation, sparsity } = weights;
            let from = if self.channels.is_some() { &between } else { model };
            format!("resprout prune {from} --sparsity {sparsity} --allocation {allocation} {how} -o {output}")
        });
        channels.into_iter().chain(weights).collect()
    }
}

fn percent(share: f64) -> String {
    format!("{} %", (share * 1000.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_commands() {
        let both = Family::Both(0.6, "lamp").candidate(9);
        assert_eq!(both.name(), "channel 60 % + lamp 87.5 %");
        let lines = both.commands("a.onnx", "b.onnx", "--repair bn --steps 2 --calibration c");
        assert_eq!(
            lines,
            [
                "resprout prune a.onnx --pattern channel --macs 0.6 --shrink --repair bn --steps 2 --calibration c -o b.onnx.channels.onnx",
                "resprout prune b.onnx.channels.onnx --sparsity 0.875 --allocation lamp --repair bn --steps 2 --calibration c -o b.onnx",
            ]
        );
        let channels = Family::Channels.candidate(4);
        assert_eq!((channels.name(), channels.commands("a", "b", "").len()), ("channel 50 %".into(), 1));
    }

    #[test]
    fn higher_rungs_have_fewer_weights() {
        assert!(SPARSITIES.is_sorted() && SHARES.iter().rev().is_sorted());
        for family in Family::ALL {
            let names: Vec<String> = (0..family.rungs()).map(|rung| family.candidate(rung).name()).collect();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        }
    }
}
