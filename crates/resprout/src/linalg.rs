//! Small dense symmetric systems in `f64`.

/// The lower triangle `L` of `A = L * L'`, row by row.
pub struct Cholesky {
    n: usize,
    /// `[n][n]`, the part above the diagonal unspecified.
    lower: Vec<f64>,
}

impl Cholesky {
    /// Decomposes a symmetric matrix `[n][n]` of which the lower triangle is read. `None` where it is
    /// not positive definite, to rounding.
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
            // What is left of a diagonal after cancellation down to rounding has no meaning.
            if !(rest.is_finite() && rest > row[i].abs() * 1e-13) {
                return None;
            }
            row[i] = rest.sqrt();
        }
        Some(Cholesky { n, lower: a })
    }

    /// Solves `A x = b` in place.
    pub fn solve(&self, b: &mut [f64]) {
        let n = self.n;
        for i in 0..n {
            let row = &self.lower[i * n..][..n];
            b[i] = (b[i] - dot(&row[..i], &b[..i])) / row[i];
        }
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

/// Sixteen interleaved sums: the additions need not wait for each other.
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
    fn a_singular_matrix_is_refused() {
        assert!(Cholesky::new(vec![1.0, 1.0, 1.0, 1.0], 2).is_none());
        assert!(Cholesky::new(vec![0.0], 1).is_none());
        assert!(Cholesky::new(vec![f64::NAN], 1).is_none());
    }
}
