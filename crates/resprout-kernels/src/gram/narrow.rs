//! Outer products of matrices with few columns, by dot products.

use super::packed_rows::PackedRows;
use crate::Isa;
use crate::dense::LANES;
use crate::dense::dots::{DOT_ROWS, DOT_SHIFTS};

/// Matrices of at most this many features are not packed: a tile would be mostly empty.
pub const NARROW: usize = 32;

/// Adds `left' * right` of matrices with few columns: `out: [left's features][right's features]`.
///
/// Both sides are `[features][stride]`. `stride` is that of [`narrow_stride`], and values past the rows are zero.
///
/// # Panics
/// If a length does not match.
pub fn accumulate_narrow(isa: Isa, left: &[f32], right: &[f32], stride: usize, out: &mut [f64]) {
    let (rows, columns) = (left.len() / stride, right.len() / stride);
    assert!(stride <= PackedRows::MOST && out.len() == rows * columns, "{rows} x {columns} sums");
    for first in (0..rows).step_by(DOT_ROWS) {
        for from in (0..columns).step_by(DOT_SHIFTS) {
            let (mut sums, last) = ([[0.0; DOT_SHIFTS]; DOT_ROWS], [rows - 1, columns - 1]);
            let at = |i: usize, last: usize| i.min(last) * stride;
            let starts = std::array::from_fn(|r| at(first + r, last[0]));
            isa.dots(left, starts, right, std::array::from_fn(|c| at(from + c, last[1])), stride, &mut sums);
            for (r, sums) in sums.iter().enumerate().take(rows - first) {
                let out = &mut out[(first + r) * columns + from..][..DOT_SHIFTS.min(columns - from)];
                out.iter_mut().zip(sums).for_each(|(sum, &value)| *sum += f64::from(value));
            }
        }
    }
}

/// The stride of a narrow matrix with so many rows: whole vectors.
pub fn narrow_stride(rows: usize) -> usize {
    rows.next_multiple_of(LANES)
}

#[cfg(test)]
mod tests {
    use super::super::packed_rows::accumulate;
    use super::*;
    use crate::ISAS;
    use crate::testing::values;

    #[test]
    fn narrow_sums_equal_those_of_tiles() {
        let (features, targets, rows) = (10, 3, 77);
        let (x, t) = (values(features * rows, 1), values(targets * rows, 2));
        let stride = narrow_stride(rows);
        let widen = |columns: &[f32]| -> Vec<f32> {
            let filled = |column: &[f32]| [column, &vec![0.0; stride - rows]].concat();
            columns.chunks_exact(rows).flat_map(filled).collect()
        };
        let (packed, packed_targets) = ([PackedRows::new(&x, features, rows)], [PackedRows::new(&t, targets, rows)]);
        for isa in ISAS.iter().filter_map(|row| row.open()) {
            let (mut wanted, mut got) = (vec![1.0; targets * features], vec![1.0; targets * features]);
            accumulate(isa, &packed_targets, &packed, 0, 0, &mut wanted);
            accumulate_narrow(isa, &widen(&t), &widen(&x), stride, &mut got);
            assert!(wanted.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-4 && *a != 1.0), "{}", isa.name());
        }
    }
}
