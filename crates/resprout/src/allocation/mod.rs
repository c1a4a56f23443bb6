//! Allocations: the number of weights that each layer keeps.
//!
//! [`ALLOCATIONS`] has a row per allocation. Your own implements [`Allocation`]:
//!
//! ```
//! use resprout::allocation::{Allocation, LayerScores, Totals};
//! use resprout::select::{apply_caps, largest_remainder};
//! use resprout::sparsify::{Budget, Sparsify};
//! use resprout::{model::Model, tensor::Tensor};
//!
//! /// The number of weights that a layer keeps is in proportion to the square root of its size.
//! struct Root;
//!
//! impl Allocation for Root {
//!     fn allocate(&self, layers: &[LayerScores], totals: Totals) -> resprout::Result<Vec<usize>> {
//!         let sizes: Vec<usize> = layers.iter().map(|layer| layer.scores.len()).collect();
//!         let sum: f64 = sizes.iter().map(|&n| (n as f64).sqrt()).sum();
//!         let shares: Vec<f64> = sizes.iter().map(|&n| totals.keep as f64 * (n as f64).sqrt() / sum).collect();
//!         Ok(apply_caps(&largest_remainder(&shares, totals.keep), &sizes)) // no layer keeps more than it has
//!     }
//! }
//!
//! # fn main() -> resprout::Result<()> {
//! # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../resprout-cli/assets");
//! let dense = Model::open(folder.join("digits.onnx"))?;
//! let sparse = Sparsify::new(Budget::sparsity(0.9)).allocation(Root).run(&dense, &Tensor::default())?;
//! assert_eq!(sparse.outcome.kept.iter().sum::<usize>(), 7707);
//! # Ok(())
//! # }
//! ```

mod erk;
mod global;
mod lamp;
mod measured;
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
pub(crate) use measured::Counts;
pub use measured::Measured;
pub use table::ALLOCATIONS;
pub use uniform::Uniform;
pub use uniform_plus::UniformPlus;

/// One prunable layer, as an allocation sees it. Layers with a sparsity of their own are not among them.
#[derive(Clone, Copy)]
pub struct LayerScores<'a> {
    /// The name of the layer's weight.
    pub name: &'a str,
    /// The weight's shape, as [`Prunable::shape`](crate::model::Prunable::shape).
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
    /// layer. Other numbers of counts, and counts above the size, are errors of kind `Data`.
    ///
    /// Afterwards counts are lowered to what earlier masks have left, and raised to the floors of
    /// [`PruneOptions`](crate::prune::PruneOptions).
    ///
    /// # Errors
    /// Of kind `Option` for options or a sparsity that it does not allow.
    fn allocate(&self, layers: &[LayerScores], totals: Totals) -> Result<Vec<usize>>;
}

/// Builds an allocation from its options.
#[doc(hidden)]
pub type Build = fn(&Options) -> Result<Box<dyn Allocation>>;
