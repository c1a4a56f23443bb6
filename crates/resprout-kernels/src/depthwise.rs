//! Depthwise convolution: every output channel reads one input channel.

use crate::conv::{Scratch, store};
use crate::dense::LANES;
use crate::isa::Level;
use crate::{Activation, ConvShape, Isa};
use std::ops::Range;

/// A depthwise convolution (`groups == in_channels`), computed row by row on a padded plane.
///
/// The columns of the plane are sorted by their remainder modulo the stride, so that every tap reads a contiguous run.
pub struct PackedDepthwise {
    shape: ConvShape,
    weights: Vec<f32>,
    bias: Vec<f32>,
    activation: Activation,
    /// Columns of one phase plane, with room for a whole vector past the last output.
    pitch: usize,
}

impl PackedDepthwise {
    /// Whether this layout can hold the shape.
    pub fn fits(shape: &ConvShape) -> bool {
        shape.group_in() == 1 && shape.groups > 1
    }

    /// `weight: [M, 1, kh, kw]`, `bias: [M]` or empty.
    ///
    /// # Panics
    /// If the shape is not depthwise or a length does not match it.
    pub fn new(shape: ConvShape, weight: &[f32], bias: &[f32], activation: Activation) -> PackedDepthwise {
        assert!(Self::fits(&shape), "{shape:?} is not depthwise");
        assert_eq!(weight.len(), shape.out_channels * shape.dot_length(), "weight length of {shape:?}");
        assert!(bias.is_empty() || bias.len() == shape.out_channels, "bias length of {shape:?}");
        let bias = if bias.is_empty() { vec![0.0; shape.out_channels] } else { bias.to_vec() };
        let (_, out_w) = shape.out_size();
        let reach = (shape.kernel[1] - 1) * shape.dilation[1] / shape.stride[1];
        let phase_columns = shape.padded_size().1.div_ceil(shape.stride[1]);
        let pitch = phase_columns.max(out_w.next_multiple_of(LANES) + reach);
        PackedDepthwise { shape, weights: weight.to_vec(), bias, activation, pitch }
    }

    /// Computes output channels `channels` of one image, as [`crate::PackedConv::run`].
    ///
    /// # Panics
    /// If a slice does not have the size that the shape gives.
    pub fn run(&self, isa: Isa, input: &[f32], channels: Range<usize>, output: &mut [f32], scratch: &mut Scratch) {
        let shape = &self.shape;
        let (out_h, out_w) = shape.out_size();
        let plane = shape.in_h * shape.in_w;
        assert_eq!(input.len(), shape.in_channels * plane, "input of {shape:?}");
        assert_eq!(output.len(), channels.len() * out_h * out_w, "output of {shape:?}");
        let taps = shape.kernel[0] * shape.kernel[1];
        let phase_plane = shape.padded_size().0 * self.pitch;
        scratch.padded.clear();
        scratch.padded.resize(phase_plane * shape.stride[1], 0.0);
        let offsets = self.tap_offsets(phase_plane);
        for (m, out) in channels.zip(output.chunks_exact_mut((out_h * out_w).max(1))) {
            let channel = m / shape.group_out();
            self.split_phases(&input[channel * plane..][..plane], phase_plane, &mut scratch.padded);
            let job = Job {
                source: &scratch.padded,
                offsets: &offsets,
                weights: &self.weights[m * taps..][..taps],
                row_step: shape.stride[0] * self.pitch,
                out_w,
                bias: self.bias[m],
                activation: self.activation,
            };
            job.run(isa, out);
        }
    }

    /// Where each tap's first value lies, from the start of a row of phase 0.
    fn tap_offsets(&self, phase_plane: usize) -> Vec<usize> {
        let shape = &self.shape;
        let mut offsets = Vec::with_capacity(shape.kernel[0] * shape.kernel[1]);
        for ky in 0..shape.kernel[0] {
            for kx in 0..shape.kernel[1] {
                let column = kx * shape.dilation[1];
                offsets.push(
                    (column % shape.stride[1]) * phase_plane + ky * shape.dilation[0] * self.pitch + column / shape.stride[1],
                );
            }
        }
        offsets
    }

    /// Writes the plane into the phase planes; the zero padding is there already.
    fn split_phases(&self, plane: &[f32], phase_plane: usize, phases: &mut [f32]) {
        let shape = &self.shape;
        let stride = shape.stride[1];
        for (y, row) in plane.chunks_exact(shape.in_w).enumerate() {
            let start = (y + shape.pads[0]) * self.pitch;
            if stride == 1 {
                phases[start + shape.pads[1]..][..shape.in_w].copy_from_slice(row);
                continue;
            }
            for phase in 0..stride {
                // The row's first pixel whose padded column belongs to this phase, and where it goes.
                let first = (phase + stride - shape.pads[1] % stride) % stride;
                let target = &mut phases[phase * phase_plane + start + (first + shape.pads[1]) / stride..];
                let values = row.get(first..).unwrap_or_default().iter().step_by(stride);
                target.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// What one channel is computed from.
struct Job<'a> {
    source: &'a [f32],
    offsets: &'a [usize],
    weights: &'a [f32],
    row_step: usize,
    out_w: usize,
    bias: f32,
    activation: Activation,
}

impl Job<'_> {
    fn run(&self, isa: Isa, out: &mut [f32]) {
        match isa.level() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` exists only where the CPU has its instructions.
            Level::Avx512 => unsafe { self.run_avx512(out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx2 => unsafe { self.run_avx2(out) },
            Level::Portable => self.rows::<false>(out),
        }
    }

    /// # Safety
    /// The CPU has `avx512f` and `fma`.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,fma")]
    unsafe fn run_avx512(&self, out: &mut [f32]) {
        self.rows::<true>(out);
    }

    /// # Safety
    /// The CPU has `avx2` and `fma`.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn run_avx2(&self, out: &mut [f32]) {
        self.rows::<true>(out);
    }

    #[inline(always)]
    fn rows<const FUSED: bool>(&self, out: &mut [f32]) {
        for (y, row) in out.chunks_exact_mut(self.out_w).enumerate() {
            let start = y * self.row_step;
            for (block, out) in row.chunks_mut(LANES).enumerate() {
                let mut acc = [0.0f32; LANES];
                for (&offset, &weight) in self.offsets.iter().zip(self.weights) {
                    let run = &self.source[start + offset + block * LANES..][..LANES];
                    for (sum, &value) in acc.iter_mut().zip(run) {
                        *sum = if FUSED { weight.mul_add(value, *sum) } else { weight * value + *sum };
                    }
                }
                store(&acc[..out.len()], self.bias, self.activation, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ISAS, reference};
    use proptest::prelude::*;

    fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_the_reference(
            channels in 2usize..5, multiplier in 1usize..3, size in (1usize..12, 1usize..40), kernel in (1usize..6, 1usize..6),
            stride in (1usize..4, 1usize..4), dilation in (1usize..3, 1usize..3), pads in proptest::array::uniform4(0usize..4),
        ) {
            let shape = ConvShape {
                in_channels: channels, in_h: size.0 + 8, in_w: size.1 + 8, out_channels: channels * multiplier,
                kernel: [kernel.0, kernel.1], stride: [stride.0, stride.1], dilation: [dilation.0, dilation.1], pads, groups: channels,
            };
            let input = values(channels * shape.in_h * shape.in_w);
            let (weight, bias) = (values(shape.out_channels * shape.dot_length()), values(shape.out_channels));
            let expected = reference::conv2d(&shape, &input, &weight, &bias);
            let packed = PackedDepthwise::new(shape.clone(), &weight, &bias, Activation::None);
            for isa in ISAS.iter().filter_map(|row| row.open()) {
                let mut out = vec![f32::NAN; expected.len()];
                packed.run(isa, &input, 0..shape.out_channels, &mut out, &mut Scratch::default());
                for (got, want) in out.iter().zip(&expected) {
                    // 25 taps of magnitude 1 at most: the sum is off by a few ULPs.
                    prop_assert!((got - want).abs() < 1e-5, "{}: {} {}", isa.name(), got, want);
                }
            }
        }
    }
}
