//! Prune trained vision networks, repair them without labels, and report what is left.
#![forbid(unsafe_code)]

pub mod calibrate;
pub mod error;
pub mod formats;
pub mod forward;
pub mod model;
pub mod ops;
pub mod progress;
pub mod random;
pub mod tensor;

pub use error::{Error, ErrorKind, Result};
