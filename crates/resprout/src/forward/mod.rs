//! The CPU forward: a [`Plan`] for one batch size, and a [`Network`] that runs any number of images
//! through it in chunks.

mod network;
mod plan;

pub use network::Network;
pub use plan::{BatchNormStep, Plan, PlanOptions, Slots, Step};
