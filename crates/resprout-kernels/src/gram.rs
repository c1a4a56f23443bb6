//! Sums of outer products, `sum_r left[r]' * right[r]`, over the rows of two matrices: Gram matrices
//! of a layer's inputs, their products with its targets, and products of a symmetric matrix with many vectors.
//!
//! Rows are positions of images, columns are features. Products of up to [`PackedRows::MOST`] rows
//! are summed in `f32` by the dense micro-kernel, these sums in `f64`.

use crate::conv::{ConvShape, pad, tap_offsets};
use crate::dense::dots::{DOT_ROWS, DOT_SHIFTS, tree_sum};
use crate::dense::{COLS, LANES, ROWS, Tile};
use crate::isa::per_isa;
use crate::{Isa, conv::Scratch};

/// Some rows of a matrix, laid out for both sides of the micro-kernel.
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
    ///
    /// # Panics
    /// If the length does not match or there are more than [`Self::MOST`] rows.
    pub fn new(columns: &[f32], features: usize, rows: usize) -> PackedRows {
        assert_eq!(columns.len(), features * rows, "{features} features of {rows} rows");
        let mut packed = PackedRows::zeros(features, rows);
        for (feature, column) in columns.chunks_exact(rows.max(1)).enumerate() {
            packed.set_column(feature, 0, column);
        }
        packed
    }

    /// The number of columns.
    pub fn features(&self) -> usize {
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
    fn panel(&self, block: usize) -> &[f32] {
        &self.data[block * self.rows * COLS..][..self.rows * COLS]
    }
}

/// So many features of `left` should be computed together: the panels of `right` are read once for them, and theirs stay in the
/// second-level cache.
pub fn strip(features: usize) -> usize {
    (features / 16).next_multiple_of(COLS).clamp(COLS, 8 * COLS)
}

/// Adds `left' * right`, summed over all packs, for features `first..` of `left`: `out: [some][right's features]`.
/// With `from` only columns from there on are computed, up to the width of a tile: the upper triangle of a symmetric product
/// asks for `from = first`, and is spared the tiles below the diagonal.
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

/// Columns of at most this many features are summed as they are: a tile would be mostly empty.
pub const NARROW: usize = 32;

/// Adds `left' * right` of matrices with few columns, `left: [features][stride]` and `right` alike, where `stride` is a multiple of
/// [`LANES`] and what lies behind the rows is zero: `out: [left's features][right's features]`.
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

/// So many rows of a narrow matrix, filled up to whole vectors.
pub fn narrow_stride(rows: usize) -> usize {
    rows.next_multiple_of(LANES)
}

/// The weights of an output that are left: where they stand, and their values.
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
    /// Products of each output's target with some inputs, `sum_r targets[m][r] * columns[k][r]` for every `k` of `asked[m]`, one
    /// after another in `out`: `targets: [outputs][stride]` and `columns: [K][stride]`, where `stride` is a multiple of [`LANES`].
    /// Each `asked` ascends. Less work than all products where few are asked for.
    ///
    /// # Panics
    /// If a length does not match.
    pub fn sparse_cross(targets: &[f32], columns: &[f32], stride: usize, asked: &[Vec<u32>], out: &mut [f32]) = sparse_cross_body
}

#[inline(always)]
fn sparse_cross_body(targets: &[f32], columns: &[f32], stride: usize, asked: &[Vec<u32>], out: &mut [f32]) {
    assert!(stride <= PackedRows::MOST && stride.is_multiple_of(LANES), "{stride} rows");
    assert_eq!(out.len(), asked.iter().map(Vec::len).sum::<usize>(), "products");
    let starts: Vec<usize> = asked.iter().scan(0, |end, asked| Some(std::mem::replace(end, *end + asked.len()))).collect();
    let mut done = vec![0; asked.len()];
    for near in (0..columns.len() / stride).step_by(NEAR).map(|first| first + NEAR) {
        for (m, target) in targets.chunks_exact(stride).enumerate() {
            let (from, count) = (done[m], asked[m][done[m]..].partition_point(|&k| (k as usize) < near));
            let places = &mut out[starts[m] + from..][..count];
            for (&k, place) in asked[m][from..].iter().zip(places) {
                *place = dot(target, &columns[k as usize * stride..][..stride]);
            }
            done[m] = from + count;
        }
    }
}

/// Sums of several vectors side by side, which do not wait for each other.
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

    /// The windows of one group of `image: [C, H, W]` at the output positions `positions`: padded values, and where each window
    /// begins among them.
    fn windows<'a>(
        &self,
        image: &'a [f32],
        group: usize,
        positions: &[u32],
        scratch: &'a mut Scratch,
    ) -> (&'a [f32], Vec<usize>) {
        let shape = &self.shape;
        let group_size = shape.group_in() * shape.in_h * shape.in_w;
        let image = &image[group * group_size..][..group_size];
        let source = if shape.pads == [0; 4] { image } else { pad(shape, image, &mut scratch.padded) };
        let (padded_w, out_w) = (shape.padded_size().1, shape.out_size().1);
        let start = |position: u32| {
            let (row, column) = (position as usize / out_w, position as usize % out_w);
            row * shape.stride[0] * padded_w + column * shape.stride[1]
        };
        (source, positions.iter().map(|&position| start(position)).collect())
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
        let (source, starts) = self.windows(image, group, positions, scratch);
        for (column, &tap) in columns.chunks_exact_mut(stride).zip(&self.taps) {
            column[at..].iter_mut().zip(&starts).for_each(|(to, &start)| *to = source[start + tap]);
        }
    }

    /// The same into the first `K` features of packed rows.
    ///
    /// # Panics
    /// If there are fewer features or rows, or a position lies outside.
    pub fn pack(
        &self,
        image: &[f32],
        group: usize,
        positions: &[u32],
        packed: &mut PackedRows,
        at: usize,
        scratch: &mut Scratch,
    ) {
        assert!(packed.features >= self.taps.len() && at + positions.len() <= packed.rows, "windows from row {at} on");
        let (source, starts) = self.windows(image, group, positions, scratch);
        for (block, taps) in self.taps.chunks(COLS).enumerate() {
            let rows = packed.data[(block * packed.rows + at) * COLS..].chunks_exact_mut(COLS);
            for (row, &start) in rows.zip(&starts) {
                let window = &source[start..];
                row.iter_mut().zip(taps).for_each(|(to, &tap)| *to = window[tap]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::tests::values;
    use crate::{ISAS, reference};

    #[test]
    fn outer_products_equal_a_plain_loop() {
        for (features, targets, rows) in [(1, 1, 1), (7, 3, 33), (41, 9, 100), (70, 33, 256)] {
            let (x, t) = (values(features * rows, 1), values(targets * rows, 2));
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
            let packed = [PackedRows::new(&x, features, rows)];
            let packed_targets = [PackedRows::new(&t, targets, rows)];
            for kernel in ISAS.iter().filter_map(|row| row.open()) {
                let mut gram = vec![0.0; features * features];
                for (i, out) in gram.chunks_mut(strip(features) * features).enumerate() {
                    accumulate(kernel, &packed, &packed, i * strip(features), i * strip(features), out);
                }
                let mut cross = vec![0.0; targets * features];
                accumulate(kernel, &packed_targets, &packed, 0, 0, &mut cross);
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
    fn a_sparse_product_is_a_plain_one() {
        let columns = values(9 * 144, 1);
        let rows = [(vec![0, 3, 8], vec![0.5, -2.0, 3.0]), (vec![], vec![])];
        let rows: Vec<CsrRow> = rows.into_iter().map(|(indices, values)| CsrRow { indices, values }).collect();
        for kernel in ISAS.iter().filter_map(|row| row.open()) {
            let mut out = vec![f32::NAN; 2 * 144];
            sparse_product(kernel, &rows, &columns, 144, &mut out);
            for i in 0..144 {
                let wanted = 0.5 * columns[i] - 2.0 * columns[3 * 144 + i] + 3.0 * columns[8 * 144 + i];
                assert!((out[i] - wanted).abs() < 1e-5 && out[144 + i] == 0.0, "{} {i}", kernel.name());
            }
        }
    }

    #[test]
    fn products_that_are_asked_for_equal_plain_ones() {
        // More inputs than are near at once, and rows that fill no whole number of sums.
        let (inputs, outputs) = (3 * NEAR + 5, 4);
        for stride in [LANES, 5 * LANES, PackedRows::MOST] {
            let (targets, columns) = (values(outputs * stride, 1), values(inputs * stride, 2));
            let asked: Vec<Vec<u32>> = vec![vec![0, 63, 64, 196], vec![], (0..inputs as u32).collect(), vec![130]];
            let pairs = asked.iter().enumerate().flat_map(|(m, asked)| asked.iter().map(move |&k| (m, k as usize)));
            let wanted: Vec<f64> = pairs
                .map(|(m, k)| (0..stride).map(|r| f64::from(targets[m * stride + r]) * f64::from(columns[k * stride + r])).sum())
                .collect();
            for kernel in ISAS.iter().filter_map(|row| row.open()) {
                let mut got = vec![f32::NAN; wanted.len()];
                sparse_cross(kernel, &targets, &columns, stride, &asked, &mut got);
                // Sums of up to 512 products of magnitude 1.
                let close = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() < 5e-5;
                assert!(got.iter().zip(&wanted).all(close), "{} {stride}", kernel.name());
            }
        }
    }

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
        for kernel in ISAS.iter().filter_map(|row| row.open()) {
            let (mut wanted, mut got) = (vec![1.0; targets * features], vec![1.0; targets * features]);
            accumulate(kernel, &packed_targets, &packed, 0, 0, &mut wanted);
            accumulate_narrow(kernel, &widen(&t), &widen(&x), stride, &mut got);
            assert!(wanted.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-4 && *a != 1.0), "{}", kernel.name());
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
            let mut packed = PackedRows::zeros(k + 1, positions + 1);
            patches.pack(&input, group, &all, &mut packed, 1, &mut Scratch::default());
            for (i, column) in columns.chunks_exact(positions + 1).enumerate() {
                (1..=positions).for_each(|p| assert_eq!(packed.panel(i / COLS)[p * COLS + i % COLS], column[p]));
            }
            for m in group * 3..(group + 1) * 3 {
                for p in 0..positions {
                    let got: f32 = (0..k).map(|i| weight[m * k + i] * columns[i * (positions + 1) + 1 + p]).sum();
                    assert!((got - expected[m * positions + p]).abs() < 1e-5);
                }
            }
        }
    }
}
