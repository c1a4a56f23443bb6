//! Convolution of one image as a matrix product whose right side is gathered panel by panel.

use crate::dense::{COLS, LANES, ROWS, Tile};
use crate::{Activation, Isa};
use std::ops::Range;

/// Panels that are gathered together stay within about this many bytes, so that a block of weights
/// is read once from far away and then reused from the second-level cache.
const GATHER_BYTES: usize = 256 * 1024;

/// The geometry of a two-dimensional convolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// `C`
    pub in_channels: usize,
    /// Height of the input.
    pub in_h: usize,
    /// Width of the input.
    pub in_w: usize,
    /// `M`
    pub out_channels: usize,
    /// Isa height and width.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Vertical and horizontal dilation.
    pub dilation: [usize; 2],
    /// Zero padding: top, left, bottom, right.
    pub pads: [usize; 4],
    /// Channel groups; divides both channel counts.
    pub groups: usize,
}

impl ConvShape {
    /// Every output pixel reads one input pixel, `[height, width]` of them.
    pub fn pointwise(in_channels: usize, [in_h, in_w]: [usize; 2], out_channels: usize) -> ConvShape {
        ConvShape {
            in_channels,
            in_h,
            in_w,
            out_channels,
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            pads: [0; 4],
            groups: 1,
        }
    }

    /// Output height and width.
    pub fn out_size(&self) -> (usize, usize) {
        let (padded_h, padded_w) = self.padded_size();
        let extent = |axis: usize| (self.kernel[axis] - 1) * self.dilation[axis] + 1;
        let out = |padded: usize, axis: usize| (padded + self.stride[axis]).saturating_sub(extent(axis)) / self.stride[axis];
        (out(padded_h, 0), out(padded_w, 1))
    }

    /// Input channels per group.
    pub fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Output channels per group.
    pub fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    /// `K`: weights per output channel.
    pub fn dot_length(&self) -> usize {
        self.group_in() * self.kernel[0] * self.kernel[1]
    }

    pub(crate) fn padded_size(&self) -> (usize, usize) {
        (self.in_h + self.pads[0] + self.pads[2], self.in_w + self.pads[1] + self.pads[3])
    }

    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.pads == [0; 4]
    }
}

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
    /// For each `k`: how far its tap lies behind a position's first tap in the (padded) group.
    tap_offsets: Vec<usize>,
    /// Width that positions are counted in: the real one, or `P` where rows need not be kept apart.
    row_width: usize,
}

/// A run of output positions in one row, as it lies in a panel and in the padded input. Its length
/// is a power of two, so that it is copied by a loop made for that length.
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
    /// If a slice does not have the size that the shape asks for.
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
        let panels_together = (GATHER_BYTES / 4 / panel_len).max(1);
        // Room to start at a cache line.
        panels.resize(panels_together * panel_len + LANES, 0.0);
        let aligned = panels.as_ptr().align_offset(64).min(LANES);
        let panels = &mut panels[aligned..];
        for first in (0..positions).step_by(panels_together * COLS) {
            let last = positions.min(first + panels_together * COLS);
            for (slot, start) in (first..last).step_by(COLS).enumerate() {
                let segments = self.segments(start..last.min(start + COLS));
                self.gather(source, &segments, &mut panels[slot * panel_len..]);
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
    fn segments(&self, positions: Range<usize>) -> Vec<Span> {
        let (_, padded_w) = self.shape.padded_size();
        let [stride_h, stride_w] = self.shape.stride;
        let mut segments = Vec::with_capacity(COLS);
        let mut at = positions.start;
        while at < positions.end {
            let (row, column) = (at / self.row_width, at % self.row_width);
            let room = (self.row_width - column).min(positions.end - at).min(COLS);
            let len = 1 << room.ilog2();
            let source = row * stride_h * padded_w + column * stride_w;
            segments.push(Span { column: at - positions.start, source, len });
            at += len;
        }
        segments
    }

    /// Fills one panel `[K][COLS]`; columns past the last segment are left as they are.
    fn gather(&self, source: &[f32], segments: &[Span], panel: &mut [f32]) {
        let (rows, _) = panel.as_chunks_mut::<COLS>();
        let stride = self.shape.stride[1];
        for segment in segments {
            match segment.len {
                _ if stride > 1 => self.gather_strided(source, segment, stride, rows),
                32 => self.gather_run::<32>(source, segment, rows),
                16 => self.gather_run::<16>(source, segment, rows),
                8 => self.gather_run::<8>(source, segment, rows),
                4 => self.gather_run::<4>(source, segment, rows),
                2 => self.gather_run::<2>(source, segment, rows),
                _ => self.gather_run::<1>(source, segment, rows),
            }
        }
    }

    fn gather_run<const LEN: usize>(&self, source: &[f32], segment: &Span, rows: &mut [[f32; COLS]]) {
        for (row, &tap) in rows.iter_mut().zip(&self.tap_offsets) {
            row[segment.column..][..LEN].copy_from_slice(&source[tap + segment.source..][..LEN]);
        }
    }

    fn gather_strided(&self, source: &[f32], segment: &Span, stride: usize, rows: &mut [[f32; COLS]]) {
        for (row, &tap) in rows.iter_mut().zip(&self.tap_offsets) {
            let values = source[tap + segment.source..].iter().step_by(stride);
            row[segment.column..][..segment.len].iter_mut().zip(values).for_each(|(to, from)| *to = *from);
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

/// Writes one group with its zero border into `padded`.
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
pub(crate) mod tests {
    use super::*;
    use crate::{ISAS, reference};
    use proptest::prelude::*;

    /// f32 sums of up to 200 products of magnitude 1 against f64: a few dozen ULPs of the sum of magnitudes.
    const TOLERANCE: f32 = 2e-5;

    pub(crate) fn values(len: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn check(shape: &ConvShape) {
        let input = values(shape.in_channels * shape.in_h * shape.in_w, 1);
        let weight = values(shape.out_channels * shape.dot_length(), 2);
        let bias = values(shape.out_channels, 3);
        let expected = reference::conv2d(shape, &input, &weight, &bias);
        let positions = shape.out_size().0 * shape.out_size().1;
        let packed = PackedConv::new(shape.clone(), &weight, &bias, Activation::None);
        for kernel in ISAS.iter().filter_map(|row| row.open()) {
            let mut scratch = Scratch::default();
            let mut whole = vec![f32::NAN; expected.len()];
            packed.run(kernel, &input, 0..shape.out_channels, &mut whole, &mut scratch);
            for (got, want) in whole.iter().zip(&expected) {
                assert!((got - want).abs() <= TOLERANCE * (1.0 + want.abs()), "{} {shape:?}: {got} {want}", kernel.name());
            }
            let middle = shape.out_channels / 3..shape.out_channels;
            let mut part = vec![f32::NAN; middle.len() * positions];
            packed.run(kernel, &input, middle.clone(), &mut part, &mut scratch);
            assert_eq!(part, whole[middle.start * positions..], "{}: a part differs from the whole", kernel.name());
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
