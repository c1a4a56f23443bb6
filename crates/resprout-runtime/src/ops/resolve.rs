//! Resolves an operation for the facts of its inputs: the output's shape and how it is computed.

use super::binary::broadcast_shape;
use super::compute::Compute;
use super::conv::{Conv, ConvTranspose, Weight};
use super::fact::{Fact, axes_of, bias_of, constant, constant_f32, operand, optional_f32, optional_i64, required_i64};
use super::pool::Pool;
use super::reduce::Softmax;
use super::remap::Remap;
use super::{Op, UnaryOp, axis_index, layout, matrix, reduce};
use crate::error::{Error, Result};
use crate::tensor::{Tensor, Value, element_count};
use resprout_kernels::{Activation, PackedLinear};
use std::borrow::Cow;
use std::sync::Arc;

/// An operation for inputs of known shape.
pub struct Resolved {
    /// The output's shape.
    pub shape: Vec<usize>,
    /// How it is computed.
    pub compute: Compute,
    /// Multiply-accumulate operations.
    pub macs: u64,
}

/// The layers behind this one that its step computes too.
#[derive(Clone, Debug)]
pub struct Fused {
    /// Per output channel: factor and summand, in f64.
    pub affine: Option<(Vec<f64>, Vec<f64>)>,
    /// Applied last.
    pub activation: Activation,
}

impl Fused {
    /// Nothing.
    pub const NONE: Fused = Fused { affine: None, activation: Activation::None };

    /// The weights and bias with the affine step multiplied in.
    fn fold(&self, constant: Arc<Value>, weight: &Tensor, bias: &[f32]) -> (Weight, Vec<f32>) {
        let Some((scale, shift)) = &self.affine else { return (Weight::AsRead(constant), bias.to_vec()) };
        let per_channel = (weight.len() / scale.len()).max(1);
        let rows = weight.data.chunks_exact(per_channel).zip(scale);
        let folded = rows.flat_map(|(row, &factor)| row.iter().map(move |&w| (f64::from(w) * factor) as f32)).collect();
        let old = |c: usize| f64::from(bias.get(c).copied().unwrap_or(0.0));
        (Weight::Folded(folded), (0..scale.len()).map(|c| (old(c) * scale[c] + shift[c]) as f32).collect())
    }
}

/// Resolves an operation for the facts of its inputs.
pub fn resolve(op: &Op, inputs: &[Option<Fact>], fused: &Fused) -> Result<Resolved> {
    let activation = fused.activation;
    let first = operand(inputs, 0)?;
    let shape = &first.shape;
    let plain = |shape: Vec<usize>, compute: Compute| Ok(Resolved { shape, compute, macs: 0 });
    match op {
        Op::Conv(attributes) => {
            let weight = constant_f32(inputs, 1, "weight")?;
            let (conv, out) = attributes.shape(shape, &weight.shape)?;
            let bias = bias_of(inputs, 2, conv.out_channels)?;
            let macs = element_count(&out)? as u64 * conv.dot_length() as u64;
            let (weight, bias) = fused.fold(constant(inputs, 1)?, weight, bias);
            Ok(Resolved { shape: out, compute: Compute::Conv(Conv::new(conv, weight, bias, activation)), macs })
        }
        Op::ConvTranspose(attributes) => {
            let weight = constant_f32(inputs, 1, "weight")?;
            let bias = optional_f32(inputs, 2)?.map_or(&[][..], |t| &t.data);
            let (conv, out) = ConvTranspose::resolve(attributes, shape, weight, bias)?;
            let pixels = shape.iter().enumerate().filter(|(axis, _)| *axis != 1).map(|(_, &dim)| dim).product::<usize>();
            let macs = pixels as u64 * weight.len() as u64;
            Ok(Resolved { shape: out, compute: Compute::ConvTranspose(Box::new(conv)), macs })
        }
        Op::Gemm { alpha, beta, trans_a, trans_b } => gemm(inputs, *alpha, *beta, *trans_a, *trans_b),
        Op::MatMul => matmul(inputs),
        Op::BatchNorm { epsilon } => {
            let channels = *shape.get(1).ok_or_else(|| Error::data(format!("BatchNormalization of shape {shape:?}")))?;
            let (scale, shift) = batch_norm_affine(inputs, *epsilon, channels)?;
            let narrow = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect();
            plain(shape.clone(), Compute::Affine { scale: narrow(scale), shift: narrow(shift), activation })
        }
        Op::Unary(op) => plain(shape.clone(), Compute::Unary(*op)),
        Op::Clip { bounds } => {
            let bound = |index: usize, default: f32| -> Result<f32> {
                let input = optional_f32(inputs, index + 1)?.and_then(|t| t.data.first().copied());
                Ok(input.or(bounds[index]).unwrap_or(default))
            };
            let (low, high) = (bound(0, f32::NEG_INFINITY)?, bound(1, f32::INFINITY)?);
            plain(shape.clone(), Compute::Unary(UnaryOp::Clamp { low, high }))
        }
        Op::Binary(op) => {
            let shapes = inputs.iter().flatten().map(|fact| &fact.shape[..]);
            let out = shapes.skip(1).try_fold(shape.clone(), |out, other| broadcast_shape(&out, other))?;
            element_count(&out)?;
            // Only Sum has more than two operands. The forward adds them one by one into the final shape.
            if inputs.len() > 2 && inputs.iter().flatten().take(2).all(|fact| fact.shape != out) {
                return Err(Error::unsupported("Sum of more than two operands of different shapes"));
            }
            plain(out, Compute::Binary { op: *op, activation })
        }
        Op::Concat { axis } => {
            let shapes: Vec<&[usize]> = inputs.iter().flatten().map(|fact| &fact.shape[..]).collect();
            let (out, axis) = layout::concat_shape(&shapes, *axis)?;
            plain(out, Compute::Concat(axis))
        }
        Op::Slice { .. } => slice(op, inputs).and_then(|remap| plain(remap.shape(), Compute::Remap(remap, 0.0))),
        Op::Pad { .. } => pad(op, inputs).and_then(|(remap, fill)| plain(remap.shape(), Compute::Remap(remap, fill))),
        Op::MaxPool(attributes) | Op::AveragePool(attributes) => {
            let (pool, out) = Pool::resolve(attributes, matches!(op, Op::MaxPool(_)), shape)?;
            plain(out, Compute::Pool(pool))
        }
        Op::GlobalAveragePool if shape.len() < 3 || shape[2..].contains(&0) => {
            Err(Error::data(format!("GlobalAveragePool of shape {shape:?}")))
        }
        Op::GlobalAveragePool => {
            let axes: Vec<usize> = (2..shape.len()).collect();
            let out = shape.iter().enumerate().map(|(axis, &dim)| if axis < 2 { dim } else { 1 }).collect();
            plain(out, Compute::Mean(axes))
        }
        Op::ReduceMean { axes, keep_dims, noop_with_empty_axes } => {
            let axes = axes_of(axes.as_deref(), inputs, 1)?;
            if axes.as_ref().is_none_or(Vec::is_empty) && *noop_with_empty_axes {
                return plain(shape.clone(), Compute::Reshape);
            }
            let (axes, out) = reduce::reduce_shape(shape, axes.as_deref().filter(|a| !a.is_empty()), *keep_dims)?;
            plain(out, Compute::Mean(axes))
        }
        Op::Softmax { axis, flatten, log } => {
            plain(shape.clone(), Compute::Softmax(Softmax::resolve(shape, *axis, *flatten, *log)?))
        }
        Op::Resize(attributes) => {
            let scales = optional_f32(inputs, attributes.scales_input())?.map_or(&[][..], |t| &t.data);
            let sizes = optional_i64(inputs, attributes.scales_input() + 1)?.unwrap_or_default();
            let resize = attributes.resolve(shape, scales, &sizes)?;
            element_count(&resize.shape())?;
            plain(resize.shape(), Compute::Resize(resize))
        }
        Op::Flatten { .. } | Op::Reshape { .. } | Op::Squeeze { .. } | Op::Unsqueeze { .. } | Op::Identity => {
            plain(renamed_shape(op, inputs)?, Compute::Reshape)
        }
        Op::Cast { to: 1 } => plain(shape.clone(), Compute::Reshape),
        Op::Transpose { perm } => {
            let perm = layout::permutation(shape.len(), perm.as_deref())?;
            plain(perm.iter().map(|&axis| shape[axis]).collect(), Compute::Transpose(perm))
        }
        Op::Gather { axis } => {
            let (axis, indices, out) = gather(*axis, inputs)?;
            plain(out, Compute::Gather(axis, indices))
        }
        Op::Cast { to: to @ (10 | 11 | 16) } => {
            let name = match to {
                10 => "float16",
                11 => "float64",
                _ => "bfloat16",
            };
            Err(Error::unsupported(format!("a Cast to {name}: numbers are computed as 32-bit floats")))
        }
        Op::Expand => plain(expand_shape(inputs)?, Compute::Expand),
        // Every computed value holds 32-bit floats.
        Op::CastLike if operand(inputs, 1)?.value.as_ref().is_none_or(|like| like.as_f32().is_some()) => {
            plain(shape.clone(), Compute::Reshape)
        }
        Op::Cast { .. } | Op::CastLike | Op::Shape { .. } | Op::ConstantOfShape { .. } => {
            Err(Error::unsupported("integers that depend on the image's content"))
        }
        Op::Constant(op) => {
            Err(Error::unsupported(format!("{} is computed of constants and shapes only, not of the image's content", op.name())))
        }
        Op::OpaqueConstant | Op::OpaqueConv { .. } | Op::Unknown(_) => {
            Err(Error::unsupported(format!("{} is not among the supported operations", op.name())))
        }
    }
}

/// The output's shape alone. Packs no weights.
pub fn output_shape(op: &Op, inputs: &[Option<Fact>]) -> Result<Vec<usize>> {
    match op {
        Op::Gemm { trans_a, trans_b, .. } => {
            let [rows, _, outputs] = gemm_sizes(&operand(inputs, 0)?.shape, &operand(inputs, 1)?.shape, *trans_a, *trans_b)?;
            Ok(vec![rows, outputs])
        }
        Op::MatMul => matrix::matmul_shape(&operand(inputs, 0)?.shape, &operand(inputs, 1)?.shape),
        _ => Ok(resolve(op, inputs, &Fused::NONE)?.shape),
    }
}

/// The shape of the same elements under other axes.
pub(super) fn renamed_shape(op: &Op, inputs: &[Option<Fact>]) -> Result<Vec<usize>> {
    let shape = &operand(inputs, 0)?.shape;
    match op {
        Op::Flatten { axis } => layout::flatten_shape(shape, *axis),
        Op::Reshape { allow_zero } => layout::reshape_shape(shape, &required_i64(inputs, 1, "shape")?, *allow_zero),
        Op::Squeeze { axes } => layout::squeeze_shape(shape, axes_of(axes.as_deref(), inputs, 1)?.as_deref()),
        Op::Unsqueeze { axes } => {
            let axes = axes_of(axes.as_deref(), inputs, 1)?.ok_or_else(|| Error::data("Unsqueeze without axes"))?;
            layout::unsqueeze_shape(shape, &axes)
        }
        _ => Ok(shape.clone()),
    }
}

pub(super) fn expand_shape(inputs: &[Option<Fact>]) -> Result<Vec<usize>> {
    let target = required_i64(inputs, 1, "shape")?;
    let shape: Option<Vec<usize>> = target.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let shape = shape.ok_or_else(|| Error::data(format!("a shape of {target:?}")))?;
    broadcast_shape(&operand(inputs, 0)?.shape, &shape)
}

pub(super) fn slice(op: &Op, inputs: &[Option<Fact>]) -> Result<Remap> {
    let shape = &operand(inputs, 0)?.shape;
    if let Op::Slice { attributes: Some([starts, ends, axes]) } = op {
        return Remap::slice(shape, starts, ends, axes, &vec![1; starts.len()]);
    }
    let (starts, ends) = (required_i64(inputs, 1, "starts")?, required_i64(inputs, 2, "ends")?);
    let axes = optional_i64(inputs, 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = optional_i64(inputs, 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    Remap::slice(shape, &starts, &ends, &axes, &steps)
}

fn pad(op: &Op, inputs: &[Option<Fact>]) -> Result<(Remap, f32)> {
    let shape = &operand(inputs, 0)?.shape;
    let Op::Pad { mode, attributes } = op else { return Err(Error::unsupported("not a Pad")) };
    if let Some((pads, value)) = attributes {
        return Ok((Remap::pad(shape, pads, None, *mode)?, *value));
    }
    let pads = required_i64(inputs, 1, "pads")?;
    let value = optional_f32(inputs, 2)?.and_then(|t| t.data.first().copied()).unwrap_or(0.0);
    let axes = optional_i64(inputs, 3)?;
    Ok((Remap::pad(shape, &pads, axes.as_deref(), *mode)?, value))
}

/// Axis, indices and output shape of a Gather.
pub(super) fn gather(axis: i64, inputs: &[Option<Fact>]) -> Result<(usize, Vec<usize>, Vec<usize>)> {
    let shape = &operand(inputs, 0)?.shape;
    let axis = axis_index(axis, shape.len())?;
    let indices = operand(inputs, 1)?;
    let values =
        indices.value.as_ref().and_then(|v| v.as_i64()).ok_or_else(|| Error::unsupported("Gather with computed indices"))?;
    let picked = layout::gather_indices(&values.data, shape[axis])?;
    Ok((axis, picked, layout::gather_shape(shape, axis, &indices.shape)))
}

/// `[C]` factors and summands of a BatchNormalization with the inputs scale, bias, mean and variance.
pub fn batch_norm_affine(inputs: &[Option<Fact>], epsilon: f32, channels: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let part = |index: usize, name: &str| {
        let tensor = constant_f32(inputs, index, name)?;
        if tensor.len() != channels {
            return Err(Error::data(format!("{name} has {} elements for {channels} channels", tensor.len())));
        }
        Ok(&tensor.data)
    };
    let (gamma, beta, mean, var) = (part(1, "scale")?, part(2, "bias")?, part(3, "mean")?, part(4, "variance")?);
    let scale: Vec<f64> = (0..channels).map(|c| f64::from(gamma[c]) / (f64::from(var[c]) + f64::from(epsilon)).sqrt()).collect();
    let shift = (0..channels).map(|c| f64::from(beta[c]) - f64::from(mean[c]) * scale[c]).collect();
    Ok((scale, shift))
}

/// Rows, inputs and outputs of a Gemm.
fn gemm_sizes(a: &[usize], b: &[usize], trans_a: bool, trans_b: bool) -> Result<[usize; 3]> {
    let (&[a0, a1], &[b0, b1]) = (a, b) else {
        return Err(Error::data(format!("Gemm of shapes {a:?} and {b:?}, matrices are needed")));
    };
    let (rows, k) = if trans_a { (a1, a0) } else { (a0, a1) };
    let (outputs, inner) = if trans_b { (b0, b1) } else { (b1, b0) };
    if inner != k || k == 0 {
        return Err(Error::data(format!("Gemm: {k} columns on the left, {inner} rows on the right")));
    }
    Ok([rows, k, outputs])
}

fn gemm(inputs: &[Option<Fact>], alpha: f32, beta: f32, trans_a: bool, trans_b: bool) -> Result<Resolved> {
    let a = operand(inputs, 0)?;
    let weight = constant_f32(inputs, 1, "weight")?;
    let [rows, k, outputs] = gemm_sizes(&a.shape, &weight.shape, trans_a, trans_b)?;
    let mut scaled = if trans_b { Cow::from(&weight.data) } else { matrix::transposed(&weight.data, k, outputs).into() };
    if alpha != 1.0 {
        scaled.to_mut().iter_mut().for_each(|w| *w *= alpha);
    }
    let bias: Vec<f32> = match optional_f32(inputs, 2)? {
        None => vec![],
        Some(c) if c.len() == 1 => vec![c.data[0] * beta; outputs],
        Some(c) if c.len() == outputs && c.shape.last() == Some(&outputs) => c.data.iter().map(|v| v * beta).collect(),
        Some(c) => return Err(Error::unsupported(format!("Gemm with a bias of shape {:?}", c.shape))),
    };
    let packed = PackedLinear::new(k, outputs, &scaled, &bias, Activation::None);
    let compute = Compute::Linear { packed, trans_a: trans_a.then_some(k) };
    Ok(Resolved { shape: vec![rows, outputs], compute, macs: (rows * k) as u64 * outputs as u64 })
}

fn matmul(inputs: &[Option<Fact>]) -> Result<Resolved> {
    let (a, b) = (operand(inputs, 0)?, operand(inputs, 1)?);
    let shape = matrix::matmul_shape(&a.shape, &b.shape)?;
    let macs = element_count(&shape)? as u64 * *a.shape.last().unwrap_or(&0) as u64;
    let compute = match b.value.as_ref().and_then(|v| v.as_f32()) {
        Some(weight) if weight.shape.len() == 2 && !weight.is_empty() => {
            let (k, n) = (weight.shape[0], weight.shape[1]);
            let packed = PackedLinear::new(k, n, &matrix::transposed(&weight.data, k, n), &[], Activation::None);
            Compute::Linear { packed, trans_a: None }
        }
        _ => Compute::MatMul,
    };
    Ok(Resolved { shape, compute, macs })
}
