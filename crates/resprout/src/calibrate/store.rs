//! All images at the same layer of one network.

use super::stats::{ChannelStats, ChannelView, PairStats, PairSums, Sums};
use crate::error::{Error, Result};
use crate::forward::{Plan, Slots, Step};
use crate::ops::Compute;
use crate::tensor::Tensor;
use rayon::prelude::*;
use resprout_kernels::Isa;
use std::collections::HashSet;

/// The values of all calibration images at the same layer. It holds the values that are alive there, for every image.
#[doc(hidden)]
pub struct ActivationStore {
    chunks: Vec<Chunk>,
    isa: Isa,
}

struct Chunk {
    slots: Slots,
    /// Images in this chunk; the last chunk may be padded with zeros.
    images: usize,
}

impl ActivationStore {
    /// Puts `images: [N, C, H, W]` at the input of `plan`.
    pub fn new(plan: &Plan, images: &Tensor) -> Result<ActivationStore> {
        let shape = &plan.input_shape;
        if images.shape.get(1..) != shape.get(1..) || images.is_empty() {
            return Err(Error::data(format!("calibration images of shape {:?}, prepared for {shape:?}", images.shape)));
        }
        let image_len: usize = shape[1..].iter().product();
        if let Some(at) = images.data.iter().position(|value| !value.is_finite()) {
            return Err(Error::data(format!("calibration image {} holds {}", at / image_len, images.data[at])));
        }
        let chunk = |part: &[f32]| {
            let mut data = part.to_vec();
            data.resize(shape[0] * image_len, 0.0);
            let mut slots = Slots::default();
            plan.start(&mut slots, Tensor::new(shape.clone(), data));
            Chunk { slots, images: part.len() / image_len }
        };
        let chunks = images.data.par_chunks(shape[0] * image_len).map(chunk).collect();
        Ok(ActivationStore { chunks, isa: Isa::best() })
    }

    /// Computes one step for every image.
    pub fn run(&mut self, step: &Step) {
        self.run_each(step, |_| &step.compute);
    }

    /// Computes one step, with a computation of its own for every chunk.
    pub fn run_each<'a>(&mut self, step: &Step, compute: impl Fn(usize) -> &'a Compute + Sync) {
        self.each(|i, slots, isa, spread| {
            step.run(compute(i), slots, isa, spread);
            // With all images at one layer, memory is scarcer than the time to allocate it again.
            slots.free_spare();
        });
    }

    /// Computes one step and releases its operands, but those in `kept`.
    pub(super) fn run_caching(&mut self, step: &Step, kept: &HashSet<usize>) {
        self.each(|_, slots, isa, spread| {
            step.run_keeping(&step.compute, slots, isa, spread);
            step.release_but(kept, slots);
            slots.free_spare();
        });
    }

    /// Whether its images begin with these, in the same chunks. The input must be alive.
    pub(super) fn begins_with(&self, images: &Tensor) -> bool {
        let count = images.shape[0];
        let all: usize = (0..self.chunks()).map(|chunk| self.images(chunk)).sum();
        let whole = count == all || count < all && count.is_multiple_of(self.batch());
        let chunk_len = self.value(0, 0).len();
        whole && images.data.chunks(chunk_len).enumerate().all(|(chunk, part)| self.value(chunk, 0).data.starts_with(part))
    }

    /// Computes one step and keeps its operands for another run. [`release`](Self::release) must follow.
    pub fn run_keeping(&mut self, step: &Step, compute: &Compute) {
        self.each(|_, slots, isa, spread| step.run_keeping(compute, slots, isa, spread));
    }

    /// Releases the operands that a step has kept.
    pub fn release(&mut self, step: &Step) {
        self.each(|_, slots, _, _| {
            step.release(slots);
            slots.free_spare();
        });
    }

    fn each(&mut self, work: impl Fn(usize, &mut Slots, Isa, bool) + Sync) {
        let spread = self.chunks.len() < rayon::current_num_threads();
        let isa = self.isa;
        self.chunks.par_iter_mut().enumerate().for_each(|(i, chunk)| work(i, &mut chunk.slots, isa, spread));
    }

    /// The number of chunks.
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The number of images in a chunk.
    pub fn images(&self, chunk: usize) -> usize {
        self.chunks[chunk].images
    }

    /// A value in one chunk.
    pub fn value(&self, chunk: usize, slot: usize) -> &Tensor {
        self.chunks[chunk].slots.get(slot)
    }

    /// The elements of a value that belong to images, not to the padding of the last chunk.
    fn real(&self, chunk: usize, slot: usize) -> (&[f32], &[usize]) {
        let value = self.value(chunk, slot);
        (&value.data[..value.len() / self.batch() * self.images(chunk)], &value.shape)
    }

    /// Images in a full chunk.
    pub fn batch(&self) -> usize {
        self.chunks.first().map_or(1, |chunk| chunk.slots.batch()).max(1)
    }

    /// Statistics of the value in `slot` per chunk; `last` where the channels are the last axis.
    pub fn chunk_stats(&self, slot: usize, last: bool) -> Vec<ChannelStats> {
        self.chunk_sums(slot, last).iter().map(Sums::stats).collect()
    }

    /// Statistics over all images. Sums are added in the order of the images, so threads change no bit.
    pub fn stats(&self, slot: usize, last: bool) -> ChannelStats {
        self.chunk_sums(slot, last).iter().fold(Sums::default(), Sums::add).stats()
    }

    /// Statistics over the first `counts` images, in ascending order. Counts are rounded up to whole chunks.
    pub fn stats_of_first(&self, slot: usize, last: bool, counts: &[usize]) -> Vec<ChannelStats> {
        let sums = self.chunk_sums(slot, last);
        let (mut all, mut done) = (Sums::default(), 0);
        let mut up_to = |count: usize| {
            let end = count.div_ceil(self.batch()).min(sums.len());
            all = sums[done..end].iter().fold(std::mem::take(&mut all), Sums::add);
            done = end;
            all.stats()
        };
        counts.iter().map(|&count| up_to(count)).collect()
    }

    fn chunk_sums(&self, slot: usize, last: bool) -> Vec<Sums> {
        let sums = |chunk: usize| {
            let (values, shape) = self.real(chunk, slot);
            Sums::of(values, ChannelView::new(shape, last))
        };
        (0..self.chunks()).into_par_iter().map(sums).collect()
    }

    /// Statistics of a value here and of one in the dense network's store, in up to `groups` groups of images, in order.
    pub fn pair_stats(
        &self,
        slot: usize,
        dense: &ActivationStore,
        dense_slot: usize,
        last: bool,
        groups: usize,
    ) -> Vec<PairStats> {
        let sums = |chunk: usize| {
            let ((sparse, shape), (dense, _)) = (self.real(chunk, slot), dense.real(chunk, dense_slot));
            PairSums::of(dense, sparse, ChannelView::new(shape, last))
        };
        let sums: Vec<PairSums> = (0..self.chunks()).into_par_iter().map(sums).collect();
        let size = sums.len().div_ceil(groups.max(1)).max(1);
        sums.chunks(size).map(|group| group.iter().fold(PairSums::default(), PairSums::add).stats()).collect()
    }
}
