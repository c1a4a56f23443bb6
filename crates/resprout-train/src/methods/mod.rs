//! When training prunes: every method is a list of segments of training, so that all of them run on
//! one loop, count their epochs alike, and resume alike.

mod dense;
mod imp;
mod one_shot;
mod progressive;
mod random;

use crate::error::option;
use resprout::Result;
use resprout::table::{self, Entry, Options};
use serde::{Deserialize, Serialize};

/// A stretch of training with one run through the learning-rate schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainSegment {
    /// Its length.
    pub epochs: usize,
    /// Factor of the learning rate.
    pub rate: f64,
    /// What happens before its first step.
    pub before: Before,
    /// A sparsity that rises while it runs.
    pub ramp: Option<Ramp>,
}

/// What happens before a segment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Before {
    /// Nothing; training goes on with its momentum.
    Nothing,
    /// Pruning to a sparsity by the recipe's criterion.
    Prune(f64),
    /// Pruning to a sparsity at random.
    PruneAtRandom(f64),
    /// Pruning to a sparsity by the recipe's method of pruning at initialisation.
    PruneAtInit(f64),
    /// Pruning to a sparsity by the recipe's criterion; then the kept weights, and everything else that
    /// is trained, go back to what they were after the given number of epochs, and the momentum to zero.
    PruneAndRewind {
        /// Share of the prunable weights.
        sparsity: f64,
        /// Epochs from the start.
        to: f64,
    },
}

/// A sparsity that rises from 0: `sparsity * (1 - (1 - t)^power)` with `t` the share of the ramp.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ramp {
    /// Where it ends.
    pub sparsity: f64,
    /// Epoch at which it starts.
    pub start: f64,
    /// Epoch at which it ends.
    pub end: f64,
    /// Epochs between two prunings.
    pub every: f64,
    /// 1 for a straight line.
    pub power: i32,
}

impl Ramp {
    /// The sparsity to prune to before step `step`, if this is a step of pruning.
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

/// What a method is asked for.
#[derive(Clone, Copy, Debug)]
pub struct MethodRequest {
    /// All epochs of all segments together.
    pub epochs: usize,
    /// Share of the prunable weights to remove in the end.
    pub sparsity: f64,
}

/// Builds a method's segments.
pub type Build = fn(&Options, MethodRequest) -> Result<Vec<TrainSegment>>;

/// All methods.
pub static METHODS: &[Entry<Build>] =
    &[dense::ENTRY, progressive::PROGRESSIVE, progressive::GMP, one_shot::ENTRY, imp::ENTRY, random::ENTRY];

/// The segments of the method that a text names. Their epochs add up to those asked for.
pub fn segments(text: &str, ask: MethodRequest) -> Result<Vec<TrainSegment>> {
    let (entry, options) = table::find(METHODS, "--method", text)?;
    if ask.epochs == 0 {
        return Err(option("--epochs 0: at least 1 is needed"));
    }
    (entry.build)(&options, ask)
}

/// Training without pruning before it.
fn plain(epochs: usize) -> TrainSegment {
    TrainSegment { epochs, rate: 1.0, before: Before::Nothing, ramp: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_keeps_to_the_budget_and_reaches_the_sparsity() {
        for entry in METHODS {
            for epochs in [5, 6, 13, 160] {
                let segments = segments(entry.name, MethodRequest { epochs, sparsity: 0.9 }).unwrap();
                assert_eq!(segments.iter().map(|s| s.epochs).sum::<usize>(), epochs, "{}", entry.name);
                let mut reached = Vec::new();
                for segment in &segments {
                    assert!(segment.epochs > 0, "{}", entry.name);
                    reached.extend(match segment.before {
                        Before::Nothing => None,
                        Before::Prune(s)
                        | Before::PruneAtInit(s)
                        | Before::PruneAtRandom(s)
                        | Before::PruneAndRewind { sparsity: s, .. } => Some(s),
                    });
                    if let Some(ramp) = segment.ramp {
                        reached.extend((0..=segment.epochs * 10).filter_map(|step| ramp.at(step, 10)));
                    }
                }
                assert!(reached.windows(2).all(|pair| pair[0] < pair[1]), "{}: {reached:?}", entry.name);
                assert_eq!(reached.last().copied(), (entry.name != "dense").then_some(0.9), "{}", entry.name);
            }
        }
    }

    #[test]
    fn the_ramps_are_those_of_the_papers() {
        let ramp = |power| Ramp { sparsity: 0.8, start: 1.0, end: 5.0, every: 1.0, power };
        let values = |ramp: Ramp| (0..=60).filter_map(|step| ramp.at(step, 10)).collect::<Vec<_>>();
        let close = |got: Vec<f64>, want: &[f64]| {
            assert_eq!(got.len(), want.len(), "{got:?}");
            got.iter().zip(want).for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "{got:?}"));
        };
        close(values(ramp(1)), &[0.2, 0.4, 0.6, 0.8]);
        // s (1 - (1 - t)^3) at t = 1/4, 1/2, 3/4, 1.
        close(values(ramp(3)), &[0.8 * (1.0 - 27.0 / 64.0), 0.8 * 7.0 / 8.0, 0.8 * 63.0 / 64.0, 0.8]);
        // An end that is no multiple of the distance is a step of pruning too.
        close(values(Ramp { every: 3.0, ..ramp(1) }), &[0.6, 0.8]);
    }

    #[test]
    fn impossible_wishes_are_refused() {
        let ask = MethodRequest { epochs: 4, sparsity: 0.9 };
        for bad in [
            "progressive:start=0.6:end=0.5",
            "progressive:end=1.5",
            "gmp:every=0",
            "one-shot:at=0",
            "imp:levels=4",
            "imp:levels=0",
            "imp:rewind=9",
            "nothing",
        ] {
            assert!(segments(bad, ask).is_err(), "{bad}");
        }
    }
}
