//! Memory for lines.

use std::sync::atomic::AtomicBool;

/// Lanes of a line.
pub const LANES: usize = 16;

/// Bytes of a line.
pub(super) const VECTOR_BYTES: usize = LANES * size_of::<f32>();

/// One line: a cache line of its own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub [f32; LANES]);

/// The values of a program, for one run at a time.
pub struct Arena {
    vectors: Vec<Line>,
    /// Which replicas of values have been made in this run.
    made: Vec<AtomicBool>,
}

impl Arena {
    pub(super) fn new(vectors: usize, replicas: usize) -> Arena {
        let made = (0..replicas).map(|_| AtomicBool::new(false)).collect();
        Arena { vectors: vec![Line([0.0; LANES]); vectors], made }
    }

    pub(super) fn len(&self) -> usize {
        self.vectors.len()
    }

    pub(super) fn pointer(&mut self) -> *mut f32 {
        self.vectors.as_mut_ptr().cast()
    }

    pub(super) fn made(&self) -> &[AtomicBool] {
        &self.made
    }
}
