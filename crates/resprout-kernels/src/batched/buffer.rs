//! Memory for values, aligned to whole vectors.

use super::LANES;
use crate::simd::Vector;
use std::ops::{Deref, DerefMut};

/// Numbers that begin at a multiple of a vector's size.
#[derive(Clone, Default)]
pub struct Buffer {
    vectors: Vec<Vector>,
    len: usize,
}

impl Buffer {
    /// So many zeros.
    pub fn zeros(len: usize) -> Buffer {
        Buffer { vectors: vec![Vector::ZERO; len.div_ceil(LANES)], len }
    }

    /// Changes the length; what is in it then is not said.
    pub fn resize(&mut self, len: usize) {
        self.vectors.resize(len.div_ceil(LANES), Vector::ZERO);
        self.len = len;
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a `Vector` is sixteen `f32` without padding, and `len` of them were allocated and set.
        unsafe { std::slice::from_raw_parts(self.vectors.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above; the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.vectors.as_mut_ptr().cast(), self.len) }
    }
}
