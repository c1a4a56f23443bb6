//! Training for resprout. Reserved: this crate will be the only one that names an autodiff engine;
//! it has no public API yet.
#![forbid(unsafe_code)]
