//! The gradients of a convolution with respect to its input and its weight.

use crate::conv::{PackedConv, Scratch};
use crate::dense::LANES;
use crate::dense::dots::{DOT_ROWS, DOT_SHIFTS};
use crate::{Activation, ConvShape, Isa};
use std::ops::Range;

/// Positions of one call for the weight gradient. Dot products are long enough to hide the sums over lanes at their end, and
/// short enough to stay in the second-level cache.
const POSITIONS: usize = 1024;

/// The gradient of a convolution with respect to its input.
///
/// It is a convolution of the output's gradient, dilated by the stride, with the kernel rotated by 180 degrees.
pub struct InputGrad {
    shape: ConvShape,
    rotated: PackedConv,
}

impl InputGrad {
    /// Prepares `weight: [M, C / groups, kh, kw]`. `None` where the padding is larger than the kernel's reach.
    pub fn new(shape: &ConvShape, weight: &[f32]) -> Option<InputGrad> {
        let (out_h, out_w) = shape.out_size();
        let dilated = |out: usize, axis: usize| (out - 1) * shape.stride[axis] + 1;
        let reach = |axis: usize| (shape.kernel[axis] - 1) * shape.dilation[axis];
        let (h, w) = (dilated(out_h, 0), dilated(out_w, 1));
        let (top, left) = (reach(0).checked_sub(shape.pads[0])?, reach(1).checked_sub(shape.pads[1])?);
        let (bottom, right) = ((shape.in_h + reach(0)).checked_sub(h + top)?, (shape.in_w + reach(1)).checked_sub(w + left)?);
        let rotated = ConvShape {
            in_channels: shape.out_channels,
            in_h: h,
            in_w: w,
            out_channels: shape.in_channels,
            kernel: shape.kernel,
            stride: [1, 1],
            dilation: shape.dilation,
            pads: [top, left, bottom, right],
            groups: shape.groups,
        };
        let rotated = PackedConv::new(rotated, &rotate(shape, weight), &[], Activation::None);
        Some(InputGrad { shape: shape.clone(), rotated })
    }

    /// Computes some channels of the input's gradient for one image: `grad: [M, OH, OW]`, `out: [channels.len(), H, W]`.
    pub fn run(&self, isa: Isa, grad: &[f32], channels: Range<usize>, out: &mut [f32], scratch: &mut InputScratch) {
        let grad = if self.shape.stride == [1, 1] { grad } else { self.dilate(grad, &mut scratch.dilated) };
        self.rotated.run(isa, grad, channels, out, &mut scratch.conv);
    }

    /// Puts zeros between the positions, as many as the stride skips.
    fn dilate<'a>(&self, grad: &[f32], out: &'a mut Vec<f32>) -> &'a [f32] {
        let (out_h, out_w) = self.shape.out_size();
        let rotated = self.rotated.shape();
        let [stride_h, stride_w] = self.shape.stride;
        out.clear();
        out.resize(rotated.in_channels * rotated.in_h * rotated.in_w, 0.0);
        for (plane, grad) in out.chunks_exact_mut(rotated.in_h * rotated.in_w).zip(grad.chunks_exact(out_h * out_w)) {
            for (row, grad) in plane.chunks_exact_mut(rotated.in_w).step_by(stride_h).zip(grad.chunks_exact(out_w)) {
                row.iter_mut().step_by(stride_w).zip(grad).for_each(|(to, &from)| *to = from);
            }
        }
        out
    }
}

/// `[M, C / groups, kh, kw]` to `[C, M / groups, kh, kw]`, rotated by 180 degrees.
fn rotate(shape: &ConvShape, weight: &[f32]) -> Vec<f32> {
    let (group_in, group_out) = (shape.group_in(), shape.group_out());
    let taps = shape.kernel[0] * shape.kernel[1];
    let mut out = Vec::with_capacity(weight.len());
    for c in 0..shape.in_channels {
        let (group, inner) = (c / group_in, c % group_in);
        for m in group * group_out..(group + 1) * group_out {
            out.extend(weight[(m * group_in + inner) * taps..][..taps].iter().rev());
        }
    }
    out
}

/// The gradient of a convolution with respect to its weight.
///
/// The padded input is laid out so that every tap of the kernel is a shift of one long buffer. The buffer has one plane per
/// channel and phase of the stride; in a plane, images follow each other. The output's gradient lies in rows of the same width,
/// with zeros where there is no output position.
pub struct WeightGrad {
    shape: ConvShape,
    /// Planes per channel: one for each phase of the stride.
    phases: usize,
    /// Width and size of a plane of one image.
    plane_w: usize,
    plane: usize,
    /// For each tap of one channel: its phase and its shift in the plane.
    taps: Vec<(usize, usize)>,
}

/// Buffers that a thread reuses from call to call.
#[derive(Default)]
pub struct InputScratch {
    dilated: Vec<f32>,
    conv: Scratch,
}

/// Buffers that a thread reuses from call to call.
#[derive(Default)]
pub struct GradScratch {
    planes: Vec<f32>,
    grads: Vec<f32>,
}

impl WeightGrad {
    /// Prepares for a shape.
    pub fn new(shape: &ConvShape) -> WeightGrad {
        let (padded_h, padded_w) = shape.padded_size();
        let [stride_h, stride_w] = shape.stride;
        let plane_w = padded_w.div_ceil(stride_w);
        let mut taps = Vec::new();
        for ky in 0..shape.kernel[0] {
            for kx in 0..shape.kernel[1] {
                let (y, x) = (ky * shape.dilation[0], kx * shape.dilation[1]);
                taps.push((y % stride_h * stride_w + x % stride_w, y / stride_h * plane_w + x / stride_w));
            }
        }
        let plane = padded_h.div_ceil(stride_h) * plane_w;
        WeightGrad { shape: shape.clone(), phases: stride_h * stride_w, plane_w, plane, taps }
    }

    /// The best number of images for one call of [`add`](Self::add).
    pub fn images_together(&self) -> usize {
        POSITIONS.div_ceil(self.plane)
    }

    /// Adds the gradient of some images for the weights of some output channels: `inputs: [n, C, H, W]`,
    /// `grads: [n, M, OH, OW]`, `out: [channels.len(), C / groups, kh, kw]`.
    ///
    /// # Panics
    /// If a slice does not have the size that the shape gives.
    pub fn add(
        &self,
        isa: Isa,
        inputs: &[f32],
        grads: &[f32],
        channels: Range<usize>,
        out: &mut [f32],
        scratch: &mut GradScratch,
    ) {
        let shape = &self.shape;
        let image = shape.in_channels * shape.in_h * shape.in_w;
        let images = inputs.len() / image;
        let (out_h, out_w) = shape.out_size();
        assert_eq!(inputs.len(), images * image, "input of {shape:?}");
        assert_eq!(grads.len(), images * shape.out_channels * out_h * out_w, "gradient of {shape:?}");
        assert_eq!(out.len(), channels.len() * shape.dot_length(), "weight of {shape:?}");
        let len = (images * self.plane).next_multiple_of(LANES);
        let group_out = shape.group_out();
        for group in channels.start / group_out..channels.end.div_ceil(group_out) {
            let rows = channels.start.max(group * group_out)..channels.end.min((group + 1) * group_out);
            self.lay_out_input(inputs, images, group, len, &mut scratch.planes);
            let laid_out = self.lay_out_grads(grads, images, rows.clone(), len, &mut scratch.grads);
            let weights = rows.start - channels.start..rows.end - channels.start;
            let out = &mut out[weights.start * shape.dot_length()..weights.end * shape.dot_length()];
            self.multiply(isa, images, len, &scratch.planes, laid_out, out);
        }
    }

    /// `[C / groups][phases][images * plane]`, with room for the largest shift at the end.
    fn lay_out_input(&self, inputs: &[f32], images: usize, group: usize, len: usize, planes: &mut Vec<f32>) {
        let shape = &self.shape;
        let (in_h, in_w) = (shape.in_h, shape.in_w);
        let [stride_h, stride_w] = shape.stride;
        let reach = self.taps.iter().map(|tap| tap.1).max().unwrap_or(0);
        planes.clear();
        planes.resize(shape.group_in() * self.phases * images * self.plane + len + reach, 0.0);
        for n in 0..images {
            for c in 0..shape.group_in() {
                let source = &inputs[((n * shape.in_channels + group * shape.group_in() + c) * in_h) * in_w..][..in_h * in_w];
                for (y, row) in source.chunks_exact(in_w).enumerate() {
                    let y = y + shape.pads[0];
                    for phase_x in 0..stride_w {
                        // The first column of this row that belongs to the phase.
                        let first = (phase_x + stride_w - shape.pads[1] % stride_w) % stride_w;
                        if first >= in_w {
                            continue;
                        }
                        let phase = y % stride_h * stride_w + phase_x;
                        let base = ((c * self.phases + phase) * images + n) * self.plane;
                        let at = base + y / stride_h * self.plane_w + (first + shape.pads[1]) / stride_w;
                        if stride_w == 1 {
                            planes[at..at + in_w].copy_from_slice(row);
                        } else {
                            let values = row[first..].iter().step_by(stride_w);
                            planes[at..].iter_mut().zip(values).for_each(|(to, &from)| *to = from);
                        }
                    }
                }
            }
        }
    }

    /// `[channels.len()][len]`, aligned to a cache line.
    fn lay_out_grads<'a>(
        &self,
        grads: &[f32],
        images: usize,
        channels: Range<usize>,
        len: usize,
        rows: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let shape = &self.shape;
        let (out_h, out_w) = shape.out_size();
        rows.clear();
        rows.resize(channels.len() * len + LANES, 0.0);
        let aligned = rows.as_ptr().align_offset(64).min(LANES);
        let rows = &mut rows[aligned..];
        for n in 0..images {
            for (m, channel) in channels.clone().enumerate() {
                let source = &grads[(n * shape.out_channels + channel) * out_h * out_w..];
                for (y, row) in source[..out_h * out_w].chunks_exact(out_w).enumerate() {
                    let at = m * len + n * self.plane + y * self.plane_w;
                    rows[at..at + out_w].copy_from_slice(row);
                }
            }
        }
        rows
    }

    /// `out: [channels][K]` plus every dot product of a gradient row with a tap's view.
    fn multiply(&self, isa: Isa, images: usize, len: usize, planes: &[f32], grads: &[f32], out: &mut [f32]) {
        let k = self.shape.dot_length();
        let rows = out.len() / k;
        let taps = self.taps.len();
        let shift = |i: usize| {
            let (phase, shift) = self.taps[i % taps];
            (i / taps * self.phases + phase) * images * self.plane + shift
        };
        // Rows are the outer loop: a row is longer than the few planes that a call reads.
        for row in (0..rows).step_by(DOT_ROWS) {
            let starts = std::array::from_fn(|r| (row + r).min(rows - 1) * len);
            for first in (0..k).step_by(DOT_SHIFTS) {
                let shifts = std::array::from_fn(|c| shift((first + c).min(k - 1)));
                let mut sums = [[0.0; DOT_SHIFTS]; DOT_ROWS];
                isa.dots(grads, starts, planes, shifts, len, &mut sums);
                for (r, sums) in sums.iter().enumerate().take(rows - row) {
                    let out = &mut out[(row + r) * k + first..][..DOT_SHIFTS.min(k - first)];
                    out.iter_mut().zip(sums).for_each(|(sum, &value)| *sum += value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::values;
    use crate::{ISAS, reference};
    use proptest::prelude::*;

    /// f32 sums of a few hundred products of magnitude 1 against f64 sums.
    const TOLERANCE: f32 = 5e-5;

    fn check(shape: &ConvShape, images: usize) {
        let (out_h, out_w) = shape.out_size();
        let image = shape.in_channels * shape.in_h * shape.in_w;
        let positions = shape.out_channels * out_h * out_w;
        let input = values(images * image, 1);
        let weight = values(shape.out_channels * shape.dot_length(), 2);
        let grad = values(images * positions, 3);
        let mut weight_wanted = vec![0.0; weight.len()];
        let close = |got: &[f32], want: &[f32], what: &str| {
            for (got, want) in got.iter().zip(want) {
                assert!((got - want).abs() <= TOLERANCE * (1.0 + want.abs()), "{what} of {shape:?}: {got} {want}");
            }
        };
        for isa in ISAS.iter().filter_map(|row| row.open()) {
            weight_wanted.fill(0.0);
            for (input, grad) in input.chunks(image).zip(grad.chunks(positions)) {
                let (input_wanted, part) = reference::conv2d_backward(shape, input, &weight, grad);
                weight_wanted.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
                if let Some(backward) = InputGrad::new(shape, &weight) {
                    let mut got = vec![f32::NAN; image];
                    let plane = shape.in_h * shape.in_w;
                    // In two parts: they must not depend on each other.
                    let (low, high) = got.split_at_mut(shape.in_channels / 2 * plane);
                    let mut scratch = InputScratch::default();
                    backward.run(isa, grad, 0..shape.in_channels / 2, low, &mut scratch);
                    backward.run(isa, grad, shape.in_channels / 2..shape.in_channels, high, &mut scratch);
                    close(&got, &input_wanted, isa.name());
                }
            }
            let mut got = vec![0.0; weight.len()];
            let mut scratch = GradScratch::default();
            // Stale numbers in the buffers must not matter.
            scratch.planes.resize(100_000, f32::NAN);
            let half = shape.out_channels / 2;
            let (low, high) = got.split_at_mut(half * shape.dot_length());
            WeightGrad::new(shape).add(isa, &input, &grad, 0..half, low, &mut scratch);
            WeightGrad::new(shape).add(isa, &input, &grad, half..shape.out_channels, high, &mut scratch);
            close(&got, &weight_wanted, isa.name());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]
        #[test]
        fn gradients_equal_the_reference(
            groups in 1usize..3, group_in in 1usize..4, group_out in 1usize..6, images in 1usize..4,
            size in (1usize..12, 1usize..20), kernel in (1usize..4, 1usize..4), stride in (1usize..4, 1usize..4),
            dilation in (1usize..3, 1usize..3), pads in (0usize..3, 0usize..3, 0usize..3, 0usize..3),
        ) {
            let shape = ConvShape {
                in_channels: groups * group_in, in_h: size.0, in_w: size.1, out_channels: groups * group_out,
                kernel: kernel.into(), stride: stride.into(), dilation: dilation.into(), pads: pads.into(), groups,
            };
            let (out_h, out_w) = shape.out_size();
            if out_h > 0 && out_w > 0 {
                check(&shape, images);
            }
        }
    }

    #[test]
    fn common_layers_have_an_input_gradient() {
        for (kernel, pad, stride) in [(3, 1, 1), (3, 1, 2), (1, 0, 1), (1, 0, 2), (5, 0, 1), (7, 3, 2)] {
            let shape = ConvShape {
                in_channels: 3,
                in_h: 16,
                in_w: 16,
                out_channels: 5,
                kernel: [kernel; 2],
                stride: [stride; 2],
                dilation: [1, 1],
                pads: [pad; 4],
                groups: 1,
            };
            assert!(InputGrad::new(&shape, &vec![0.0; 15 * kernel * kernel]).is_some(), "{shape:?}");
            check(&shape, 2);
        }
    }
}
