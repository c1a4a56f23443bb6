//! AVX2 + FMA: the tile is walked in blocks of 4 rows x 2 vectors of 8 lanes.

use super::{COLS, Tile};
use std::arch::x86_64::*;

/// The micro-kernel of [`crate::dense`] for `a: [k][STRIDE]`, of which each step uses the first `rows` values, and `b: [k][COLS]`.
///
/// # Safety
/// The CPU has `avx2` and `fma`. `rows` is at most 8 and `cols` at most `COLS`. `a` points at 8 readable values at each of `k` steps
/// of `STRIDE`, `b` at `k * COLS` readable values.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn run<const STRIDE: usize>(k: usize, rows: usize, cols: usize, a: *const f32, b: *const f32, out: &mut Tile) {
    for first_row in (0..rows).step_by(4) {
        for first_col in (0..cols).step_by(16) {
            // SAFETY: both blocks start inside the panels; a block never leaves its panel row.
            unsafe { block::<STRIDE>(k, a.add(first_row), b.add(first_col), first_row, first_col, out) };
        }
    }
}

/// # Safety
/// The CPU has `avx2` and `fma`. `a` points at 4 readable values at each of `k` steps of `STRIDE`, `b` at 16 at each of `k` steps of
/// `COLS`. `first_row + 4` is at most 8, and `first_col + 16` at most `COLS`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn block<const STRIDE: usize>(k: usize, a: *const f32, b: *const f32, first_row: usize, first_col: usize, out: &mut Tile) {
    let mut acc = [[_mm256_setzero_ps(); 2]; 4];
    for step in 0..k {
        // SAFETY: step < k and the block lies inside the panel row.
        unsafe {
            let (row_a, row_b) = (a.add(step * STRIDE), b.add(step * COLS));
            let vectors = [_mm256_loadu_ps(row_b), _mm256_loadu_ps(row_b.add(8))];
            for (r, acc_row) in acc.iter_mut().enumerate() {
                let scalar = _mm256_set1_ps(*row_a.add(r));
                acc_row[0] = _mm256_fmadd_ps(scalar, vectors[0], acc_row[0]);
                acc_row[1] = _mm256_fmadd_ps(scalar, vectors[1], acc_row[1]);
            }
        }
    }
    for (r, acc_row) in acc.iter().enumerate() {
        let row = out.0[first_row + r].as_mut_ptr();
        // SAFETY: first_col + 16 <= COLS.
        unsafe {
            _mm256_storeu_ps(row.add(first_col), acc_row[0]);
            _mm256_storeu_ps(row.add(first_col + 8), acc_row[1]);
        }
    }
}
