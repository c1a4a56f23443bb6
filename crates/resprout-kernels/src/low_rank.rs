//! Products with the rows of a tall, narrow matrix, for a preconditioner of low rank.

use crate::isa::per_isa;

/// Columns of the matrix.
pub const RANK: usize = 64;

/// One row.
pub type Direction = [f32; RANK];

per_isa! {
    /// `sum_i values[i] * rows[indices[i]]`.
    ///
    /// # Panics
    /// If an index lies outside.
    pub fn project(rows: &[Direction], indices: &[u32], values: &[f64], out: &mut [f64; RANK]) = project_body
}

#[inline(always)]
fn project_body(rows: &[Direction], indices: &[u32], values: &[f64], out: &mut [f64; RANK]) {
    let mut sums = [0.0f64; RANK];
    for (&index, &value) in indices.iter().zip(values) {
        let row = &rows[index as usize];
        (0..RANK).for_each(|c| sums[c] += f64::from(row[c]) * value);
    }
    *out = sums;
}

per_isa! {
    /// `out[i] = rows[indices[i]] * weights`.
    ///
    /// # Panics
    /// If an index lies outside.
    pub fn expand(rows: &[Direction], indices: &[u32], weights: &[f64; RANK], out: &mut [f64]) = expand_body
}

#[inline(always)]
fn expand_body(rows: &[Direction], indices: &[u32], weights: &[f64; RANK], out: &mut [f64]) {
    const LANES: usize = 8;
    let (weights, _) = weights.as_chunks::<LANES>();
    for (&index, out) in indices.iter().zip(out) {
        let (row, _) = rows[index as usize].as_chunks::<LANES>();
        let mut sums = [0.0f64; LANES];
        for (row, weights) in row.iter().zip(weights) {
            (0..LANES).for_each(|lane| sums[lane] += f64::from(row[lane]) * weights[lane]);
        }
        *out = ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ISAS;

    #[test]
    fn both_products_equal_plain_loops_on_every_instruction_set() {
        let flat = crate::testing::values(20 * RANK, 1);
        let (rows, _) = flat.as_chunks::<RANK>();
        let (indices, values) = ([0u32, 3, 4, 19], [0.5, -1.0, 2.0, 0.25]);
        for isa in ISAS.iter().filter_map(|row| row.open()) {
            let (mut sums, mut back) = ([0.0; RANK], [0.0; 4]);
            project(isa, rows, &indices, &values, &mut sums);
            expand(isa, rows, &indices, &sums, &mut back);
            for c in 0..RANK {
                let wanted: f64 = indices.iter().zip(values).map(|(&i, v)| f64::from(rows[i as usize][c]) * v).sum();
                assert!((sums[c] - wanted).abs() < 1e-12);
            }
            for (&i, back) in indices.iter().zip(back) {
                let wanted: f64 = rows[i as usize].iter().zip(sums).map(|(&a, b)| f64::from(a) * b).sum();
                assert!((back - wanted).abs() < 1e-12);
            }
        }
    }
}
