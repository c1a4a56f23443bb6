//! Prune trained vision networks, repair them without labels, and report the result.
//!
//! * *Pruning* sets weights to zero. A [criterion](criteria) scores every weight, an [allocation] says how many
//!   each layer keeps, and a [pattern](structure::Pattern) which weights stay or go together.
//! * A [repair] changes the weights that are left, with unlabelled *calibration images*, so that the network computes
//!   again what the *dense* one, from before the pruning, does.
//! * *Sparsity* is the share of the prunable weights that is pruned: those of convolutions and linear layers.
//!
//! [`sparsify::Sparsify`] does it in one expression, with methods of the tables or your own. `folder` holds a network for
//! handwritten digits and its images:
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
//!
//! A network that was pruned before has zeros without masks. [`Sparsify`](sparsify::Sparsify) keeps them; before the functions
//! below it, call [`Model::keep_zeros`](model::Model::keep_zeros), so that they stay zero and count.
//!
//! | to | see |
//! | --- | --- |
//! | read and write networks | [`model::Model::open`], [`formats`] |
//! | prune and repair | [`sparsify::Sparsify`]; step by step [`prune::prune`], [`repair::Chain`] |
//! | write a criterion, an allocation or a repair | [`criteria`], [`allocation`], [`repair`] |
//! | measure accuracy and distance | [`eval`]; [`report`] has counts, sizes and warnings |
//! | read and preprocess images | [`data`] |
//! | run a network fast | [`session::Session`] |
//! | cut pruned channels out | [`structure::shrink::shrink`] |
//! | search for the best network of a size or speed | [`compress`] |
//! | compare many configurations | [`study`] |
//! | build a network with fresh weights | [`architectures`]; the crate `resprout-train` trains it |
//!
//! Methods have names in tables: [`criteria::CRITERIA`], [`allocation::ALLOCATIONS`], [`repair::REPAIRS`],
//! [`structure::PATTERNS`]. Text names a row, with options after colons: `"erk:power=2"`. The example shows types instead.
//!
//! Functions return [`Result`]. An [`Error`] has an [`ErrorKind`], and its message names the file, layer or option. Results do
//! not depend on the number of threads, except where a limit in seconds makes the clock take part.
#![forbid(unsafe_code)]

pub mod allocation;
pub mod architectures;
pub mod calibrate;
pub mod compress;
pub mod criteria;
pub mod data;
pub mod eval;
#[doc(hidden)]
pub mod hash;
#[doc(hidden)]
pub mod lipschitz;
pub mod lock;
pub mod prune;
pub mod repair;
pub mod report;
pub mod select;
pub mod sparsify;
pub mod structure;
pub mod study;

pub use resprout_runtime::{Error, ErrorKind, Result};
pub use resprout_runtime::{error, formats, forward, model, progress, random, session, table, tensor};
#[doc(hidden)]
pub use resprout_runtime::{kernels, linalg, ops};

pub use resprout_runtime::isas;
