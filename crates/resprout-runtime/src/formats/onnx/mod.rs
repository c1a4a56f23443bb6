//! ONNX files: [`read()`] into a model, and written by [`write()`] or [`encode`] with only the changed tensors replaced.

mod build;
mod changes;
mod external;
mod field;
mod fold;
mod functions;
mod fused;
mod links;
mod order;
mod pieces;
mod proto;
mod read;
mod sidecar;
mod skeleton;
mod source;
mod splice;
mod tensors;
mod tensors_out;
mod write;

pub use build::{Attribute, GraphBuilder};
pub use external::external_files;
pub(in crate::formats) use read::parse_with;
pub use read::{ReadOptions, parse, read, read_with};
pub use source::OnnxSource;
pub(in crate::formats) use write::encode_graph;
pub use write::{Storage, data_path, encode, encode_as, write};

#[cfg(test)]
mod tests;
