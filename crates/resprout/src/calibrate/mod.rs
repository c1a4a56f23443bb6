//! Calibration: all images go through the network layer by layer, so that a layer can be changed
//! after its inputs were measured and before its outputs are computed.
//!
//! [`walk()`] is the one driver. It takes the pruned network, and where a repair asks for it the dense
//! one in lock-step, through all images once; what is measured at a layer is measured when a repair
//! asks for it, and not before.

pub mod cache;
pub mod checkup;
pub mod forecast;
pub(crate) mod normal;
pub mod site;
pub mod stats;
pub mod store;
pub(crate) mod target;
pub mod visitor;
pub(crate) mod walk;

pub use cache::{ActivationCache, Dense};
pub use checkup::{Checkup, checkup};
pub use forecast::{Outline, Speed};
pub use site::{NormParams, NormSite, WeightSite};
pub use stats::{ChannelStats, PairStats};
pub use store::ActivationStore;
pub use visitor::{Needs, Visitor};
pub use walk::{WalkOutcome, walk};
