//! Training for resprout.
#![forbid(unsafe_code)]
#[doc(hidden)]
pub mod ops;
