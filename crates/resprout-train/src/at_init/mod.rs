//! Pruning at initialisation: masks for a network that is not trained yet.
//!
//! A method is a list of rounds (the sparsity after each) and a score. The loop, the selection and the allocation are the
//! same for all. [`prune_at_init`] runs a method that [`find`] has found, and [`batches`] draws the images that it reads.

pub mod ablation;
mod criterion;
mod gradients;
mod grasp;
mod method;
mod prune;
mod snip;
mod synflow;

pub use method::{Build, Input, LabelledImages, Method, Score, Scores};
pub use prune::{batches, prune_at_init};

use resprout::Result;
use resprout::table::{self, Entry};

/// All methods of pruning at initialisation.
pub static AT_INIT: &[Entry<Build>] = &[
    criterion::MAGNITUDE,
    criterion::RANDOM,
    snip::SNIP,
    snip::ITERATIVE,
    snip::FORCE,
    grasp::ENTRY,
    synflow::SYNFLOW,
    synflow::RESYNFLOW,
];

/// Finds a method, a row of [`AT_INIT`], by `name:option=value`, for a sparsity in `[0, 1)`.
///
/// # Errors
/// Of kind `Option`.
pub fn find(text: &str, sparsity: f64) -> Result<Method> {
    let (entry, options) = table::find(AT_INIT, "pruning at initialisation", text)?;
    (entry.build)(&options, sparsity)
}
