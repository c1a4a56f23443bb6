//! A model's graph as a program for the training engine: every layer becomes one instruction.

mod batch;
mod flow;
mod forward;
mod gates;
mod program;
mod translate;

pub use forward::Mode;
pub(crate) use gates::{Gates, Hold};
pub(crate) use program::TrainProgram;
