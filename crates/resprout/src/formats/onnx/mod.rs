//! ONNX files: read into a model, and written back with only the changed tensors replaced.

mod build;
mod proto;
mod read;
mod write;

pub(crate) use build::{Attribute, GraphBuilder};
pub use read::{OnnxSource, parse, read};
pub use write::{encode, write};
