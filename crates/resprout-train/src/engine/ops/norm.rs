//! Batch normalisation, and the ReLU behind it.

use crate::engine::layout::Layout;
use rayon::prelude::*;
use resprout_kernels::Isa;
use resprout_kernels::norm::{Affine, InputCoefficients, Moments, gradient_sums, input_gradient, normalise};

/// What the backward pass has to know of one channel.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Channel {
    affine: Affine,
    gamma: f64,
    pub mean: f64,
    /// With divisor `n`.
    pub variance: f64,
    /// `1 / sqrt(variance + epsilon)`
    inverse: f64,
    /// Whether mean and variance come from the batch, and change with it.
    of_batch: bool,
}

/// What is normalised, and by what.
pub(in crate::engine) struct Norm<'a> {
    pub layout: Layout,
    pub channels: usize,
    /// Pixels of a channel.
    pub pixels: usize,
    pub gamma: &'a [f32],
    pub beta: &'a [f32],
    /// Means and variances, if not the batch's.
    pub running: Option<[&'a [f32]; 2]>,
    pub epsilon: f64,
    pub relu: bool,
    /// What beta and running means are multiplied by.
    pub shift: f32,
}

/// `data: [N, C, plane]` as `C` lists of `N` planes.
fn by_channel_mut(data: &mut [f32], channels: usize, plane: usize) -> Vec<Vec<&mut [f32]>> {
    let mut lists: Vec<Vec<&mut [f32]>> = (0..channels).map(|_| Vec::new()).collect();
    data.chunks_exact_mut(plane).enumerate().for_each(|(i, plane)| lists[i % channels].push(plane));
    lists
}

/// The planes of one channel of `data: [N, C, plane]`.
fn of_channel(data: &[f32], channels: usize, channel: usize, plane: usize) -> impl Iterator<Item = &[f32]> {
    data.chunks_exact(plane).skip(channel).step_by(channels)
}

impl Norm<'_> {
    fn plane(&self) -> usize {
        self.pixels * self.layout.lanes
    }

    pub fn forward(&self, x: &[f32], out: &mut [f32]) -> Vec<Channel> {
        let isa = Isa::best();
        let lists = by_channel_mut(out, self.channels, self.plane());
        let channel = |(c, outs): (usize, Vec<&mut [f32]>)| {
            let channel = self.channel(isa, x, c);
            of_channel(x, self.channels, c, self.plane()).zip(outs).for_each(|(x, y)| normalise(isa, x, channel.affine, y));
            channel
        };
        lists.into_par_iter().enumerate().map(channel).collect()
    }

    fn channel(&self, isa: Isa, x: &[f32], c: usize) -> Channel {
        let (mean, variance) = match self.running {
            Some([means, variances]) => (f64::from(means[c] * self.shift), f64::from(variances[c])),
            None => self.moments(isa, x, c),
        };
        let gamma = f64::from(self.gamma[c]);
        let inverse = 1.0 / (variance + self.epsilon).sqrt();
        let scale = gamma * inverse;
        let beta = f64::from(self.beta[c] * self.shift);
        let affine = Affine { scale: scale as f32, shift: (beta - mean * scale) as f32, relu: self.relu };
        Channel { affine, gamma, mean, variance, inverse, of_batch: self.running.is_none() }
    }

    /// Mean and variance of a channel over all images.
    fn moments(&self, isa: Isa, x: &[f32], c: usize) -> (f64, f64) {
        let mut moments = Moments::default();
        let (lanes, last) = (self.layout.lanes, self.layout.last_lanes());
        let mut planes: Vec<&[f32]> = of_channel(x, self.channels, c, self.plane()).collect();
        // Lanes without an image do not count.
        let partial = (last < lanes).then(|| planes.pop()).flatten();
        planes.iter().for_each(|plane| moments.add(isa, plane));
        if let Some(plane) = partial {
            let own: Vec<f32> = plane.chunks_exact(lanes).flat_map(|vector| &vector[..last]).copied().collect();
            moments.add(isa, &own);
        }
        (moments.mean(), moments.variance())
    }

    /// The gradients of input, gamma and beta. With `z = (x - mean) * inverse` and `n` values in the channel:
    /// `dx = gamma * inverse / n * (n * dy - sum(dy) - z * sum(dy * z))`, of which fixed statistics leave the first summand.
    pub fn backward(&self, channels: &[Channel], x: &[f32], grad: &[f32], dx: &mut [f32]) -> [Vec<f32>; 2] {
        let isa = Isa::best();
        let count = (self.layout.images * self.pixels) as f64;
        let channel = |(c, outs): (usize, Vec<&mut [f32]>)| {
            let Channel { affine, gamma, mean, inverse, of_batch, .. } = channels[c];
            let planes = || of_channel(x, self.channels, c, self.plane()).zip(of_channel(grad, self.channels, c, self.plane()));
            let factor = gamma * inverse;
            let fixed = InputCoefficients { a: factor as f32, b: 0.0, c: 0.0 };
            let (mut sum, mut product) = (0.0, 0.0);
            let mut outs = outs.into_iter();
            for (x, dy) in planes() {
                let (s, p) = gradient_sums(isa, x, dy, affine, mean as f32);
                (sum, product) = (sum + s, product + p);
                // Fixed statistics do not wait for the sums, and the plane is in the cache.
                if !of_batch && let Some(dx) = outs.next() {
                    input_gradient(isa, x, dy, affine, fixed, dx);
                }
            }
            // The kernel subtracts the rounded mean.
            product += (f64::from(mean as f32) - mean) * sum;
            let slope = factor * product * inverse * inverse / count;
            let moving =
                InputCoefficients { a: factor as f32, b: -slope as f32, c: (slope * mean - factor * sum / count) as f32 };
            // Of fixed statistics none is left.
            planes().zip(outs).for_each(|((x, dy), dx)| input_gradient(isa, x, dy, affine, moving, dx));
            ((product * inverse) as f32, sum as f32 * self.shift)
        };
        let sums: Vec<(f32, f32)> =
            by_channel_mut(dx, self.channels, self.plane()).into_par_iter().enumerate().map(channel).collect();
        self.layout.clear_empty(dx, self.channels * self.pixels);
        let (dgamma, dbeta) = sums.into_iter().unzip();
        [dgamma, dbeta]
    }
}
