//! Convolutions and linear layers: by vectors of images, or image by image.

use crate::engine::layout::Layout;
use crate::parameters::Parameters;
use rayon::prelude::*;
use resprout_kernels::backward::{GradScratch, InputScratch};
use resprout_kernels::batched::{self, BatchedConv};
use resprout_kernels::dense::ROWS;
use resprout_kernels::{Activation, ConvShape, InputGrad, Isa, PackedConv, WeightGrad};
use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;

/// Sums of the weight gradient of single images that are kept apart: a fixed number, so that the result does not
/// depend on the number of threads.
const PARTS: usize = 8;

thread_local! {
    // Buffers that each thread reuses; they carry no result from one call to the next.
    static SINGLE: RefCell<(resprout_kernels::conv::Scratch, InputScratch, GradScratch)> = RefCell::default();
    static BATCHED: RefCell<batched::Scratch> = RefCell::default();
}

/// A convolution, or a linear layer as one of single pixels.
pub(in crate::engine) struct Conv {
    pub shape: ConvShape,
    pub weight: usize,
    pub bias: Option<usize>,
    /// Whether the weight is `[C, M]`.
    pub transposed: bool,
    /// For the masks of this version.
    batched: Option<(u64, BatchedConv)>,
}

impl Conv {
    pub fn new(shape: ConvShape, weight: usize, bias: Option<usize>, transposed: bool) -> Conv {
        Conv { shape, weight, bias, transposed, batched: None }
    }

    /// Multiply-accumulates of so many images with the weights that are computed.
    pub fn macs(&self, images: usize) -> u64 {
        let (out_h, out_w) = self.shape.out_size();
        let all = self.shape.out_channels * self.shape.dot_length();
        let computed = self.batched.as_ref().map_or(all, |(_, conv)| conv.computed());
        (images * out_h * out_w * computed) as u64
    }

    /// Sizes of input and output of an image.
    fn sizes(&self) -> (usize, usize) {
        let (out_h, out_w) = self.shape.out_size();
        (self.shape.in_channels * self.shape.in_h * self.shape.in_w, self.shape.out_channels * out_h * out_w)
    }

    /// `[M, C / groups, kh, kw]`
    fn in_order<'a, T: Copy>(&self, weight: &'a [T]) -> Cow<'a, [T]> {
        in_order(&self.shape, self.transposed, weight)
    }

    /// Takes the parameters' values, before each pass.
    pub fn load(&mut self, layout: Layout, parameters: &Parameters) {
        if layout.lanes == 1 {
            return;
        }
        let parameter = &parameters.trained[self.weight];
        if self.batched.as_ref().is_none_or(|(version, _)| *version != parameters.mask_version()) {
            let mask = parameter.mask.as_ref().map(|mask| self.in_order(mask));
            self.batched = Some((parameters.mask_version(), BatchedConv::new(Isa::best(), &self.shape, mask.as_deref())));
        }
        let Conv { shape, transposed, batched, .. } = self;
        if let Some((_, conv)) = batched {
            conv.load(&in_order(shape, *transposed, &parameter.value));
        }
    }

    pub fn forward(&self, layout: Layout, parameters: &Parameters, x: &[f32], bias_factor: f32, out: &mut [f32]) {
        let bias: Vec<f32> = self.bias.map_or(Vec::new(), |bias| parameters.trained[bias].value.clone());
        let bias: Vec<f32> = bias.into_iter().map(|bias| bias * bias_factor).collect();
        let (input, output) = self.sizes();
        let chunks = layout.chunks();
        let pairs = out.par_chunks_exact_mut(output * layout.lanes).zip(x.par_chunks_exact(input * layout.lanes));
        if let Some((_, conv)) = &self.batched {
            return pairs.for_each(|(out, x)| {
                in_shares(out, self.shape.out_channels, conv.channel_block(), chunks, |channels, out| {
                    BATCHED.with_borrow_mut(|scratch| conv.forward(x, &bias, channels, out, scratch));
                });
            });
        }
        let weight = self.in_order(&parameters.trained[self.weight].value);
        let conv = PackedConv::new(self.shape.clone(), &weight, &bias, Activation::None);
        pairs.for_each(|(out, x)| {
            in_shares(out, self.shape.out_channels, ROWS, chunks, |channels, out| {
                SINGLE.with_borrow_mut(|(scratch, ..)| conv.run(Isa::best(), x, channels, out, scratch));
            });
        });
    }

    /// The input's gradient.
    pub fn input_gradient(&self, layout: Layout, parameters: &Parameters, grad: &[f32], dx: &mut [f32]) {
        let (input, output) = self.sizes();
        let chunks = layout.chunks();
        let pairs = dx.par_chunks_exact_mut(input * layout.lanes).zip(grad.par_chunks_exact(output * layout.lanes));
        if let Some((_, conv)) = &self.batched {
            return pairs.for_each(|(dx, grad)| {
                in_shares(dx, self.shape.in_channels, conv.backward_block(), chunks, |channels, dx| {
                    BATCHED.with_borrow_mut(|scratch| conv.backward(grad, channels, dx, scratch));
                });
            });
        }
        let weight = self.in_order(&parameters.trained[self.weight].value);
        match InputGrad::new(&self.shape, &weight) {
            Some(backward) => pairs.for_each(|(dx, grad)| {
                in_shares(dx, self.shape.in_channels, ROWS, chunks, |channels, dx| {
                    SINGLE.with_borrow_mut(|(_, scratch, _)| backward.run(Isa::best(), grad, channels, dx, scratch));
                });
            }),
            // Padding beyond the kernel's reach: a network of one such layer is rare, and the vectors know it.
            None => {
                let mut conv = BatchedConv::new(Isa::best(), &self.shape, None);
                conv.load(&weight);
                pairs.for_each(|(dx, grad)| one_image(&conv, grad, dx));
            }
        }
    }

    /// The weight's gradient.
    pub fn weight_gradient(&self, layout: Layout, x: &[f32], grad: &[f32]) -> Vec<f32> {
        let gradient = match &self.batched {
            Some((_, conv)) => self.batched_gradient(conv, x, grad),
            None => self.single_gradient(layout, x, grad),
        };
        if self.transposed { transpose(&gradient, self.shape.out_channels, self.shape.in_channels) } else { gradient }
    }

    /// Threads share the output channels, each of which is one sum in one order.
    fn batched_gradient(&self, conv: &BatchedConv, x: &[f32], grad: &[f32]) -> Vec<f32> {
        let mut sum = vec![0.0; self.shape.out_channels * self.shape.dot_length()];
        in_shares(&mut sum, self.shape.out_channels, 4, 1, |channels, sum| {
            BATCHED.with_borrow_mut(|scratch| conv.weight_gradient(x, grad, channels, sum, scratch));
        });
        sum
    }

    fn single_gradient(&self, layout: Layout, x: &[f32], grad: &[f32]) -> Vec<f32> {
        let shape = &self.shape;
        let (input, output) = self.sizes();
        let backward = WeightGrad::new(shape);
        let together = backward.images_together();
        let share = layout.images.div_ceil(PARTS).next_multiple_of(together);
        let part = |(x, grad): (&[f32], &[f32])| {
            let mut sum = vec![0.0; shape.out_channels * shape.dot_length()];
            in_shares(&mut sum, shape.out_channels, ROWS, layout.images.div_ceil(share), |channels, sum| {
                SINGLE.with_borrow_mut(|(.., scratch)| {
                    for (x, grad) in x.chunks(together * input).zip(grad.chunks(together * output)) {
                        backward.add(Isa::best(), x, grad, channels.clone(), sum, scratch);
                    }
                });
            });
            sum
        };
        let parts: Vec<Vec<f32>> = x.par_chunks(share * input).zip(grad.par_chunks(share * output)).map(part).collect();
        let mut parts = parts.into_iter();
        let mut sum = parts.next().unwrap_or_default();
        parts.for_each(|part| sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value));
        sum
    }

    /// The bias's gradient.
    pub fn bias_gradient(&self, layout: Layout, grad: &[f32]) -> Vec<f32> {
        let channels = self.shape.out_channels;
        let plane = grad.len() / layout.chunks() / channels;
        let sum = |channel: usize| grad.chunks_exact(plane).skip(channel).step_by(channels).map(super::sum).sum::<f64>() as f32;
        (0..channels).into_par_iter().map(sum).collect()
    }
}

/// The input's gradient of one image, by vectors of which one lane is used.
fn one_image(conv: &BatchedConv, grad: &[f32], dx: &mut [f32]) {
    let vectors = |len: usize| batched::Buffer::zeros(len * batched::LANES);
    let (mut wide, mut out) = (vectors(grad.len()), vectors(dx.len()));
    wide.iter_mut().step_by(batched::LANES).zip(grad).for_each(|(to, from)| *to = *from);
    let channels = conv.shape().in_channels;
    BATCHED.with_borrow_mut(|scratch| conv.backward(&wide, 0..channels, &mut out, scratch));
    dx.iter_mut().zip(out.iter().step_by(batched::LANES)).for_each(|(to, from)| *to = *from);
}

/// `[M, C / groups, kh, kw]`, of a weight that may be `[C, M]`.
fn in_order<'a, T: Copy>(shape: &ConvShape, transposed: bool, weight: &'a [T]) -> Cow<'a, [T]> {
    if transposed { Cow::Owned(transpose(weight, shape.in_channels, shape.out_channels)) } else { Cow::Borrowed(weight) }
}

/// `[rows, columns]` to `[columns, rows]`.
fn transpose<T: Copy>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// Calls `run` for ranges of the channels that `out` consists of, each with its part: for all of them at once
/// where there are `others` enough to keep the threads busy. What is computed for a channel does not depend on it.
fn in_shares(out: &mut [f32], channels: usize, multiple: usize, others: usize, run: impl Fn(Range<usize>, &mut [f32]) + Sync) {
    let share = channels.div_ceil(rayon::current_num_threads().div_ceil(others)).next_multiple_of(multiple).min(channels);
    let size = out.len() / channels;
    out.par_chunks_mut(share * size).enumerate().for_each(|(index, out)| {
        let first = index * share;
        run(first..first + out.len() / size, out);
    });
}
