//! Criteria: how much each weight matters. A high score = keep.

mod magnitude;
mod random;
mod rms;

use crate::error::Result;
use crate::table::{Entry, Options};

/// One layer's weights, as a criterion sees them.
pub struct ScoreInput<'a> {
    /// The weights, flat, in the order of the file.
    pub weights: &'a [f32],
    /// The layer's position among the prunable ones.
    pub index: usize,
}

/// Scores weights. Pure: the same input gives the same scores on every machine.
pub trait Criterion: Sync {
    /// One finite score per weight, not negative.
    fn score(&self, layer: &ScoreInput) -> Vec<f64>;
}

/// Builds a criterion from its options and the run's seed.
pub type Build = fn(&Options, u64) -> Result<Box<dyn Criterion>>;

/// All criteria.
pub static CRITERIA: &[Entry<Build>] = &[magnitude::ENTRY, rms::ENTRY, random::ENTRY];
