//! Repairs of a pruned network with unlabelled images.
//!
//! A repair receives images and never labels: it is label-free by type. It acts at single layers. [`crate::calibrate::walk`]
//! leads through the network, and several repairs share one walk.

mod asr;
mod auto;
mod batch_norm;
mod bias;
mod chain;
mod channelwise;
mod gains;
mod layerwise;
mod least_squares;
mod none;
mod stats;
mod table;

pub use auto::{AUTO, Candidate, Judge};
pub use chain::{Chain, RepairOptions};
pub use least_squares::LeastSquares;
pub use table::REPAIRS;

use crate::calibrate::Visitor;
use crate::error::Result;
use crate::table::Options;

/// What repairs did, and warnings for the user.
pub type RepairOutcome = crate::calibrate::WalkOutcome;

/// The last values that a repair changes. Repairs of ascending stage can share a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Weights and biases.
    Weights,
    /// The statistics of a BatchNormalization.
    Statistics,
    /// Scale and shift of a BatchNormalization.
    Affine,
}

/// Changes the parameters of single layers of a pruned network to restore its outputs.
pub trait Repair: Visitor {
    /// Its stage.
    fn stage(&self) -> Stage;

    /// The reason if a network has nothing to repair.
    fn nothing(&self) -> &'static str {
        "it has no layer on which the repair acts"
    }
}

/// Builds a repair from its options.
pub type Build = fn(&Options) -> Result<Box<dyn Repair>>;
