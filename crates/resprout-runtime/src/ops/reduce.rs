//! Means over axes, and softmax.

use super::axis_index;
use super::binary::advance;
use crate::error::Result;
use crate::tensor::{Tensor, strides};

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

    pub(super) fn run(&self, tensor: &mut Tensor) {
        let block = self.len * self.step;
        if block == 0 {
            return;
        }
        for block in tensor.data.chunks_exact_mut(block) {
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
