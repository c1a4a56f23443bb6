//! Prune trained vision networks, repair them without labels, and report what is left.
#![forbid(unsafe_code)]

pub mod allocation;
pub mod calibrate;
pub mod criteria;
pub mod data;
pub mod error;
pub mod eval;
pub mod formats;
pub mod forward;
pub mod model;
pub mod ops;
pub mod progress;
pub mod prune;
pub mod random;
pub mod repair;
pub mod report;
pub mod select;
pub mod table;
pub mod tensor;

pub use error::{Error, ErrorKind, Result};

/// The dense kernels of this build, best first: name, what the CPU must have, whether this one has it.
pub fn kernels() -> impl Iterator<Item = (&'static str, &'static str, bool)> {
    resprout_kernels::KERNELS.iter().map(|row| (row.name, row.about, row.open().is_some()))
}
