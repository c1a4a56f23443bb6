//! Calibration: all images go through the network layer by layer, so that a layer can be changed
//! after its inputs were measured and before its outputs are computed.

use crate::error::{Error, Result};
use crate::forward::{Plan, Slots, Step};
use crate::ops::Compute;
use crate::tensor::Tensor;
use rayon::prelude::*;
use resprout_kernels::Kernel;

/// Mean and variance of every channel of a value, over images and positions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelStats {
    /// Number of elements per channel.
    pub count: u64,
    /// `[C]`
    pub mean: Vec<f64>,
    /// `[C]`, divided by `count` (not `count - 1`).
    pub var: Vec<f64>,
}

/// All calibration images, all at the same layer. Memory: the values alive there, for every image.
pub struct Sweep {
    chunks: Vec<Chunk>,
    kernel: Kernel,
}

struct Chunk {
    slots: Slots,
    /// Images in this chunk; the last one may be filled up with zeros.
    images: usize,
}

impl Sweep {
    /// Puts `images: [N, C, H, W]` at the entrance of `plan`.
    pub fn new(plan: &Plan, images: &Tensor) -> Result<Sweep> {
        let shape = &plan.input_shape;
        if images.shape.get(1..) != shape.get(1..) || images.is_empty() {
            return Err(Error::data(format!("calibration images of shape {:?}, prepared for {shape:?}", images.shape)));
        }
        let image_len: usize = shape[1..].iter().product();
        let chunk = |part: &[f32]| {
            let mut data = part.to_vec();
            data.resize(shape[0] * image_len, 0.0);
            let mut slots = Slots::default();
            plan.start(&mut slots, Tensor::new(shape.clone(), data));
            Chunk { slots, images: part.len() / image_len }
        };
        let chunks = images.data.par_chunks(shape[0] * image_len).map(chunk).collect();
        Ok(Sweep { chunks, kernel: Kernel::best() })
    }

    /// Computes one step for every image.
    pub fn run(&mut self, step: &Step) {
        self.run_each(step, |_| &step.compute);
    }

    /// Computes one step, with a computation of its own for every chunk.
    pub fn run_each<'a>(&mut self, step: &Step, compute: impl Fn(usize) -> &'a Compute + Sync) {
        let spread = self.chunks.len() < rayon::current_num_threads();
        let kernel = self.kernel;
        self.chunks.par_iter_mut().enumerate().for_each(|(i, chunk)| {
            step.run(compute(i), &mut chunk.slots, kernel, spread);
            // With all images at one layer, memory is scarcer than the time to ask for it again.
            chunk.slots.free_spare();
        });
    }

    /// Statistics of the value in `slot`, `[N, C, ...]`, per chunk.
    pub fn chunk_stats(&self, slot: usize) -> Vec<ChannelStats> {
        self.chunks.par_iter().map(|chunk| channel_sums(chunk.slots.get(slot), chunk.images).stats()).collect()
    }

    /// Statistics over all images. Sums are added in the order of the images, so the result does not
    /// depend on the number of threads.
    pub fn stats(&self, slot: usize) -> ChannelStats {
        let sums: Vec<Sums> = self.chunks.par_iter().map(|chunk| channel_sums(chunk.slots.get(slot), chunk.images)).collect();
        let mut sums = sums.into_iter();
        let first = sums.next().unwrap_or_default();
        sums.fold(first, Sums::add).stats()
    }
}

/// Per channel: sum and sum of squares.
#[derive(Default)]
struct Sums {
    count: u64,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

impl Sums {
    fn add(mut self, other: Sums) -> Sums {
        self.count += other.count;
        self.sum.iter_mut().zip(other.sum).for_each(|(a, b)| *a += b);
        self.squares.iter_mut().zip(other.squares).for_each(|(a, b)| *a += b);
        self
    }

    fn stats(self) -> ChannelStats {
        let count = self.count.max(1) as f64;
        let mean: Vec<f64> = self.sum.iter().map(|sum| sum / count).collect();
        // Squares of f32 are exact in f64; a constant channel may still come out a hair below zero.
        let var = self.squares.iter().zip(&mean).map(|(squares, mean)| (squares / count - mean * mean).max(0.0)).collect();
        ChannelStats { count: self.count, mean, var }
    }
}

fn channel_sums(value: &Tensor, images: usize) -> Sums {
    let channels = value.shape.get(1).copied().unwrap_or(1).max(1);
    let plane: usize = value.shape.iter().skip(2).product();
    let mut sums = Sums { count: (images * plane) as u64, sum: vec![0.0; channels], squares: vec![0.0; channels] };
    for image in value.data.chunks_exact((channels * plane).max(1)).take(images) {
        for (c, values) in image.chunks_exact(plane.max(1)).enumerate() {
            let (sum, squares) = lane_sums(values);
            sums.sum[c] += sum;
            sums.squares[c] += squares;
        }
    }
    sums
}

/// Eight interleaved sums, so that the additions need not wait for each other.
fn lane_sums(values: &[f32]) -> (f64, f64) {
    let (mut sums, mut squares) = ([0.0f64; 8], [0.0f64; 8]);
    let (blocks, rest) = values.as_chunks::<8>();
    for block in blocks {
        for lane in 0..8 {
            let value = f64::from(block[lane]);
            sums[lane] += value;
            squares[lane] += value * value;
        }
    }
    for &value in rest {
        let value = f64::from(value);
        sums[0] += value;
        squares[0] += value * value;
    }
    (sums.iter().sum(), squares.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_where_f32_would_lose_everything() {
        // Mean 4096, variance 1: an f32 sum of squares would have an error larger than the variance.
        let data: Vec<f32> = (0..2 * 1000).map(|i| if i % 2 == 0 { 4097.0 } else { 4095.0 }).collect();
        let stats = channel_sums(&Tensor::new(vec![2, 1, 10, 100], data), 2).stats();
        assert_eq!((stats.count, stats.mean[0], stats.var[0]), (2000, 4096.0, 1.0));
    }

    #[test]
    fn images_behind_the_last_do_not_count() {
        let data = vec![1.0, 3.0, 100.0, 100.0];
        let stats = channel_sums(&Tensor::new(vec![2, 2, 1, 1], data), 1).stats();
        assert_eq!((stats.count, stats.mean, stats.var), (1, vec![1.0, 3.0], vec![0.0, 0.0]));
    }
}
