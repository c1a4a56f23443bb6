//! One value in, one value out.

use crate::tensor::Tensor;
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
    /// `-x`
    Neg,
    /// The square root.
    Sqrt,
    /// The largest integer that is not above.
    Floor,
}

impl UnaryOp {
    /// The operation's name in ONNX.
    pub fn name(self) -> &'static str {
        match self {
            UnaryOp::Relu => "Relu",
            UnaryOp::LeakyRelu { .. } => "LeakyRelu",
            UnaryOp::Sigmoid => "Sigmoid",
            UnaryOp::HardSigmoid { .. } => "HardSigmoid",
            UnaryOp::HardSwish => "HardSwish",
            UnaryOp::Clamp { .. } => "Clip",
            UnaryOp::Neg => "Neg",
            UnaryOp::Sqrt => "Sqrt",
            UnaryOp::Floor => "Floor",
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

    /// Applies the function in place.
    pub fn apply(self, tensor: &mut Tensor) {
        let data = &mut tensor.data;
        match self {
            UnaryOp::Relu | UnaryOp::Clamp { .. } => {
                if let Some(activation) = self.as_activation() {
                    activation.apply_to(data);
                }
            }
            UnaryOp::LeakyRelu { alpha } => data.iter_mut().for_each(|x| *x = if *x < 0.0 { alpha * *x } else { *x }),
            UnaryOp::Sigmoid => data.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp())),
            UnaryOp::HardSigmoid { alpha, beta } => data.iter_mut().for_each(|x| *x = (alpha * *x + beta).clamp(0.0, 1.0)),
            UnaryOp::Neg => data.iter_mut().for_each(|x| *x = -*x),
            UnaryOp::Sqrt => data.iter_mut().for_each(|x| *x = x.sqrt()),
            UnaryOp::Floor => data.iter_mut().for_each(|x| *x = x.floor()),
            UnaryOp::HardSwish => data.iter_mut().for_each(|x| *x *= (*x / 6.0 + 0.5).clamp(0.0, 1.0)),
        }
    }
}
