//! Outer products of matrices with many columns, by the dense micro-kernel.

use crate::Isa;
use crate::dense::{COLS, ROWS, Tile};

/// Rows of a matrix, laid out for both sides of the micro-kernel.
pub struct PackedRows {
    features: usize,
    rows: usize,
    /// `[ceil(features / COLS)][rows][COLS]`
    data: Vec<f32>,
}

impl PackedRows {
    /// The most rows in one pack: an `f32` sum of so many products keeps five digits.
    pub const MOST: usize = 512;

    /// Zeros.
    ///
    /// # Panics
    /// If there are more than [`Self::MOST`] rows.
    pub fn zeros(features: usize, rows: usize) -> PackedRows {
        assert!(rows <= Self::MOST, "{rows} rows in one pack");
        PackedRows { features, rows, data: vec![0.0; features.div_ceil(COLS) * rows * COLS] }
    }

    /// Packs `columns: [features][rows]`.
    #[cfg(test)]
    pub(super) fn new(columns: &[f32], features: usize, rows: usize) -> PackedRows {
        assert_eq!(columns.len(), features * rows, "{features} features of {rows} rows");
        let mut packed = PackedRows::zeros(features, rows);
        for (feature, column) in columns.chunks_exact(rows.max(1)).enumerate() {
            packed.set_column(feature, 0, column);
        }
        packed
    }

    /// The number of columns.
    pub(super) fn features(&self) -> usize {
        self.features
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Writes one value.
    pub fn set(&mut self, row: usize, feature: usize, value: f32) {
        self.data[(feature / COLS * self.rows + row) * COLS + feature % COLS] = value;
    }

    /// Bytes of so many features and rows.
    pub fn bytes(features: usize, rows: usize) -> usize {
        features.next_multiple_of(COLS) * rows * size_of::<f32>()
    }

    /// Writes values of one feature, from row `at` on.
    pub fn set_column(&mut self, feature: usize, at: usize, values: &[f32]) {
        let start = (feature / COLS * self.rows + at) * COLS + feature % COLS;
        self.data[start..].iter_mut().step_by(COLS).zip(values).for_each(|(to, &from)| *to = from);
    }

    /// Writes one row's features from the first on.
    pub fn set_row(&mut self, row: usize, values: &[f32]) {
        for (block, values) in values.chunks(COLS).enumerate() {
            self.data[(block * self.rows + row) * COLS..][..values.len()].copy_from_slice(values);
        }
    }

    /// The panel of features `block * COLS` and on, `[rows][COLS]`.
    pub(super) fn panel(&self, block: usize) -> &[f32] {
        &self.data[block * self.rows * COLS..][..self.rows * COLS]
    }

    /// The same, to be written.
    pub(super) fn panel_mut(&mut self, block: usize) -> &mut [f32] {
        &mut self.data[block * self.rows * COLS..][..self.rows * COLS]
    }
}

/// How many features of `left` are computed at a time: the panels of `right` are read once for them, and their own panels
/// stay in the second-level cache.
pub fn strip(features: usize) -> usize {
    (features / 16).next_multiple_of(COLS).clamp(COLS, 8 * COLS)
}

/// Adds `left' * right`, summed over all packs, for features `first..` of `left`: `out: [some][right's features]`.
///
/// Columns before `from` are left out, up to the width of a tile. The upper triangle of a symmetric product passes
/// `from = first`, which also leaves out the tiles below the diagonal.
///
/// # Panics
/// If the packs have different numbers of rows or features, or `first` is not a multiple of a panel's width.
pub fn accumulate(isa: Isa, left: &[PackedRows], right: &[PackedRows], first: usize, from: usize, out: &mut [f64]) {
    let Some(width) = right.first().map(|pack| pack.features) else { return };
    assert!(left.len() == right.len() && first.is_multiple_of(COLS), "{} and {} packs", left.len(), right.len());
    let strip = out.len() / width.max(1);
    let mut tile = Tile::ZERO;
    for (left, right) in left.iter().zip(right) {
        assert!(left.rows == right.rows && right.features == width, "rows on both sides");
        for block in from / COLS..width.div_ceil(COLS) {
            let columns = COLS.min(width - block * COLS);
            for row in (0..strip).step_by(ROWS) {
                let feature = first + row;
                if from > 0 && (block + 1) * COLS <= feature {
                    continue;
                }
                let rows = ROWS.min(strip - row).min(left.features - feature);
                let (a, b) = (left.panel(feature / COLS), right.panel(block));
                isa.outer(left.rows, feature % COLS, rows, columns, a, b, &mut tile);
                for r in 0..rows {
                    let out = &mut out[(row + r) * width + block * COLS..][..columns];
                    add_to(out, &tile.0[r]);
                }
            }
        }
    }
}

fn add_to(sums: &mut [f64], values: &[f32; COLS]) {
    match sums.as_chunks_mut::<COLS>() {
        ([sums], []) => sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum += f64::from(value)),
        _ => sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum += f64::from(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ISAS;
    use crate::testing::values;

    #[test]
    fn outer_products_equal_a_plain_loop() {
        for (features, targets, rows) in [(1, 1, 1), (7, 3, 33), (41, 9, 100), (70, 33, 256)] {
            let (x, t) = (values(features * rows, 1), values(targets * rows, 2));
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
            let packed = [PackedRows::new(&x, features, rows)];
            let packed_targets = [PackedRows::new(&t, targets, rows)];
            for isa in ISAS.iter().filter_map(|row| row.open()) {
                let mut gram = vec![0.0; features * features];
                for (i, out) in gram.chunks_mut(strip(features) * features).enumerate() {
                    accumulate(isa, &packed, &packed, i * strip(features), i * strip(features), out);
                }
                let mut cross = vec![0.0; targets * features];
                accumulate(isa, &packed_targets, &packed, 0, 0, &mut cross);
                // An f32 sum of up to 256 products of magnitude 1.
                let close = |a: f64, b: f64| (a - b).abs() < 2e-5 * (1.0 + b.abs());
                for i in 0..features {
                    for j in i..features {
                        let want = dot(&x[i * rows..][..rows], &x[j * rows..][..rows]);
                        assert!(close(gram[i * features + j], want), "{}: {i} {j}", isa.name());
                    }
                    for m in 0..targets {
                        let want = dot(&t[m * rows..][..rows], &x[i * rows..][..rows]);
                        assert!(close(cross[m * features + i], want), "{}: target {m} {i}", isa.name());
                    }
                }
            }
        }
    }
}
