//! The second micro-kernel: dot products of several rows with several shifted views of one buffer,
//! `sums[r][c] += sum_i a[r * stride + i] * b[shifts[c] + i]`.
//!
//! Both sides run along `i`, so the windows of a convolution are read in place: a tap is a shift.
//! Where there are fewer rows or shifts, the caller repeats some.

use super::LANES;

/// Rows of `a` in one call.
pub(crate) const DOT_ROWS: usize = 4;
/// Shifts of `b` in one call.
pub(crate) const DOT_SHIFTS: usize = 4;

/// The sums of one call.
pub(crate) type DotSums = [[f32; DOT_SHIFTS]; DOT_ROWS];

/// Checks the bounds that every version relies on.
///
/// # Panics
/// If a row or a shifted view leaves its buffer, or `len` is not a multiple of [`LANES`].
pub(crate) fn assert_views(a: &[f32], rows: [usize; DOT_ROWS], b: &[f32], shifts: [usize; DOT_SHIFTS], len: usize) {
    assert!(len.is_multiple_of(LANES), "{len} positions");
    assert!(rows.iter().all(|row| row + len <= a.len()), "rows {rows:?} of {len} in {}", a.len());
    assert!(shifts.iter().all(|shift| shift + len <= b.len()), "shifts {shifts:?} of {len} in {}", b.len());
}

/// Any CPU. Lanes are summed in the same order as in the other versions.
#[inline(always)]
pub(crate) fn portable(
    a: &[f32],
    rows: [usize; DOT_ROWS],
    b: &[f32],
    shifts: [usize; DOT_SHIFTS],
    len: usize,
    sums: &mut DotSums,
) {
    for (row, sums) in rows.iter().zip(sums.iter_mut()) {
        let (left, _) = a[*row..][..len].as_chunks::<LANES>();
        for (shift, sum) in shifts.iter().zip(sums.iter_mut()) {
            let (right, _) = b[*shift..][..len].as_chunks::<LANES>();
            let mut lanes = [0.0f32; LANES];
            for (left, right) in left.iter().zip(right) {
                for lane in 0..LANES {
                    lanes[lane] += left[lane] * right[lane];
                }
            }
            *sum += tree_sum(lanes);
        }
    }
}

/// AVX2: half of [`LANES`] and two shifts at a time, so that all sums stay in registers. The operations on each lane are those
/// of AVX-512, so the results are the same to the bit.
///
/// # Safety
/// The CPU has `avx2` and `fma`. `len` is a multiple of [`LANES`]. `a` holds `len` values from each of `rows` on, and `b` from
/// each of `shifts` on.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn avx2(
    a: &[f32],
    rows: [usize; DOT_ROWS],
    b: &[f32],
    shifts: [usize; DOT_SHIFTS],
    len: usize,
    sums: &mut DotSums,
) {
    use std::arch::x86_64::*;
    const HALF: usize = LANES / 2;
    const PAIR: usize = 2;
    let mut lanes = [[[0.0f32; LANES]; DOT_SHIFTS]; DOT_ROWS];
    for first in (0..DOT_SHIFTS).step_by(PAIR) {
        for half in [0, HALF] {
            let mut acc = [[_mm256_setzero_ps(); PAIR]; DOT_ROWS];
            for i in (half..len).step_by(LANES) {
                // SAFETY: every row and every shifted view holds `len` values, and i + HALF <= len.
                unsafe {
                    let mut right = [_mm256_setzero_ps(); PAIR];
                    for c in 0..PAIR {
                        right[c] = _mm256_loadu_ps(b.as_ptr().add(shifts[first + c] + i));
                    }
                    for r in 0..DOT_ROWS {
                        let left = _mm256_loadu_ps(a.as_ptr().add(rows[r] + i));
                        for c in 0..PAIR {
                            acc[r][c] = _mm256_fmadd_ps(left, right[c], acc[r][c]);
                        }
                    }
                }
            }
            for r in 0..DOT_ROWS {
                for c in 0..PAIR {
                    // SAFETY: half + HALF <= LANES.
                    unsafe { _mm256_storeu_ps(lanes[r][first + c].as_mut_ptr().add(half), acc[r][c]) };
                }
            }
        }
    }
    for r in 0..DOT_ROWS {
        for c in 0..DOT_SHIFTS {
            sums[r][c] += tree_sum(lanes[r][c]);
        }
    }
}

/// AVX-512: 16 accumulators of 16 lanes.
///
/// # Safety
/// The CPU has `avx512f`. `len` is a multiple of [`LANES`]. `a` holds `len` values from each of `rows` on, and `b` from each of
/// `shifts` on.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn avx512(
    a: &[f32],
    rows: [usize; DOT_ROWS],
    b: &[f32],
    shifts: [usize; DOT_SHIFTS],
    len: usize,
    sums: &mut DotSums,
) {
    use std::arch::x86_64::*;
    let mut acc = [[_mm512_setzero_ps(); DOT_SHIFTS]; DOT_ROWS];
    for i in (0..len).step_by(LANES) {
        // SAFETY: every row and every shifted view holds `len` values, and i + LANES <= len.
        unsafe {
            let mut right = [_mm512_setzero_ps(); DOT_SHIFTS];
            for c in 0..DOT_SHIFTS {
                right[c] = _mm512_loadu_ps(b.as_ptr().add(shifts[c] + i));
            }
            for r in 0..DOT_ROWS {
                let left = _mm512_loadu_ps(a.as_ptr().add(rows[r] + i));
                for c in 0..DOT_SHIFTS {
                    acc[r][c] = _mm512_fmadd_ps(left, right[c], acc[r][c]);
                }
            }
        }
    }
    for r in 0..DOT_ROWS {
        for c in 0..DOT_SHIFTS {
            sums[r][c] += _mm512_reduce_add_ps(acc[r][c]);
        }
    }
}

/// The sum of all lanes: the upper half is added to the lower one until one lane is left.
#[inline(always)]
pub(crate) fn tree_sum<const N: usize>(mut lanes: [f32; N]) -> f32 {
    let mut width = N / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}
