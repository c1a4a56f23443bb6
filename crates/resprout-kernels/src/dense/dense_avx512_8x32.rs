//! AVX-512: 8 rows x 2 vectors of 16 lanes, all 16 accumulators in registers.

use super::{COLS, Tile};
use std::arch::x86_64::*;

/// The micro-kernel of [`crate::dense`] for `a: [k][STRIDE]`, of which each step uses the first `rows` values, and `b: [k][COLS]`.
///
/// # Safety
/// The CPU has `avx512f`. `rows` is at most 8 and `cols` at most `COLS`. `a` points at 8 readable values at each of `k` steps of
/// `STRIDE`, `b` at `k * COLS` readable values.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn run<const STRIDE: usize>(k: usize, rows: usize, cols: usize, a: *const f32, b: *const f32, out: &mut Tile) {
    // SAFETY: the caller vouches for `a` and `b`; `R` is at most 8 and `V * 16` at most `COLS`.
    unsafe {
        if cols > 16 {
            match rows {
                1 => tile::<STRIDE, 1, 2>(k, a, b, out),
                2 => tile::<STRIDE, 2, 2>(k, a, b, out),
                3 | 4 => tile::<STRIDE, 4, 2>(k, a, b, out),
                _ => tile::<STRIDE, 8, 2>(k, a, b, out),
            }
        } else {
            match rows {
                1 => tile::<STRIDE, 1, 1>(k, a, b, out),
                2 => tile::<STRIDE, 2, 1>(k, a, b, out),
                3 | 4 => tile::<STRIDE, 4, 1>(k, a, b, out),
                _ => tile::<STRIDE, 8, 1>(k, a, b, out),
            }
        }
    }
}

/// # Safety
/// The CPU has `avx512f`. `R` is at most 8 and `V * 16` at most `COLS`. `a` points at `R` readable values at each of `k` steps of
/// `STRIDE`, `b` at `V * 16` at each of `k` steps of `COLS`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn tile<const STRIDE: usize, const R: usize, const V: usize>(k: usize, a: *const f32, b: *const f32, out: &mut Tile) {
    let mut acc = [[_mm512_setzero_ps(); V]; R];
    for step in 0..k {
        // SAFETY: step < k, so both panels hold a full row at this offset.
        unsafe {
            let (row_a, row_b) = (a.add(step * STRIDE), b.add(step * COLS));
            let mut vectors = [_mm512_setzero_ps(); V];
            for v in 0..V {
                vectors[v] = _mm512_loadu_ps(row_b.add(v * 16));
            }
            for r in 0..R {
                let scalar = _mm512_set1_ps(*row_a.add(r));
                for v in 0..V {
                    acc[r][v] = _mm512_fmadd_ps(scalar, vectors[v], acc[r][v]);
                }
            }
        }
    }
    for r in 0..R {
        for v in 0..V {
            // SAFETY: V * 16 <= COLS, so the store stays inside the tile's row.
            unsafe { _mm512_storeu_ps(out.0[r].as_mut_ptr().add(v * 16), acc[r][v]) };
        }
    }
}
