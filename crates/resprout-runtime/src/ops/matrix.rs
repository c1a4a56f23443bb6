//! Matrix products of two computed values.

use super::binary::{advance, broadcast_shape, expanded};
use super::general::{General, Images};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use resprout_kernels::{Activation, Isa, PackedLinear};

/// A vector as a matrix: a row on the left, a column on the right.
fn as_matrix(shape: &[usize], left: bool) -> Vec<usize> {
    match *shape {
        [k] if left => vec![1, k],
        [k] => vec![k, 1],
        _ => shape.to_vec(),
    }
}

/// The shape of a batched `A[.., m, k] * B[.., k, n]`, by NumPy's rules.
pub(super) fn matmul_shape(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let wrong = || Error::data(format!("matrices of shapes {a:?} and {b:?} cannot be multiplied"));
    if a.is_empty() || b.is_empty() {
        return Err(wrong());
    }
    let (left, right) = (as_matrix(a, true), as_matrix(b, false));
    let (m, k) = (left[left.len() - 2], left[left.len() - 1]);
    let (k2, n) = (right[right.len() - 2], right[right.len() - 1]);
    if k != k2 {
        return Err(wrong());
    }
    let mut out = broadcast_shape(&left[..left.len() - 2], &right[..right.len() - 2]).map_err(|_| wrong())?;
    out.extend((a.len() > 1).then_some(m));
    out.extend((b.len() > 1).then_some(n));
    Ok(out)
}

pub(super) fn matmul(a: &Tensor, b: &Tensor, out: &mut Tensor, isa: Isa) {
    let (left_shape, right_shape) = (as_matrix(&a.shape, true), as_matrix(&b.shape, false));
    let (m, k, n) = (left_shape[left_shape.len() - 2], left_shape[left_shape.len() - 1], right_shape[right_shape.len() - 1]);
    let vectors = usize::from(a.shape.len() == 1) + usize::from(b.shape.len() == 1);
    let batch = out.shape[..(out.shape.len() + vectors).saturating_sub(2)].to_vec();
    let offset = |shape: &[usize], index: &[usize]| {
        let own = &shape[..shape.len() - 2];
        let skipped = batch.len() - own.len();
        own.iter().enumerate().fold(0, |at, (axis, &dim)| at * dim + if dim == 1 { 0 } else { index[axis + skipped] })
    };
    if k == 0 {
        // A sum of nothing.
        out.data.fill(0.0);
        return;
    }
    let mut index = vec![0; batch.len()];
    // Several rows of the batch often share the matrix on the right.
    let mut packed: Option<(usize, PackedLinear)> = None;
    for out in out.data.chunks_exact_mut((m * n).max(1)) {
        let left = &a.data[offset(&left_shape, &index) * m * k..][..m * k];
        let at = offset(&right_shape, &index) * k * n;
        let right = match packed.take() {
            Some((known, right)) if known == at => right,
            _ => PackedLinear::new(k, n, &transposed(&b.data[at..][..k * n], k, n), &[], Activation::None),
        };
        right.run(isa, left, out);
        packed = Some((at, right));
        advance(&mut index, &batch);
    }
}

/// `alpha * A' * B' + beta * C` of computed matrices.
pub(super) fn gemm(
    count: usize,
    [alpha, beta]: [f32; 2],
    [trans_a, trans_b]: [bool; 2],
    [rows, k, outputs]: [usize; 3],
) -> General {
    let run = move |inputs: &[&Tensor], out: &mut Tensor, isa: Isa| {
        let left = if trans_a { transposed(&inputs[0].data, k, rows) } else { inputs[0].data.clone() };
        let mut right = if trans_b { inputs[1].data.clone() } else { transposed(&inputs[1].data, k, outputs) };
        right.iter_mut().for_each(|w| *w *= alpha);
        PackedLinear::new(k, outputs, &right, &[], Activation::None).run(isa, &left, &mut out.data);
        if let Some(Ok(bias)) = inputs.get(2).map(|bias| expanded(bias, &[rows, outputs])) {
            out.data.iter_mut().zip(&bias.data).for_each(|(out, bias)| *out += beta * bias);
        }
    };
    let images = if trans_a { Images::Axes(vec![None, Some(0)]) } else { Images::Axes(vec![Some(0), None]) };
    General::new(count, images, run)
}

/// Transposes `[rows, columns]` to `[columns, rows]`.
pub(super) fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| matrix[r * columns + c])).collect()
}
