//! Allocations: how many weights each layer keeps.

mod erk;
mod global;
mod lamp;
mod uniform;
mod uniform_plus;

use crate::error::Result;
use crate::select::ScoreList;
use crate::table::{Entry, Options};
use std::borrow::Cow;

pub use erk::Erk;
pub use global::Global;
pub use lamp::Lamp;
pub use uniform::Uniform;
pub use uniform_plus::UniformPlus;

/// One prunable layer, as an allocation sees it.
#[derive(Clone, Copy)]
pub struct LayerScores<'a> {
    /// The weight's name.
    pub name: &'a str,
    /// The weight's shape as stored.
    pub shape: &'a [usize],
    /// One score per weight; a high score = keep.
    pub scores: &'a dyn ScoreList,
}

impl ScoreList for LayerScores<'_> {
    fn len(&self) -> usize {
        self.scores.len()
    }

    fn scores(&self) -> Cow<'_, [f64]> {
        self.scores.scores()
    }
}

/// What the layers have to share.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// The asked sparsity of these layers, in `[0, 1)`.
    pub sparsity: f64,
    /// The number of weights to keep in all of them.
    pub keep: usize,
}

/// Decides how many weights each layer keeps.
pub trait Allocation: Send + Sync {
    /// One count per layer, none larger than the layer. The sum is `totals.keep`, but for `uniform`,
    /// which rounds layer by layer.
    fn allocate(&self, layers: &[LayerScores], totals: Totals) -> Result<Vec<usize>>;
}

/// Builds an allocation from its options.
pub type Build = fn(&Options) -> Result<Box<dyn Allocation>>;

/// All allocations.
pub static ALLOCATIONS: &[Entry<Build>] = &[uniform::ENTRY, uniform_plus::ENTRY, global::ENTRY, erk::ENTRY, lamp::ENTRY];
