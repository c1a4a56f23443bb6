//! Forward and backward of each instruction.

pub(super) mod binary;
pub(super) mod conv;
pub(super) mod norm;
pub(super) mod pool;
pub(super) mod remap;
pub(super) mod unary;

use rayon::prelude::*;

/// Elements that a thread works on at a time where each is computed alone.
const SHARE: usize = 1 << 14;

/// `out[i] = of(x[i])`
fn map(x: &[f32], out: &mut [f32], of: impl Fn(f32) -> f32 + Sync) {
    out.par_chunks_mut(SHARE)
        .zip(x.par_chunks(SHARE))
        .for_each(|(out, x)| out.iter_mut().zip(x).for_each(|(out, &x)| *out = of(x)));
}

/// `out[i] = of(out[i])`
fn map_in_place(out: &mut [f32], of: impl Fn(f32) -> f32 + Sync) {
    out.par_chunks_mut(SHARE).for_each(|out| out.iter_mut().for_each(|out| *out = of(*out)));
}

/// `out[i] = of(out[i], x[i])`
fn combine(out: &mut [f32], x: &[f32], of: impl Fn(f32, f32) -> f32 + Sync) {
    let pairs = out.par_chunks_mut(SHARE).zip(x.par_chunks(SHARE));
    pairs.for_each(|(out, x)| out.iter_mut().zip(x).for_each(|(out, &x)| *out = of(*out, x)));
}

/// `out[i] += x[i]`
pub(super) fn add(out: &mut [f32], x: &[f32]) {
    combine(out, x, |out, x| out + x);
}

/// `out[i] *= factor`
pub(super) fn scale(out: &mut [f32], factor: f32) {
    if factor != 1.0 {
        map_in_place(out, |x| x * factor);
    }
}

/// The sum, in `f64` of sums of at most 1024 numbers.
fn sum(values: &[f32]) -> f64 {
    let part = |part: &[f32]| {
        let mut lanes = [0.0f32; 16];
        let (whole, rest) = part.as_chunks::<16>();
        whole.iter().for_each(|chunk| lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane += x));
        lanes.iter().chain(rest).map(|&x| f64::from(x)).sum::<f64>()
    };
    values.chunks(1024).map(part).sum()
}
