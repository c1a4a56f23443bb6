//! Repairs of a pruned network with unlabelled images.
//!
//! A repair receives images and never labels: it is label-free by type. Most act at single layers.
//! [`walk`](crate::calibrate::walk()) leads through the network, and several repairs share one walk. A [`NetworkRepair`] acts on
//! all layers at once.
//!
//! [`REPAIRS`] has a row per repair. [`Chain`] runs several in order, and [`Judge`] chooses among them. Your own implements
//! [`Visitor`], which acts at layers, and [`Repair`]:
//!
//! ```
//! use resprout::calibrate::{Needs, Visitor, WeightSite};
//! use resprout::repair::{Repair, Stage};
//!
//! /// Scales the weights of each layer so that its outputs deviate as much as the dense network's.
//! struct Rescale;
//!
//! impl Visitor for Rescale {
//!     fn needs(&self) -> Needs {
//!         Needs { images: true, dense: true, weights: true, batch: None }
//!     }
//!
//!     fn weights(&self, site: &mut WeightSite) -> resprout::Result<()> {
//!         let pair = site.pair()?; // per channel, in both networks
//!         let deviation = |variances: &[f64]| variances.iter().map(|v| v.sqrt()).sum::<f64>();
//!         let gain = deviation(&pair.dense.var) / deviation(&pair.sparse.var).max(1e-12);
//!         site.weights.data.iter_mut().for_each(|w| *w *= gain as f32);
//!         site.touch();
//!         Ok(())
//!     }
//! }
//!
//! impl Repair for Rescale {
//!     fn stage(&self) -> Stage {
//!         Stage::Weights
//!     }
//! }
//! ```
//!
//! [`Sparsify::repair`](crate::sparsify::Sparsify::repair) takes it.

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

/// The last values that a repair changes at a layer, in the order in which the network computes them. Repairs of ascending stage
/// can share a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Stage {
    /// Weights and biases.
    Weights,
    /// The running mean and variance of a BatchNormalization.
    Statistics,
    /// Scale (`gamma`) and shift (`beta`) of a BatchNormalization.
    Affine,
    /// All of the network, outside of any walk: see [`Repair::network`].
    Network,
}

/// Changes the parameters of a pruned network to restore its outputs. Its [`Visitor`] does so layer by layer, or
/// [`network`](Self::network) does so at once.
pub trait Repair: Visitor {
    /// The last values that it changes.
    fn stage(&self) -> Stage;

    /// The repair itself where it acts on all layers at once. Its stage is then [`Stage::Network`], and it visits no layer.
    fn network(&self) -> Option<&dyn NetworkRepair> {
        None
    }

    /// Why the repair changed no layer, for a warning if that happens.
    fn nothing(&self) -> &'static str {
        "it has no layer on which the repair acts"
    }
}

/// Changes the parameters of all layers of a pruned network at once.
pub trait NetworkRepair: Send + Sync {
    /// Repairs `model`, the pruned form of `dense`. Pruned weights stay zero. `images: [N, C, H, W]` are preprocessed, and
    /// there is at least one. `options.seconds` is what is left for this repair. An error leaves `model` as it was.
    ///
    /// The outcome counts what was done; [`Trained`](crate::calibrate::Trained) is for repairs that train.
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

    /// Of this many images it holds out every so many-th to judge by, as [`Tensor::hold_out`] does. Repairs before it in a
    /// [`Chain`] do not get these: what was fitted to them would look better than it is. `None` if it holds none out.
    fn holds_out(&self, images: usize) -> Option<usize> {
        let _ = images;
        None
    }
}

/// Builds a repair from its options.
#[doc(hidden)]
pub type Build = fn(&Options) -> Result<Box<dyn Repair>>;

/// A table of repairs. Other crates, such as `resprout-train`, hand theirs to whatever reads names of repairs.
pub type Rows = &'static [Entry<Build>];
