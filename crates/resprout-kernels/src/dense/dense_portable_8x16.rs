//! Any CPU: plain arrays that the compiler may vectorise.
//!
//! Without a fused multiply-add on the target, products are rounded before they are added. Then the last bits may differ from
//! those of the x86 kernels.

use super::{COLS, LANES, Tile};

/// The micro-kernel of [`crate::dense`] for `a: [k][STRIDE]`, of which each step uses the first `rows` values, and `b: [k][COLS]`.
pub(crate) fn run<const STRIDE: usize>(k: usize, rows: usize, cols: usize, a: &[f32], b: &[f32], out: &mut Tile) {
    for first in (0..cols).step_by(LANES) {
        for r in 0..rows {
            let mut acc = [0.0f32; LANES];
            for step in 0..k {
                let scalar = a[step * STRIDE + r];
                let row: &[f32] = &b[step * COLS + first..][..LANES];
                for (sum, &value) in acc.iter_mut().zip(row) {
                    *sum = multiply_add(scalar, value, *sum);
                }
            }
            out.0[r][first..first + LANES].copy_from_slice(&acc);
        }
    }
}

/// `a * b + c`, fused where that is one instruction.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) { a.mul_add(b, c) } else { a * b + c }
}
