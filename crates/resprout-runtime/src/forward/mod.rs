//! The CPU forward. A [`Plan`] holds the computations for one input shape. The compiler turns it into programs of the
//! sparse engine, and a [`Network`] runs any number of images in chunks.
//!
//! Evaluation and repair use a [`Network`]. A [`Session`](crate::session::Session) runs the same plans and is faster: its
//! threads, stages and blockings are chosen for one batch size.

mod batch;
mod compiled;
mod compiler;
mod image_axis;
mod macs;
mod network;
mod plan;
mod planner;
mod segment;
mod slots;
mod step;
mod support;
#[cfg(test)]
mod tests;
mod timing;

pub(crate) use batch::{chunk_outputs, default_microbatch, output_tensors, workers};
pub use batch::{fixed_batch, with_batch};
pub(crate) use compiled::{Compiled, SingleThreaded};
pub use macs::{LayerMacs, layer_macs};
pub use network::{Network, plan_chunk};
pub use plan::Plan;
pub use planner::PlanOptions;
pub use slots::Slots;
pub use step::{BatchNormStep, Step};
pub use support::{check_operations, check_supported};
pub use timing::LayerTime;
