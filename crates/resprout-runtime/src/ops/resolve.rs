//! Resolves an operation for the facts of its inputs: the output's shape and how it is computed.

use super::binary::broadcast_shape;
use super::compute::Compute;
use super::conv::{Conv, ConvTranspose, Weight};
use super::fact::{Fact, axes_of, bias_of, constant, constant_f32, operand, optional_f32, optional_i64, required_i64};
use super::general::{General, Images};
use super::pool::Pool;
use super::reduce::Softmax;
use super::remap::Remap;
use super::{BinaryOp, NarrowType, Op, UnaryOp, VolumeConv, axis_index, einsum, index, layout, matrix, reduce};
use crate::error::{Error, Result};
use crate::tensor::{Tensor, Value, element_count, value_count};
use resprout_kernels::{Activation, PackedLinear};
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
    if let (Op::Conv(_) | Op::ConvTranspose(_), true) = (op, shape.len() > 4) {
        // Without attributes, only the shapes tell how many axes there are.
        return VolumeConv::plain(op)
            .map_or_else(|| Err(Error::data("a convolution of volumes")), |volume| volume.resolve(inputs));
    }
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
                let input = match inputs.get(index + 1).and_then(Option::as_ref) {
                    None => None,
                    Some(_) => constant(inputs, index + 1)?.to_f32()?.data.first().copied(),
                };
                Ok(input.or(bounds[index]).unwrap_or(default))
            };
            let (low, high) = (bound(0, f32::NEG_INFINITY)?, bound(1, f32::INFINITY)?);
            plain(shape.clone(), Compute::Unary(UnaryOp::Clamp { low, high }))
        }
        Op::Binary(op) => {
            let shapes = inputs.iter().flatten().map(|fact| &fact.shape[..]);
            let out = shapes.skip(1).try_fold(shape.clone(), |out, other| broadcast_shape(&out, other))?;
            element_count(&out)?;
            if matches!(op, BinaryOp::Div) && first.integer && inputs.get(1).and_then(Option::as_ref).is_some_and(|b| b.integer) {
                return Ok(quotient().shaped(out));
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
            let (compute, out) = reduce::mean_of(inputs, axes.as_deref(), [*keep_dims, *noop_with_empty_axes])?;
            plain(out, compute)
        }
        Op::Reduce { reducer, axes, keep_dims, noop_with_empty_axes } => {
            reduce::reduction(*reducer, inputs, axes.as_deref(), [*keep_dims, *noop_with_empty_axes])
        }
        Op::GlobalPool { reducer, .. } => {
            let axes: Vec<i64> = (2..shape.len() as i64).collect();
            reduce::reduction(*reducer, &inputs[..1], Some(&axes), [true, true])
        }
        Op::Softmax { axis, flatten, log } => {
            plain(shape.clone(), Compute::Softmax(Softmax::resolve(shape, *axis, *flatten, *log)?))
        }
        Op::Resize(attributes) => {
            let scales = optional_f32(inputs, attributes.scales_input())?.map_or(&[][..], |t| &t.data);
            let sizes = optional_i64(inputs, attributes.scales_input() + 1)?.unwrap_or_default();
            let region = if attributes.scales_input() == 2 { optional_f32(inputs, 1)?.map_or(&[][..], |t| &t.data) } else { &[] };
            let resize = attributes.resolve(shape, scales, &sizes, region)?;
            element_count(&resize.shape())?;
            plain(resize.shape(), Compute::Resize(resize))
        }
        Op::Flatten { .. } | Op::Reshape { .. } | Op::Squeeze { .. } | Op::Unsqueeze { .. } | Op::Identity => {
            plain(renamed_shape(op, inputs)?, Compute::Reshape)
        }
        Op::Transpose { perm } => {
            let perm = layout::permutation(shape.len(), perm.as_deref())?;
            plain(perm.iter().map(|&axis| shape[axis]).collect(), Compute::Transpose(perm))
        }
        Op::Gather { axis } => match operand(inputs, 1)?.value {
            None => {
                let axis = axis_index(*axis, shape.len())?;
                Ok(index::gather(shape, axis, &operand(inputs, 1)?.shape))
            }
            Some(_) => {
                let (axis, indices, out) = gather(*axis, inputs)?;
                plain(out, Compute::Gather(axis, indices))
            }
        },
        Op::Cast { to } => plain(shape.clone(), cast(*to, first.integer)?),
        Op::Expand => plain(expand_shape(inputs)?, Compute::Expand),
        Op::CastLike => {
            let to = if operand(inputs, 1)?.integer { INT64 } else { FLOAT };
            plain(shape.clone(), cast(to, first.integer)?)
        }
        Op::Where => select(inputs),
        _ => resolve_family(op, inputs),
    }
}

/// Resolves an operation of a family with a file of its own.
fn resolve_family(op: &Op, inputs: &[Option<Fact>]) -> Result<Resolved> {
    match op {
        Op::Arg(op) => op.resolve(inputs),
        Op::WindowPool(op) => op.resolve(inputs),
        Op::OpaqueConv { volume: Some(op), .. } => op.resolve(inputs),
        Op::Norm(op) => op.resolve(inputs),
        Op::Index(op) => op.resolve(inputs),
        Op::Rearrange(op) => op.resolve(inputs),
        Op::Sample(op) => op.resolve(inputs),
        Op::Recurrent(op) => op.resolve(inputs),
        Op::Attention(op) => op.resolve(inputs),
        Op::Rotary(op) => op.resolve(inputs),
        Op::Quantize(op) => op.resolve(inputs),
        Op::Einsum(equation) => einsum::einsum(equation, inputs),
        Op::Shape { .. } | Op::Size | Op::ConstantOfShape { .. } | Op::Range => {
            Err(Error::unsupported("a shape that depends on the image's content"))
        }
        _ if op.is_dynamic() => {
            Err(Error::unsupported(format!("{} has a result whose shape depends on the image's content", op.name())))
        }
        _ => Err(Error::unsupported(format!("{} is not among the supported operations", op.name()))),
    }
}

/// Whether an operation's result holds integers or truth values.
pub fn is_integer(op: &Op, inputs: &[Option<Fact>]) -> bool {
    let of = |index: usize| inputs.get(index).and_then(Option::as_ref).is_some_and(|fact| fact.integer);
    match op {
        Op::Cast { to } => !matches!(to, 1 | 10 | 11 | 16),
        Op::CastLike | Op::Where => of(1),
        Op::Binary(BinaryOp::Compare(_)) | Op::Arg(_) | Op::Shape { .. } | Op::Size => true,
        Op::Unary(op) => op.is_integer(of(0)),
        Op::Index(super::IndexOp::OneHot { .. }) => of(2),
        Op::Rearrange(super::RearrangeOp::TopK { output: 1, .. }) => true,
        Op::Quantize(op) => op.is_integer(),
        Op::WindowPool(pool) => pool.is_integer(),
        _ => of(0),
    }
}

/// Type codes of ONNX.
pub(super) const FLOAT: i64 = 1;
pub(super) const INT64: i64 = 7;
pub(super) const BOOL: i64 = 9;

/// A Cast of computed numbers, which are held as 32-bit floats.
fn cast(to: i64, from_integer: bool) -> Result<Compute> {
    let narrow = match to {
        FLOAT | 11 => return Ok(Compute::Reshape),
        10 => NarrowType::Float16,
        16 => NarrowType::Bfloat16,
        BOOL => NarrowType::Truth,
        2..=7 | 12 | 13 if from_integer => return Ok(Compute::Reshape),
        2..=7 | 12 | 13 => NarrowType::Integer,
        other => return Err(Error::unsupported(format!("a Cast to type {other}"))),
    };
    Ok(Compute::Unary(UnaryOp::Narrow(narrow)))
}

/// Division of integers, towards zero.
fn quotient() -> General {
    General::new(2, Images::Aligned(Vec::new()), |inputs, out, _| {
        BinaryOp::Div.run_f32(inputs[0], inputs[1], out);
        out.data.iter_mut().for_each(|v| *v = v.trunc());
    })
}

fn select(inputs: &[Option<Fact>]) -> Result<Resolved> {
    let (condition, a, b) = (operand(inputs, 0)?, operand(inputs, 1)?, operand(inputs, 2)?);
    let out = broadcast_shape(&broadcast_shape(&condition.shape, &a.shape)?, &b.shape)?;
    value_count(&out)?;
    let run = |inputs: &[&Tensor], out: &mut Tensor, _| {
        let mut whole = |from: &Tensor| {
            super::binary::expand(from, out);
            out.data.clone()
        };
        let (condition, a) = (whole(inputs[0]), whole(inputs[1]));
        super::binary::expand(inputs[2], out);
        out.data
            .iter_mut()
            .zip(condition.iter().zip(&a))
            .for_each(|(out, (&holds, &a))| *out = if holds != 0.0 { a } else { *out });
    };
    Ok(General::new(3, Images::Aligned(Vec::new()), run).shaped(out))
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
    let (a, b) = (operand(inputs, 0)?, operand(inputs, 1)?);
    let [rows, k, outputs] = gemm_sizes(&a.shape, &b.shape, trans_a, trans_b)?;
    let macs = (rows * k) as u64 * outputs as u64;
    let bias = inputs.get(2).and_then(Option::as_ref);
    if let Some(bias) = bias.filter(|bias| broadcast_shape(&bias.shape, &[rows, outputs]).ok() != Some(vec![rows, outputs])) {
        return Err(Error::data(format!("Gemm with a bias of shape {:?} for {rows} rows of {outputs}", bias.shape)));
    }
    let constant = |fact: &Fact| fact.value.as_ref().and_then(|v| v.as_f32().cloned());
    // A bias of one row, or none.
    let row: Option<Vec<f32>> = match bias {
        None => Some(vec![]),
        Some(fact) => constant(fact).and_then(|c| match c.len() {
            1 => Some(vec![c.data[0] * beta; outputs]),
            len if len == outputs && c.shape.last() == Some(&outputs) => Some(c.data.iter().map(|v| v * beta).collect()),
            _ => None,
        }),
    };
    let compute = match (constant(b), row) {
        (Some(weight), Some(bias)) => {
            let mut scaled = if trans_b { weight.data } else { matrix::transposed(&weight.data, k, outputs) };
            scaled.iter_mut().filter(|_| alpha != 1.0).for_each(|w| *w *= alpha);
            let packed = PackedLinear::new(k, outputs, &scaled, &bias, Activation::None);
            Compute::Linear { packed, trans_a: trans_a.then_some(k) }
        }
        _ => Compute::General(matrix::gemm(inputs.len().min(3), [alpha, beta], [trans_a, trans_b], [rows, k, outputs])),
    };
    Ok(Resolved { shape: vec![rows, outputs], compute, macs })
}

fn matmul(inputs: &[Option<Fact>]) -> Result<Resolved> {
    let (a, b) = (operand(inputs, 0)?, operand(inputs, 1)?);
    let shape = matrix::matmul_shape(&a.shape, &b.shape)?;
    let macs = element_count(&shape)? as u64 * *a.shape.last().unwrap_or(&0) as u64;
    let compute = match b.value.as_ref().and_then(|v| v.as_f32()) {
        Some(weight) if weight.shape.len() == 2 && a.shape.len() > 1 && !weight.is_empty() => {
            let (k, n) = (weight.shape[0], weight.shape[1]);
            let packed = PackedLinear::new(k, n, &matrix::transposed(&weight.data, k, n), &[], Activation::None);
            Compute::Linear { packed, trans_a: None }
        }
        _ => Compute::MatMul,
    };
    Ok(Resolved { shape, compute, macs })
}
