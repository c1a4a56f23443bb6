//! Windows over images, and the mean of an image.

use crate::engine::layout::Layout;
use rayon::prelude::*;

/// What a pooling sees.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Windows {
    pub input: [usize; 2],
    pub output: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Top, left, bottom, right.
    pub pads: [usize; 4],
    /// Whether the border counts in a mean.
    pub count_border: bool,
}

impl Windows {
    /// The input positions of window `at` along an axis that lie inside of the image.
    fn inside(&self, axis: usize, at: usize) -> impl Iterator<Item = usize> + Clone + use<> {
        let (first, pad, size) = (at * self.stride[axis], self.pads[axis], self.input[axis]);
        let dilation = self.dilation[axis];
        (0..self.kernel[axis]).filter_map(move |k| (first + k * dilation).checked_sub(pad).filter(|&at| at < size))
    }

    /// Positions of window `at` along an axis that count in a mean: none past the padded edge.
    fn counted(&self, axis: usize, at: usize) -> usize {
        if !self.count_border {
            return self.inside(axis, at).count();
        }
        let end = self.input[axis] + self.pads[axis] + self.pads[axis + 2];
        (0..self.kernel[axis]).filter(|k| at * self.stride[axis] + k * self.dilation[axis] < end).count()
    }

    /// Places in a channel's plane that window `(y, x)` sees, in order.
    fn places(&self, y: usize, x: usize) -> impl Iterator<Item = usize> + use<> {
        let (width, columns) = (self.input[1], self.inside(1, x));
        self.inside(0, y).flat_map(move |row| columns.clone().map(move |column| row * width + column))
    }

    fn windows(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let [height, width] = self.output;
        (0..height).flat_map(move |y| (0..width).map(move |x| (y, x)))
    }

    fn planes(&self, lanes: usize) -> (usize, usize) {
        (self.input[0] * self.input[1] * lanes, self.output[0] * self.output[1] * lanes)
    }

    /// The largest value of each window, and where it lies: the first of equal ones. A NaN is the largest.
    pub fn max(&self, layout: Layout, x: &[f32], out: &mut [f32], found: &mut [u16]) {
        let lanes = layout.lanes;
        let (input, output) = self.planes(lanes);
        let planes = out.par_chunks_exact_mut(output).zip(found.par_chunks_exact_mut(output)).zip(x.par_chunks_exact(input));
        planes.for_each(|((out, found), x)| {
            for (at, (y, column)) in self.windows().enumerate() {
                let (out, found) = (&mut out[at * lanes..][..lanes], &mut found[at * lanes..][..lanes]);
                out.fill(f32::NEG_INFINITY);
                for (number, place) in self.places(y, column).enumerate() {
                    for (lane, &value) in x[place * lanes..][..lanes].iter().enumerate() {
                        if value > out[lane] || value.is_nan() || number == 0 {
                            (out[lane], found[lane]) = (value, number as u16);
                        }
                    }
                }
            }
        });
    }

    /// The values at the places that were found before.
    pub fn picked(&self, layout: Layout, x: &[f32], out: &mut [f32], found: &[u16]) {
        let lanes = layout.lanes;
        let (input, output) = self.planes(lanes);
        out.par_chunks_exact_mut(output).zip(found.par_chunks_exact(output)).zip(x.par_chunks_exact(input)).for_each(
            |((out, found), x)| {
                for (at, (y, column)) in self.windows().enumerate() {
                    let places: Vec<usize> = self.places(y, column).collect();
                    for lane in 0..lanes {
                        let place = places.get(usize::from(found[at * lanes + lane]));
                        out[at * lanes + lane] = place.map_or(f32::NEG_INFINITY, |place| x[place * lanes + lane]);
                    }
                }
            },
        );
    }

    pub fn max_backward(&self, layout: Layout, grad: &[f32], found: &[u16], dx: &mut [f32]) {
        let lanes = layout.lanes;
        let (input, output) = self.planes(lanes);
        let planes = dx.par_chunks_exact_mut(input).zip(grad.par_chunks_exact(output)).zip(found.par_chunks_exact(output));
        planes.for_each(|((dx, grad), found)| {
            dx.fill(0.0);
            for (at, (y, column)) in self.windows().enumerate() {
                for (number, place) in self.places(y, column).enumerate() {
                    for lane in 0..lanes {
                        if usize::from(found[at * lanes + lane]) == number {
                            dx[place * lanes + lane] += grad[at * lanes + lane];
                        }
                    }
                }
            }
        });
    }

    pub fn mean(&self, layout: Layout, x: &[f32], out: &mut [f32]) {
        let lanes = layout.lanes;
        let (input, output) = self.planes(lanes);
        out.par_chunks_exact_mut(output).zip(x.par_chunks_exact(input)).for_each(|(out, x)| {
            for (at, (y, column)) in self.windows().enumerate() {
                let out = &mut out[at * lanes..][..lanes];
                out.fill(0.0);
                for place in self.places(y, column) {
                    out.iter_mut().zip(&x[place * lanes..][..lanes]).for_each(|(out, x)| *out += x);
                }
                let count = self.counted(0, y) * self.counted(1, column);
                out.iter_mut().for_each(|out| *out /= count.max(1) as f32);
            }
        });
    }

    pub fn mean_backward(&self, layout: Layout, grad: &[f32], dx: &mut [f32]) {
        let lanes = layout.lanes;
        let (input, output) = self.planes(lanes);
        dx.par_chunks_exact_mut(input).zip(grad.par_chunks_exact(output)).for_each(|(dx, grad)| {
            dx.fill(0.0);
            for (at, (y, column)) in self.windows().enumerate() {
                let share = 1.0 / (self.counted(0, y) * self.counted(1, column)).max(1) as f32;
                for place in self.places(y, column) {
                    let grad = &grad[at * lanes..][..lanes];
                    dx[place * lanes..][..lanes].iter_mut().zip(grad).for_each(|(dx, g)| *dx += g * share);
                }
            }
        });
    }
}

/// The mean of each plane of so many pixels.
pub(in crate::engine) fn image_mean(layout: Layout, pixels: usize, x: &[f32], out: &mut [f32]) {
    let lanes = layout.lanes;
    out.par_chunks_exact_mut(lanes).zip(x.par_chunks_exact(pixels * lanes)).for_each(|(out, x)| {
        out.fill(0.0);
        // Sums of some rows each, so that a large image does not lose small numbers.
        for part in x.chunks(256 * lanes) {
            let mut sums = [0.0f32; 16];
            let sums = &mut sums[..lanes];
            part.chunks_exact(lanes).for_each(|vector| sums.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x));
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out += *sum);
        }
        out.iter_mut().for_each(|out| *out /= pixels as f32);
    });
}

pub(in crate::engine) fn image_mean_backward(layout: Layout, pixels: usize, grad: &[f32], dx: &mut [f32]) {
    let lanes = layout.lanes;
    let share = 1.0 / pixels as f32;
    dx.par_chunks_exact_mut(pixels * lanes).zip(grad.par_chunks_exact(lanes)).for_each(|(dx, grad)| {
        dx.chunks_exact_mut(lanes).for_each(|vector| vector.iter_mut().zip(grad).for_each(|(dx, g)| *dx = g * share));
    });
}
