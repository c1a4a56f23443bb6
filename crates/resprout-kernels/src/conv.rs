//! Convolution of one image as a matrix product whose right side is gathered panel by panel.

use crate::dense::{COLS, LANES, ROWS, Tile};
use crate::{Activation, ConvShape, Isa};
use std::ops::Range;

/// The panels of one round stay within about this many bytes. Then a block of weights is read once from memory and reused from
/// the second-level cache.
const GATHER_BYTES: usize = 256 * 1024;

/// Buffers that a thread reuses from call to call.
#[derive(Default)]
pub struct Scratch {
    pub(crate) padded: Vec<f32>,
    panels: Vec<f32>,
}

/// A convolution with its weights laid out for the micro-kernel.
pub struct PackedConv {
    shape: ConvShape,
    /// `[groups][ceil(group_out / ROWS)][K][ROWS]`, unused rows zero.
    weights: Vec<f32>,
    bias: Vec<f32>,
    activation: Activation,
    /// For each `k`: how many values its tap lies behind a position's first tap in the (padded) group.
    tap_offsets: Vec<usize>,
    /// Positions per row: the output's width, or `P` where all rows are contiguous in the input.
    row_width: usize,
}

/// A run of output positions in one row, and where it lies in a panel and in the padded input. Its length is a power of two, so
/// that a loop of fixed length can copy it.
struct Span {
    column: usize,
    source: usize,
    len: usize,
}

impl PackedConv {
    /// Lays out `weight: [M, C / groups, kh, kw]` and `bias: [M]` (or empty for none).
    ///
    /// # Panics
    /// If the lengths do not match the shape or groups do not divide the channels.
    pub fn new(shape: ConvShape, weight: &[f32], bias: &[f32], activation: Activation) -> PackedConv {
        assert!(
            shape.in_channels.is_multiple_of(shape.groups) && shape.out_channels.is_multiple_of(shape.groups),
            "groups must divide channels"
        );
        assert_eq!(weight.len(), shape.out_channels * shape.dot_length(), "weight length of {shape:?}");
        assert!(bias.is_empty() || bias.len() == shape.out_channels, "bias length of {shape:?}");
        let (_, out_w) = shape.out_size();
        let row_width = if shape.is_pointwise() { shape.in_h * shape.in_w } else { out_w };
        let bias = if bias.is_empty() { vec![0.0; shape.out_channels] } else { bias.to_vec() };
        let (weights, tap_offsets) = (pack_rows(&shape, weight), tap_offsets(&shape));
        PackedConv { shape, weights, bias, activation, tap_offsets, row_width }
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// Computes output channels `channels` of one image: `input: [C, H, W]`,
    /// `output: [channels.len(), OH, OW]`.
    ///
    /// # Panics
    /// If a slice does not have the size that the shape gives.
    pub fn run(&self, isa: Isa, input: &[f32], channels: Range<usize>, output: &mut [f32], scratch: &mut Scratch) {
        let shape = &self.shape;
        let (out_h, out_w) = shape.out_size();
        let positions = out_h * out_w;
        let group_size = shape.group_in() * shape.in_h * shape.in_w;
        assert_eq!(input.len(), shape.in_channels * shape.in_h * shape.in_w, "input of {shape:?}");
        assert_eq!(output.len(), channels.len() * positions, "output of {shape:?}");
        let group_out = shape.group_out();
        for group in channels.start / group_out..channels.end.div_ceil(group_out) {
            let first = group * group_out;
            let rows = channels.start.max(first)..channels.end.min(first + group_out);
            let image = &input[group * group_size..][..group_size];
            let out = &mut output[(rows.start - channels.start) * positions..][..rows.len() * positions];
            let Scratch { padded, panels } = scratch;
            let source = if shape.pads == [0; 4] { image } else { pad(shape, image, padded) };
            self.run_group(isa, source, group, rows.start - first..rows.end - first, out, panels);
        }
    }

    /// `source: [C / groups, Hp, Wp]` of one group, `rows` counted inside the group.
    fn run_group(&self, isa: Isa, source: &[f32], group: usize, rows: Range<usize>, output: &mut [f32], panels: &mut Vec<f32>) {
        let k = self.shape.dot_length();
        let positions = output.len() / rows.len().max(1);
        let panel_len = (k * COLS).max(1);
        let panels_per_round = (GATHER_BYTES / 4 / panel_len).max(1);
        // Room to start at a cache line.
        panels.resize(panels_per_round * panel_len + LANES, 0.0);
        let aligned = panels.as_ptr().align_offset(64).min(LANES);
        let panels = &mut panels[aligned..];
        for first in (0..positions).step_by(panels_per_round * COLS) {
            let last = positions.min(first + panels_per_round * COLS);
            for (slot, start) in (first..last).step_by(COLS).enumerate() {
                let spans = self.spans(start..last.min(start + COLS));
                self.gather(source, &spans, &mut panels[slot * panel_len..]);
            }
            self.multiply(isa, group, rows.clone(), first..last, positions, panels, output);
        }
    }

    /// Multiplies every block of weight rows with every gathered panel and stores the results.
    fn multiply(
        &self,
        isa: Isa,
        group: usize,
        rows: Range<usize>,
        columns: Range<usize>,
        positions: usize,
        panels: &[f32],
        output: &mut [f32],
    ) {
        let k = self.shape.dot_length();
        let blocks = self.shape.group_out().div_ceil(ROWS);
        let mut tile = Tile::ZERO;
        let mut row = rows.start;
        while row < rows.end {
            // Blocks start at multiples of ROWS; a range that starts inside one takes its tail.
            let (block, skip) = (row / ROWS, row % ROWS);
            let end = rows.end.min((block + 1) * ROWS);
            let weights = &self.weights[(group * blocks + block) * k * ROWS..][..k * ROWS];
            for (slot, start) in columns.clone().step_by(COLS).enumerate() {
                let cols = COLS.min(columns.end - start);
                isa.tile(k, skip + end - row, cols, weights, &panels[slot * k * COLS..], &mut tile);
                for r in row..end {
                    let bias = self.bias[group * self.shape.group_out() + r];
                    let out = &mut output[(r - rows.start) * positions + start..][..cols];
                    store(&tile.0[skip + r - row], bias, self.activation, out);
                }
            }
            row = end;
        }
    }

    /// Cuts positions into runs that are contiguous (up to the stride) in the padded input.
    fn spans(&self, positions: Range<usize>) -> Vec<Span> {
        let (_, padded_w) = self.shape.padded_size();
        let [stride_h, stride_w] = self.shape.stride;
        let mut spans = Vec::with_capacity(COLS);
        let mut at = positions.start;
        while at < positions.end {
            let (row, column) = (at / self.row_width, at % self.row_width);
            let room = (self.row_width - column).min(positions.end - at).min(COLS);
            let len = 1 << room.ilog2();
            let source = row * stride_h * padded_w + column * stride_w;
            spans.push(Span { column: at - positions.start, source, len });
            at += len;
        }
        spans
    }

    /// Fills one panel `[K][COLS]`; columns past the last span are left as they are.
    fn gather(&self, source: &[f32], spans: &[Span], panel: &mut [f32]) {
        let (rows, _) = panel.as_chunks_mut::<COLS>();
        let stride = self.shape.stride[1];
        for span in spans {
            match span.len {
                _ if stride > 1 => self.gather_strided(source, span, stride, rows),
                32 => self.gather_run::<32>(source, span, rows),
                16 => self.gather_run::<16>(source, span, rows),
                8 => self.gather_run::<8>(source, span, rows),
                4 => self.gather_run::<4>(source, span, rows),
                2 => self.gather_run::<2>(source, span, rows),
                _ => self.gather_run::<1>(source, span, rows),
            }
        }
    }

    fn gather_run<const LEN: usize>(&self, source: &[f32], span: &Span, rows: &mut [[f32; COLS]]) {
        for (row, &tap) in rows.iter_mut().zip(&self.tap_offsets) {
            row[span.column..][..LEN].copy_from_slice(&source[tap + span.source..][..LEN]);
        }
    }

    fn gather_strided(&self, source: &[f32], span: &Span, stride: usize, rows: &mut [[f32; COLS]]) {
        for (row, &tap) in rows.iter_mut().zip(&self.tap_offsets) {
            let values = source[tap + span.source..].iter().step_by(stride);
            row[span.column..][..span.len].iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        }
    }
}

/// `out[j] = activation(sums[j] + bias)`.
#[inline(always)]
pub(crate) fn store(sums: &[f32], bias: f32, activation: Activation, out: &mut [f32]) {
    match activation {
        Activation::None => out.iter_mut().zip(sums).for_each(|(o, s)| *o = s + bias),
        clamp => out.iter_mut().zip(sums).for_each(|(o, s)| *o = clamp.apply(s + bias)),
    }
}

/// Writes one group with its zero padding into `padded`.
pub(crate) fn pad<'a>(shape: &ConvShape, image: &[f32], padded: &'a mut Vec<f32>) -> &'a [f32] {
    let (padded_h, padded_w) = shape.padded_size();
    padded.clear();
    padded.resize(shape.group_in() * padded_h * padded_w, 0.0);
    for (channel, plane) in image.chunks_exact((shape.in_h * shape.in_w).max(1)).enumerate() {
        for (y, row) in plane.chunks_exact(shape.in_w).enumerate() {
            let at = (channel * padded_h + y + shape.pads[0]) * padded_w + shape.pads[1];
            padded[at..at + shape.in_w].copy_from_slice(row);
        }
    }
    padded
}

/// `weight: [M][K]` to `[groups][blocks][K][ROWS]`.
fn pack_rows(shape: &ConvShape, weight: &[f32]) -> Vec<f32> {
    let (k, group_out) = (shape.dot_length(), shape.group_out());
    let blocks = group_out.div_ceil(ROWS);
    let mut packed = vec![0.0; shape.groups * blocks * k * ROWS];
    for (m, row) in weight.chunks_exact(k.max(1)).enumerate() {
        let (group, r) = (m / group_out, m % group_out);
        let start = (group * blocks + r / ROWS) * k * ROWS + r % ROWS;
        for (step, &value) in row.iter().enumerate() {
            packed[start + step * ROWS] = value;
        }
    }
    packed
}

/// For each tap of an output channel: how many values it lies behind the first one in the padded group.
pub(crate) fn tap_offsets(shape: &ConvShape) -> Vec<usize> {
    let (padded_h, padded_w) = shape.padded_size();
    let mut offsets = Vec::with_capacity(shape.dot_length());
    for channel in 0..shape.group_in() {
        for ky in 0..shape.kernel[0] {
            for kx in 0..shape.kernel[1] {
                offsets.push((channel * padded_h + ky * shape.dilation[0]) * padded_w + kx * shape.dilation[1]);
            }
        }
    }
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::values;
    use crate::{ISAS, reference};
    use proptest::prelude::*;

    /// f32 sums of up to 200 products of magnitude 1 against f64: a few dozen ULPs of the sum of magnitudes.
    const TOLERANCE: f32 = 2e-5;

    fn check(shape: &ConvShape) {
        let input = values(shape.in_channels * shape.in_h * shape.in_w, 1);
        let weight = values(shape.out_channels * shape.dot_length(), 2);
        let bias = values(shape.out_channels, 3);
        let expected = reference::conv2d(shape, &input, &weight, &bias);
        let positions = shape.out_size().0 * shape.out_size().1;
        let packed = PackedConv::new(shape.clone(), &weight, &bias, Activation::None);
        for isa in ISAS.iter().filter_map(|row| row.open()) {
            let mut scratch = Scratch::default();
            let mut whole = vec![f32::NAN; expected.len()];
            packed.run(isa, &input, 0..shape.out_channels, &mut whole, &mut scratch);
            for (got, want) in whole.iter().zip(&expected) {
                assert!((got - want).abs() <= TOLERANCE * (1.0 + want.abs()), "{} {shape:?}: {got} {want}", isa.name());
            }
            let middle = shape.out_channels / 3..shape.out_channels;
            let mut part = vec![f32::NAN; middle.len() * positions];
            packed.run(isa, &input, middle.clone(), &mut part, &mut scratch);
            assert_eq!(part, whole[middle.start * positions..], "{}: a part differs from the whole", isa.name());
        }
    }

    #[test]
    fn every_kernel_equals_the_reference_on_edge_sizes() {
        for out_channels in [1, 2, 7, 8, 9, 17] {
            for (in_h, in_w) in [(1, 1), (1, 33), (4, 8), (5, 13), (9, 32)] {
                for (kernel, pad) in [([1, 1], 0), ([3, 3], 1), ([2, 5], 2)] {
                    let shape = ConvShape {
                        in_channels: 3,
                        in_h,
                        in_w,
                        out_channels,
                        kernel,
                        stride: [1, 1],
                        dilation: [1, 1],
                        pads: [pad; 4],
                        groups: 1,
                    };
                    if shape.out_size().0 * shape.out_size().1 > 0 {
                        check(&shape);
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_the_reference(
            groups in 1usize..4, group_in in 1usize..4, group_out in 1usize..6,
            size in (3usize..14, 3usize..40), kernel in (1usize..4, 1usize..4),
            stride in (1usize..4, 1usize..4), dilation in (1usize..3, 1usize..3), pads in proptest::array::uniform4(0usize..3),
        ) {
            let shape = ConvShape {
                in_channels: groups * group_in, in_h: size.0 + 4, in_w: size.1 + 4, out_channels: groups * group_out,
                kernel: [kernel.0, kernel.1], stride: [stride.0, stride.1], dilation: [dilation.0, dilation.1], pads, groups,
            };
            check(&shape);
        }
    }
}
