//! Products with sparse weights, and of targets with the inputs that sparse weights read.

use super::packed_rows::PackedRows;
use crate::dense::LANES;
use crate::dense::dots::tree_sum;
use crate::isa::per_isa;

/// The nonzero weights of an output: their positions and values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CsrRow {
    /// Ascending.
    pub indices: Vec<u32>,
    /// As many values.
    pub values: Vec<f32>,
}

/// Positions that one sum of [`sparse_product`] covers.
const SPAN: usize = 4 * LANES;

per_isa! {
    /// `out[m] = sum_k rows[m][k] * columns[k]`: outputs of a layer at positions, `columns: [K][stride]` and `out: [rows][stride]`.
    ///
    /// # Panics
    /// If a length does not match.
    pub fn sparse_product(rows: &[CsrRow], columns: &[f32], stride: usize, out: &mut [f32]) = sparse_product_body
}

#[inline(always)]
fn sparse_product_body(rows: &[CsrRow], columns: &[f32], stride: usize, out: &mut [f32]) {
    for first in (0..stride).step_by(SPAN) {
        let width = SPAN.min(stride - first);
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(stride)) {
            let entries = row.indices.iter().zip(&row.values);
            let mut sums = [0.0f32; SPAN];
            if width == SPAN {
                for (&k, &value) in entries {
                    let (column, _) = columns[k as usize * stride + first..].as_chunks::<SPAN>();
                    (0..SPAN).for_each(|i| sums[i] += value * column[0][i]);
                }
            } else {
                for (&k, &value) in entries {
                    let column = &columns[k as usize * stride + first..][..width];
                    sums.iter_mut().zip(column).for_each(|(sum, x)| *sum += value * x);
                }
            }
            out[first..first + width].copy_from_slice(&sums[..width]);
        }
    }
}

/// Inputs whose columns stay in the second-level cache while all outputs are multiplied with them.
const NEAR: usize = 64;

per_isa! {
    /// Products of each output's target with chosen inputs: `sum_r targets[m][r] * columns[k][r]` for every `k` of `chosen[m]`.
    /// They lie one after another in `out`. Where few are chosen, this is less work than all products.
    ///
    /// `targets: [outputs][stride]` and `columns: [K][stride]`, with a `stride` of [`narrow_stride`](super::narrow_stride). Each
    /// of `chosen` ascends.
    ///
    /// # Panics
    /// If a length does not match.
    pub fn sparse_cross(targets: &[f32], columns: &[f32], stride: usize, chosen: &[Vec<u32>], out: &mut [f32]) = sparse_cross_body
}

#[inline(always)]
fn sparse_cross_body(targets: &[f32], columns: &[f32], stride: usize, chosen: &[Vec<u32>], out: &mut [f32]) {
    assert!(stride <= PackedRows::MOST && stride.is_multiple_of(LANES), "{stride} rows");
    assert_eq!(out.len(), chosen.iter().map(Vec::len).sum::<usize>(), "products");
    let starts: Vec<usize> = chosen.iter().scan(0, |end, chosen| Some(std::mem::replace(end, *end + chosen.len()))).collect();
    let mut done = vec![0; chosen.len()];
    for near in (0..columns.len() / stride).step_by(NEAR).map(|first| first + NEAR) {
        for (m, target) in targets.chunks_exact(stride).enumerate() {
            let (from, count) = (done[m], chosen[m][done[m]..].partition_point(|&k| (k as usize) < near));
            let products = &mut out[starts[m] + from..][..count];
            for (&k, product) in chosen[m][from..].iter().zip(products) {
                *product = dot(target, &columns[k as usize * stride..][..stride]);
            }
            done[m] = from + count;
        }
    }
}

/// Vectors of sums side by side, which do not wait for each other.
const SIDE_BY_SIDE: usize = 4;

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<{ SIDE_BY_SIDE * LANES }>(), b.as_chunks::<{ SIDE_BY_SIDE * LANES }>());
    let mut sums = [0.0f32; SIDE_BY_SIDE * LANES];
    for (a, b) in a.iter().zip(b) {
        (0..SIDE_BY_SIDE * LANES).for_each(|i| sums[i] += a[i] * b[i]);
    }
    sums.iter_mut().zip(a_rest.iter().zip(b_rest)).for_each(|(sum, (a, b))| *sum += a * b);
    tree_sum(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ISAS;
    use crate::testing::values;

    #[test]
    fn a_sparse_product_is_a_plain_one() {
        let columns = values(9 * 144, 1);
        let rows = [(vec![0, 3, 8], vec![0.5, -2.0, 3.0]), (vec![], vec![])];
        let rows: Vec<CsrRow> = rows.into_iter().map(|(indices, values)| CsrRow { indices, values }).collect();
        for isa in ISAS.iter().filter_map(|row| row.open()) {
            let mut out = vec![f32::NAN; 2 * 144];
            sparse_product(isa, &rows, &columns, 144, &mut out);
            for i in 0..144 {
                let wanted = 0.5 * columns[i] - 2.0 * columns[3 * 144 + i] + 3.0 * columns[8 * 144 + i];
                assert!((out[i] - wanted).abs() < 1e-5 && out[144 + i] == 0.0, "{} {i}", isa.name());
            }
        }
    }

    #[test]
    fn chosen_products_equal_plain_ones() {
        // More inputs than are near at once, and rows that do not fill the last sum.
        let (inputs, outputs) = (3 * NEAR + 5, 4);
        for stride in [LANES, 5 * LANES, PackedRows::MOST] {
            let (targets, columns) = (values(outputs * stride, 1), values(inputs * stride, 2));
            let chosen: Vec<Vec<u32>> = vec![vec![0, 63, 64, 196], vec![], (0..inputs as u32).collect(), vec![130]];
            let pairs = chosen.iter().enumerate().flat_map(|(m, chosen)| chosen.iter().map(move |&k| (m, k as usize)));
            let wanted: Vec<f64> = pairs
                .map(|(m, k)| (0..stride).map(|r| f64::from(targets[m * stride + r]) * f64::from(columns[k * stride + r])).sum())
                .collect();
            for isa in ISAS.iter().filter_map(|row| row.open()) {
                let mut got = vec![f32::NAN; wanted.len()];
                sparse_cross(isa, &targets, &columns, stride, &chosen, &mut got);
                // Sums of up to 512 products of magnitude 1.
                let close = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() < 5e-5;
                assert!(got.iter().zip(&wanted).all(close), "{} {stride}", isa.name());
            }
        }
    }
}
