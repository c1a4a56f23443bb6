//! ONNX files: read into a model, and written back with only the changed tensors replaced.

mod build;
mod proto;
mod read;
mod write;

pub(crate) use build::{Attribute, GraphBuilder};
pub(in crate::formats) use read::parse_with;
pub use read::{OnnxSource, parse, read};
pub(in crate::formats) use write::encode_graph;
pub use write::{Storage, encode, encode_as, write};
