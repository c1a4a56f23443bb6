//! Cholesky decomposition of symmetric systems in `f64`, in a fixed order of sums.
//!
//! The factor is kept in panels of eight rows, column after column, lower triangle only. Blocks of columns are computed from
//! left to right: first the products of all columns before the block are subtracted, by tiles. Then come the triangle of the
//! block and the rows below it. One thread solves a system; kernels with fused multiply-add agree to the bit.

use crate::Isa;
use crate::dense::double::{Tile64, WIDTH};
use crate::isa::per_isa;
use std::ops::Range;

/// Panels of columns in a block: their part of the factor stays in the second-level cache.
const BLOCK: usize = 8;
/// Columns that are subtracted at a time: three panels of so many fit into the first-level cache.
const DEPTH: usize = 192;

/// The least pivot relative to the diagonal: a smaller one is rounding error.
const LEAST_PIVOT: f64 = 1e-13;

/// The factor `L` of a symmetric matrix, `A = L L'`.
pub struct Cholesky {
    n: usize,
    /// Panel `p` holds columns `0..(p + 1) * WIDTH`, each of [`WIDTH`] rows; rows from `n` on are the unit matrix's.
    lower: Vec<f64>,
}

/// Where a panel begins.
fn start(panel: usize) -> usize {
    WIDTH * WIDTH * (panel * (panel + 1) / 2)
}

/// One column of a panel.
type Column = [f64; WIDTH];

impl Cholesky {
    /// Decomposes the rows and columns `support` of `matrix: [..][stride]`, which is symmetric, with `ridge` added to the
    /// diagonal. `None` where the result is not positive definite, to rounding.
    ///
    /// # Panics
    /// If an index of `support` lies outside.
    pub fn new(isa: Isa, matrix: &[f64], stride: usize, support: &[u32], ridge: f64) -> Option<Cholesky> {
        let mut factor = Cholesky { n: support.len(), lower: gather(matrix, stride, support, ridge) };
        let panels = support.len().div_ceil(WIDTH);
        let diagonal: Vec<f64> = (0..panels * WIDTH).map(|i| factor.at(i, i)).collect();
        for first in (0..panels).step_by(BLOCK) {
            let last = (first + BLOCK).min(panels);
            for from in (0..first * WIDTH).step_by(DEPTH) {
                let depth = from..(from + DEPTH).min(first * WIDTH);
                for rows in (first..panels).step_by(2) {
                    (first..last.min(rows + 2)).for_each(|column| factor.subtract(isa, rows, panels, column, depth.clone()));
                }
            }
            for rows in (first..panels).step_by(2) {
                for column in first..last.min(rows + 2) {
                    factor.subtract(isa, rows, panels, column, first * WIDTH..column * WIDTH);
                    for row in (rows..panels.min(rows + 2)).filter(|&row| row >= column) {
                        if row > column {
                            factor.solve_block(isa, row, column);
                        } else if !factor.decompose_diagonal(column, &diagonal) {
                            return None;
                        }
                    }
                }
            }
        }
        Some(factor)
    }

    /// Bytes of the factor of `n` unknowns.
    pub fn bytes(n: usize) -> usize {
        start(n.div_ceil(WIDTH)) * size_of::<f64>()
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        self.lower[start(row / WIDTH) + column * WIDTH + row % WIDTH]
    }

    /// Subtracts the product of the columns `depth` from two panels, at the columns of panel `column`.
    fn subtract(&mut self, isa: Isa, rows: usize, panels: usize, column: usize, depth: Range<usize>) {
        if depth.is_empty() {
            return;
        }
        let part = |panel: usize| &self.lower[start(panel) + depth.start * WIDTH..][..depth.len() * WIDTH];
        let pair = [rows, (rows + 1).min(panels - 1)];
        let mut tile = Tile64([[0.0; 2 * WIDTH]; WIDTH]);
        isa.tile64(depth.len(), part(column), pair.map(part), &mut tile);
        for (half, row) in pair.into_iter().enumerate().take(panels - rows) {
            if row < column {
                continue;
            }
            let at = start(row) + column * WIDTH * WIDTH;
            let (columns, _) = self.lower[at..][..WIDTH * WIDTH].as_chunks_mut::<WIDTH>();
            for (column, sums) in columns.iter_mut().zip(&tile.0) {
                // The tile holds the negated sums.
                (0..WIDTH).for_each(|r| column[r] += sums[half * WIDTH + r]);
            }
        }
    }

    /// Decomposes the triangle of one panel, from which all earlier columns are subtracted. `diagonal` is the matrix's.
    /// Returns whether all pivots are positive.
    fn decompose_diagonal(&mut self, panel: usize, diagonal: &[f64]) -> bool {
        let at = start(panel) + panel * WIDTH * WIDTH;
        let (columns, _) = self.lower[at..][..WIDTH * WIDTH].as_chunks_mut::<WIDTH>();
        for c in 0..WIDTH {
            let rest = columns[c][c];
            if !(rest.is_finite() && rest > diagonal[panel * WIDTH + c].abs() * LEAST_PIVOT) {
                return false;
            }
            let pivot = rest.sqrt();
            columns[c][c] = pivot;
            (c + 1..WIDTH).for_each(|r| columns[c][r] /= pivot);
            for next in c + 1..WIDTH {
                let factor = columns[c][next];
                (next..WIDTH).for_each(|r| columns[next][r] -= columns[c][r] * factor);
            }
        }
        true
    }

    /// Solves for the columns of panel `column` in panel `row`, below the triangle.
    fn solve_block(&mut self, isa: Isa, row: usize, column: usize) {
        let (above, below) = self.lower.split_at_mut(start(row));
        let (triangle, _) = above[start(column) + column * WIDTH * WIDTH..][..WIDTH * WIDTH].as_chunks::<WIDTH>();
        let (block, _) = below[column * WIDTH * WIDTH..][..WIDTH * WIDTH].as_chunks_mut::<WIDTH>();
        divide_block(isa, triangle, block);
    }

    /// Solves `A x = b` in place.
    ///
    /// # Panics
    /// If `b` has another length than the system.
    pub fn solve(&self, isa: Isa, b: &mut [f64]) {
        assert_eq!(b.len(), self.n, "unknowns");
        let mut x = b.to_vec();
        x.resize(self.n.next_multiple_of(WIDTH), 0.0);
        solve_both(isa, &self.lower, &mut x);
        b.copy_from_slice(&x[..self.n]);
    }
}

/// The lower triangle in panels.
fn gather(matrix: &[f64], stride: usize, support: &[u32], ridge: f64) -> Vec<f64> {
    let (n, panels) = (support.len(), support.len().div_ceil(WIDTH));
    let mut lower = vec![0.0; start(panels)];
    for panel in 0..panels {
        let row = |r: usize| support.get(panel * WIDTH + r).map_or(&[][..], |&i| &matrix[i as usize * stride..][..stride]);
        let rows: [&[f64]; WIDTH] = std::array::from_fn(row);
        let (columns, _) = lower[start(panel)..start(panel + 1)].as_chunks_mut::<WIDTH>();
        if (panel + 1) * WIDTH <= n {
            for (column, &j) in columns.iter_mut().zip(support) {
                (0..WIDTH).for_each(|r| column[r] = rows[r][j as usize]);
            }
        } else {
            for (column, &j) in columns.iter_mut().zip(support) {
                (0..WIDTH).for_each(|r| column[r] = rows[r].get(j as usize).copied().unwrap_or(0.0));
            }
        }
        for r in 0..WIDTH {
            let i = panel * WIDTH + r;
            columns[i][r] = if i < n { columns[i][r] + ridge } else { 1.0 };
        }
    }
    lower
}

per_isa! {
    /// `block <- block * inv(triangle')`, column by column.
    fn divide_block(triangle: &[Column], block: &mut [Column]) = divide_block_body
}

#[inline(always)]
fn divide_block_body(triangle: &[Column], block: &mut [Column]) {
    for c in 0..WIDTH {
        let mut column = block[c];
        for before in 0..c {
            let factor = triangle[before][c];
            (0..WIDTH).for_each(|r| column[r] -= block[before][r] * factor);
        }
        let pivot = 1.0 / triangle[c][c];
        (0..WIDTH).for_each(|r| column[r] *= pivot);
        block[c] = column;
    }
}

per_isa! {
    /// Solves with the factor, then with its transpose.
    fn solve_both(lower: &[f64], x: &mut [f64]) = solve_both_body
}

/// Independent sums, so that additions do not wait for each other.
const CHAINS: usize = 4;

#[inline(always)]
fn solve_both_body(lower: &[f64], x: &mut [f64]) {
    let (x, _) = x.as_chunks_mut::<WIDTH>();
    let panel = |p: usize| lower[start(p)..start(p + 1)].as_chunks::<WIDTH>().0;
    for p in 0..x.len() {
        let (done, rest) = x.split_at_mut(p);
        let (columns, triangle) = panel(p).split_at(p * WIDTH);
        let mut sums = [[0.0; WIDTH]; CHAINS];
        for (columns, x) in columns.as_chunks::<CHAINS>().0.iter().zip(done.as_flattened().as_chunks::<CHAINS>().0) {
            for chain in 0..CHAINS {
                (0..WIDTH).for_each(|r| sums[chain][r] += columns[chain][r] * x[chain]);
            }
        }
        let x = &mut rest[0];
        (0..WIDTH).for_each(|r| x[r] -= (sums[0][r] + sums[2][r]) + (sums[1][r] + sums[3][r]));
        for c in 0..WIDTH {
            x[c] /= triangle[c][c];
            (c + 1..WIDTH).for_each(|r| x[r] -= triangle[c][r] * x[c]);
        }
    }
    for p in (0..x.len()).rev() {
        let (before, rest) = x.split_at_mut(p);
        let (columns, triangle) = panel(p).split_at(p * WIDTH);
        let x = &mut rest[0];
        for c in (0..WIDTH).rev() {
            (c + 1..WIDTH).for_each(|r| x[c] -= triangle[c][r] * x[r]);
            x[c] /= triangle[c][c];
        }
        for (value, column) in before.as_flattened_mut().iter_mut().zip(columns) {
            let p: Column = std::array::from_fn(|r| column[r] * x[r]);
            *value -= ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ISAS;
    use crate::isa::Level;

    /// A positive matrix, and the plain decomposition of a part of it.
    fn positive(n: usize) -> Vec<f64> {
        let b: Vec<f64> = crate::testing::values(n * n, 3).into_iter().map(f64::from).collect();
        let dot = |i: usize, j: usize| b[i * n..][..n].iter().zip(&b[j * n..][..n]).map(|(a, b)| a * b).sum::<f64>();
        (0..n * n).map(|at| dot(at / n, at % n) + if at / n == at % n { 0.05 } else { 0.0 }).collect()
    }

    fn plain(a: &[f64], n: usize) -> Vec<f64> {
        let mut l = a.to_vec();
        for i in 0..n {
            for j in 0..=i {
                let rest = l[i * n + j] - (0..j).map(|k| l[i * n + k] * l[j * n + k]).sum::<f64>();
                l[i * n + j] = if i == j { rest.sqrt() } else { rest / l[j * n + j] };
            }
        }
        l
    }

    #[test]
    fn equals_a_plain_decomposition_and_solves() {
        for n in [1, 2, 7, 8, 9, 16, 63, 64, 65, 130, 300] {
            let stride = n + 3;
            let a = positive(stride);
            let support: Vec<u32> = (0..n as u32).map(|i| i + (i > 2) as u32 + 2 * (i > 40) as u32).collect();
            let part: Vec<f64> = (0..n * n).map(|at| a[support[at / n] as usize * stride + support[at % n] as usize]).collect();
            let mut damped = part.clone();
            (0..n).for_each(|i| damped[i * n + i] += 0.5);
            let wanted = plain(&damped, n);
            let mut bits = Vec::new();
            for isa in ISAS.iter().filter_map(|row| row.open()) {
                let factor = Cholesky::new(isa, &a, stride, &support, 0.5).unwrap();
                for i in 0..n {
                    (0..=i).for_each(|j| assert!((factor.at(i, j) - wanted[i * n + j]).abs() < 1e-9, "{n}: {i} {j}"));
                }
                let mut x: Vec<f64> = (0..n).map(|i| (i % 7) as f64 - 3.0).collect();
                factor.solve(isa, &mut x);
                for i in 0..n {
                    let got = (0..n).map(|j| damped[i * n + j] * x[j]).sum::<f64>();
                    assert!((got - ((i % 7) as f64 - 3.0)).abs() < 1e-8, "{n}: row {i} gives {got}");
                }
                if isa.level() != Level::Portable {
                    bits.push(x.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
                }
            }
            assert!(bits.windows(2).all(|pair| pair[0] == pair[1]), "{n}: kernels that fuse differ");
        }
    }

    #[test]
    fn a_singular_matrix_is_refused() {
        let isa = Isa::best();
        assert!(Cholesky::new(isa, &[1.0, 1.0, 1.0, 1.0], 2, &[0, 1], 0.0).is_none());
        assert!(Cholesky::new(isa, &[0.0], 1, &[0], 0.0).is_none());
        assert!(Cholesky::new(isa, &[f64::NAN], 1, &[0], 1.0).is_none());
        let ones = vec![1.0; 40 * 40];
        assert!(Cholesky::new(isa, &ones, 40, &(0..40).collect::<Vec<_>>(), 0.0).is_none());
        assert!(Cholesky::new(isa, &ones, 40, &[], 0.0).is_some());
    }
}
