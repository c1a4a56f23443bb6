//! Prune trained vision networks, repair them without labels, and report the result.
//!
//! [`sparsify::Sparsify`] does it in one expression, with methods of the tables or your own:
//!
//! ```
//! use resprout::allocation::Erk;
//! use resprout::data::{ImageSet, LabelSource, Preprocess};
//! use resprout::repair::LeastSquares;
//! use resprout::sparsify::{Budget, Sparsify};
//! use resprout::formats::onnx;
//!
//! # fn main() -> resprout::Result<()> {
//! # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../resprout-cli/assets");
//! let dense = onnx::read(&folder.join("digits.onnx"))?;
//! let images = ImageSet::open(&folder.join("digits-images-idx3-ubyte.gz"), &LabelSource::None)?;
//! let preprocess = Preprocess { mean: vec![4.884], std: vec![6.017], ..Preprocess::default() };
//! let images = images.load(0..256, 1, &preprocess)?;
//!
//! let sparse = Sparsify::new(Budget::sparsity(0.9))
//!     .allocation(Erk::default())
//!     .repair(LeastSquares::default())
//!     .run(&dense, &images)?;
//! assert_eq!(sparse.outcome.kept.iter().sum::<usize>(), 7707); // a tenth of 77,072
//! let bytes = onnx::encode(&sparse.repaired)?;
//! # assert!(!bytes.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! A [`model::Model`] is a graph, a table of parameters and a table of masks. Every method is a step on it. The same, step
//! by step:
//!
//! ```
//! use resprout::{data::*, formats::onnx, progress::Quiet, prune::*, repair::*};
//!
//! # fn main() -> resprout::Result<()> {
//! # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../resprout-cli/assets");
//! let dense = onnx::read(&folder.join("digits.onnx"))?;
//! let mut model = dense.clone();
//! let options = PruneOptions { sparsity: 0.9, allocation: "erk".into(), ..PruneOptions::default() };
//! let images = ImageSet::open(&folder.join("digits-images-idx3-ubyte.gz"), &LabelSource::None)?;
//! let preprocess = Preprocess { mean: vec![4.884], std: vec![6.017], ..Preprocess::default() };
//! let images = images.load(0..256, 1, &preprocess)?;
//!
//! let outcome = prune(&mut model, &options, &images, &Quiet)?;
//! assert_eq!(outcome.kept.iter().sum::<usize>(), 7707); // a tenth of 77,072
//! Chain::parse("least-squares")?.repair(&mut model, &dense, &images, &RepairOptions::default(), &Quiet)?;
//! let bytes = onnx::encode(&model)?;
//! # assert!(!bytes.is_empty());
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod allocation;
pub mod architectures;
pub mod calibrate;
pub mod compress;
pub mod criteria;
pub mod data;
pub mod eval;
pub mod hash;
pub mod lipschitz;
pub mod prune;
pub mod repair;
pub mod report;
pub mod select;
pub mod sparsify;
pub mod structure;
pub mod study;

pub use resprout_runtime::{Error, ErrorKind, Result};
pub use resprout_runtime::{error, formats, forward, linalg, model, ops, progress, random, session, table, tensor};

pub use resprout_runtime::isas;
