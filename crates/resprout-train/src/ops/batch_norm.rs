//! Batch normalisation by the batch's statistics, fused with a ReLU.

use super::planes::{by_channel_mut, of_channel};
use super::{CpuTensor, contiguous, cpu_tensor, elements, on_cpu};
use burn_core as burn; // the name that the macro expects
use burn_core::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn_core::backend::autodiff::grads::Gradients;
use burn_core::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn_core::backend::tensor::FloatTensor;
use burn_core::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn_core::tensor::{Tensor, activation::relu, module::batch_norm_train};
use rayon::prelude::*;
use resprout_kernels::Isa;
use resprout_kernels::norm::{Affine, InputCoefficients, Moments, gradient_sums, input_gradient, normalise};

/// The results of a batch normalisation.
pub(crate) struct Normalised {
    /// The output.
    pub output: Tensor<4>,
    /// The means of the batch, `[C]`, without a gradient.
    pub mean: Tensor<1>,
    /// The variances of the batch with divisor `n`, `[C]`, without a gradient.
    pub variance: Tensor<1>,
}

/// Normalises `x: [N, C, H, W]` by the batch's own statistics; ReLU follows if `with_relu`.
pub(crate) fn batch_norm(x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64, with_relu: bool) -> Normalised {
    if !on_cpu(&x) {
        let out = batch_norm_train(x, gamma, beta, epsilon);
        let output = if with_relu { relu(out.output) } else { out.output };
        return Normalised { output, mean: out.mean, variance: out.variance };
    }
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch());
    let (output, mean, variance) = <Dispatch as BatchNorm>::normalisation(x, gamma, beta, epsilon, with_relu);
    Normalised {
        output: Tensor::from_dispatch(output),
        mean: Tensor::from_dispatch(mean),
        variance: Tensor::from_dispatch(variance),
    }
}

#[backend_extension(Flex, Autodiff)]
pub(crate) trait BatchNorm: Backend {
    fn normalisation(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        with_relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl BatchNorm for Flex {
    fn normalisation(
        x: CpuTensor,
        gamma: CpuTensor,
        beta: CpuTensor,
        epsilon: f64,
        with_relu: bool,
    ) -> (CpuTensor, CpuTensor, CpuTensor) {
        let (output, channels) = forward(&contiguous(x), &gamma, &beta, epsilon, with_relu);
        let (mean, variance) = statistics(&channels);
        (output, mean, variance)
    }
}

impl<C: CheckpointStrategy> BatchNorm for Autodiff<Flex, C> {
    fn normalisation(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        with_relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let guards = [x.node(), gamma.node(), beta.node()];
        let x = contiguous(x.into_primitive());
        let (output, channels) = forward(&x, gamma.primitive(), beta.primitive(), epsilon, with_relu);
        let (mean, variance) = statistics(&channels);
        let output = match BatchNormNode.prepare::<C>(guards).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, channels), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        };
        (output, Self::from_inner(mean), Self::from_inner(variance))
    }
}

/// The state of one channel for the backward pass.
#[derive(Clone, Debug)]
struct Channel {
    affine: Affine,
    gamma: f64,
    mean: f64,
    variance: f64,
    /// `1 / sqrt(variance + epsilon)`
    inverse: f64,
}

fn forward(x: &CpuTensor, gamma: &CpuTensor, beta: &CpuTensor, epsilon: f64, relu: bool) -> (CpuTensor, Vec<Channel>) {
    let shape = x.shape().to_vec();
    let (count, plane) = (shape[1], shape[2] * shape[3]);
    let (gamma, beta) = (contiguous(gamma.clone()), contiguous(beta.clone()));
    let (data, isa) = (elements(x), Isa::best());
    let mut out = vec![0.0; data.len()];
    let channels = by_channel_mut(&mut out, count, plane)
        .into_par_iter()
        .enumerate()
        .map(|(c, outs)| {
            let mut moments = Moments::default();
            of_channel(data, count, c, plane).for_each(|plane| moments.add(isa, plane));
            let channel = Channel::new(&moments, elements(&gamma)[c], elements(&beta)[c], epsilon, relu);
            of_channel(data, count, c, plane).zip(outs).for_each(|(x, y)| normalise(isa, x, channel.affine, y));
            channel
        })
        .collect();
    (cpu_tensor(out, shape), channels)
}

impl Channel {
    fn new(moments: &Moments, gamma: f32, beta: f32, epsilon: f64, relu: bool) -> Channel {
        let (mean, variance, gamma) = (moments.mean(), moments.variance(), f64::from(gamma));
        let inverse = 1.0 / (variance + epsilon).sqrt();
        let scale = gamma * inverse;
        let affine = Affine { scale: scale as f32, shift: (f64::from(beta) - mean * scale) as f32, relu };
        Channel { affine, gamma, mean, variance, inverse }
    }
}

fn statistics(channels: &[Channel]) -> (CpuTensor, CpuTensor) {
    let vector = |of: fn(&Channel) -> f64| cpu_tensor(channels.iter().map(|c| of(c) as f32).collect(), [channels.len()]);
    (vector(|channel| channel.mean), vector(|channel| channel.variance))
}

#[derive(Debug)]
struct BatchNormNode;

impl Backward<Flex, 3> for BatchNormNode {
    type State = (CpuTensor, Vec<Channel>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, channels) = ops.state;
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let [dx, dgamma, dbeta] = backward(&x, &channels, &grad);
        for (node, value) in ops.parents.into_iter().zip([dx, dgamma, dbeta]) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, value);
            }
        }
    }
}

/// With `z = (x - mean) * inverse` and `n` values in the channel:
/// `dx = gamma * inverse / n * (n * dy - sum(dy) - z * sum(dy * z))`.
fn backward(x: &CpuTensor, channels: &[Channel], grad: &CpuTensor) -> [CpuTensor; 3] {
    let shape = x.shape().to_vec();
    let (count, plane) = (shape[1], shape[2] * shape[3]);
    let (data, grad, isa) = (elements(x), elements(grad), Isa::best());
    let mut dx = vec![0.0; data.len()];
    let sums: Vec<(f32, f32)> = by_channel_mut(&mut dx, count, plane)
        .into_par_iter()
        .enumerate()
        .map(|(c, outs)| {
            let Channel { affine, gamma, mean, inverse, .. } = channels[c];
            let planes = || of_channel(data, count, c, plane).zip(of_channel(grad, count, c, plane));
            let (mut sum, mut product) = (0.0, 0.0);
            for (x, dy) in planes() {
                let (s, p) = gradient_sums(isa, x, dy, affine, mean as f32);
                (sum, product) = (sum + s, product + p);
            }
            // The kernel subtracts the rounded mean; this corrects for it.
            product += (f64::from(mean as f32) - mean) * sum;
            let (n, factor) = ((shape[0] * plane) as f64, gamma * inverse);
            let slope = factor * product * inverse * inverse / n;
            let coefficients =
                InputCoefficients { a: factor as f32, b: -slope as f32, c: (slope * mean - factor * sum / n) as f32 };
            planes().zip(outs).for_each(|((x, dy), dx)| input_gradient(isa, x, dy, affine, coefficients, dx));
            ((product * inverse) as f32, sum as f32)
        })
        .collect();
    let (dgamma, dbeta) = sums.into_iter().unzip();
    [cpu_tensor(dx, shape), cpu_tensor(dgamma, [count]), cpu_tensor(dbeta, [count])]
}
