//! Reductions over axes, and softmax.

use super::binary::advance;
use super::fact::{Fact, axes_of, operand};
use super::general::{General, Images};
use super::resolve::Resolved;
use super::{Compute, axis_index};
use crate::error::{Error, Result};
use crate::tensor::{Array, Tensor, strides, value_count};

/// A reduction over axes, but for the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after what it computes")]
pub enum Reducer {
    Sum,
    Prod,
    Max,
    Min,
    L1,
    L2,
    SumSquare,
    LogSum,
    LogSumExp,
}

/// The reductions by their name in ONNX.
const REDUCERS: [(&str, Reducer); 9] = [
    ("ReduceSum", Reducer::Sum),
    ("ReduceProd", Reducer::Prod),
    ("ReduceMax", Reducer::Max),
    ("ReduceMin", Reducer::Min),
    ("ReduceL1", Reducer::L1),
    ("ReduceL2", Reducer::L2),
    ("ReduceSumSquare", Reducer::SumSquare),
    ("ReduceLogSum", Reducer::LogSum),
    ("ReduceLogSumExp", Reducer::LogSumExp),
];

impl Reducer {
    /// The reduction of that name in ONNX.
    pub(super) fn named(name: &str) -> Option<Reducer> {
        REDUCERS.iter().find(|row| row.0 == name).map(|row| row.1)
    }

    /// The operation's name in ONNX.
    pub fn name(self) -> &'static str {
        REDUCERS.iter().find(|row| row.1 == self).map_or("", |row| row.0)
    }

    fn of(self, values: impl Iterator<Item = f64> + Clone) -> f64 {
        // A comparison must not drop a NaN.
        let larger = |a: f64, b: f64| if a > b || a.is_nan() { a } else { b };
        match self {
            Reducer::Sum => values.sum(),
            Reducer::Prod => values.product(),
            Reducer::Max => values.fold(f64::NEG_INFINITY, larger),
            Reducer::Min => -values.map(|v| -v).fold(f64::NEG_INFINITY, larger),
            Reducer::L1 => values.map(f64::abs).sum(),
            Reducer::L2 => values.map(|v| v * v).sum::<f64>().sqrt(),
            Reducer::SumSquare => values.map(|v| v * v).sum(),
            Reducer::LogSum => values.sum::<f64>().ln(),
            Reducer::LogSumExp => {
                let largest = values.clone().fold(f64::NEG_INFINITY, larger);
                // Without this, a largest value of infinity would give NaN.
                let shift = if largest.is_finite() { largest } else { 0.0 };
                values.map(|v| (v - shift).exp()).sum::<f64>().ln() + shift
            }
        }
    }

    /// The same for integers, if it is one of those that shapes are computed with.
    pub(super) fn of_i64(self, values: impl Iterator<Item = i64>) -> Option<i64> {
        match self {
            Reducer::Sum => Some(values.fold(0, i64::wrapping_add)),
            Reducer::Prod => Some(values.fold(1, i64::wrapping_mul)),
            Reducer::Max => values.max(),
            Reducer::Min => values.min(),
            _ => None,
        }
    }
}

/// The axes that a reduction is over; none if each element is reduced by itself.
pub(super) fn reduced_axes(
    inputs: &[Option<Fact>],
    attribute: Option<&[i64]>,
    [keep_dims, noop]: [bool; 2],
) -> Result<(Vec<usize>, Vec<usize>)> {
    let shape = &operand(inputs, 0)?.shape;
    let axes = axes_of(attribute, inputs, 1)?.filter(|axes| !axes.is_empty());
    if axes.is_none() && noop {
        return Ok((Vec::new(), shape.clone()));
    }
    reduce_shape(shape, axes.as_deref(), keep_dims)
}

/// The axes of the first operand in the result of a reduction.
fn images(rank: usize, axes: &[usize], keep_dims: bool) -> Images {
    let place = |axis: usize| if keep_dims { axis } else { axis - axes.iter().filter(|&&other| other < axis).count() };
    Images::Axes((0..rank).map(|axis| (!axes.contains(&axis)).then(|| place(axis))).collect())
}

/// Resolves a reduction.
pub(super) fn reduction(
    reducer: Reducer,
    inputs: &[Option<Fact>],
    attribute: Option<&[i64]>,
    [keep_dims, noop]: [bool; 2],
) -> Result<Resolved> {
    let rank = operand(inputs, 0)?.shape.len();
    let (axes, out) = reduced_axes(inputs, attribute, [keep_dims, noop])?;
    let images = images(rank, &axes, keep_dims || axes.is_empty());
    let run = move |input: &Tensor, out: &mut Tensor| {
        let mut targets = out.data.iter_mut();
        each_run(input, &axes, |run| {
            if let Some(target) = targets.next() {
                *target = reducer.of(run.map(|v: &f32| f64::from(*v))) as f32;
            }
        });
    };
    Ok(General::of_one(images, run).shaped(out))
}

/// The same for integers, into an array of the reduced shape.
pub(super) fn reduce_i64(reducer: Reducer, input: &Array<i64>, axes: &[usize], shape: Vec<usize>) -> Result<Option<Array<i64>>> {
    let mut data = Vec::with_capacity(value_count(&shape)?);
    each_run(input, axes, |run| data.extend(reducer.of_i64(run.copied())));
    Ok((data.len() == shape.iter().product::<usize>()).then(|| Array::new(shape, data)))
}

/// Hands the elements along some axes to `take`, for one index of the other axes after the other.
fn each_run<'t, T>(input: &'t Array<T>, axes: &[usize], mut take: impl FnMut(RunOf<'_, 't, T>)) {
    let kept: Vec<usize> = (0..input.shape.len()).filter(|axis| !axes.contains(axis)).collect();
    let steps = strides(&input.shape);
    let lengths = |axes: &[usize]| axes.iter().map(|&axis| input.shape[axis]).collect::<Vec<usize>>();
    let offsets = |axes: &[usize]| {
        let shape = lengths(axes);
        let mut index = vec![0; axes.len()];
        let offset = |_| {
            let at: usize = index.iter().zip(axes).map(|(i, &axis)| i * steps[axis]).sum();
            advance(&mut index, &shape);
            at
        };
        (0..shape.iter().product::<usize>()).map(offset).collect::<Vec<usize>>()
    };
    let inner = offsets(axes);
    for start in offsets(&kept) {
        take(RunOf { data: &input.data, start, offsets: inner.iter() });
    }
}

/// Elements of an array at offsets from a start.
struct RunOf<'o, 't, T> {
    data: &'t [T],
    start: usize,
    offsets: std::slice::Iter<'o, usize>,
}

impl<T> Clone for RunOf<'_, '_, T> {
    fn clone(&self) -> Self {
        RunOf { data: self.data, start: self.start, offsets: self.offsets.clone() }
    }
}

impl<'t, T> Iterator for RunOf<'_, 't, T> {
    type Item = &'t T;

    fn next(&mut self) -> Option<&'t T> {
        self.offsets.next().map(|offset| &self.data[self.start + offset])
    }
}

/// The index of the largest or smallest element along an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgExtreme {
    /// May be negative.
    pub axis: i64,
    /// Whether the axis stays with length 1.
    pub keep_dims: bool,
    /// Whether the last of equal ones counts.
    pub last: bool,
    /// Whether it is the smallest.
    pub smallest: bool,
}

impl ArgExtreme {
    pub(super) fn resolve(&self, inputs: &[Option<Fact>]) -> Result<Resolved> {
        let shape = &operand(inputs, 0)?.shape;
        let (axes, out) = reduce_shape(shape, Some(&[self.axis]), self.keep_dims)?;
        if shape[axes[0]] == 0 {
            return Err(Error::data(format!("the largest element along axis {} of shape {shape:?}", self.axis)));
        }
        let images = images(shape.len(), &axes, self.keep_dims);
        let (last, smallest) = (self.last, self.smallest);
        let run = move |input: &Tensor, out: &mut Tensor| {
            let mut targets = out.data.iter_mut();
            each_run(input, &axes, |run| {
                let mut best = (0, f32::NAN);
                for (index, &v) in run.enumerate() {
                    let v = if smallest { -v } else { v };
                    if index == 0 || v > best.1 || (last && v == best.1) {
                        best = (index, v);
                    }
                }
                targets.next().into_iter().for_each(|target| *target = best.0 as f32);
            });
        };
        Ok(General::of_one(images, run).shaped(out))
    }
}

/// Mean over axes.
pub(super) fn mean_of(
    inputs: &[Option<Fact>],
    attribute: Option<&[i64]>,
    [keep_dims, noop]: [bool; 2],
) -> Result<(Compute, Vec<usize>)> {
    let (axes, out) = reduced_axes(inputs, attribute, [keep_dims, noop])?;
    Ok((if axes.is_empty() { Compute::Reshape } else { Compute::Mean(axes) }, out))
}

/// The axes to reduce, sorted, and the output's shape.
pub(super) fn reduce_shape(shape: &[usize], axes: Option<&[i64]>, keep_dims: bool) -> Result<(Vec<usize>, Vec<usize>)> {
    let mut reduced: Vec<usize> = match axes {
        None => (0..shape.len()).collect(),
        Some(axes) => axes.iter().map(|&axis| axis_index(axis, shape.len())).collect::<Result<_>>()?,
    };
    reduced.sort_unstable();
    reduced.dedup();
    let out = (0..shape.len()).filter(|axis| keep_dims || !reduced.contains(axis));
    let out = out.map(|axis| if reduced.contains(&axis) { 1 } else { shape[axis] }).collect();
    Ok((reduced, out))
}

/// Mean over `axes`, summed in f64.
pub(super) fn mean(input: &Tensor, axes: &[usize], out: &mut Tensor) {
    let kept: Vec<usize> = (0..input.shape.len()).filter(|axis| !axes.contains(axis)).collect();
    let steps = strides(&input.shape);
    let shape_of = |axes: &[usize]| axes.iter().map(|&axis| input.shape[axis]).collect::<Vec<_>>();
    let (kept_shape, reduced_shape) = (shape_of(&kept), shape_of(axes));
    let count: usize = reduced_shape.iter().product();
    let contiguous = axes.iter().copied().eq(input.shape.len() - axes.len()..input.shape.len());
    let mut outer = vec![0; kept.len()];
    for target in &mut out.data {
        let start: usize = outer.iter().zip(&kept).map(|(i, &axis)| i * steps[axis]).sum();
        let sum: f64 = if contiguous {
            input.data[start..start + count].iter().map(|&v| f64::from(v)).sum()
        } else {
            let mut inner = vec![0; axes.len()];
            (0..count)
                .map(|_| {
                    let at: usize = inner.iter().zip(axes).map(|(i, &axis)| i * steps[axis]).sum();
                    advance(&mut inner, &reduced_shape);
                    f64::from(input.data[start + at])
                })
                .sum()
        };
        *target = (sum / count as f64) as f32;
        advance(&mut outer, &kept_shape);
    }
}

/// Softmax over `len` elements that lie `step` apart, for every such run.
#[derive(Clone, Debug)]
pub struct Softmax {
    len: usize,
    step: usize,
    log: bool,
}

impl Softmax {
    pub(super) fn resolve(shape: &[usize], axis: i64, flatten: bool, log: bool) -> Result<Softmax> {
        let axis = axis_index(axis, shape.len())?;
        let (len, step) = match flatten {
            true => (shape[axis..].iter().product(), 1),
            false => (shape[axis], shape[axis + 1..].iter().product()),
        };
        Ok(Softmax { len, step, log })
    }

    /// Whether elements along an axis do not depend on each other. `dim` is its length and `inside` the elements of each
    /// index. A softmax over an axis of length 1 counts as a dependence, as it is one for any other length.
    pub(crate) fn keeps(&self, inside: usize, dim: usize) -> bool {
        let along = self.len == 1 && dim == 1 && self.step == inside;
        !along && (self.len * self.step <= inside || self.step >= inside * dim)
    }

    /// Over rows of `len` elements.
    pub(super) fn of_rows(len: usize) -> Softmax {
        Softmax { len, step: 1, log: false }
    }

    pub(super) fn run(&self, data: &mut [f32]) {
        let block = self.len * self.step;
        if block == 0 {
            return;
        }
        for block in data.chunks_exact_mut(block) {
            for first in 0..self.step {
                let run = || (0..self.len).map(|i| first + i * self.step);
                let largest = run().map(|i| block[i]).fold(f32::NEG_INFINITY, f32::max);
                let sum: f64 = run().map(|i| f64::from(block[i] - largest).exp()).sum();
                for i in run() {
                    let shifted = f64::from(block[i] - largest);
                    block[i] = if self.log { shifted - sum.ln() } else { shifted.exp() / sum } as f32;
                }
            }
        }
    }
}
