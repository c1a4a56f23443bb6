//! Sums of outer products, `sum_r left[r]' * right[r]`, over the rows of two matrices: Gram matrices
//! of a layer's inputs and their products with its targets.
//!
//! Rows are positions of images, columns are features. Products of up to [`PackedRows::MOST`] rows
//! are summed in `f32` by the dense micro-kernel, these sums in `f64`.

use crate::conv::{ConvShape, pad, tap_offsets};
use crate::dense::{COLS, ROWS, Tile};
use crate::{Kernel, conv::Scratch};

/// Some rows of a matrix, laid out for both sides of the micro-kernel.
pub struct PackedRows {
    features: usize,
    rows: usize,
    /// `[ceil(features / ROWS)][rows][ROWS]`
    left: Vec<f32>,
    /// `[ceil(features / COLS)][rows][COLS]`
    right: Vec<f32>,
}

/// Which sides of a product a matrix will stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Left only.
    Left,
    /// Left and right.
    Both,
}

impl PackedRows {
    /// The most rows in one pack: an `f32` sum of so many products keeps five digits.
    pub const MOST: usize = 512;

    /// Packs `columns: [features][rows]`.
    ///
    /// # Panics
    /// If the length does not match or there are more than [`Self::MOST`] rows.
    pub fn new(columns: &[f32], features: usize, rows: usize, side: Side) -> PackedRows {
        assert_eq!(columns.len(), features * rows, "{features} features of {rows} rows");
        assert!(rows <= Self::MOST, "{rows} rows in one pack");
        let right = if side == Side::Both { interleave::<COLS>(columns, rows) } else { Vec::new() };
        PackedRows { features, rows, left: interleave::<ROWS>(columns, rows), right }
    }

    /// The number of columns.
    pub fn features(&self) -> usize {
        self.features
    }
}

/// `[features][rows]` to `[ceil(features / WIDTH)][rows][WIDTH]`, unused columns zero.
fn interleave<const WIDTH: usize>(columns: &[f32], rows: usize) -> Vec<f32> {
    let block = rows * WIDTH;
    let features = columns.len() / rows.max(1);
    let mut out = vec![0.0; features.div_ceil(WIDTH) * block];
    for (feature, column) in columns.chunks_exact(rows.max(1)).enumerate() {
        let start = feature / WIDTH * block + feature % WIDTH;
        out[start..].iter_mut().step_by(WIDTH).zip(column).for_each(|(to, &from)| *to = from);
    }
    out
}

/// Adds `left' * right` for features `first..first + ROWS` of `left`: `out: [that many][right.features()]`.
/// With `from` only columns from there on are computed, up to the width of a tile: the upper triangle
/// of a symmetric product asks for `from = first`.
///
/// # Panics
/// If the packs have different numbers of rows or `right` was packed for the left side only.
pub fn accumulate(kernel: Kernel, left: &PackedRows, right: &PackedRows, first: usize, from: usize, out: &mut [f64]) {
    assert_eq!(left.rows, right.rows, "rows on both sides");
    assert!(first.is_multiple_of(ROWS) && !right.right.is_empty(), "first feature {first}");
    let (k, width) = (left.rows, right.features);
    let rows = ROWS.min(left.features - first);
    let a = &left.left[first * k..][..k * ROWS];
    let mut tile = Tile::ZERO;
    for block in from / COLS..width.div_ceil(COLS) {
        let columns = COLS.min(width - block * COLS);
        kernel.tile(k, rows, columns, a, &right.right[block * k * COLS..], &mut tile);
        for r in 0..rows {
            let out = &mut out[r * width + block * COLS..][..columns];
            out.iter_mut().zip(&tile.0[r]).for_each(|(sum, &value)| *sum += f64::from(value));
        }
    }
}

/// The windows of a convolution's input as rows: one row per output position, one column per weight
/// of an output channel.
pub struct Patches {
    shape: ConvShape,
    taps: Vec<usize>,
}

impl Patches {
    /// Windows of a convolution of this shape.
    pub fn new(shape: ConvShape) -> Patches {
        let taps = tap_offsets(&shape);
        Patches { shape, taps }
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// Writes the windows of one group of `image: [C, H, W]` at the output positions `positions` into
    /// `columns: [K][stride]`, from row `at` on.
    ///
    /// # Panics
    /// If a slice is too short or a position lies outside.
    pub fn gather(
        &self,
        image: &[f32],
        group: usize,
        positions: &[u32],
        columns: &mut [f32],
        stride: usize,
        at: usize,
        scratch: &mut Scratch,
    ) {
        let shape = &self.shape;
        let group_size = shape.group_in() * shape.in_h * shape.in_w;
        let image = &image[group * group_size..][..group_size];
        let source = if shape.pads == [0; 4] { image } else { pad(shape, image, &mut scratch.padded) };
        let (padded_w, out_w) = (shape.padded_size().1, shape.out_size().1);
        let start = |position: u32| {
            let (row, column) = (position as usize / out_w, position as usize % out_w);
            row * shape.stride[0] * padded_w + column * shape.stride[1]
        };
        let starts: Vec<usize> = positions.iter().map(|&position| start(position)).collect();
        for (column, &tap) in columns.chunks_exact_mut(stride).zip(&self.taps) {
            column[at..].iter_mut().zip(&starts).for_each(|(to, &start)| *to = source[start + tap]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::tests::values;
    use crate::{KERNELS, reference};

    #[test]
    fn outer_products_equal_a_plain_loop() {
        for (features, targets, rows) in [(1, 1, 1), (7, 3, 33), (41, 9, 100), (70, 33, 256)] {
            let (x, t) = (values(features * rows, 1), values(targets * rows, 2));
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
            let packed = PackedRows::new(&x, features, rows, Side::Both);
            let packed_targets = PackedRows::new(&t, targets, rows, Side::Left);
            for kernel in KERNELS.iter().filter_map(|row| row.open()) {
                let mut gram = vec![0.0; features * features];
                for first in (0..features).step_by(ROWS) {
                    accumulate(kernel, &packed, &packed, first, first, &mut gram[first * features..]);
                }
                let mut cross = vec![0.0; targets * features];
                for first in (0..targets).step_by(ROWS) {
                    accumulate(kernel, &packed_targets, &packed, first, 0, &mut cross[first * features..]);
                }
                // An f32 sum of up to 256 products of magnitude 1.
                let close = |a: f64, b: f64| (a - b).abs() < 2e-5 * (1.0 + b.abs());
                for i in 0..features {
                    for j in i..features {
                        let want = dot(&x[i * rows..][..rows], &x[j * rows..][..rows]);
                        assert!(close(gram[i * features + j], want), "{}: {i} {j}", kernel.name());
                    }
                    for m in 0..targets {
                        let want = dot(&t[m * rows..][..rows], &x[i * rows..][..rows]);
                        assert!(close(cross[m * features + i], want), "{}: target {m} {i}", kernel.name());
                    }
                }
            }
        }
    }

    #[test]
    fn patches_times_weights_are_the_convolution() {
        let shape = ConvShape {
            in_channels: 4,
            in_h: 5,
            in_w: 7,
            out_channels: 6,
            kernel: [3, 2],
            stride: [2, 1],
            dilation: [1, 2],
            pads: [1, 0, 1, 2],
            groups: 2,
        };
        let (input, weight) = (values(4 * 5 * 7, 1), values(6 * shape.dot_length(), 2));
        let expected = reference::conv2d(&shape, &input, &weight, &[0.0; 6]);
        let (positions, k) = (shape.out_size().0 * shape.out_size().1, shape.dot_length());
        let patches = Patches::new(shape.clone());
        let all: Vec<u32> = (0..positions as u32).collect();
        for group in 0..2 {
            let mut columns = vec![f32::NAN; k * (positions + 1)];
            patches.gather(&input, group, &all, &mut columns, positions + 1, 1, &mut Scratch::default());
            for m in group * 3..(group + 1) * 3 {
                for p in 0..positions {
                    let got: f32 = (0..k).map(|i| weight[m * k + i] * columns[i * (positions + 1) + 1 + p]).sum();
                    assert!((got - expected[m * positions + p]).abs() < 1e-5);
                }
            }
        }
    }
}
