//! Element-wise functions.

use super::{combine, map, map_in_place};
use crate::engine::gates::Line;
use rayon::prelude::*;
use resprout::ops::UnaryOp;

/// The function of one value.
pub(in crate::engine) fn value(op: UnaryOp, x: f32) -> f32 {
    match op {
        // NaN stays NaN in all of them.
        UnaryOp::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        UnaryOp::LeakyRelu { alpha } => {
            if x < 0.0 {
                alpha * x
            } else {
                x
            }
        }
        UnaryOp::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        UnaryOp::HardSigmoid { alpha, beta } => (alpha * x + beta).clamp(0.0, 1.0),
        UnaryOp::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        UnaryOp::Clamp { low, high } => {
            let x = if x < low { low } else { x };
            if x > high { high } else { x }
        }
        UnaryOp::Neg => -x,
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Floor => x.floor(),
    }
}

/// Whether the backward pass reads the function's value, and whether it reads its argument.
pub(in crate::engine) fn reads(op: UnaryOp) -> (bool, bool) {
    match op {
        UnaryOp::Relu | UnaryOp::Clamp { .. } | UnaryOp::Sigmoid | UnaryOp::Sqrt => (true, false),
        UnaryOp::LeakyRelu { .. } | UnaryOp::HardSigmoid { .. } | UnaryOp::HardSwish => (false, true),
        UnaryOp::Neg | UnaryOp::Floor => (false, false),
    }
}

pub(in crate::engine) fn forward(op: UnaryOp, x: &[f32], out: &mut [f32]) {
    map(x, out, |x| value(op, x));
}

pub(in crate::engine) fn forward_in_place(op: UnaryOp, out: &mut [f32]) {
    map_in_place(out, |x| value(op, x));
}

/// Turns the value's gradient into the argument's. `seen` is the value or the argument, as [`reads`] says.
pub(in crate::engine) fn backward(op: UnaryOp, seen: Option<&[f32]>, grad: &mut [f32]) {
    match (op, seen) {
        (UnaryOp::Neg, _) => map_in_place(grad, |g| -g),
        (UnaryOp::Floor, _) | (_, None) => grad.fill(0.0),
        (_, Some(seen)) => combine(grad, seen, |g, seen| g * slope(op, seen)),
    }
}

/// The derivative, by the value or the argument.
pub(in crate::engine) fn slope(op: UnaryOp, seen: f32) -> f32 {
    let step = |inside: bool| if inside { 1.0 } else { 0.0 };
    match op {
        UnaryOp::Relu => step(seen > 0.0),
        UnaryOp::LeakyRelu { alpha } => {
            if seen > 0.0 {
                1.0
            } else {
                alpha
            }
        }
        UnaryOp::Sigmoid => seen * (1.0 - seen),
        UnaryOp::HardSigmoid { alpha, beta } => {
            let inside = alpha * seen + beta;
            if inside > 0.0 && inside < 1.0 { alpha } else { 0.0 }
        }
        UnaryOp::HardSwish => match seen {
            x if x <= -3.0 => 0.0,
            x if x >= 3.0 => 1.0,
            x => x / 3.0 + 0.5,
        },
        UnaryOp::Clamp { low, high } => step(seen > low && seen < high),
        UnaryOp::Sqrt => 0.5 / seen,
        UnaryOp::Neg | UnaryOp::Floor => 0.0,
    }
}

/// A line in place of the function.
pub(in crate::engine) fn forward_line(line: &Line, x: &[f32], out: &mut [f32]) {
    let lines = line.slope.par_iter().zip(&line.offset);
    out.par_iter_mut().zip(x).zip(lines).for_each(|((out, x), (slope, offset))| *out = x * slope + offset);
}

pub(in crate::engine) fn backward_line(line: &Line, grad: &mut [f32]) {
    combine(grad, &line.slope, |g, slope| g * slope);
}
