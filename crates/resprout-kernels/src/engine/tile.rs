//! The innermost loops: one tile of vectors of one output channel after another.

use super::arena::VECTOR_BYTES;
use super::layout::HaloCopy;
use super::moves::copy_halo;
use crate::Activation;
use crate::entries::{add_entries, add_entry};
use crate::simd::Simd;
use std::ops::Range;

/// The most rows of a tile.
pub(super) const MAX_ROWS: usize = 7;

/// Where the rows of a tile lie, in bytes. The tile's kernel fixes how many rows there are and how wide they are.
#[derive(Clone, Debug)]
pub(super) struct OutputTile {
    /// From the input's first vector.
    pub input: [usize; MAX_ROWS],
    /// From the first vector of the output's channel.
    pub output: [usize; MAX_ROWS],
    /// From the first vector of the summand's channel.
    pub added: [usize; MAX_ROWS],
    /// Vectors to prefetch for the next block of output channels, if a block has several channels. The offsets, in the output
    /// and in the summand, count from the first vector of the block's first channel.
    pub ahead: Vec<[usize; 2]>,
    /// Vectors of the output's halo that hold lanes of this tile, and vectors of the tile with lanes outside of the image.
    pub halo_copies: Vec<HaloCopy>,
}

/// What a call of a [`TileKernel`] works on. Addresses and pitches are bytes.
///
/// # Validity
/// A work is *valid* for blocks of `B` output channels and `R` rows of `W` vectors at a step of `S` if:
/// * `tile` has `R` rows of `W` vectors, and belongs to a convolution whose input moves by `S` vectors per output vector.
/// * `input`, `output` and, unless null, `added` begin the values for which `tile` was made, with all their channels.
/// * `output_pitch` and `added_pitch` are the distances between the channels of these values.
/// * `order`, `row_offsets` and `entries` are one block of input channels of a packed weight, packed for that input and `B`.
/// * `bias` has a number for each output channel.
/// * `channel_blocks` lies within the blocks of output channels, of which `order` has one more.
/// * Nobody else writes what is read. Nobody else reads or writes the tile and its halo in the output channels of
///   `channel_blocks`.
pub(super) struct Work<'a> {
    pub tile: &'a OutputTile,
    pub input: *const u8,
    pub output: *mut u8,
    pub output_pitch: usize,
    /// The summand, or null.
    pub added: *const u8,
    pub added_pitch: usize,
    /// The blocks of output channels in the order in which their entries lie; the last one twice.
    pub order: &'a [u32],
    /// Where the entries of each block begin, and the end of the last.
    pub row_offsets: &'a [u32],
    /// Entries of `1 + B` words: the offset of the input vector from the tile's, in bytes, and a weight for each output channel
    /// of the block.
    pub entries: &'a [u32],
    pub bias: &'a [f32],
    /// Which blocks are computed, by their place in `order`.
    pub channel_blocks: Range<usize>,
    /// Whether this is the first block of input channels, where sums begin with bias and summand.
    pub first: bool,
    /// Whether this is the last block of input channels, where the activation follows.
    pub last: bool,
    pub activation: Activation,
}

impl Work<'_> {
    /// Whether sums begin with vectors of a summand that the output does not overwrite.
    #[inline(always)]
    fn has_separate_summand(&self) -> bool {
        self.first && !self.added.is_null() && !std::ptr::addr_eq(self.added, self.output)
    }
}

/// Sums of a tile of one output channel: `R` rows of `W` vectors.
type Accumulators<V, const R: usize, const W: usize> = [[V; W]; R];

/// What the sums of an output channel begin with in this block of input channels.
///
/// # Safety
/// The CPU must have the instructions of `I`. `work` must be [valid](Work#validity) for `R` and `W`, and `channel` an output channel of
/// its `channel_blocks`.
#[inline(always)]
unsafe fn load_accumulators<I: Simd, const R: usize, const W: usize>(
    work: &Work,
    channel: usize,
) -> Accumulators<I::Vector, R, W> {
    // SAFETY: the caller vouches for the values of `work`, in which all addresses lie, and for the channel's bias.
    unsafe {
        let out = work.output.add(channel * work.output_pitch);
        if !work.first {
            return vectors::<I, R, W>(out, &work.tile.output);
        }
        let bias = I::splat(*work.bias.get_unchecked(channel));
        if work.added.is_null() {
            return [[bias; W]; R];
        }
        let mut accumulators = vectors::<I, R, W>(work.added.add(channel * work.added_pitch), &work.tile.added);
        for r in 0..R {
            for x in 0..W {
                accumulators[r][x] = I::add(bias, accumulators[r][x]);
            }
        }
        accumulators
    }
}

/// The vectors of a tile in a channel.
///
/// # Safety
/// The CPU must have the instructions of `I`. `channel` must begin a channel that has `W` readable, aligned vectors from each of the
/// first `R` offsets of `rows` on.
#[inline(always)]
unsafe fn vectors<I: Simd, const R: usize, const W: usize>(
    channel: *const u8,
    rows: &[usize; MAX_ROWS],
) -> Accumulators<I::Vector, R, W> {
    // SAFETY: the caller vouches for the vectors and the instructions.
    unsafe {
        let mut vectors = [[I::splat(0.0); W]; R];
        for r in 0..R {
            for x in 0..W {
                vectors[r][x] = I::load(channel.add(rows[r] + x * VECTOR_BYTES));
            }
        }
        vectors
    }
}

/// Prefetches what the sums of an output channel will begin with. Channels lie too far apart for a hardware prefetcher.
///
/// # Safety
/// The CPU must have the instructions of `I`.
#[inline(always)]
unsafe fn prefetch<I: Simd, const R: usize, const W: usize>(work: &Work, channel: usize) {
    let out = work.output.wrapping_add(channel * work.output_pitch);
    let added = work.added.wrapping_add(channel * work.added_pitch);
    let apart = work.has_separate_summand();
    for r in 0..R {
        for x in 0..W {
            // SAFETY: a prefetch takes any address, and the caller vouches for the instructions.
            unsafe {
                I::prefetch(out.wrapping_add(work.tile.output[r] + x * VECTOR_BYTES));
                if apart {
                    I::prefetch(added.wrapping_add(work.tile.added[r] + x * VECTOR_BYTES));
                }
            }
        }
    }
}

/// Writes the sums of an output channel. After the last block of input channels it applies the activation and fills the halo.
///
/// # Safety
/// The CPU must have the instructions of `I`. `work` must be [valid](Work#validity) for `R` and `W`, and `channel` an output channel of
/// its `channel_blocks`.
#[inline(always)]
unsafe fn store_accumulators<I: Simd, const R: usize, const W: usize>(
    work: &Work,
    channel: usize,
    accumulators: &Accumulators<I::Vector, R, W>,
) {
    let (low, high) = match work.activation {
        Activation::Clamp { low, high } => (low, high),
        Activation::None => (f32::NEG_INFINITY, f32::INFINITY),
    };
    let clamps = work.last && work.activation != Activation::None;
    // SAFETY: the caller vouches for the output of `work`, in which all addresses lie.
    unsafe {
        let (low, high) = (I::splat(low), I::splat(high));
        let out = work.output.add(channel * work.output_pitch);
        for r in 0..R {
            for x in 0..W {
                let sum = if clamps { I::clamp(accumulators[r][x], low, high) } else { accumulators[r][x] };
                I::store(out.add(work.tile.output[r] + x * VECTOR_BYTES), sum);
            }
        }
        if work.last {
            copy_halo::<I>(&work.tile.halo_copies, out, out);
        }
    }
}

/// The block of output channels at a place in the order.
///
/// # Safety
/// `place` must be less than the length of `work.order`.
#[inline(always)]
unsafe fn block_at(work: &Work, place: usize) -> usize {
    // SAFETY: the caller vouches for the place.
    unsafe { *work.order.get_unchecked(place) as usize }
}

/// The entries of the block of `B` output channels there.
///
/// # Safety
/// `place + 1` must be less than the length of `work.row_offsets`. These must ascend and count entries of `1 + B` words, all of which
/// lie in `work.entries`.
#[inline(always)]
unsafe fn entries<'a, const B: usize>(work: &Work<'a>, place: usize) -> &'a [u32] {
    // SAFETY: the caller vouches for the offsets.
    unsafe {
        let range = *work.row_offsets.get_unchecked(place) as usize..*work.row_offsets.get_unchecked(place + 1) as usize;
        work.entries.get_unchecked(range.start * (1 + B)..range.end * (1 + B))
    }
}

/// Where the rows of the tile begin in the input.
///
/// # Safety
/// `work.input` must begin the value for which `work.tile` was made, and the tile must have `R` rows.
#[inline(always)]
unsafe fn rows<const R: usize>(work: &Work) -> [*const u8; R] {
    // SAFETY: the caller vouches for the rows.
    std::array::from_fn(|r| unsafe { work.input.add(work.tile.input[r]) })
}

/// Computes a tile of `R` rows of `W` vectors in blocks of `B` output channels. Its input moves by `S` vectors per output vector.
///
/// # Safety
/// The CPU must have the instructions of `I`. `work` must be [valid](Work#validity) for `B`, `R`, `W` and `S`.
#[inline(always)]
pub(super) unsafe fn run<I: Simd, const B: usize, const R: usize, const W: usize, const S: usize>(work: &Work) {
    // SAFETY: the caller's contract is the same, and these are the blocks of `work`.
    unsafe { run_blocks::<I, B, R, W, S>(work, work.channel_blocks.clone()) }
}

/// The same for some of the blocks of output channels.
///
/// # Safety
/// The CPU must have the instructions of `I`. `work` must be [valid](Work#validity) for `B`, `R`, `W` and `S`. `channel_blocks` must lie within
/// those of `work`.
#[inline(always)]
unsafe fn run_blocks<I: Simd, const B: usize, const R: usize, const W: usize, const S: usize>(
    work: &Work,
    channel_blocks: Range<usize>,
) {
    // SAFETY: the caller vouches for `work`. `order` and `row_offsets` have one element more than there are blocks.
    unsafe {
        let rows: [*const u8; R] = rows(work);
        for place in channel_blocks {
            let (channel_block, next) = (block_at(work, place), block_at(work, place + 1));
            let mut accumulators = [[[I::splat(0.0); W]; R]; B];
            for g in 0..B {
                accumulators[g] = load_accumulators::<I, R, W>(work, channel_block * B + g);
            }
            let mut entries = entries::<B>(work, place);
            if B == 1 {
                prefetch::<I, R, W>(work, next);
            } else {
                // There are many vectors to prefetch: they alternate with entries.
                let out = work.output.wrapping_add(next * B * work.output_pitch);
                let added = work.added.wrapping_add(next * B * work.added_pitch);
                let apart = work.has_separate_summand();
                for &[vector, other] in &work.tile.ahead {
                    I::prefetch(out.wrapping_add(vector));
                    if apart {
                        I::prefetch(added.wrapping_add(other));
                    }
                    if let Some((entry, rest)) = entries.split_at_checked(1 + B) {
                        entries = rest;
                        add_entry::<I, B, R, W>(entry, &rows, S * VECTOR_BYTES, &mut accumulators);
                    }
                }
            }
            add_entries::<I, B, R, W>(entries, &rows, S * VECTOR_BYTES, &mut accumulators);
            for g in 0..B {
                store_accumulators::<I, R, W>(work, channel_block * B + g, &accumulators[g]);
            }
        }
    }
}

/// The same as [`run`] for blocks of one: it interleaves `P` output channels, each with its own entries. Every addition to a sum
/// waits for the one before, so the few sums of one channel leave the arithmetic idle.
///
/// # Safety
/// The CPU must have the instructions of `I`. `work` must be [valid](Work#validity) for blocks of one, `R`, `W` and `S`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn run_interleaved<I: Simd, const P: usize, const R: usize, const W: usize, const S: usize>(work: &Work) {
    // SAFETY: the caller vouches for `work`; places stay within its blocks, and `shared` within the entries of every channel.
    unsafe {
        let rows: [*const u8; R] = rows(work);
        let mut place = work.channel_blocks.start;
        while place + P <= work.channel_blocks.end {
            let channels: [usize; P] = std::array::from_fn(|p| block_at(work, place + p));
            let mut accumulators = [[[[I::splat(0.0); W]; R]; 1]; P];
            let mut own = [[].as_slice(); P];
            let mut shared = usize::MAX;
            for p in 0..P {
                accumulators[p] = [load_accumulators::<I, R, W>(work, channels[p])];
                own[p] = entries::<1>(work, place + p);
                shared = shared.min(own[p].len());
            }
            for p in 0..P {
                prefetch::<I, R, W>(work, block_at(work, (place + P + p).min(work.order.len() - 1)));
            }
            for at in (0..shared).step_by(2) {
                for p in 0..P {
                    add_entry::<I, 1, R, W>(own[p].get_unchecked(at..at + 2), &rows, S * VECTOR_BYTES, &mut accumulators[p]);
                }
            }
            for p in 0..P {
                add_entries::<I, 1, R, W>(own[p].get_unchecked(shared..), &rows, S * VECTOR_BYTES, &mut accumulators[p]);
                store_accumulators::<I, R, W>(work, channels[p], &accumulators[p][0]);
            }
            place += P;
        }
        run_blocks::<I, 1, R, W, S>(work, place..work.channel_blocks.end);
    }
}

/// A kernel for one shape of tile.
///
/// # Safety
/// The CPU must have the instructions of the instruction set for which the kernel was found. The work must be
/// [valid](Work#validity) for the shape for which it was found.
pub(super) type TileKernel = unsafe fn(&Work);
