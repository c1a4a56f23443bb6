//! Operations that only move elements or rename axes.

use super::axis_index;
use super::binary::advance;
use crate::error::{Error, Result};
use crate::tensor::{Array, element_count, strides};

pub(super) fn flatten_shape(shape: &[usize], axis: i64) -> Result<Vec<usize>> {
    let axis = if axis == shape.len() as i64 { shape.len() } else { axis_index(axis, shape.len())? };
    Ok(vec![element_count(&shape[..axis])?, element_count(&shape[axis..])?])
}

pub(super) fn reshape_shape(shape: &[usize], target: &[i64], allow_zero: bool) -> Result<Vec<usize>> {
    let wrong = || Error::data(format!("a tensor of shape {shape:?} cannot get the shape {target:?}"));
    let mut out = Vec::with_capacity(target.len());
    let mut free = None;
    for (axis, &dim) in target.iter().enumerate() {
        out.push(match dim {
            -1 if free.is_none() => {
                free = Some(axis);
                1
            }
            0 if !allow_zero => *shape.get(axis).ok_or_else(wrong)?,
            _ => usize::try_from(dim).map_err(|_| wrong())?,
        });
    }
    let (have, fixed) = (element_count(shape)?, element_count(&out)?);
    if let Some(axis) = free {
        if fixed == 0 || have % fixed != 0 {
            return Err(wrong());
        }
        out[axis] = have / fixed;
    } else if have != fixed {
        return Err(wrong());
    }
    Ok(out)
}

pub(super) fn squeeze_shape(shape: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>> {
    let drop: Vec<usize> = match axes {
        None => (0..shape.len()).filter(|&axis| shape[axis] == 1).collect(),
        Some(axes) => axes.iter().map(|&axis| axis_index(axis, shape.len())).collect::<Result<_>>()?,
    };
    if let Some(&axis) = drop.iter().find(|&&axis| shape[axis] != 1) {
        return Err(Error::data(format!("axis {axis} of {shape:?} is not 1 and cannot be squeezed")));
    }
    Ok((0..shape.len()).filter(|axis| !drop.contains(axis)).map(|axis| shape[axis]).collect())
}

pub(super) fn unsqueeze_shape(shape: &[usize], axes: &[i64]) -> Result<Vec<usize>> {
    let rank = shape.len() + axes.len();
    let new: Vec<usize> = axes.iter().map(|&axis| axis_index(axis, rank)).collect::<Result<_>>()?;
    let mut old = shape.iter();
    let out: Vec<usize> = (0..rank).filter_map(|axis| if new.contains(&axis) { Some(1) } else { old.next().copied() }).collect();
    if out.len() != rank {
        return Err(Error::data(format!("axes {axes:?} name one axis twice")));
    }
    Ok(out)
}

/// The checked permutation of `rank` axes. Without one, it reverses them.
pub fn permutation(rank: usize, perm: Option<&[i64]>) -> Result<Vec<usize>> {
    let Some(perm) = perm else { return Ok((0..rank).rev().collect()) };
    let axes: Vec<usize> = perm.iter().map(|&axis| axis_index(axis, rank)).collect::<Result<_>>()?;
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..rank) {
        return Err(Error::data(format!("{perm:?} is no permutation of {rank} axes")));
    }
    Ok(axes)
}

/// Permutes axes into `out`, which has the permuted shape.
pub fn transpose<T: Copy>(input: &Array<T>, perm: &[usize], out: &mut Array<T>) {
    let steps: Vec<usize> = perm.iter().map(|&axis| strides(&input.shape)[axis]).collect();
    let Some((&last_step, outer_steps)) = steps.split_last() else {
        out.data.copy_from_slice(&input.data);
        return;
    };
    let (&inner, outer) = out.shape.split_last().expect("as many axes as steps");
    if inner == 0 {
        return;
    }
    let mut index = vec![0; outer.len()];
    for row in out.data.chunks_exact_mut(inner) {
        let start: usize = index.iter().zip(outer_steps).map(|(i, s)| i * s).sum();
        row.iter_mut().zip(input.data[start..].iter().step_by(last_step.max(1))).for_each(|(to, from)| *to = *from);
        advance(&mut index, outer);
    }
}

pub(super) fn concat_shape(shapes: &[&[usize]], axis: i64) -> Result<(Vec<usize>, usize)> {
    let first = *shapes.first().ok_or_else(|| Error::data("nothing to concatenate"))?;
    let axis = axis_index(axis, first.len())?;
    let mut out = first.to_vec();
    for shape in &shapes[1..] {
        let fits = shape.len() == first.len() && (0..first.len()).all(|i| i == axis || shape[i] == first[i]);
        if !fits {
            return Err(Error::data(format!("shapes {first:?} and {shape:?} cannot be joined along axis {axis}")));
        }
        out[axis] += shape[axis];
    }
    Ok((out, axis))
}

pub(super) fn concat<T: Copy>(inputs: &[&Array<T>], axis: usize, out: &mut Array<T>) {
    let inner: usize = out.shape[axis + 1..].iter().product();
    let row = out.shape[axis] * inner;
    if row == 0 {
        return;
    }
    let mut start = 0;
    for input in inputs {
        let len = input.shape[axis] * inner;
        if len > 0 {
            for (to, from) in out.data.chunks_exact_mut(row).zip(input.data.chunks_exact(len)) {
                to[start..start + len].copy_from_slice(from);
            }
        }
        start += len;
    }
}

pub(super) fn gather_shape(shape: &[usize], axis: usize, indices: &[usize]) -> Vec<usize> {
    [&shape[..axis], indices, &shape[axis + 1..]].concat()
}

/// Checked indices from the front.
pub(super) fn gather_indices(indices: &[i64], len: usize) -> Result<Vec<usize>> {
    indices.iter().map(|&index| axis_index(index, len)).collect()
}

pub(super) fn gather<T: Copy>(input: &Array<T>, axis: usize, indices: &[usize], out: &mut Array<T>) {
    let inner: usize = input.shape[axis + 1..].iter().product();
    let row = input.shape[axis] * inner;
    if inner == 0 || row == 0 {
        return;
    }
    let targets = out.data.chunks_exact_mut(inner);
    let sources = input.data.chunks_exact(row).flat_map(|row| indices.iter().map(move |&i| &row[i * inner..][..inner]));
    targets.zip(sources).for_each(|(to, from)| to.copy_from_slice(from));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshape_follows_the_rules() {
        assert_eq!(reshape_shape(&[2, 3, 4], &[0, -1], false).unwrap(), [2, 12]);
        assert_eq!(reshape_shape(&[2, 0], &[0, 5], true).unwrap(), [0, 5]);
        for target in [vec![-1, -1], vec![7], vec![5, -1], vec![0, 0, 0, 0], vec![-2], vec![i64::MAX, i64::MAX]] {
            assert!(reshape_shape(&[2, 3, 4], &target, false).is_err(), "{target:?}");
        }
    }

    #[test]
    fn transpose_gather_concat() {
        let a = Array::new(vec![2, 3], vec![1, 2, 3, 4, 5, 6]);
        let mut t = Array::new(vec![3, 2], vec![0; 6]);
        transpose(&a, &[1, 0], &mut t);
        assert_eq!(t.data, [1, 4, 2, 5, 3, 6]);
        let mut g = Array::new(vec![2, 2], vec![0; 4]);
        gather(&a, 1, &gather_indices(&[-1, 0], 3).unwrap(), &mut g);
        assert_eq!(g.data, [3, 1, 6, 4]);
        let mut c = Array::new(vec![2, 5], vec![0; 10]);
        concat(&[&a, &g], 1, &mut c);
        assert_eq!(c.data, [1, 2, 3, 3, 1, 4, 5, 6, 6, 4]);
        assert_eq!(unsqueeze_shape(&[2, 3], &[0, -1]).unwrap(), [1, 2, 3, 1]);
        assert!(unsqueeze_shape(&[2], &[0, 0]).is_err());
        assert!(permutation(3, Some(&[0, 0, 1])).is_err());
    }
}
