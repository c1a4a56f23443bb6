//! Convolutions of many images at once, for training: forward and both gradients, dense and sparse.
//!
//! A *vector* holds one value of [`LANES`] images. A value of a network is `[N / LANES][C][H][W][LANES]`: a *chunk* is the part of
//! one group of images, `[C][H][W][LANES]`. Every tap of a convolution is then a whole vector, strided or not, dense or sparse,
//! and no lane is wasted on small images.
//!
//! A [`BatchedConv`] has weights for one mask. Weights outside of the mask are neither computed with nor given a gradient.
//!
//! Every sum is in one order, whatever the number of threads: outputs by input channel and tap, weight gradients by chunk,
//! row, column and then lane.

mod buffer;
mod pass;
mod tile;
mod weight;

pub use buffer::Buffer;
pub use pass::Scratch;

use crate::isa::Level;
use crate::{ConvShape, Isa};
use pass::{Pass, Tap};
use std::ops::Range;
use weight::WeightPass;

/// Images in a vector.
pub const LANES: usize = crate::simd::LANES;

/// From this share of weights on, all of them are computed.
fn dense_from(isa: Isa) -> f64 {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => 0.8,
        _ => 0.35,
    }
}

/// A convolution of vectors of images, with the weights of one mask.
pub struct BatchedConv {
    isa: Isa,
    shape: ConvShape,
    forward: Pass,
    /// One for each phase of the stride.
    backward: Vec<Pass>,
    weight: WeightPass,
}

impl BatchedConv {
    /// Prepares for `weight: [M, C / groups, kh, kw]`, of which a mask keeps some; without one, all are kept.
    /// The weights themselves come with [`load`](Self::load).
    ///
    /// # Panics
    /// If the mask does not have the weight's length.
    pub fn new(isa: Isa, shape: &ConvShape, mask: Option<&[bool]>) -> BatchedConv {
        let count = shape.out_channels * shape.dot_length();
        assert!(mask.is_none_or(|mask| mask.len() == count), "mask of {shape:?}");
        let is_kept = |index: usize| mask.is_none_or(|mask| mask[index]);
        let kept = (0..count).filter(|&index| is_kept(index)).count();
        let dense = shape.groups == 1 && kept as f64 >= dense_from(isa) * count as f64;
        // Where all are computed, those outside of the mask are zero.
        let is_computed = |index: usize| dense || is_kept(index);
        let rows = rows(shape, is_computed);
        BatchedConv {
            isa,
            shape: shape.clone(),
            forward: Pass::forward(isa, shape, &rows, dense),
            backward: Pass::backward(isa, shape, &columns(shape, &rows), dense),
            weight: WeightPass::new(shape, rows, dense),
        }
    }

    /// The geometry of one image.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// How many weights are computed with.
    pub fn computed(&self) -> usize {
        self.weight.computed()
    }

    /// Takes the weights' values.
    ///
    /// # Panics
    /// If their number is not the shape's.
    pub fn load(&mut self, weight: &[f32]) {
        assert_eq!(weight.len(), self.shape.out_channels * self.shape.dot_length(), "weight of {:?}", self.shape);
        self.forward.load(weight);
        self.backward.iter_mut().for_each(|pass| pass.load(weight));
    }

    /// How many output channels [`forward`](Self::forward) computes at once: ranges of channels begin at multiples of it.
    pub fn channel_block(&self) -> usize {
        self.forward.channel_block()
    }

    /// The same of input channels and [`backward`](Self::backward).
    pub fn backward_block(&self) -> usize {
        self.backward.first().map_or(1, Pass::channel_block)
    }

    /// Some output channels of one chunk: `input: [C][H][W][LANES]`, `out: [channels.len()][OH][OW][LANES]`; `bias: [M]` or empty.
    ///
    /// # Panics
    /// If a slice does not have the size that the shape asks for, or does not begin where a [`Buffer`] or a vector of it does.
    pub fn forward(&self, input: &[f32], bias: &[f32], channels: Range<usize>, out: &mut [f32], scratch: &mut Scratch) {
        self.forward.run(self.isa, input, bias, channels, out, scratch);
    }

    /// Some input channels' gradient of one chunk: `grad: [M][OH][OW][LANES]`, `out: [channels.len()][H][W][LANES]`.
    ///
    /// # Panics
    /// If a slice does not have the size that the shape asks for, or does not begin where a [`Buffer`] or a vector of it does.
    pub fn backward(&self, grad: &[f32], channels: Range<usize>, out: &mut [f32], scratch: &mut Scratch) {
        self.backward.iter().for_each(|pass| pass.run(self.isa, grad, &[], channels.clone(), out, scratch));
    }

    /// The gradient of some output channels' weights over all chunks: `out: [channels.len(), C / groups, kh, kw]`, zero outside of the mask.
    ///
    /// # Panics
    /// If a slice does not have the size that the shape asks for, or does not begin where a [`Buffer`] or a vector of it does.
    pub fn weight_gradient(&self, inputs: &[f32], grads: &[f32], channels: Range<usize>, out: &mut [f32], scratch: &mut Scratch) {
        out.fill(0.0);
        let (out_h, out_w) = self.shape.out_size();
        let input = self.shape.in_channels * self.shape.in_h * self.shape.in_w * LANES;
        let grad = self.shape.out_channels * out_h * out_w * LANES;
        assert!(inputs.len().is_multiple_of(input.max(1)), "chunks of {:?}", self.shape);
        assert_eq!(inputs.len() * grad, grads.len() * input, "chunks of {:?}", self.shape);
        assert!(is_aligned(inputs) && is_aligned(grads), "vectors of {:?} begin at no multiple of their size", self.shape);
        self.weight.add(self.isa, inputs, grads, channels, out, scratch);
    }
}

/// Whether vectors can be read and written from here on.
fn is_aligned(values: &[f32]) -> bool {
    values.as_ptr().align_offset(crate::simd::VECTOR_BYTES) == 0
}

/// A weight that is computed with, seen from one channel: the channel on the other side, its tap, and its place in the weight.
#[derive(Clone, Copy)]
struct Entry {
    channel: u32,
    tap: u32,
    weight: u32,
}

/// The entries of each output channel, by input channel and tap.
fn rows(shape: &ConvShape, is_computed: impl Fn(usize) -> bool) -> Vec<Vec<Entry>> {
    let (taps, length) = (shape.kernel[0] * shape.kernel[1], shape.dot_length());
    let row = |m: usize| {
        let first = m / shape.group_out() * shape.group_in();
        let entry =
            |at: usize| Entry { channel: (first + at / taps) as u32, tap: (at % taps) as u32, weight: (m * length + at) as u32 };
        (0..length).filter(|at| is_computed(m * length + at)).map(entry).collect()
    };
    (0..shape.out_channels).map(row).collect()
}

/// The same entries by input channel, then output channel and tap.
fn columns(shape: &ConvShape, rows: &[Vec<Entry>]) -> Vec<Vec<Entry>> {
    let mut columns = vec![Vec::new(); shape.in_channels];
    for (m, row) in rows.iter().enumerate() {
        for entry in row {
            columns[entry.channel as usize].push(Entry { channel: m as u32, ..*entry });
        }
    }
    columns
}

/// Row and column of each tap, dilated.
fn taps(shape: &ConvShape) -> Vec<Tap> {
    let [height, width] = shape.kernel;
    let place = |ky: usize, kx: usize| [ky * shape.dilation[0], kx * shape.dilation[1]].map(|at| at as isize);
    (0..height).flat_map(|ky| (0..width).map(move |kx| (ky, kx))).map(|(ky, kx)| Tap(place(ky, kx))).collect()
}
