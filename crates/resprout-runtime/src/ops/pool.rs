//! Pooling: the largest value or the mean of windows.

use super::attributes::{Attributes, Padding, as_images, window_pair, with_axes_of};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use std::ops::Range;

/// Attributes of MaxPool and AveragePool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolAttributes {
    /// Window height and width.
    pub kernel: [usize; 2],
    /// Step between windows.
    pub stride: [usize; 2],
    /// Distance between a window's rows and columns.
    pub dilation: [usize; 2],
    /// Padding of the input.
    pub padding: Padding,
    /// Whether a last, partly empty window counts.
    pub ceil_mode: bool,
    /// Whether padding counts in a mean.
    pub count_include_pad: bool,
    /// Number of spatial axes, one or two.
    axes: usize,
}

impl PoolAttributes {
    pub(super) fn parse(kind: &str, a: &Attributes) -> Result<PoolAttributes> {
        let axes = a.spatial_axes(kind)?.unwrap_or(0);
        let kernel = a.ints("kernel_shape")?.ok_or_else(|| Error::format("kernel_shape is missing"))?;
        Ok(PoolAttributes {
            kernel: window_pair("kernel_shape", &kernel)?,
            stride: a.pair("strides")?,
            dilation: a.pair("dilations")?,
            padding: a.padding()?,
            ceil_mode: a.flag("ceil_mode", false)?,
            count_include_pad: a.flag("count_include_pad", false)?,
            axes,
        })
    }
}

/// A pooling resolved for one input size.
#[derive(Clone, Debug)]
pub struct Pool {
    attributes: PoolAttributes,
    max: bool,
    pads: [usize; 4],
    input: [usize; 2],
    output: [usize; 2],
}

/// A pooling whose padding, if any, can be zeros.
pub(crate) struct PlainWindow {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub pads: [usize; 2],
    pub output: [usize; 2],
    pub mean: bool,
}

impl Pool {
    /// The same pooling over an image padded with zeros, if there is one. Zeros do not change the largest value if all
    /// values are `not_negative`.
    pub(crate) fn plain(&self, not_negative: bool) -> Option<PlainWindow> {
        let a = &self.attributes;
        let inside = |axis: usize| (self.output[axis] - 1) * a.stride[axis] + a.kernel[axis] <= self.input[axis];
        let unpadded = self.pads == [0; 4] && inside(0) && inside(1);
        // A window of nothing but padding has no largest value.
        let touches = |axis: usize| {
            self.pads[axis] < a.kernel[axis] && (self.output[axis] - 1) * a.stride[axis] < self.pads[axis] + self.input[axis]
        };
        let max = self.max && (unpadded || (not_negative && touches(0) && touches(1)));
        let plain = a.dilation == [1, 1] && (max || (!self.max && unpadded));
        plain.then_some(PlainWindow {
            kernel: a.kernel,
            stride: a.stride,
            pads: [self.pads[0], self.pads[1]],
            output: self.output,
            mean: !self.max,
        })
    }

    pub(super) fn resolve(attributes: &PoolAttributes, max: bool, shape: &[usize]) -> Result<(Pool, Vec<usize>)> {
        let a = attributes;
        let fits = shape.len() == a.axes + 2;
        let [n, c, h, w] = as_images(shape)
            .filter(|_| fits)
            .ok_or_else(|| Error::data(format!("pooling over {} axes of shape {shape:?}", a.axes)))?;
        let pads = a.padding.resolve([h, w], a.kernel, a.stride, a.dilation);
        let mut output = [0; 2];
        for axis in 0..2 {
            let padded = [h, w][axis] + pads[axis] + pads[axis + 2];
            let extent = (a.kernel[axis] - 1) * a.dilation[axis] + 1;
            let free = padded
                .checked_sub(extent)
                .ok_or_else(|| Error::data(format!("pooling window of {extent} does not fit the padded input of {padded}")))?;
            output[axis] = if a.ceil_mode { free.div_ceil(a.stride[axis]) } else { free / a.stride[axis] } + 1;
            // A window that starts in the padding behind the image has no pixel.
            if a.ceil_mode && (output[axis] - 1) * a.stride[axis] >= [h, w][axis] + pads[axis] {
                output[axis] -= 1;
            }
        }
        let pool = Pool { attributes: a.clone(), max, pads, input: [h, w], output };
        Ok((pool, with_axes_of(shape, [n, c, output[0], output[1]])))
    }

    pub(super) fn run(&self, input: &Tensor, out: &mut Tensor) {
        let rows: Vec<Range<usize>> = (0..self.output[0]).map(|y| self.taps(0, y)).collect();
        let columns: Vec<Range<usize>> = (0..self.output[1]).map(|x| self.taps(1, x)).collect();
        let planes = input.data.chunks_exact((self.input[0] * self.input[1]).max(1));
        for (plane, out) in planes.zip(out.data.chunks_exact_mut((self.output[0] * self.output[1]).max(1))) {
            for (y, ky) in rows.iter().enumerate() {
                for (x, kx) in columns.iter().enumerate() {
                    out[y * self.output[1] + x] = self.window(plane, y, x, ky, kx);
                }
            }
        }
    }

    /// The positions of window `at` along `axis` that lie inside the image.
    fn taps(&self, axis: usize, at: usize) -> Range<usize> {
        let (a, size, pad) = (&self.attributes, self.input[axis], self.pads[axis]);
        let inside = |k: &usize| (pad..pad + size).contains(&(at * a.stride[axis] + k * a.dilation[axis]));
        let first = (0..a.kernel[axis]).find(inside).unwrap_or(0);
        let last = (0..a.kernel[axis]).rev().find(inside).map_or(first, |k| k + 1);
        first..last
    }

    fn window(&self, plane: &[f32], y: usize, x: usize, ky: &Range<usize>, kx: &Range<usize>) -> f32 {
        let a = &self.attributes;
        let column = |k: usize| x * a.stride[1] + k * a.dilation[1] - self.pads[1];
        let row = |k: usize| (y * a.stride[0] + k * a.dilation[0] - self.pads[0]) * self.input[1];
        if self.max {
            let mut best = f32::NEG_INFINITY;
            for k in ky.clone() {
                let start = row(k);
                // A comparison must not drop a NaN.
                kx.clone().map(|k| plane[start + column(k)]).for_each(|v| best = if v > best || v.is_nan() { v } else { best });
            }
            return best;
        }
        let sum: f32 = ky.clone().map(|k| kx.clone().map(|j| plane[row(k) + column(j)]).sum::<f32>()).sum();
        sum / self.divisor(y, x, ky.len() * kx.len()) as f32
    }

    fn divisor(&self, y: usize, x: usize, seen: usize) -> usize {
        if !self.attributes.count_include_pad {
            return seen.max(1);
        }
        // Positions behind the padding (ceil mode) do not count.
        let counted = |axis: usize, at: usize| {
            let a = &self.attributes;
            let end = self.input[axis] + self.pads[axis] + self.pads[axis + 2];
            (0..a.kernel[axis]).filter(|k| at * a.stride[axis] + k * a.dilation[axis] < end).count()
        };
        counted(0, y) * counted(1, x)
    }
}
