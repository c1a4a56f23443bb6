//! Slices, pads and concatenations: every element comes from one place.

use crate::engine::layout::Layout;
use rayon::prelude::*;

/// For each axis of an image, which input index each output index reads; `None` reads the filling number.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Maps {
    pub axes: [Vec<Option<usize>>; 3],
    pub input: [usize; 3],
    pub fill: f32,
}

impl Maps {
    fn out_len(&self) -> usize {
        self.axes.iter().map(Vec::len).product()
    }

    /// Calls `work` with the place of each vector of an image in the output, and in the input.
    fn places(&self, mut work: impl FnMut(usize, Option<usize>)) {
        let [_, height, width] = self.input;
        let mut at = 0;
        for &c in &self.axes[0] {
            for &y in &self.axes[1] {
                for &x in &self.axes[2] {
                    let place = c.zip(y).zip(x).map(|((c, y), x)| (c * height + y) * width + x);
                    work(at, place);
                    at += 1;
                }
            }
        }
    }

    pub fn forward(&self, layout: Layout, x: &[f32], out: &mut [f32]) {
        let lanes = layout.lanes;
        let (input, output) = (self.input.iter().product::<usize>() * lanes, self.out_len() * lanes);
        out.par_chunks_exact_mut(output).zip(x.par_chunks_exact(input)).for_each(|(out, x)| {
            self.places(|to, from| {
                let out = &mut out[to * lanes..][..lanes];
                match from {
                    Some(from) => out.copy_from_slice(&x[from * lanes..][..lanes]),
                    None => out.fill(self.fill),
                }
            });
        });
    }

    pub fn backward(&self, layout: Layout, grad: &[f32], dx: &mut [f32]) {
        let lanes = layout.lanes;
        let (input, output) = (self.input.iter().product::<usize>() * lanes, self.out_len() * lanes);
        dx.par_chunks_exact_mut(input).zip(grad.par_chunks_exact(output)).for_each(|(dx, grad)| {
            dx.fill(0.0);
            self.places(|from, to| {
                let Some(to) = to else { return };
                let grad = &grad[from * lanes..][..lanes];
                dx[to * lanes..][..lanes].iter_mut().zip(grad).for_each(|(dx, g)| *dx += g);
            });
        });
    }
}

/// The run of elements that one operand of a concatenation has in each of the outer indices.
fn run(layout: Layout, shape: &[usize], axis: usize) -> usize {
    shape[axis..].iter().product::<usize>() * layout.lanes
}

/// Puts an operand of this shape into the result at `first` along the axis.
pub(in crate::engine) fn put(
    layout: Layout,
    shape: &[usize],
    result: &[usize],
    axis: usize,
    first: usize,
    x: &[f32],
    out: &mut [f32],
) {
    let (own, whole) = (run(layout, shape, axis), run(layout, result, axis));
    let skipped = first * run(layout, result, axis) / result[axis];
    out.par_chunks_exact_mut(whole).zip(x.par_chunks_exact(own)).for_each(|(out, x)| out[skipped..][..own].copy_from_slice(x));
}

/// Takes an operand's gradient out of the result's.
pub(in crate::engine) fn pick(
    layout: Layout,
    shape: &[usize],
    result: &[usize],
    axis: usize,
    first: usize,
    grad: &[f32],
    dx: &mut [f32],
) {
    let (own, whole) = (run(layout, shape, axis), run(layout, result, axis));
    let skipped = first * run(layout, result, axis) / result[axis];
    dx.par_chunks_exact_mut(own)
        .zip(grad.par_chunks_exact(whole))
        .for_each(|(dx, grad)| dx.copy_from_slice(&grad[skipped..][..own]));
}
