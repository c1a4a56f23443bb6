//! Segments of training.

use resprout::Result;
use resprout::table::Options;
use serde::{Deserialize, Serialize};

/// A part of training with one pass through the learning-rate schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainSegment {
    /// Its length in epochs.
    pub epochs: usize,
    /// Factor of the recipe's learning rate.
    pub rate: f64,
    /// The action before its first step.
    pub before: Before,
    /// A sparsity that rises during the segment; `None` for no pruning in it.
    pub ramp: Option<Ramp>,
}

/// The action before a segment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Before {
    /// None. Training continues with its momentum.
    Nothing,
    /// Pruning to a sparsity by the recipe's criterion.
    Prune(f64),
    /// Pruning to a sparsity at random.
    PruneAtRandom(f64),
    /// Pruning to a sparsity by the recipe's method of pruning at initialisation.
    PruneAtInit(f64),
    /// Pruning to a sparsity by the recipe's criterion, and rewinding. All trained parameters get their values after the given
    /// number of epochs, and the momentum becomes zero.
    PruneAndRewind {
        /// Share of the prunable weights.
        sparsity: f64,
        /// Epochs from the start.
        to: f64,
    },
}

/// A sparsity that rises from 0 as `sparsity * (1 - (1 - t)^power)`, where `t` is the share of the ramp.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ramp {
    /// The final sparsity.
    pub sparsity: f64,
    /// Epoch of the segment at which it starts, from 0 on.
    pub start: f64,
    /// Epoch of the segment at which it ends.
    pub end: f64,
    /// Epochs between two prunings.
    pub every: f64,
    /// The exponent; 1 for a straight line.
    pub power: i32,
}

impl Ramp {
    /// The sparsity to prune to before step `step`, if it prunes there.
    pub fn at(&self, step: usize, steps_per_epoch: usize) -> Option<f64> {
        let steps = |epochs: f64| (epochs * steps_per_epoch as f64).round() as usize;
        let (start, end, every) = (steps(self.start), steps(self.end), steps(self.every).max(1));
        let due = step > start && step <= end && ((step - start).is_multiple_of(every) || step == end);
        due.then(|| {
            let share = (step - start) as f64 / (end - start) as f64;
            if step == end { self.sparsity } else { self.sparsity * (1.0 - (1.0 - share).powi(self.power)) }
        })
    }
}

/// The parameters of a method from the recipe.
#[derive(Clone, Copy, Debug)]
pub struct MethodRequest {
    /// The epochs of all segments.
    pub epochs: usize,
    /// The share of prunable weights that is removed at the end.
    pub sparsity: f64,
}

/// Builds a method's segments.
pub type Build = fn(&Options, MethodRequest) -> Result<Vec<TrainSegment>>;

/// A segment without pruning.
pub(super) fn plain(epochs: usize) -> TrainSegment {
    TrainSegment { epochs, rate: 1.0, before: Before::Nothing, ramp: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ramps_are_those_of_the_papers() {
        let ramp = |power| Ramp { sparsity: 0.8, start: 1.0, end: 5.0, every: 1.0, power };
        let values = |ramp: Ramp| (0..=60).filter_map(|step| ramp.at(step, 10)).collect::<Vec<_>>();
        let close = |got: Vec<f64>, expected: &[f64]| {
            assert_eq!(got.len(), expected.len(), "{got:?}");
            got.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "{got:?}"));
        };
        close(values(ramp(1)), &[0.2, 0.4, 0.6, 0.8]);
        // s (1 - (1 - t)^3) at t = 1/4, 1/2, 3/4, 1.
        close(values(ramp(3)), &[0.8 * (1.0 - 27.0 / 64.0), 0.8 * 7.0 / 8.0, 0.8 * 63.0 / 64.0, 0.8]);
        // The end is a step of pruning, even if it is no multiple of the distance.
        close(values(Ramp { every: 3.0, ..ramp(1) }), &[0.6, 0.8]);
    }
}
