//! Repairs: what is done to a pruned network with unlabelled images.
//!
//! A repair receives images only, never labels: label-free by type. It acts at single layers; the
//! walk through the network is [`crate::calibrate::walk`], and several repairs share one walk.

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

pub use auto::{AUTO, Candidate, Judge};
pub use chain::{Chain, RepairOptions};
pub use least_squares::LeastSquares;

use crate::calibrate::Visitor;
use crate::error::Result;
use crate::table::{Entry, Options};

/// What a repair did and what the user should know about it.
pub type RepairOutcome = crate::calibrate::WalkOutcome;

/// Where a repair acts last: the order in which repairs can share a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Weights and biases.
    Weights,
    /// The statistics of a BatchNormalization.
    Statistics,
    /// Scale and shift of a BatchNormalization.
    Affine,
}

/// Changes the parameters of single layers of a pruned network so that it works again.
pub trait Repair: Visitor {
    /// Where it acts.
    fn stage(&self) -> Stage;

    /// Why a network may offer nothing to repair.
    fn nothing(&self) -> &'static str {
        "it has no layer on which the repair acts"
    }
}

/// Builds a repair from its options.
pub type Build = fn(&Options) -> Result<Box<dyn Repair>>;

/// All repairs.
pub static REPAIRS: &[Entry<Build>] = &[
    none::ENTRY,
    batch_norm::ENTRY,
    bias::ENTRY,
    layerwise::ENTRY,
    channelwise::ENTRY,
    asr::ENTRY,
    stats::ENTRY,
    least_squares::ENTRY,
];
