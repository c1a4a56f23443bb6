//! Linear algebra in `f64`: small dense symmetric systems, the largest singular value, and the median.

use crate::random::SplitMix64;

/// The lower triangle `L` of `A = L * L'`, row by row.
pub struct Cholesky {
    n: usize,
    /// `[n][n]`, the part above the diagonal unspecified.
    lower: Vec<f64>,
}

impl Cholesky {
    /// Decomposes a symmetric matrix `[n][n]`, of which only the lower triangle is read. `None` if it is not positive
    /// definite, to rounding.
    pub fn new(mut a: Vec<f64>, n: usize) -> Option<Cholesky> {
        debug_assert_eq!(a.len(), n * n);
        for i in 0..n {
            let (above, row) = a.split_at_mut(i * n);
            let row = &mut row[..n];
            for j in 0..i {
                let other = &above[j * n..][..n];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
            let rest = row[i] - dot(&row[..i], &row[..i]);
            // After cancellation down to rounding, the rest of a diagonal means nothing.
            if !(rest.is_finite() && rest > row[i].abs() * 1e-13) {
                return None;
            }
            row[i] = rest.sqrt();
        }
        Some(Cholesky { n, lower: a })
    }

    /// Solves `L x = b` in place.
    pub fn solve_lower(&self, b: &mut [f64]) {
        let n = self.n;
        for i in 0..n {
            let row = &self.lower[i * n..][..n];
            b[i] = (b[i] - dot(&row[..i], &b[..i])) / row[i];
        }
    }

    /// Solves `A x = b` in place.
    pub fn solve(&self, b: &mut [f64]) {
        let n = self.n;
        self.solve_lower(b);
        for i in (0..n).rev() {
            let row = &self.lower[i * n..][..n];
            b[i] /= row[i];
            let x = b[i];
            b[..i].iter_mut().zip(row).for_each(|(b, l)| *b -= x * l);
        }
    }

    /// The diagonal of the inverse of `A`.
    pub fn inverse_diagonal(&self) -> Vec<f64> {
        let n = self.n;
        let mut diagonal = vec![0.0; n];
        // Column p of the inverse of L is zero above p; inv(A)_pp is its squared length.
        let mut column = vec![0.0; n];
        for p in 0..n {
            column[p] = 1.0 / self.lower[p * n + p];
            diagonal[p] = column[p] * column[p];
            for i in p + 1..n {
                let row = &self.lower[i * n..][..n];
                column[i] = -dot(&row[p..i], &column[p..i]) / row[i];
                diagonal[p] += column[i] * column[i];
            }
        }
        diagonal
    }
}

/// The dot product in sixteen interleaved sums, so that the additions do not wait for each other.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0f64; 16];
    let ((a_blocks, a_rest), (b_blocks, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// The iteration ends after several steps with a smaller relative growth of the largest Ritz value.
const SETTLED: f64 = 1e-13;

/// The largest singular value of `matrix: [rows][cols]`, to a relative error of about 1e-9.
///
/// The Lanczos method (Golub and Van Loan, Matrix Computations, ch. 10) on the smaller of `A Aᵀ` and `Aᵀ A`, with full
/// reorthogonalisation. The start is fixed, so that the result is always the same.
pub fn spectral_norm(matrix: &[f32], rows: usize, cols: usize) -> f64 {
    assert_eq!(matrix.len(), rows * cols);
    let size = rows.min(cols);
    if size == 0 {
        return 0.0;
    }
    let mut random = SplitMix64::new(0, 0);
    let mut direction: Vec<f64> = (0..size).map(|_| random.next_normal()).collect();
    normalise(&mut direction);
    let mut basis = vec![direction];
    // The projection on the basis is tridiagonal.
    let (mut diagonal, mut beside): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    let (mut largest, mut settled) = (0.0, 0);
    while let Some(last) = basis.last() {
        let mut next = gram_times(matrix, rows, cols, last);
        diagonal.push(dot(last, &next));
        // Two passes make it orthogonal to rounding.
        for _ in 0..2 {
            for old in &basis {
                let along = dot(old, &next);
                next.iter_mut().zip(old).for_each(|(n, o)| *n -= along * o);
            }
        }
        let value = largest_of_tridiagonal(&diagonal, &beside);
        settled = if value - largest <= SETTLED * value { settled + 1 } else { 0 };
        largest = value;
        let length = normalise(&mut next);
        if settled == 4 || basis.len() == size || length <= 1e-14 * value {
            break;
        }
        beside.push(length);
        basis.push(next);
    }
    largest.max(0.0).sqrt()
}

/// `A (Aᵀ x)` or `Aᵀ (A x)`, whichever is shorter.
fn gram_times(matrix: &[f32], rows: usize, cols: usize, x: &[f64]) -> Vec<f64> {
    let row = |i: usize| &matrix[i * cols..][..cols];
    let times =
        |x: &[f64]| -> Vec<f64> { (0..rows).map(|i| row(i).iter().zip(x).map(|(&a, x)| f64::from(a) * x).sum()).collect() };
    let transposed_times = |x: &[f64]| {
        let mut out = vec![0.0; cols];
        for (i, x) in x.iter().enumerate() {
            out.iter_mut().zip(row(i)).for_each(|(out, &a)| *out += f64::from(a) * x);
        }
        out
    };
    if rows <= cols { times(&transposed_times(x)) } else { transposed_times(&times(x)) }
}

/// The largest eigenvalue of a symmetric tridiagonal matrix: bisection on the signs of its leading minors.
fn largest_of_tridiagonal(diagonal: &[f64], beside: &[f64]) -> f64 {
    let reach = |i: usize| {
        let left = if i > 0 { beside[i - 1].abs() } else { 0.0 };
        diagonal[i] + left + beside.get(i).map_or(0.0, |b| b.abs())
    };
    let (mut low, mut high) =
        (diagonal.iter().copied().fold(f64::MIN, f64::max), (0..diagonal.len()).map(reach).fold(f64::MIN, f64::max));
    let all_below = |value: f64| {
        let mut pivot = diagonal[0] - value;
        (1..diagonal.len()).all(|i| {
            let fine = pivot < 0.0;
            pivot = diagonal[i] - value - beside[i - 1] * beside[i - 1] / pivot;
            fine
        }) && pivot < 0.0
    };
    while high - low > f64::EPSILON * high.abs() {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            break;
        }
        if all_below(middle) { high = middle } else { low = middle }
    }
    high
}

fn normalise(x: &mut [f64]) -> f64 {
    let length = dot(x, x).sqrt();
    if length > 0.0 {
        x.iter_mut().for_each(|x| *x /= length);
    }
    length
}

/// The middle value; 0 without values.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    fn positive(n: usize) -> Vec<f64> {
        let mut random = SplitMix64::new(3, n as u64);
        let b: Vec<f64> = (0..n * n).map(|_| random.next_f64() - 0.5).collect();
        let entry = |i: usize, j: usize| dot(&b[i * n..][..n], &b[j * n..][..n]) + if i == j { 0.1 } else { 0.0 };
        (0..n * n).map(|at| entry(at / n, at % n)).collect()
    }

    #[test]
    fn solves_and_inverts() {
        for n in [1, 2, 17, 60] {
            let a = positive(n);
            let cholesky = Cholesky::new(a.clone(), n).unwrap();
            let mut x: Vec<f64> = (0..n).map(|i| i as f64 - 3.0).collect();
            cholesky.solve(&mut x);
            for i in 0..n {
                assert!((dot(&a[i * n..][..n], &x) - (i as f64 - 3.0)).abs() < 1e-9, "{n}: row {i}");
            }
            for (p, &value) in cholesky.inverse_diagonal().iter().enumerate() {
                let mut unit = vec![0.0; n];
                unit[p] = 1.0;
                cholesky.solve(&mut unit);
                assert!((unit[p] - value).abs() < 1e-9 * value, "{n}: diagonal {p}");
            }
        }
    }

    #[test]
    fn a_singular_matrix_has_no_decomposition() {
        assert!(Cholesky::new(vec![1.0, 1.0, 1.0, 1.0], 2).is_none());
        assert!(Cholesky::new(vec![0.0], 1).is_none());
        assert!(Cholesky::new(vec![f64::NAN], 1).is_none());
    }

    /// Reference implementation: singular values by one-sided Jacobi rotations.
    fn largest_by_jacobi(matrix: &[f32], rows: usize, cols: usize) -> f64 {
        let mut columns: Vec<Vec<f64>> =
            (0..cols).map(|j| (0..rows).map(|i| f64::from(matrix[i * cols + j])).collect()).collect();
        for _ in 0..60 {
            for p in 0..cols {
                for q in p + 1..cols {
                    let (a, b, c) = (dot(&columns[p], &columns[p]), dot(&columns[q], &columns[q]), dot(&columns[p], &columns[q]));
                    if c.abs() <= 1e-15 * (a * b).sqrt() {
                        continue;
                    }
                    let z = (b - a) / (2.0 * c);
                    let t = z.signum() / (z.abs() + (1.0 + z * z).sqrt());
                    let (cos, sin) = (1.0 / (1.0 + t * t).sqrt(), t / (1.0 + t * t).sqrt());
                    for i in 0..rows {
                        let (x, y) = (columns[p][i], columns[q][i]);
                        (columns[p][i], columns[q][i]) = (cos * x - sin * y, sin * x + cos * y);
                    }
                }
            }
        }
        columns.iter().map(|column| dot(column, column).sqrt()).fold(0.0, f64::max)
    }

    #[test]
    fn the_spectral_norm_is_that_of_a_singular_value_decomposition() {
        let mut random = SplitMix64::new(7, 0);
        for (rows, cols) in [(1, 1), (1, 9), (9, 1), (5, 5), (16, 40), (40, 16), (33, 32)] {
            let dense: Vec<f32> = (0..rows * cols).map(|_| random.next_normal() as f32).collect();
            let masked: Vec<f32> = dense.iter().map(|&w| if random.next_f64() < 0.9 { 0.0 } else { w }).collect();
            let rank_one: Vec<f32> = (0..rows * cols).map(|i| dense[i / cols] * dense[i % cols]).collect();
            for matrix in [dense, masked, rank_one] {
                let (got, wanted) = (spectral_norm(&matrix, rows, cols), largest_by_jacobi(&matrix, rows, cols));
                assert!((got - wanted).abs() <= 1e-9 * wanted, "{rows}x{cols}: {got} {wanted}");
            }
        }
        assert_eq!(spectral_norm(&[0.0; 6], 2, 3), 0.0);
    }
}
