//! The micro-kernel for `f64`: `out[r][c] -= sum_k a[k][r] * b[c / WIDTH][k][c % WIDTH]`.
//!
//! Both sides are panels of [`WIDTH`] rows of one matrix, so a decomposition needs a single layout. Each output is one sum in
//! ascending `k`; the versions with fused multiply-add agree to the bit.

/// Rows of a panel: one vector of the widest instruction set.
pub const WIDTH: usize = 8;

/// A tile of sums, `[rows of a][rows of two panels of b]`.
#[repr(align(64))]
#[derive(Clone)]
pub struct Tile64(pub [[f64; 2 * WIDTH]; WIDTH]);

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
/// The CPU has `avx2` and `fma`; every panel holds `k` steps.
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
/// The CPU has `avx512f`; every panel holds `k` steps.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ISAS;
    use crate::isa::Level;

    fn values(len: usize, seed: u64) -> Vec<f64> {
        crate::conv::tests::values(len, seed).into_iter().map(f64::from).collect()
    }

    #[test]
    fn kernels_that_fuse_agree_to_the_bit_and_all_compute_the_sums() {
        for k in [0, 1, 7, 100] {
            let (a, b) = (values(k * WIDTH, 1), [values(k * WIDTH, 2), values(k * WIDTH, 3)]);
            for isa in ISAS.iter().filter_map(|row| row.open()) {
                let mut tile = Tile64([[0.5; 2 * WIDTH]; WIDTH]);
                isa.tile64(k, &a, [&b[0], &b[1]], &mut tile);
                for (r, c) in (0..WIDTH).flat_map(|r| (0..2 * WIDTH).map(move |c| (r, c))) {
                    let value = |step: usize| (a[step * WIDTH + r], b[c / WIDTH][step * WIDTH + c % WIDTH]);
                    let fused = 0.5 - (0..k).map(value).fold(0.0f64, |sum, (a, b)| a.mul_add(b, sum));
                    match isa.level() {
                        Level::Portable => assert!((tile.0[r][c] - fused).abs() < 1e-12),
                        _ => assert_eq!(tile.0[r][c].to_bits(), fused.to_bits(), "{} {k} {r} {c}", isa.name()),
                    }
                }
            }
        }
    }
}
