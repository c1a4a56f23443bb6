//! Repairs of a pruned network with unlabelled images.
//!
//! A repair receives images and never labels: it is label-free by type. Most act at single layers. [`crate::calibrate::walk`]
//! leads through the network, and several repairs share one walk. A [`NetworkRepair`] acts on all layers at once.

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
use crate::model::Model;
use crate::progress::Progress;
use crate::table::{Entry, Options};
use crate::tensor::Tensor;

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
    /// All of the network, outside of any walk: see [`Repair::network`].
    Network,
}

/// Changes the parameters of single layers of a pruned network to restore its outputs.
pub trait Repair: Visitor {
    /// Its stage.
    fn stage(&self) -> Stage;

    /// The repair itself where it acts on all layers at once. Its stage is then [`Stage::Network`], and it visits no layer.
    fn network(&self) -> Option<&dyn NetworkRepair> {
        None
    }

    /// The reason if a network has nothing to repair.
    fn nothing(&self) -> &'static str {
        "it has no layer on which the repair acts"
    }
}

/// Changes the parameters of all layers of a pruned network at once.
pub trait NetworkRepair: Send + Sync {
    /// Repairs `model`, the pruned form of `dense`. Pruned weights stay zero. `images: [N, C, H, W]` are preprocessed, and
    /// there is at least one. `options.seconds` is what is left for this repair. An error leaves `model` as it was.
    ///
    /// # Errors
    /// Of kind `Unsupported` for networks that it cannot repair, `Data` for images or numbers, and `Interrupted`.
    fn repair(
        &self,
        model: &mut Model,
        dense: &Model,
        images: &Tensor,
        options: &RepairOptions,
        progress: &dyn Progress,
    ) -> Result<RepairOutcome>;
}

/// Builds a repair from its options.
pub type Build = fn(&Options) -> Result<Box<dyn Repair>>;

/// A table of repairs. Crates above this one hand theirs down in the options of whatever reads names of repairs.
pub type Rows = &'static [Entry<Build>];
