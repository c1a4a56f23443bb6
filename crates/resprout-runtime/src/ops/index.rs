//! Elements by indices, which may be computed from the image.
//!
//! Computed indices are floats that hold integers. One beyond its axis reads NaN and writes nowhere.

use super::binary::advance;
use super::fact::{Fact, operand};
use super::general::{General, Images};
use super::resolve::Resolved;
use super::{Attributes, axis_index};
use crate::error::{Error, Result};
use crate::tensor::{Tensor, element_count, strides};

/// An operation with indices.
#[derive(Clone, Debug, PartialEq)]
pub enum IndexOp {
    /// One index along an axis for each element of the result.
    GatherElements {
        /// May be negative.
        axis: i64,
    },
    /// Slices by indices along the first axes.
    GatherNd {
        /// Axes that indices and data share.
        batch: i64,
    },
    /// Writes elements to indices along an axis.
    ScatterElements {
        /// May be negative.
        axis: i64,
        /// What happens to the number that was there.
        update: Update,
    },
    /// Writes slices to indices along the first axes.
    ScatterNd {
        /// What happens to the number that was there.
        update: Update,
    },
    /// One number at an index along a new axis, another one elsewhere.
    OneHot {
        /// May be negative.
        axis: i64,
    },
}

/// How a number that is written and one that was there become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after what it computes")]
pub enum Update {
    Replace,
    Add,
    Mul,
    Max,
    Min,
}

impl Update {
    fn parse(a: &Attributes) -> Result<Update> {
        match a.text("reduction")?.as_deref() {
            None | Some("none") => Ok(Update::Replace),
            Some("add") => Ok(Update::Add),
            Some("mul") => Ok(Update::Mul),
            Some("max") => Ok(Update::Max),
            Some("min") => Ok(Update::Min),
            Some(other) => Err(Error::unsupported(format!("a scatter of reduction {other:?}"))),
        }
    }

    fn apply(self, old: f32, new: f32) -> f32 {
        match self {
            Update::Replace => new,
            Update::Add => old + new,
            Update::Mul => old * new,
            Update::Max => old.max(new),
            Update::Min => old.min(new),
        }
    }
}

impl IndexOp {
    pub(super) fn parse(kind: &str, a: &Attributes) -> Result<Option<IndexOp>> {
        Ok(Some(match kind {
            "GatherElements" => IndexOp::GatherElements { axis: a.int("axis", 0)? },
            "GatherND" => IndexOp::GatherNd { batch: a.int("batch_dims", 0)? },
            "ScatterElements" | "Scatter" => IndexOp::ScatterElements { axis: a.int("axis", 0)?, update: Update::parse(a)? },
            "ScatterND" => IndexOp::ScatterNd { update: Update::parse(a)? },
            "OneHot" => IndexOp::OneHot { axis: a.int("axis", -1)? },
            _ => return Ok(None),
        }))
    }

    /// The operation's name in ONNX.
    pub fn name(&self) -> &'static str {
        match self {
            IndexOp::GatherElements { .. } => "GatherElements",
            IndexOp::GatherNd { .. } => "GatherND",
            IndexOp::ScatterElements { .. } => "ScatterElements",
            IndexOp::ScatterNd { .. } => "ScatterND",
            IndexOp::OneHot { .. } => "OneHot",
        }
    }

    pub(super) fn resolve(&self, inputs: &[Option<Fact>]) -> Result<Resolved> {
        let (shape, indices) = (operand(inputs, 0)?.shape.clone(), operand(inputs, 1)?.shape.clone());
        match *self {
            IndexOp::GatherElements { axis } => {
                let axis = along(&shape, &indices, axis)?;
                let run = move |inputs: &[&Tensor], out: &mut Tensor, _| {
                    let out = out.data.iter_mut().zip(&inputs[1].data);
                    out.zip(places(inputs[0], inputs[1], axis)).for_each(|((out, _), at)| *out = read(inputs[0], at));
                };
                Ok(General::new(2, Images::Aligned(vec![axis]), run).shaped(indices))
            }
            IndexOp::ScatterElements { axis, update } => {
                let axis = along(&shape, &indices, axis)?;
                if operand(inputs, 2)?.shape != indices {
                    return Err(Error::data("indices and updates of different shapes"));
                }
                let run = move |inputs: &[&Tensor], out: &mut Tensor, _| {
                    out.data.copy_from_slice(&inputs[0].data);
                    for (at, &new) in places(inputs[0], inputs[1], axis).zip(&inputs[2].data) {
                        at.into_iter().for_each(|at| out.data[at] = update.apply(out.data[at], new));
                    }
                };
                Ok(General::new(3, Images::Aligned(vec![axis]), run).shaped(shape))
            }
            IndexOp::GatherNd { batch } => gather_nd(shape, indices, batch),
            IndexOp::ScatterNd { update } => scatter_nd(inputs, shape, &indices, update),
            IndexOp::OneHot { axis } => one_hot(inputs, shape, axis),
        }
    }
}

/// An index from the front; `None` beyond the axis.
fn index(value: f32, dim: usize) -> Option<usize> {
    let from_front = if value < 0.0 { value + dim as f32 } else { value };
    (from_front >= 0.0 && from_front < dim as f32).then_some(from_front as usize)
}

fn read(data: &Tensor, at: Option<usize>) -> f32 {
    at.map_or(f32::NAN, |at| data.data[at])
}

fn along(shape: &[usize], indices: &[usize], axis: i64) -> Result<usize> {
    let axis = axis_index(axis, shape.len())?;
    let fits = shape.len() == indices.len() && (0..shape.len()).all(|i| i == axis || indices[i] <= shape[i]);
    fits.then_some(axis).ok_or_else(|| Error::data(format!("indices of shape {indices:?} for values of shape {shape:?}")))
}

/// For each index, the element of `data` at its place with the index along `axis`.
fn places<'t>(data: &'t Tensor, indices: &'t Tensor, axis: usize) -> impl Iterator<Item = Option<usize>> + 't {
    let steps = strides(&data.shape);
    let mut place = vec![0; indices.shape.len()];
    indices.data.iter().map(move |&value| {
        let beside: usize = place.iter().zip(&steps).enumerate().filter(|(i, _)| *i != axis).map(|(_, (i, step))| i * step).sum();
        advance(&mut place, &indices.shape);
        index(value, data.shape[axis]).map(|at| beside + at * steps[axis])
    })
}

/// Elements by computed indices along an axis.
pub(super) fn gather(shape: &[usize], axis: usize, indices: &[usize]) -> Resolved {
    let out = super::layout::gather_shape(shape, axis, indices);
    let (dim, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let run = move |inputs: &[&Tensor], out: &mut Tensor, _: resprout_kernels::Isa| {
        let (data, indices) = (inputs[0], inputs[1]);
        if inner == 0 {
            return;
        }
        let mut targets = out.data.chunks_exact_mut(inner);
        for block in data.data.chunks_exact((dim * inner).max(1)) {
            for (target, &value) in targets.by_ref().take(indices.len()).zip(&indices.data) {
                match index(value, dim) {
                    Some(at) => target.copy_from_slice(&block[at * inner..][..inner]),
                    None => target.fill(f32::NAN),
                }
            }
        }
    };
    let place = |at: usize| (at != axis).then(|| if at < axis { at } else { at + indices.len() - 1 });
    let images = Images::Axes((0..shape.len()).map(place).collect());
    General::new(2, images, run).shaped(out)
}

/// The start of the slice at an index along the first axes; `None` if it is beyond one of them.
fn start(place: &[f32], shape: &[usize], steps: &[usize]) -> Option<usize> {
    place.iter().zip(shape).zip(steps).try_fold(0, |at, ((&value, &dim), step)| Some(at + index(value, dim)? * step))
}

fn gather_nd(shape: Vec<usize>, indices: Vec<usize>, batch: i64) -> Result<Resolved> {
    let wrong = || Error::data(format!("indices of shape {indices:?} for values of shape {shape:?}"));
    let batch = usize::try_from(batch).ok().filter(|&batch| batch < indices.len()).ok_or_else(wrong)?;
    let depth = *indices.last().ok_or_else(wrong)?;
    if batch + depth > shape.len() || depth == 0 || shape[..batch] != indices[..batch] {
        return Err(wrong());
    }
    let out = [&indices[..indices.len() - 1], &shape[batch + depth..]].concat();
    element_count(&out)?;
    let batches: usize = shape[..batch].iter().product();
    let inner: usize = shape[batch + depth..].iter().product();
    let (dims, steps) = (shape[batch..].to_vec(), strides(&shape[batch..]));
    let run = move |inputs: &[&Tensor], out: &mut Tensor, _: resprout_kernels::Isa| {
        let each = inputs[1].len() / (batches * depth).max(1);
        let (image, indices) = (inputs[0].len() / batches.max(1), inputs[1].data.chunks_exact(depth));
        for (i, (target, place)) in out.data.chunks_exact_mut(inner.max(1)).zip(indices).enumerate() {
            match start(place, &dims[..depth], &steps) {
                Some(at) => target.copy_from_slice(&inputs[0].data[i / each.max(1) * image + at..][..inner]),
                None => target.fill(f32::NAN),
            }
        }
    };
    // Slices lie behind the indices.
    let place = |axis: usize| axis.checked_sub(depth).map(|axis| axis + indices.len() - 1);
    let images = if batch > 0 { Images::First(Vec::new()) } else { Images::Axes((0..shape.len()).map(place).collect()) };
    Ok(General::new(2, images, run).shaped(out))
}

fn scatter_nd(inputs: &[Option<Fact>], shape: Vec<usize>, indices: &[usize], update: Update) -> Result<Resolved> {
    let (depth, updates) = (indices.last().copied().unwrap_or(0), &operand(inputs, 2)?.shape);
    let fits = depth > 0 && depth <= shape.len() && *updates == [&indices[..indices.len() - 1], &shape[depth..]].concat();
    if !fits {
        return Err(Error::data(format!(
            "indices of shape {indices:?} and updates of {updates:?} for values of shape {shape:?}"
        )));
    }
    let inner: usize = shape[depth..].iter().product();
    let (dims, steps) = (shape[..depth].to_vec(), strides(&shape));
    let run = move |inputs: &[&Tensor], out: &mut Tensor, _: resprout_kernels::Isa| {
        out.data.copy_from_slice(&inputs[0].data);
        for (place, new) in inputs[1].data.chunks_exact(depth).zip(inputs[2].data.chunks_exact(inner.max(1))) {
            let Some(at) = start(place, &dims, &steps) else { continue };
            out.data[at..at + inner].iter_mut().zip(new).for_each(|(old, &new)| *old = update.apply(*old, new));
        }
    };
    // Exporters write a whole axis as the indices of all its elements; then nothing is mixed.
    let value = operand(inputs, 1)?.value.as_ref().and_then(|value| value.as_i64());
    let whole = depth == 1 && value.is_some_and(|value| value.data.iter().copied().eq(0..shape[0] as i64));
    let kept = |axis: usize| (whole || axis >= depth).then_some(axis);
    let own = (0..shape.len()).map(kept).collect();
    let behind = |axis: usize| (axis + depth).checked_sub(indices.len() - 1).and_then(kept);
    let images = Images::Matched(vec![own, vec![None; indices.len()], (0..updates.len()).map(behind).collect()]);
    Ok(General::new(3, images, run).shaped(shape))
}

fn one_hot(inputs: &[Option<Fact>], shape: Vec<usize>, axis: i64) -> Result<Resolved> {
    let number = operand(inputs, 1)?.value.as_deref().and_then(|value| match value {
        crate::tensor::Value::I64(array) => array.data.first().copied(),
        crate::tensor::Value::F32(array) => array.data.first().map(|&v| v as i64),
    });
    let depth = number.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| Error::unsupported("a depth that is computed"))?;
    let axis = axis_index(axis, shape.len() + 1)?;
    operand(inputs, 2)?;
    let out = [&shape[..axis], &[depth], &shape[axis..]].concat();
    element_count(&out)?;
    let inner: usize = shape[axis..].iter().product();
    let run = move |inputs: &[&Tensor], out: &mut Tensor, _: resprout_kernels::Isa| {
        let (off, on) = (inputs[2].data.first().copied().unwrap_or(0.0), inputs[2].data.get(1).copied().unwrap_or(1.0));
        out.data.fill(off);
        for (i, &value) in inputs[0].data.iter().enumerate() {
            if let Some(at) = index(value.trunc(), depth) {
                out.data[(i / inner.max(1) * depth + at) * inner + i % inner.max(1)] = on;
            }
        }
    };
    let place = |at: usize| Some(if at < axis { at } else { at + 1 });
    Ok(General::new(3, Images::Axes((0..shape.len()).map(place).collect()), run).shaped(out))
}
