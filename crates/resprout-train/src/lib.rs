//! Gradients and training on the CPU: dense, pruned on the way, or pruned at initialisation.
//!
//! A [`Model`](resprout::model::Model) of the crate `resprout` is translated layer by layer to instructions of the training
//! engine. What comes out is an ordinary model again, to be evaluated, written and run.
//!
//! [`run::train`] trains a model by a [`recipe::Recipe`]:
//!
//! ```
//! use resprout::architectures::{Shape, build};
//! use resprout::data::{ImageSet, Preprocess};
//! use resprout::progress::Quiet;
//! use resprout_train::{loader::Examples, recipe::Recipe, run::{Data, RunOptions, train}};
//! use std::sync::Arc;
//!
//! # fn main() -> resprout::Result<()> {
//! // Two classes: bright and dark images.
//! let pixels: Vec<u8> = (0..64 * 784).map(|i| if i / 784 % 2 == 0 { 200 } else { 20 }).collect();
//! let labels = (0..64).map(|i| i % 2).collect();
//! let set = Arc::new(ImageSet::from_bytes("example", pixels, [64, 1, 28, 28], Some(labels))?);
//! let preprocess = Preprocess::preset("mnist")?;
//! let examples = Examples { set, indices: Arc::new((0..64).collect()), preprocess, channels: 1 };
//! let data = Data { train: examples.clone(), validation: None, test: Some(examples) };
//!
//! let shape = Shape { classes: Some(2), image: None };
//! let mut model = build("lenet-300-100", &shape, "kaiming-in", 0)?;
//! let arch = Some("lenet-300-100".into());
//! let recipe = Recipe { arch, epochs: 4, batch: 16, sparsity: 0.9, rate: 0.01, ..Recipe::default() };
//! let options = RunOptions { folder: None, resume: false, workers: 1 };
//! let (outcome, _) = train(&mut model, &recipe, &data, &options, &Quiet)?;
//! assert!((outcome.sparsity - 0.9).abs() < 1e-4);
//! assert_eq!(outcome.test.unwrap().value, 1.0);
//! # Ok(())
//! # }
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`recipe`] | everything that determines the result of a run, as YAML |
//! | [`run`] | the loop, its data and its outcome; [`checkpoint`] the files of a run |
//! | [`loader`] | labelled examples, and batches with augmentation |
//! | [`methods`] | when training prunes: gradually, once, or by iterations with rewinding |
//! | [`at_init`] | pruning before training: SNIP, GraSP, SynFlow and others, and sanity checks of them |
//! | [`study`] | grids of runs in one journal, and their analysis |
//! | [`rates`], [`optimiser`] | schedules of the learning rate, SGD and Adam |
//! | [`distill`] | the repair [`Distill`], which trains a pruned network without labels |
//! | [`device`], [`bench`](mod@bench) | where training runs, and single steps to be timed |
//!
//! [`gradients()`] gives the gradients of a model's loss. [`REPAIRS`] makes the name `distill` known to
//! [`Sparsify::repair_rows`](resprout::sparsify::Sparsify::repair_rows). Errors are those of the crate `resprout`.
#![forbid(unsafe_code)]

pub mod at_init;
#[doc(hidden)]
pub mod bench;
#[doc(hidden)]
pub mod checkpoint;
#[doc(hidden)]
pub mod device;
pub mod distill;
mod engine;
mod error;
mod gradients;
#[doc(hidden)]
pub mod loader;
mod loss;
pub mod methods;
pub mod optimiser;
mod parameters;
pub mod rates;
pub mod recipe;
pub mod run;
mod step;
pub mod study;

pub use distill::{Distill, REPAIRS};
pub use engine::Mode;
pub use gradients::{Gradients, gradients};
