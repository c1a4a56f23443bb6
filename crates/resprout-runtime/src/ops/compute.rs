//! The forward of every operation, prepared for inputs of known shape.

use super::binary::expand;
use super::conv::{Conv, ConvTranspose};
use super::general::General;
use super::pool::Pool;
use super::reduce::Softmax;
use super::remap::Remap;
use super::resize::Resize;
use super::{BinaryOp, UnaryOp, layout, matrix, reduce};
use crate::tensor::Tensor;
use resprout_kernels::{Activation, Isa, PackedLinear};

/// How an output is computed, with weights packed and indices resolved.
pub enum Compute {
    /// See [`Conv`]. Reads only its first input.
    Conv(Conv),
    /// See [`ConvTranspose`]. Reads only its first input.
    ConvTranspose(Box<ConvTranspose>),
    /// A product with packed weights. Reads only its first input.
    Linear {
        /// The weights.
        packed: PackedLinear,
        /// Inputs per row where the left matrix must be transposed first.
        trans_a: Option<usize>,
    },
    /// A product of two computed matrices.
    MatMul,
    /// `scale[c] * x + shift[c]`. Reads only its first input.
    Affine {
        /// Factors, `[C]`.
        scale: Vec<f32>,
        /// Summands, `[C]`.
        shift: Vec<f32>,
        /// Applied last.
        activation: Activation,
    },
    /// Element by element. Reads only its first input.
    Unary(UnaryOp),
    /// Two operands or more.
    Binary {
        /// The operation.
        op: BinaryOp,
        /// Applied last.
        activation: Activation,
    },
    /// Joined along an axis.
    Concat(usize),
    /// Slice or Pad, and the fill value. Reads only its first input.
    Remap(Remap, f32),
    /// Images scaled to another size. Reads only its first input.
    Resize(Resize),
    /// The largest value or the mean of each window. Reads only its first input.
    Pool(Pool),
    /// Mean over axes. Reads only its first input.
    Mean(Vec<usize>),
    /// Softmax or its logarithm. Reads only its first input.
    Softmax(Softmax),
    /// The same elements in another shape. Reads only its first input.
    Reshape,
    /// Axes in this order. Reads only its first input.
    Transpose(Vec<usize>),
    /// Elements along an axis (first field) at constant indices (second). Reads only its first input.
    Gather(usize, Vec<usize>),
    /// Repeated along axes. Reads only its first input.
    Expand,
    /// Any other function of the operands.
    General(General),
}

impl Compute {
    /// How many of the layer's inputs are read when it runs.
    pub fn operand_count(&self, inputs: usize) -> usize {
        match self {
            Compute::MatMul | Compute::Binary { .. } | Compute::Concat(_) => inputs,
            Compute::General(general) => general.operands.min(inputs),
            _ => 1,
        }
    }

    /// Whether [`run_in_place`](Self::run_in_place) can work on the first operand.
    pub fn in_place(&self, first: &[usize], out: &[usize]) -> bool {
        match self {
            Compute::Affine { .. } | Compute::Unary(_) | Compute::Softmax(_) | Compute::Reshape => true,
            Compute::Binary { .. } => first == out,
            _ => false,
        }
    }

    /// Computes into `out`, which has the right shape and any contents. `parallel`: whether threads share the operation.
    pub fn run(&self, inputs: &[&Tensor], out: &mut Tensor, isa: Isa, parallel: bool) {
        let input = inputs[0];
        match self {
            Compute::Conv(conv) => conv.run(input, out, isa, parallel),
            Compute::ConvTranspose(conv) => conv.run(input, out, isa),
            Compute::Linear { packed, trans_a: None } => packed.run(isa, &input.data, &mut out.data),
            Compute::Linear { packed, trans_a: Some(k) } => {
                let rows = matrix::transposed(&input.data, *k, input.len() / k);
                packed.run(isa, &rows, &mut out.data);
            }
            Compute::MatMul => matrix::matmul(input, inputs[1], out, isa),
            Compute::Binary { op, activation } => {
                chain(*op, inputs, out);
                activation.apply_to(&mut out.data);
            }
            Compute::Concat(axis) => layout::concat(inputs, *axis, out),
            Compute::Remap(remap, fill) => remap.run(input, *fill, out),
            Compute::Resize(resize) => resize.run(input, out),
            Compute::Pool(pool) => pool.run(input, out),
            Compute::Mean(axes) => reduce::mean(input, axes, out),
            Compute::Transpose(perm) => layout::transpose(input, perm, out),
            Compute::Gather(axis, indices) => layout::gather(input, *axis, indices, out),
            Compute::Expand => expand(input, out),
            Compute::General(general) => general.run(inputs, out, isa),
            Compute::Affine { .. } | Compute::Unary(_) | Compute::Softmax(_) | Compute::Reshape => {
                out.data.copy_from_slice(&input.data);
                self.run_in_place(out, &[]);
            }
        }
    }

    /// Computes in place of the first operand; `others` are the rest. The caller sets the new shape.
    pub fn run_in_place(&self, tensor: &mut Tensor, others: &[&Tensor]) {
        match self {
            Compute::Affine { scale, shift, activation } => affine(tensor, scale, shift, *activation),
            Compute::Unary(op) => op.apply(tensor),
            Compute::Softmax(softmax) => softmax.run(&mut tensor.data),
            Compute::Binary { op, activation } => {
                for other in others {
                    if other.shape == tensor.shape {
                        op.run_in_place(&mut tensor.data, &other.data);
                    } else {
                        let left = tensor.clone();
                        op.run_f32(&left, other, tensor);
                    }
                }
                divide_mean(*op, others.len() + 1, tensor);
                activation.apply_to(&mut tensor.data);
            }
            _ => {}
        }
    }
}

/// All operands, one after the other, into the broadcast shape.
fn chain(op: BinaryOp, inputs: &[&Tensor], out: &mut Tensor) {
    match inputs {
        [a, b] => op.run_f32(a, b, out),
        [a, rest @ ..] => {
            // The first operands may be smaller than the result.
            expand(a, out);
            for other in rest {
                let left = out.clone();
                op.run_f32(&left, other, out);
            }
        }
        [] => {}
    }
    divide_mean(op, inputs.len(), out);
}

fn divide_mean(op: BinaryOp, count: usize, sum: &mut Tensor) {
    if op == BinaryOp::Mean {
        sum.data.iter_mut().for_each(|v| *v /= count as f32);
    }
}

/// `scale[c] * x + shift[c]` on `[N, C, ...]`, in place.
fn affine(tensor: &mut Tensor, scale: &[f32], shift: &[f32], activation: Activation) {
    let plane: usize = tensor.shape[2..].iter().product();
    for (i, values) in tensor.data.chunks_exact_mut(plane.max(1)).enumerate() {
        let (scale, shift) = (scale[i % scale.len()], shift[i % shift.len()]);
        match activation {
            Activation::None => values.iter_mut().for_each(|v| *v = *v * scale + shift),
            clamp => values.iter_mut().for_each(|v| *v = clamp.apply(*v * scale + shift)),
        }
    }
}
