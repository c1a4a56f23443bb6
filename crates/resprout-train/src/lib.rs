//! Gradients and training: the only part of resprout that names the autodiff engine.
#![forbid(unsafe_code)]

pub mod device;
mod error;
mod loss;
mod lower;
mod ops;
pub mod optimiser;
mod parameters;
pub mod rates;
pub mod loader;
pub mod methods;
pub mod checkpoint;
pub mod recipe;
pub mod run;
