//! Which rows of a layer's inputs are used.

use super::inputs::{Inputs, Part, rows_of};
use super::site::WeightSite;
use crate::random::SplitMix64;
use resprout_kernels::gram::PackedRows;

/// Rows of the images, in blocks that are packed at once.
pub struct Sample {
    pub(super) blocks: Vec<Vec<Part>>,
}

impl Sample {
    /// Every row, or about `most` of them: the same number from every image, drawn from `seed`.
    pub fn new(site: &WeightSite, inputs: &Inputs, most: usize, seed: u64) -> Sample {
        let store = site.input_value().store;
        let images: Vec<(usize, usize)> =
            (0..store.chunks()).flat_map(|chunk| (0..store.images(chunk)).map(move |image| (chunk, image))).collect();
        let per_image = most.div_ceil(images.len().max(1)).clamp(1, inputs.positions().max(1));
        let mut blocks: Vec<Vec<Part>> = Vec::new();
        let mut free = 0;
        for (index, &(chunk, image)) in images.iter().enumerate() {
            let mut random = SplitMix64::new(seed, index as u64);
            let mut rest = &draw(inputs.positions(), per_image, &mut random)[..];
            while !rest.is_empty() {
                if free == 0 {
                    blocks.push(Vec::new());
                    free = PackedRows::MOST;
                }
                let (now, later) = rest.split_at(rest.len().min(free));
                if let Some(block) = blocks.last_mut() {
                    block.push(Part { chunk, image, positions: now.to_vec() });
                }
                free -= now.len();
                rest = later;
            }
        }
        Sample { blocks }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.blocks.iter().map(|block| rows_of(block)).sum()
    }
}

/// `count` of `0..all` in ascending order, each with the same probability.
fn draw(all: usize, count: usize, random: &mut SplitMix64) -> Vec<u32> {
    let mut left = count;
    let taken = |&i: &usize| {
        let take = random.next_f64() * (all - i) as f64 <= left as f64 && left > 0;
        left -= usize::from(take);
        take
    };
    (0..all).filter(taken).map(|i| i as u32).collect()
}
