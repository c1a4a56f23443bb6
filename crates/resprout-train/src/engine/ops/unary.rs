//! Element-wise functions.

use super::{combine, map, map_in_place};
use crate::engine::gates::Line;
use rayon::prelude::*;
use resprout::ops::{MathOp, UnaryOp};

/// The function of one value.
#[inline(always)]
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
        UnaryOp::Clamp { low, high } => {
            let x = if x < low { low } else { x };
            if x > high { high } else { x }
        }
        other => other.of(x),
    }
}

/// Whether the backward pass reads the function's value, and whether it reads its argument.
pub(in crate::engine) fn reads(op: UnaryOp) -> (bool, bool) {
    match op {
        UnaryOp::Relu | UnaryOp::Clamp { .. } | UnaryOp::Sigmoid => (true, false),
        UnaryOp::Math(MathOp::Sqrt | MathOp::Exp | MathOp::Tanh) => (true, false),
        UnaryOp::Math(op) if op == MathOp::Neg || is_step(op) => (false, false),
        UnaryOp::Narrow(_) => (false, false),
        _ => (false, true),
    }
}

/// Whether a function is constant but for its steps.
fn is_step(op: MathOp) -> bool {
    use MathOp::*;
    matches!(op, Floor | Ceil | Round | Sign | Not | IsNaN | IsInf | IsPositiveInf | IsNegativeInf)
}

// Each function of a rectifier has a loop of its own: the choice would cost more than the function.

pub(in crate::engine) fn forward(op: UnaryOp, x: &[f32], out: &mut [f32]) {
    match op {
        UnaryOp::Relu => map(x, out, |x| value(UnaryOp::Relu, x)),
        UnaryOp::Clamp { low, high } => map(x, out, |x| value(UnaryOp::Clamp { low, high }, x)),
        op => map(x, out, |x| value(op, x)),
    }
}

pub(in crate::engine) fn forward_in_place(op: UnaryOp, out: &mut [f32]) {
    match op {
        UnaryOp::Relu => map_in_place(out, |x| value(UnaryOp::Relu, x)),
        UnaryOp::Clamp { low, high } => map_in_place(out, |x| value(UnaryOp::Clamp { low, high }, x)),
        op => map_in_place(out, |x| value(op, x)),
    }
}

/// Turns the value's gradient into the argument's. `seen` is the value or the argument, as [`reads`] says.
pub(in crate::engine) fn backward(op: UnaryOp, seen: Option<&[f32]>, grad: &mut [f32]) {
    match (op, seen) {
        (UnaryOp::Math(MathOp::Neg), _) => map_in_place(grad, |g| -g),
        (_, None) => grad.fill(0.0),
        (UnaryOp::Relu, Some(seen)) => combine(grad, seen, |g, seen| g * slope(UnaryOp::Relu, seen)),
        (UnaryOp::Clamp { low, high }, Some(seen)) => {
            combine(grad, seen, |g, seen| g * slope(UnaryOp::Clamp { low, high }, seen));
        }
        (_, Some(seen)) => combine(grad, seen, |g, seen| g * slope(op, seen)),
    }
}

/// The derivative, by the value or the argument.
#[inline(always)]
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
        UnaryOp::Math(op) => math_slope(op, seen),
        UnaryOp::Narrow(_) => 0.0,
        smooth => smooth_slope(smooth, f64::from(seen)) as f32,
    }
}

/// The derivative of an activation with exponentials, by its argument.
fn smooth_slope(op: UnaryOp, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match op {
        UnaryOp::Gelu { tanh: true } => {
            let root = (2.0 / std::f64::consts::PI).sqrt();
            let t = (root * (x + 0.044715 * x * x * x)).tanh();
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * root * (1.0 + 3.0 * 0.044715 * x * x)
        }
        UnaryOp::Gelu { tanh: false } => {
            let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let erf = f64::from(UnaryOp::Math(MathOp::Erf).of((x * std::f64::consts::FRAC_1_SQRT_2) as f32));
            0.5 * (1.0 + erf) + x * density
        }
        UnaryOp::Elu { alpha } if x < 0.0 => f64::from(alpha) * x.exp(),
        UnaryOp::Celu { alpha } if x < 0.0 => (x / f64::from(alpha)).exp(),
        UnaryOp::Selu { alpha, gamma } => f64::from(gamma) * if x <= 0.0 { f64::from(alpha) * x.exp() } else { 1.0 },
        UnaryOp::Elu { .. } | UnaryOp::Celu { .. } => 1.0,
        UnaryOp::ThresholdedRelu { alpha } => f64::from(u8::from(x > f64::from(alpha))),
        UnaryOp::Swish { alpha } => {
            let s = sigmoid(f64::from(alpha) * x);
            s + f64::from(alpha) * x * s * (1.0 - s)
        }
        UnaryOp::Mish => {
            let t = (x.max(0.0) + (-x.abs()).exp().ln_1p()).tanh();
            t + x * (1.0 - t * t) * sigmoid(x)
        }
        UnaryOp::Softplus => sigmoid(x),
        UnaryOp::Softsign => (1.0 + x.abs()).powi(-2),
        UnaryOp::Shrink { lambda, .. } => f64::from(u8::from(x.abs() > f64::from(lambda))),
        _ => 0.0,
    }
}

/// The derivative of a mathematical function, by its value for Sqrt, Exp and Tanh, else by its argument.
fn math_slope(op: MathOp, seen: f32) -> f32 {
    match op {
        MathOp::Sqrt => 0.5 / seen,
        MathOp::Exp => seen,
        MathOp::Tanh => 1.0 - seen * seen,
        MathOp::Abs => {
            if seen == 0.0 {
                0.0
            } else {
                seen.signum()
            }
        }
        MathOp::Reciprocal => -1.0 / (seen * seen),
        MathOp::Log => 1.0 / seen,
        MathOp::Erf => std::f32::consts::FRAC_2_SQRT_PI * (-seen * seen).exp(),
        MathOp::Sin => seen.cos(),
        MathOp::Cos => -seen.sin(),
        MathOp::Tan => 1.0 / (seen.cos() * seen.cos()),
        MathOp::Asin => 1.0 / (1.0 - seen * seen).sqrt(),
        MathOp::Acos => -1.0 / (1.0 - seen * seen).sqrt(),
        MathOp::Atan => 1.0 / (1.0 + seen * seen),
        MathOp::Sinh => seen.cosh(),
        MathOp::Cosh => seen.sinh(),
        MathOp::Asinh => 1.0 / (1.0 + seen * seen).sqrt(),
        MathOp::Acosh => 1.0 / (seen * seen - 1.0).sqrt(),
        MathOp::Atanh => 1.0 / (1.0 - seen * seen),
        MathOp::Neg => -1.0,
        MathOp::Floor | MathOp::Ceil | MathOp::Round | MathOp::Sign | MathOp::Not => 0.0,
        MathOp::IsNaN | MathOp::IsInf | MathOp::IsPositiveInf | MathOp::IsNegativeInf => 0.0,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// All but the rectifiers and steps, whose slope jumps.
    const SMOOTH: [UnaryOp; 27] = [
        UnaryOp::Sigmoid,
        UnaryOp::Gelu { tanh: false },
        UnaryOp::Gelu { tanh: true },
        UnaryOp::Elu { alpha: 0.7 },
        UnaryOp::Celu { alpha: 0.7 },
        UnaryOp::Selu { alpha: 1.6, gamma: 1.1 },
        UnaryOp::Swish { alpha: 1.3 },
        UnaryOp::Mish,
        UnaryOp::Softplus,
        UnaryOp::Softsign,
        UnaryOp::Math(MathOp::Sqrt),
        UnaryOp::Math(MathOp::Exp),
        UnaryOp::Math(MathOp::Tanh),
        UnaryOp::Math(MathOp::Abs),
        UnaryOp::Math(MathOp::Reciprocal),
        UnaryOp::Math(MathOp::Log),
        UnaryOp::Math(MathOp::Erf),
        UnaryOp::Math(MathOp::Sin),
        UnaryOp::Math(MathOp::Cos),
        UnaryOp::Math(MathOp::Tan),
        UnaryOp::Math(MathOp::Asin),
        UnaryOp::Math(MathOp::Acos),
        UnaryOp::Math(MathOp::Atan),
        UnaryOp::Math(MathOp::Sinh),
        UnaryOp::Math(MathOp::Cosh),
        UnaryOp::Math(MathOp::Asinh),
        UnaryOp::Math(MathOp::Atanh),
    ];

    #[test]
    fn slopes_are_differences() {
        for op in SMOOTH {
            for x in [-0.9f32, -0.31, 0.23, 0.8] {
                let (step, y) = (1e-2f32, value(op, x));
                if !y.is_finite() {
                    continue;
                }
                // Four points, so that the error falls with the fourth power of the step.
                let at = |k: f32| f64::from(value(op, x + k * step));
                let expected = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * f64::from(step));
                let seen = if reads(op).0 { y } else { x };
                let found = f64::from(slope(op, seen));
                assert!((found - expected).abs() < 2e-3 * expected.abs().max(1.0), "{op:?} at {x}: {found} for {expected}");
            }
        }
    }
}
