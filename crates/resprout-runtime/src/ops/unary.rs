//! One value in, one value out.

use super::Attributes;
use super::special::{erf, normal_cdf, round_half_even, softplus};
use crate::error::Result;
use crate::tensor::Tensor;
use half::{bf16, f16};
use resprout_kernels::Activation;

/// An element-wise function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UnaryOp {
    /// `max(x, 0)`
    Relu,
    /// `x < 0 ? alpha * x : x`
    LeakyRelu {
        /// Slope of the negative side.
        alpha: f32,
    },
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `clamp(alpha * x + beta, 0, 1)`
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Offset.
        beta: f32,
    },
    /// `x * clamp(x / 6 + 1/2, 0, 1)`
    HardSwish,
    /// `clamp(x, low, high)`
    Clamp {
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
    /// `x` times the probability that a normal number is below `x`.
    Gelu {
        /// Whether a hyperbolic tangent approximates the probability.
        tanh: bool,
    },
    /// `x < 0 ? alpha * (exp(x) - 1) : x`
    Elu {
        /// The negative limit.
        alpha: f32,
    },
    /// `max(0, x) + min(0, alpha * (exp(x / alpha) - 1))`
    Celu {
        /// The negative limit.
        alpha: f32,
    },
    /// `gamma * (x <= 0 ? alpha * (exp(x) - 1) : x)`
    Selu {
        /// The negative limit before the factor.
        alpha: f32,
        /// The factor.
        gamma: f32,
    },
    /// `x > alpha ? x : 0`
    ThresholdedRelu {
        /// The threshold.
        alpha: f32,
    },
    /// `x / (1 + exp(-alpha * x))`
    Swish {
        /// The factor in the exponent.
        alpha: f32,
    },
    /// `x * tanh(ln(1 + exp(x)))`
    Mish,
    /// `ln(1 + exp(x))`
    Softplus,
    /// `x / (1 + |x|)`
    Softsign,
    /// `x < -lambda ? x + bias : x > lambda ? x - bias : 0`
    Shrink {
        /// Half the width of the band that becomes zero.
        lambda: f32,
        /// Taken off outside of it.
        bias: f32,
    },
    /// A function without attributes.
    Math(MathOp),
    /// To the nearest number of a narrower type.
    Narrow(NarrowType),
}

/// A mathematical function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after its function")]
pub enum MathOp {
    Neg,
    Abs,
    Sign,
    Sqrt,
    Reciprocal,
    Floor,
    Ceil,
    Round,
    Exp,
    Log,
    Erf,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Asinh,
    Acosh,
    Atanh,
    Not,
    IsNaN,
    IsInf,
    IsPositiveInf,
    IsNegativeInf,
}

/// The type of a Cast's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NarrowType {
    /// Integers, without the fraction.
    Integer,
    /// 0 or 1.
    Truth,
    /// 16-bit floats.
    Float16,
    /// 16-bit floats with the exponent of 32-bit ones.
    Bfloat16,
}

/// The mathematical functions by their name in ONNX.
const MATH: [(&str, MathOp); 26] = [
    ("Neg", MathOp::Neg),
    ("Abs", MathOp::Abs),
    ("Sign", MathOp::Sign),
    ("Sqrt", MathOp::Sqrt),
    ("Reciprocal", MathOp::Reciprocal),
    ("Floor", MathOp::Floor),
    ("Ceil", MathOp::Ceil),
    ("Round", MathOp::Round),
    ("Exp", MathOp::Exp),
    ("Log", MathOp::Log),
    ("Erf", MathOp::Erf),
    ("Sin", MathOp::Sin),
    ("Cos", MathOp::Cos),
    ("Tan", MathOp::Tan),
    ("Asin", MathOp::Asin),
    ("Acos", MathOp::Acos),
    ("Atan", MathOp::Atan),
    ("Sinh", MathOp::Sinh),
    ("Cosh", MathOp::Cosh),
    ("Tanh", MathOp::Tanh),
    ("Asinh", MathOp::Asinh),
    ("Acosh", MathOp::Acosh),
    ("Atanh", MathOp::Atanh),
    ("Not", MathOp::Not),
    ("IsNaN", MathOp::IsNaN),
    ("IsInf", MathOp::IsInf),
];

impl UnaryOp {
    /// Reads an element-wise function; `None` if it is another operation.
    pub(super) fn parse(kind: &str, a: &Attributes) -> Result<Option<UnaryOp>> {
        let alpha = |default: f32| a.float("alpha", default);
        Ok(Some(match kind {
            "Relu" => UnaryOp::Relu,
            "LeakyRelu" => UnaryOp::LeakyRelu { alpha: alpha(0.01)? },
            "Sigmoid" => UnaryOp::Sigmoid,
            "HardSigmoid" => UnaryOp::HardSigmoid { alpha: alpha(0.2)?, beta: a.float("beta", 0.5)? },
            "HardSwish" => UnaryOp::HardSwish,
            "Gelu" => UnaryOp::Gelu { tanh: a.text("approximate")?.as_deref() == Some("tanh") },
            "Elu" => UnaryOp::Elu { alpha: alpha(1.0)? },
            "Celu" => UnaryOp::Celu { alpha: alpha(1.0)? },
            "Selu" => UnaryOp::Selu { alpha: alpha(1.673_263_2)?, gamma: a.float("gamma", 1.050_701)? },
            "ThresholdedRelu" => UnaryOp::ThresholdedRelu { alpha: alpha(1.0)? },
            "Swish" => UnaryOp::Swish { alpha: alpha(1.0)? },
            "Mish" => UnaryOp::Mish,
            "Softplus" => UnaryOp::Softplus,
            "Softsign" => UnaryOp::Softsign,
            "Shrink" => UnaryOp::Shrink { lambda: a.float("lambd", 0.5)?, bias: a.float("bias", 0.0)? },
            "IsInf" => UnaryOp::Math(match (a.flag("detect_positive", true)?, a.flag("detect_negative", true)?) {
                (true, true) => MathOp::IsInf,
                (true, false) => MathOp::IsPositiveInf,
                (false, true) => MathOp::IsNegativeInf,
                (false, false) => return Ok(None),
            }),
            _ => return Ok(MATH.iter().find(|row| row.0 == kind).map(|row| UnaryOp::Math(row.1))),
        }))
    }

    /// The operation's name in ONNX.
    pub fn name(self) -> &'static str {
        match self {
            UnaryOp::Relu => "Relu",
            UnaryOp::LeakyRelu { .. } => "LeakyRelu",
            UnaryOp::Sigmoid => "Sigmoid",
            UnaryOp::HardSigmoid { .. } => "HardSigmoid",
            UnaryOp::HardSwish => "HardSwish",
            UnaryOp::Clamp { .. } => "Clip",
            UnaryOp::Gelu { .. } => "Gelu",
            UnaryOp::Elu { .. } => "Elu",
            UnaryOp::Celu { .. } => "Celu",
            UnaryOp::Selu { .. } => "Selu",
            UnaryOp::ThresholdedRelu { .. } => "ThresholdedRelu",
            UnaryOp::Swish { .. } => "Swish",
            UnaryOp::Mish => "Mish",
            UnaryOp::Softplus => "Softplus",
            UnaryOp::Softsign => "Softsign",
            UnaryOp::Shrink { .. } => "Shrink",
            UnaryOp::Math(op) => MATH.iter().find(|row| row.1 == op).map_or("IsInf", |row| row.0),
            UnaryOp::Narrow(_) => "Cast",
        }
    }

    /// Whether the result is an integer or a truth value, for an argument that is one or not.
    pub(super) fn is_integer(self, argument: bool) -> bool {
        match self {
            UnaryOp::Math(MathOp::Not | MathOp::IsNaN) => true,
            UnaryOp::Math(MathOp::IsInf | MathOp::IsPositiveInf | MathOp::IsNegativeInf) => true,
            UnaryOp::Narrow(to) => matches!(to, NarrowType::Integer | NarrowType::Truth),
            _ => argument,
        }
    }

    /// The activation that a kernel can apply while it stores, if it is one.
    pub fn as_activation(self) -> Option<Activation> {
        match self {
            UnaryOp::Relu => Some(Activation::Clamp { low: 0.0, high: f32::INFINITY }),
            UnaryOp::Clamp { low, high } => Some(Activation::Clamp { low, high }),
            _ => None,
        }
    }

    /// The function of one value.
    pub fn of(self, x: f32) -> f32 {
        let mut one = [x];
        self.apply_to(&mut one);
        one[0]
    }

    /// Applies the function in place.
    pub fn apply(self, tensor: &mut Tensor) {
        self.apply_to(&mut tensor.data);
    }

    fn apply_to(self, data: &mut [f32]) {
        match self {
            UnaryOp::Relu | UnaryOp::Clamp { .. } => {
                if let Some(activation) = self.as_activation() {
                    activation.apply_to(data);
                }
            }
            UnaryOp::LeakyRelu { alpha } => each(data, |x| if x < 0.0 { alpha * x } else { x }),
            UnaryOp::Sigmoid => each(data, |x| 1.0 / (1.0 + (-x).exp())),
            UnaryOp::HardSigmoid { alpha, beta } => each(data, |x| (alpha * x + beta).clamp(0.0, 1.0)),
            UnaryOp::HardSwish => each(data, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
            UnaryOp::Gelu { tanh } => each(data, |x| (f64::from(x) * normal_cdf(f64::from(x), tanh)) as f32),
            UnaryOp::Elu { alpha } => each(data, |x| if x < 0.0 { alpha * x.exp_m1() } else { x }),
            UnaryOp::Celu { alpha } => each(data, |x| if x < 0.0 { alpha * (x / alpha).exp_m1() } else { x }),
            UnaryOp::Selu { alpha, gamma } => each(data, |x| gamma * if x <= 0.0 { alpha * x.exp_m1() } else { x }),
            UnaryOp::ThresholdedRelu { alpha } => each(data, |x| if x > alpha { x } else { 0.0 }),
            UnaryOp::Swish { alpha } => each(data, |x| x / (1.0 + (-alpha * x).exp())),
            UnaryOp::Mish => each(data, |x| x * softplus(x).tanh()),
            UnaryOp::Softplus => each(data, softplus),
            UnaryOp::Softsign => each(data, |x| x / (1.0 + x.abs())),
            UnaryOp::Shrink { lambda, bias } => each(data, |x| match x {
                x if x < -lambda => x + bias,
                x if x > lambda => x - bias,
                _ => 0.0,
            }),
            UnaryOp::Math(op) => op.apply_to(data),
            UnaryOp::Narrow(to) => to.apply_to(data),
        }
    }
}

impl MathOp {
    fn apply_to(self, data: &mut [f32]) {
        match self {
            MathOp::Neg => each(data, |x| -x),
            MathOp::Abs => each(data, f32::abs),
            // Zero and NaN stay as they are.
            MathOp::Sign => each(data, |x| if x == 0.0 || x.is_nan() { x } else { x.signum() }),
            MathOp::Sqrt => each(data, f32::sqrt),
            MathOp::Reciprocal => each(data, |x| 1.0 / x),
            MathOp::Floor => each(data, f32::floor),
            MathOp::Ceil => each(data, f32::ceil),
            MathOp::Round => each(data, round_half_even),
            MathOp::Exp => each(data, f32::exp),
            MathOp::Log => each(data, f32::ln),
            MathOp::Erf => each(data, |x| erf(f64::from(x)) as f32),
            MathOp::Sin => each(data, f32::sin),
            MathOp::Cos => each(data, f32::cos),
            MathOp::Tan => each(data, f32::tan),
            MathOp::Asin => each(data, f32::asin),
            MathOp::Acos => each(data, f32::acos),
            MathOp::Atan => each(data, f32::atan),
            MathOp::Sinh => each(data, f32::sinh),
            MathOp::Cosh => each(data, f32::cosh),
            MathOp::Tanh => each(data, f32::tanh),
            MathOp::Asinh => each(data, f32::asinh),
            MathOp::Acosh => each(data, f32::acosh),
            MathOp::Atanh => each(data, f32::atanh),
            MathOp::Not => each(data, |x| truth(x == 0.0)),
            MathOp::IsNaN => each(data, |x| truth(x.is_nan())),
            MathOp::IsInf => each(data, |x| truth(x.is_infinite())),
            MathOp::IsPositiveInf => each(data, |x| truth(x == f32::INFINITY)),
            MathOp::IsNegativeInf => each(data, |x| truth(x == f32::NEG_INFINITY)),
        }
    }
}

impl NarrowType {
    fn apply_to(self, data: &mut [f32]) {
        match self {
            NarrowType::Integer => each(data, f32::trunc),
            NarrowType::Truth => each(data, |x| truth(x != 0.0)),
            NarrowType::Float16 => each(data, |x| f16::from_f32(x).to_f32()),
            NarrowType::Bfloat16 => each(data, |x| bf16::from_f32(x).to_f32()),
        }
    }
}

/// 1 for true, 0 for false.
pub(super) fn truth(holds: bool) -> f32 {
    f32::from(u8::from(holds))
}

fn each(data: &mut [f32], function: impl Fn(f32) -> f32) {
    data.iter_mut().for_each(|x| *x = function(*x));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_at_the_edges_of_their_cases() {
        assert_eq!(UnaryOp::Math(MathOp::Sign).of(-0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!(UnaryOp::Math(MathOp::Sign).of(-3.0), -1.0);
        assert_eq!(UnaryOp::Narrow(NarrowType::Integer).of(-2.7), -2.0);
        assert_eq!(UnaryOp::Narrow(NarrowType::Float16).of(0.1), 0.099_975_586);
        assert_eq!(UnaryOp::Narrow(NarrowType::Truth).of(0.5), 1.0);
        assert_eq!(UnaryOp::Mish.of(60.0), 60.0);
        assert_eq!(UnaryOp::Celu { alpha: 2.0 }.of(-2.0), 2.0 * (-1.0f32).exp_m1());
        assert_eq!(UnaryOp::Shrink { lambda: 0.5, bias: 0.25 }.of(-1.0), -0.75);
        // An infinite argument must not become NaN.
        assert_eq!(UnaryOp::Gelu { tanh: true }.of(f32::INFINITY), f32::INFINITY);
    }

    #[test]
    fn every_function_has_the_name_it_is_read_by() {
        for (name, op) in MATH {
            assert_eq!(UnaryOp::parse(name, &Attributes::new(20)).unwrap(), Some(UnaryOp::Math(op)));
            assert_eq!(UnaryOp::Math(op).name(), name);
        }
    }
}
