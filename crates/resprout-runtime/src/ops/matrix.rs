//! Matrix products of two computed values.

use super::binary::{advance, broadcast_shape};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use resprout_kernels::{Activation, Isa, PackedLinear};

/// The shape of a batched `A[.., m, k] * B[.., k, n]`, by NumPy's rules.
pub(super) fn matmul_shape(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let wrong = || Error::data(format!("matrices of shapes {a:?} and {b:?} cannot be multiplied"));
    if a.len() < 2 || b.len() < 2 {
        return Err(Error::unsupported(format!("MatMul of shapes {a:?} and {b:?}: two axes at least are needed")));
    }
    let (m, k) = (a[a.len() - 2], a[a.len() - 1]);
    let (k2, n) = (b[b.len() - 2], b[b.len() - 1]);
    if k != k2 {
        return Err(wrong());
    }
    let mut out = broadcast_shape(&a[..a.len() - 2], &b[..b.len() - 2]).map_err(|_| wrong())?;
    out.extend([m, n]);
    Ok(out)
}

pub(super) fn matmul(a: &Tensor, b: &Tensor, out: &mut Tensor, isa: Isa) {
    let rank = out.shape.len();
    let (m, n) = (out.shape[rank - 2], out.shape[rank - 1]);
    let k = a.shape[a.shape.len() - 1];
    let batch = &out.shape[..rank - 2];
    let offset = |operand: &Tensor, index: &[usize]| {
        let own = &operand.shape[..operand.shape.len() - 2];
        let skipped = batch.len() - own.len();
        own.iter().enumerate().fold(0, |at, (axis, &dim)| at * dim + if dim == 1 { 0 } else { index[axis + skipped] })
    };
    let mut index = vec![0; batch.len()];
    for out in out.data.chunks_exact_mut((m * n).max(1)) {
        let left = &a.data[offset(a, &index) * m * k..][..m * k];
        let right = &b.data[offset(b, &index) * k * n..][..k * n];
        PackedLinear::new(k, n, &transposed(right, k, n), &[], Activation::None).run(isa, left, out);
        advance(&mut index, batch);
    }
}

/// Transposes `[rows, columns]` to `[columns, rows]`.
pub(super) fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| matrix[r * columns + c])).collect()
}
