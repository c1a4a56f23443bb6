//! Runs pruned networks in an application: [`formats`] read a [`model`], and a [`session`] computes with it and leaves zero
//! weights out. The crate `resprout` prunes and repairs.
#![forbid(unsafe_code)]

pub mod error;
pub mod formats;
pub mod forward;
pub mod linalg;
pub mod model;
pub mod ops;
pub mod progress;
pub mod random;
pub mod session;
pub mod table;
pub mod tensor;
#[cfg(test)]
mod testing;

pub use error::{Error, ErrorKind, Result};

/// The instruction sets of this build, best first: name, what the CPU needs, and whether this one has it.
pub fn isas() -> impl Iterator<Item = (&'static str, &'static str, bool)> {
    resprout_kernels::ISAS.iter().map(|row| (row.name, row.about, row.open().is_some()))
}
