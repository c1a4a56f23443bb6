//! Memory for vectors.

pub(super) use crate::simd::VECTOR_BYTES;
use crate::simd::{self, Vector};
use std::sync::atomic::AtomicBool;

/// Lanes of a vector.
pub const LANES: usize = simd::LANES;

/// The values of a program, for one run at a time.
pub struct Arena {
    vectors: Vec<Vector>,
    /// For each replica of a value, whether this run has made it.
    replica_made: Vec<AtomicBool>,
}

impl Arena {
    pub(super) fn new(vectors: usize, replicas: usize) -> Arena {
        let replica_made = (0..replicas).map(|_| AtomicBool::new(false)).collect();
        Arena { vectors: vec![Vector::ZERO; vectors], replica_made }
    }

    /// Whether it has these sizes.
    pub(super) fn fits(&self, vectors: usize, replicas: usize) -> bool {
        self.vectors.len() == vectors && self.replica_made.len() == replicas
    }

    pub(super) fn pointer(&mut self) -> *mut f32 {
        self.vectors.as_mut_ptr().cast()
    }

    pub(super) fn replica_made(&self) -> &[AtomicBool] {
        &self.replica_made
    }
}
