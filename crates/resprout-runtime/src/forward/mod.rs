//! The CPU forward: a [`Plan`] for one batch size, its compilation to programs on lines, and a [`Network`] that runs any
//! number of images in chunks.

mod apart;
mod compiled;
mod macs;
mod network;
mod plan;
mod support;
#[cfg(test)]
mod tests;

pub use compiled::LayerTime;
pub(crate) use compiled::{Compiled, SingleThreaded, default_microbatch, workers};
pub use macs::{LayerMacs, layer_macs};
pub use network::{Network, plan_chunk};
pub use network::{fixed_batch, with_batch};
pub(crate) use network::{parts, room};
pub use plan::{BatchNormStep, Plan, PlanOptions, Slots, Step};
pub use support::{check_operations, check_supported};
