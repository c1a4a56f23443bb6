//! Calibration: all images pass the network layer by layer. A layer can change after its inputs are measured and before its
//! outputs are computed.
//!
//! [`walk()`] is the one driver. It takes the pruned network through all images once. The dense network follows in lock-step
//! where a repair needs it. Nothing is measured that no [`Visitor`] reads.
//!
//! At each layer a visitor gets a *site*: a [`WeightSite`] at a layer with weights, a [`NormSite`] at a BatchNormalization. It
//! measures there, and may change the layer's parameters. Images run in *chunks*, a few at a time.

mod cache;
mod checkup;
mod follow;
mod forecast;
pub(crate) mod inputs;
mod needs;
mod norm;
pub(crate) mod normal;
mod outline;
pub(crate) mod sample;
mod site;
mod stats;
mod store;
pub(crate) mod target;
mod visitor;
pub(crate) mod walk;
mod weights;

pub(crate) use needs::bytes_per_image;

pub use cache::{ActivationCache, Dense};
pub use checkup::{Checkup, FAR, checkup, norm_distance};
pub use needs::Needs;
pub use norm::NormParams;
pub use outline::{Outline, Speed};
pub use site::{NormSite, WeightSite};
pub use stats::{ChannelStats, ChannelView, PairStats};
pub use store::ActivationStore;
pub use visitor::Visitor;
pub use walk::{Trained, WalkOutcome, walk};
pub use weights::WeightRows;
