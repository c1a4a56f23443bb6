//! Allocations: the number of weights that each layer keeps.

mod erk;
mod global;
mod lamp;
mod table;
mod uniform;
mod uniform_plus;

use crate::error::Result;
use crate::select::ScoreList;
use crate::table::Options;
use std::borrow::Cow;

pub use erk::Erk;
pub use global::Global;
pub use lamp::Lamp;
pub use table::ALLOCATIONS;
pub use uniform::Uniform;
pub use uniform_plus::UniformPlus;

/// One prunable layer, as an allocation sees it.
#[derive(Clone, Copy)]
pub struct LayerScores<'a> {
    /// The weight's name.
    pub name: &'a str,
    /// The weight's shape as stored.
    pub shape: &'a [usize],
    /// One score per weight; higher scores are kept.
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

/// The budget that the layers share.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// The sparsity of these layers, in `[0, 1)`.
    pub sparsity: f64,
    /// The number of weights that all of them keep.
    pub keep: usize,
}

/// Decides how many weights each layer keeps.
pub trait Allocation: Send + Sync {
    /// One count per layer, up to the size of the layer. The sum is `totals.keep`, except for `uniform`, which rounds layer by
    /// layer.
    fn allocate(&self, layers: &[LayerScores], totals: Totals) -> Result<Vec<usize>>;
}

/// Builds an allocation from its options.
pub type Build = fn(&Options) -> Result<Box<dyn Allocation>>;
