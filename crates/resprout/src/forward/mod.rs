//! The CPU forward: a [`Plan`] for one batch size, and a [`Network`] that runs any number of images
//! through it in chunks.

mod network;
mod plan;

pub(crate) use network::with_batch;
pub use network::{Network, plan_chunk};
pub use plan::{BatchNormStep, Plan, PlanOptions, Slots, Step};
