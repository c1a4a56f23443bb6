//! Calibration: all images pass the network layer by layer. A layer can change after its inputs are measured and before its
//! outputs are computed.
//!
//! [`walk()`] is the one driver. It takes the pruned network through all images once. The dense network follows in lock-step
//! where a repair needs it. Nothing is measured that no [`Visitor`] reads.
//!
//! At each layer a visitor gets a *site*: a [`WeightSite`] at a layer with weights, a [`NormSite`] at a BatchNormalization. It
//! measures there, and may change the layer's parameters. Images run in *chunks*, a few at a time.

#[doc(hidden)]
pub mod cache;
#[doc(hidden)]
pub mod checkup;
mod follow;
mod forecast;
pub(crate) mod inputs;
mod needs;
mod norm;
pub(crate) mod normal;
mod outline;
pub(crate) mod sample;
#[doc(hidden)]
pub mod site;
#[doc(hidden)]
pub mod stats;
#[doc(hidden)]
pub mod store;
pub(crate) mod target;
#[doc(hidden)]
pub mod visitor;
pub(crate) mod walk;
mod weights;

pub(crate) use needs::bytes_per_image;

#[doc(hidden)]
pub use cache::{ActivationCache, Dense};
#[doc(hidden)]
pub use checkup::{Checkup, FAR, checkup, norm_distance};
pub use needs::Needs;
pub use norm::NormParams;
#[doc(hidden)]
pub use outline::{Outline, Speed};
pub use site::{NormSite, WeightSite};
pub use stats::{ChannelStats, PairStats};
#[doc(hidden)]
pub use store::ActivationStore;
pub use visitor::Visitor;
pub use walk::Trained;
#[doc(hidden)]
pub use walk::{WalkOutcome, walk};
pub use weights::WeightRows;
