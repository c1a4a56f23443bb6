//! Runs pruned networks in an application: [`formats`] read a [`model`], and a [`session`] computes with it and leaves zero
//! weights out.
//!
//! ```no_run
//! use resprout_runtime::{model::Model, session::Session, tensor::Tensor};
//!
//! # fn main() -> resprout_runtime::Result<()> {
//! let model = Model::open("sparse.onnx")?; // or a sparse .safetensors
//! let mut session = Session::builder(&model).threads(4).batch(8).build(&[3, 224, 224])?; // one image: [C, H, W]
//! let images = Tensor::new(vec![8, 3, 224, 224], vec![0.5; 8 * 3 * 224 * 224]); // preprocessed
//! let outputs = session.run(&images)?; // of a classifier: one output, [8, classes]
//! # Ok(())
//! # }
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`model`] | [`Model`](model::Model): a graph, its parameters, and a mask for each pruned weight |
//! | [`formats`] | ONNX, safetensors, sparse safetensors and PyTorch checkpoints |
//! | [`session`] | [`Session`](session::Session): runs images fast, with a plan that can be measured and kept in a file |
//! | [`forward`] | [`Network`](forward::Network): runs any number of images on rayon's threads; counts of operations |
//! | [`ops`] | the operations of a graph |
//! | [`tensor`], [`linalg`], [`random`] | arrays, linear algebra in `f64`, reproducible random numbers |
//! | [`progress`], [`table`] | progress and cancellation, tables of named methods |
//!
//! Images are `f32` tensors `[N, C, H, W]`, or `[N, H, W, C]` where the network takes these. They are preprocessed by the
//! caller; the crate `resprout` does it with `resprout::data`. It also prunes and repairs, and re-exports these modules.
//!
//! Every function that can fail returns [`Result`]. An [`Error`] has an [`ErrorKind`], and its message names the file, layer or
//! option.
#![forbid(unsafe_code)]

pub mod error;
pub mod formats;
pub mod forward;
#[doc(hidden)]
pub mod linalg;
pub mod model;
#[doc(hidden)]
pub mod ops;
pub mod progress;
pub mod random;
pub mod session;
pub mod table;
pub mod tensor;
#[cfg(test)]
mod testing;

pub use error::{Error, ErrorKind, Result};
/// The kernels, whose shapes, activations and instruction sets stand in signatures here.
#[doc(hidden)]
pub use resprout_kernels as kernels;

/// The instruction sets of this build, best first: name, what the CPU needs, and whether this CPU has it.
///
/// [`SessionOptions::isa`](session::SessionOptions::isa) takes one of the names.
pub fn isas() -> impl Iterator<Item = (&'static str, &'static str, bool)> {
    resprout_kernels::ISAS.iter().map(|row| (row.name, row.about, row.open().is_some()))
}
