//! The nonzero weights of a convolution, packed for tiles: compressed rows whose entries hold offsets of vectors.

use super::arena::VECTOR_BYTES;
use super::layout::Extent;
use crate::ConvShape;

/// The nonzero weights of one output channel: input channel, tap (counted row by row), value.
#[derive(Clone, Debug, Default)]
pub(super) struct SparseRow(pub Vec<(u32, u32, f32)>);

/// The rows of `weight: [M, C / groups, kh, kw]`.
pub(super) fn sparse_rows(shape: &ConvShape, weight: &[f32]) -> Vec<SparseRow> {
    let taps = (shape.kernel[0] * shape.kernel[1]) as u32;
    let mut indices = vec![0; shape.dot_length()];
    let row = |(m, weights): (usize, &[f32])| {
        let first = (m / shape.group_out() * shape.group_in()) as u32;
        // No branch: a CPU would mispredict where the next nonzero weight is.
        let mut count = 0;
        for (index, weight) in (0..).zip(weights) {
            indices[count] = index;
            count += usize::from(*weight != 0.0);
        }
        let weight = |&index: &u32| (first + index / taps, index % taps, weights[index as usize]);
        SparseRow(indices[..count].iter().map(weight).collect())
    };
    weight.chunks_exact(shape.dot_length().max(1)).enumerate().map(row).collect()
}

/// Entries by block of input channels, then by block of output channels.
#[derive(Default)]
pub(super) struct PackedSparse {
    /// Input channels of a block.
    pub block: usize,
    pub blocks: usize,
    /// Output channels of a block.
    pub channel_block: usize,
    /// Where each part of the blocks of output channels begins, and the end of the last. Blocks are sorted within their part.
    pub parts: Vec<usize>,
    /// `[blocks][M / channel_block + 1]`: the blocks of output channels in the order in which their entries lie; the last one
    /// twice, so that there is one to prefetch after it.
    ///
    /// In each part those with few entries come first. A CPU that has learnt where the entries of one end predicts the end of all
    /// that have as many.
    pub order: Vec<u32>,
    /// `[blocks][M / channel_block + 1]`, in that order.
    pub row_offsets: Vec<u32>,
    /// As [`Work::entries`](super::tile::Work::entries).
    pub entries: Vec<u32>,
}

impl PackedSparse {
    /// Packs the weights for an input of this extent. Offsets count from the tap (0, 0) of the first pixel; the
    /// halo must be wide enough for all taps. Where one channel of a block has a weight, all have one, be it 0.
    pub fn new(
        shape: &ConvShape,
        rows: &[SparseRow],
        input: &Extent,
        block: usize,
        channel_block: usize,
        parts: Vec<usize>,
    ) -> PackedSparse {
        let block = block.clamp(1, shape.in_channels.max(1));
        let blocks = shape.in_channels.div_ceil(block).max(1);
        let offsets = tap_offsets(shape, input);
        let (order, row_offsets, entries) = (Vec::new(), Vec::new(), Vec::new());
        let mut packed = PackedSparse { block, blocks, channel_block, parts, order, row_offsets, entries };
        // Where each row continues: its weights ascend by input channel and tap.
        let mut next = vec![0; rows.len()];
        for index in 0..blocks {
            let end = ((index + 1) * block) as u32;
            let of_block = rows.chunks(channel_block).zip(next.chunks_mut(channel_block)).map(|(rows, next)| {
                let mut entries = Vec::new();
                while let Some((channel, tap)) = first(rows, next).filter(|(channel, _)| *channel < end) {
                    let vector = channel as usize * input.pitch() + offsets[tap as usize];
                    entries.push((vector * VECTOR_BYTES) as u32);
                    for (row, next) in rows.iter().zip(next.iter_mut()) {
                        let own = row.0.get(*next).filter(|(c, t, _)| (*c, *t) == (channel, tap));
                        entries.push(own.map_or(0.0f32, |(_, _, weight)| *weight).to_bits());
                        *next += usize::from(own.is_some());
                    }
                }
                entries
            });
            let of_block: Vec<Vec<u32>> = of_block.collect();
            packed.add(&of_block);
        }
        packed
    }

    /// Adds the entries of all blocks of output channels in a block of input channels.
    fn add(&mut self, of_block: &[Vec<u32>]) {
        let mut order: Vec<usize> = (0..of_block.len()).collect();
        for part in self.parts.windows(2) {
            order[part[0]..part[1]].sort_by_key(|&channel_block| of_block[channel_block].len());
        }
        for &channel_block in &order {
            self.row_offsets.push(self.count());
            self.entries.extend(&of_block[channel_block]);
        }
        self.row_offsets.push(self.count());
        self.order.extend(order.iter().chain(order.last()).map(|&channel_block| channel_block as u32));
    }

    /// The number of entries.
    fn count(&self) -> u32 {
        (self.entries.len() / (1 + self.channel_block)) as u32
    }
}

/// Input channel and tap of the first weight of all rows, each from `next` on.
fn first(rows: &[SparseRow], next: &[usize]) -> Option<(u32, u32)> {
    let heads = rows.iter().zip(next).filter_map(|(row, &next)| row.0.get(next));
    heads.map(|(channel, tap, _)| (*channel, *tap)).min()
}

/// Vectors from the value's first one to each tap of the first pixel.
fn tap_offsets(shape: &ConvShape, input: &Extent) -> Vec<usize> {
    let [height, width] = shape.kernel;
    let at = |tap: usize, axis: usize| (tap * shape.dilation[axis]) as isize - shape.pads[axis] as isize;
    (0..height).flat_map(|y| (0..width).map(move |x| (y, x))).map(|(y, x)| input.vector_of(0, at(y, 0), at(x, 1))).collect()
}
