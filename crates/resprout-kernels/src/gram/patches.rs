//! The windows of a convolution as rows of a matrix.

use super::packed_rows::PackedRows;
use crate::ConvShape;
use crate::conv::{Scratch, pad, tap_offsets};
use crate::dense::COLS;

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

    /// The padded values of one group of `image: [C, H, W]`, and where the window of each output position begins among them.
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
        assert!(packed.features() >= self.taps.len() && at + positions.len() <= packed.rows(), "windows from row {at} on");
        let (source, starts) = self.windows(image, group, positions, scratch);
        for (block, taps) in self.taps.chunks(COLS).enumerate() {
            let rows = packed.panel_mut(block)[at * COLS..].chunks_exact_mut(COLS);
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
    use crate::reference;
    use crate::testing::values;

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
