//! The micro-kernel for `f64`: `out[r][c] -= sum_k a[k][r] * b[c / WIDTH][k][c % WIDTH]`.
//!
//! Both sides are panels of [`WIDTH`] rows of one matrix, so a decomposition needs a single layout. Each output is one sum in
//! ascending `k`. The versions with fused multiply-add agree to the bit.

/// Rows of a panel: one vector of the widest instruction set.
pub(crate) const WIDTH: usize = 8;

/// A tile of sums, `[rows of a][rows of two panels of b]`.
#[repr(align(64))]
#[derive(Clone)]
pub(crate) struct Tile64(pub(crate) [[f64; 2 * WIDTH]; WIDTH]);

/// Any CPU.
pub(crate) fn portable(k: usize, a: &[f64], b: [&[f64]; 2], out: &mut Tile64) {
    let ((a, _), (left, _), (right, _)) = (a.as_chunks::<WIDTH>(), b[0].as_chunks::<WIDTH>(), b[1].as_chunks::<WIDTH>());
    for (half, b) in [left, right].into_iter().enumerate() {
        for r in 0..WIDTH {
            let mut sums = [0.0f64; WIDTH];
            for (a, b) in a[..k].iter().zip(b) {
                (0..WIDTH).for_each(|c| sums[c] += a[r] * b[c]);
            }
            (0..WIDTH).for_each(|c| out.0[r][half * WIDTH + c] -= sums[c]);
        }
    }
}

/// AVX2: four rows and one panel at a time, so that all sums stay in registers.
///
/// # Safety
/// The CPU has `avx2` and `fma`; `a` and both panels of `b` hold `k * WIDTH` values.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn avx2(k: usize, a: &[f64], b: [&[f64]; 2], out: &mut Tile64) {
    use std::arch::x86_64::*;
    const LANES: usize = 4;
    for half in 0..2 {
        for first in (0..WIDTH).step_by(LANES) {
            let mut sums = [[_mm256_setzero_pd(); 2]; LANES];
            for step in 0..k {
                // SAFETY: step < k, and a panel has WIDTH values at each step.
                unsafe {
                    let (a, b) = (a.as_ptr().add(step * WIDTH + first), b[half].as_ptr().add(step * WIDTH));
                    let columns = [_mm256_loadu_pd(b), _mm256_loadu_pd(b.add(LANES))];
                    for r in 0..LANES {
                        let scalar = _mm256_set1_pd(*a.add(r));
                        sums[r][0] = _mm256_fmadd_pd(scalar, columns[0], sums[r][0]);
                        sums[r][1] = _mm256_fmadd_pd(scalar, columns[1], sums[r][1]);
                    }
                }
            }
            for r in 0..LANES {
                for v in 0..2 {
                    // SAFETY: a row of the tile holds two panels of WIDTH values.
                    unsafe {
                        let at = out.0[first + r].as_mut_ptr().add(half * WIDTH + v * LANES);
                        _mm256_storeu_pd(at, _mm256_sub_pd(_mm256_loadu_pd(at), sums[r][v]));
                    }
                }
            }
        }
    }
}

/// AVX-512: 16 accumulators of 8 lanes.
///
/// # Safety
/// The CPU has `avx512f`; `a` and both panels of `b` hold `k * WIDTH` values.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn avx512(k: usize, a: &[f64], b: [&[f64]; 2], out: &mut Tile64) {
    use std::arch::x86_64::*;
    let mut sums = [[_mm512_setzero_pd(); 2]; WIDTH];
    for step in 0..k {
        // SAFETY: step < k, and a panel has WIDTH values at each step.
        unsafe {
            let a = a.as_ptr().add(step * WIDTH);
            let columns = [_mm512_loadu_pd(b[0].as_ptr().add(step * WIDTH)), _mm512_loadu_pd(b[1].as_ptr().add(step * WIDTH))];
            for r in 0..WIDTH {
                let scalar = _mm512_set1_pd(*a.add(r));
                sums[r][0] = _mm512_fmadd_pd(scalar, columns[0], sums[r][0]);
                sums[r][1] = _mm512_fmadd_pd(scalar, columns[1], sums[r][1]);
            }
        }
    }
    for r in 0..WIDTH {
        for half in 0..2 {
            // SAFETY: a row of the tile holds two panels of WIDTH values.
            unsafe {
                let at = out.0[r].as_mut_ptr().add(half * WIDTH);
                _mm512_storeu_pd(at, _mm512_sub_pd(_mm512_loadu_pd(at), sums[r][half]));
            }
        }
    }
}
