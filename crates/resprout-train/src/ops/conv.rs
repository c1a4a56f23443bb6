//! Convolution: forward and both gradients.

use super::{CpuTensor, contiguous, cpu_tensor, elements, on_cpu};
use burn_core as burn; // the name that the macro expects
use burn_core::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn_core::backend::autodiff::grads::Gradients;
use burn_core::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn_core::backend::ops::ModuleOps;
use burn_core::backend::tensor::FloatTensor;
use burn_core::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn_core::tensor::Tensor;
use burn_core::tensor::ops::ConvOptions;
use rayon::prelude::*;
use resprout_kernels::backward::{GradScratch, InputScratch};
use resprout_kernels::conv::Scratch;
use resprout_kernels::dense::ROWS;
use resprout_kernels::{Activation, ConvShape, InputGrad, Isa, PackedConv, WeightGrad};
use std::cell::RefCell;
use std::ops::Range;

/// The number of partial sums of the weight gradient. It is fixed, so that threads change no bit.
const PARTS: usize = 8;

thread_local! {
    // Buffers that each thread reuses. No result passes from one call to the next.
    static SCRATCH: RefCell<(Scratch, InputScratch, GradScratch)> = RefCell::default();
}

/// Convolution of `x: [N, C, H, W]` with `weight: [M, C / groups, kh, kw]`.
pub(crate) fn conv2d(x: Tensor<4>, weight: Tensor<4>, options: ConvOptions<2>) -> Tensor<4> {
    if !on_cpu(&x) {
        return burn_core::tensor::module::conv2d(x, weight, None, options);
    }
    Tensor::from_dispatch(<Dispatch as Convolution>::convolution(x.into_dispatch(), weight.into_dispatch(), options))
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait Convolution: Backend {
    fn convolution(x: FloatTensor<Self>, weight: FloatTensor<Self>, options: ConvOptions<2>) -> FloatTensor<Self>;
}

impl Convolution for Flex {
    fn convolution(x: CpuTensor, weight: CpuTensor, options: ConvOptions<2>) -> CpuTensor {
        forward(x, weight, options)
    }
}

impl<C: CheckpointStrategy> Convolution for Autodiff<Flex, C> {
    fn convolution(x: FloatTensor<Self>, weight: FloatTensor<Self>, options: ConvOptions<2>) -> FloatTensor<Self> {
        let guards = [x.node(), weight.node()];
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let out = forward(x.clone(), weight.clone(), options.clone());
        match ConvolutionNode.prepare::<C>(guards).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, weight, options), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}

#[derive(Debug)]
struct ConvolutionNode;

impl Backward<Flex, 2> for ConvolutionNode {
    type State = (CpuTensor, CpuTensor, ConvOptions<2>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, weight_node] = ops.parents;
        let (x, weight, options) = ops.state;
        let grad = grads.consume::<Flex>(&ops.node);
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, input_grad(x.clone(), weight.clone(), grad.clone(), options.clone()));
        }
        if let Some(node) = weight_node {
            grads.register::<Flex>(node.id, weight_grad(x, weight, grad, options));
        }
    }
}

fn forward(x: CpuTensor, weight: CpuTensor, options: ConvOptions<2>) -> CpuTensor {
    let (x, weight) = (contiguous(x), contiguous(weight));
    let shape = geometry(&x, &weight, &options);
    let conv = PackedConv::new(shape.clone(), elements(&weight), &[], Activation::None);
    let (out_h, out_w) = shape.out_size();
    let (image, size) = (image_len(&shape), shape.out_channels * out_h * out_w);
    let images = x.shape()[0];
    let mut out = vec![0.0; images * size];
    out.par_chunks_exact_mut(size).zip(elements(&x).par_chunks_exact(image)).for_each(|(out, image)| {
        in_shares(out, shape.out_channels, images, |channels, out| {
            SCRATCH.with_borrow_mut(|(scratch, ..)| conv.run(Isa::best(), image, channels, out, scratch));
        });
    });
    cpu_tensor(out, [images, shape.out_channels, out_h, out_w])
}

fn input_grad(x: CpuTensor, weight: CpuTensor, grad: CpuTensor, options: ConvOptions<2>) -> CpuTensor {
    let (weight, grad) = (contiguous(weight), contiguous(grad));
    let shape = geometry(&x, &weight, &options);
    let Some(backward) = InputGrad::new(&shape, elements(&weight)) else {
        return Flex::conv2d_x_backward(x, weight, grad, options);
    };
    let (out_h, out_w) = shape.out_size();
    let (image, size) = (image_len(&shape), shape.out_channels * out_h * out_w);
    let images = x.shape()[0];
    let mut out = vec![0.0; images * image];
    out.par_chunks_exact_mut(image).zip(elements(&grad).par_chunks_exact(size)).for_each(|(out, grad)| {
        in_shares(out, shape.in_channels, images, |channels, out| {
            SCRATCH.with_borrow_mut(|(_, scratch, _)| backward.run(Isa::best(), grad, channels, out, scratch));
        });
    });
    cpu_tensor(out, [images, shape.in_channels, shape.in_h, shape.in_w])
}

fn weight_grad(x: CpuTensor, weight: CpuTensor, grad: CpuTensor, options: ConvOptions<2>) -> CpuTensor {
    let (x, grad) = (contiguous(x), contiguous(grad));
    let shape = geometry(&x, &weight, &options);
    let backward = WeightGrad::new(&shape);
    let (out_h, out_w) = shape.out_size();
    let (image, size) = (image_len(&shape), shape.out_channels * out_h * out_w);
    let (images, microbatch) = (x.shape()[0], backward.images_together());
    let share = images.div_ceil(PARTS).next_multiple_of(microbatch);
    let parts: Vec<Vec<f32>> = elements(&x)
        .par_chunks(share * image)
        .zip(elements(&grad).par_chunks(share * size))
        .map(|(inputs, grads)| {
            let mut sum = vec![0.0; shape.out_channels * shape.dot_length()];
            in_shares(&mut sum, shape.out_channels, images.div_ceil(share), |channels, sum| {
                SCRATCH.with_borrow_mut(|(.., scratch)| {
                    for (inputs, grads) in inputs.chunks(microbatch * image).zip(grads.chunks(microbatch * size)) {
                        backward.add(Isa::best(), inputs, grads, channels.clone(), sum, scratch);
                    }
                });
            });
            sum
        })
        .collect();
    let mut parts = parts.into_iter();
    let mut sum = parts.next().unwrap_or_default();
    for part in parts {
        sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
    cpu_tensor(sum, weight.shape().to_vec())
}

/// Calls `run` for ranges of the channels of `out`, each with its part. One range is enough if `others` such calls keep the
/// threads busy. The result of a channel does not depend on the ranges.
fn in_shares(out: &mut [f32], channels: usize, others: usize, run: impl Fn(Range<usize>, &mut [f32]) + Sync) {
    let share = channels.div_ceil(rayon::current_num_threads().div_ceil(others)).next_multiple_of(ROWS).min(channels);
    let size = out.len() / channels;
    out.par_chunks_mut(share * size).enumerate().for_each(|(index, out)| {
        let first = index * share;
        run(first..first + out.len() / size, out);
    });
}

fn image_len(shape: &ConvShape) -> usize {
    shape.in_channels * shape.in_h * shape.in_w
}

fn geometry(x: &CpuTensor, weight: &CpuTensor, options: &ConvOptions<2>) -> ConvShape {
    let (x, weight) = (x.shape(), weight.shape());
    let [(top, bottom), (left, right)] = options.padding;
    ConvShape {
        in_channels: x[1],
        in_h: x[2],
        in_w: x[3],
        out_channels: weight[0],
        kernel: [weight[2], weight[3]],
        stride: options.stride,
        dilation: options.dilation,
        pads: [top, left, bottom, right],
        groups: options.groups,
    }
}
