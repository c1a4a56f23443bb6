//! Vectors for any CPU.
#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is the body of an unsafe function, whose contract it needs")]

use super::{LANES, Simd};
use crate::Activation;

/// Plain loops over the lanes. Compilers use four registers of 128 bits (NEON) for each vector, or two of 256.
pub(crate) struct Portable;

impl Simd for Portable {
    type Vector = [f32; LANES];
    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; LANES] {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> [f32; LANES] {
        unsafe { from.cast::<[f32; LANES]>().read() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, vector: [f32; LANES]) {
        unsafe { to.cast::<[f32; LANES]>().write(vector) }
    }
    #[inline(always)]
    unsafe fn add(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|l| a[l] + b[l])
    }
    #[inline(always)]
    unsafe fn multiply_add(weight: [f32; LANES], vector: [f32; LANES], sum: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|l| weight[l] * vector[l] + sum[l])
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
    #[inline(always)]
    unsafe fn permute(vector: [f32; LANES], lanes: &[u32; LANES], read: u16) -> [f32; LANES] {
        std::array::from_fn(|lane| if read >> lane & 1 == 1 { vector[lanes[lane] as usize] } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn sum(vector: [f32; LANES]) -> f32 {
        let mut sums = vector;
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                sums[lane] += sums[lane + half];
            }
        }
        sums[0]
    }
    #[inline(always)]
    unsafe fn clamp(vector: [f32; LANES], low: [f32; LANES], high: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|l| Activation::Clamp { low: low[l], high: high[l] }.apply(vector[l]))
    }
}
