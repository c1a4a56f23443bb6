//! The micro-kernels: sums of a tile of vectors over a list of weights.

use super::pass::VECTOR_BYTES;
use crate::Isa;
use crate::entries::add_entries;
use crate::isa::Level;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Portable, Simd};

/// A tile of one pass in one block of source channels. Distances are in bytes.
pub(super) struct TileWork<'a> {
    /// The first vector of the first window, in the first source channel.
    pub source: *const u8,
    /// From one row of windows to the next.
    pub source_row: usize,
    /// From one window of a row to the next.
    pub source_step: usize,
    /// The first target vector, in the first target channel.
    pub target: *mut u8,
    pub target_channel: usize,
    pub target_row: usize,
    pub target_step: usize,
    /// Where the entries of each group of target channels begin, and the end of the last.
    pub row_offsets: &'a [u32],
    /// Offset of a source vector, then the bits of a weight for each target channel of a group.
    pub entries: &'a [u32],
    /// Target channels.
    pub channels: usize,
    /// One for each target channel, or none.
    pub bias: &'a [f32],
    /// Whether this is the first block, in which sums begin with the bias.
    pub first: bool,
}

/// A kernel for one shape of tile.
///
/// # Safety
/// The CPU must have the instructions of the [`Isa`] that the kernel was found for. Every entry's offset from every window of the
/// tile must be a whole, aligned vector that may be read; every vector of the tile in every target channel one that nobody else
/// reads or writes. `row_offsets` must ascend and end within `entries`; the channels must be a multiple of those of a group.
pub(super) type Run = unsafe fn(&TileWork);

/// `G` target channels at once, `R` rows of `W` windows, `S` source vectors from one window to the next (0: as the work says).
///
/// # Safety
/// As for [`Run`].
#[inline(always)]
unsafe fn run<I: Simd, const G: usize, const R: usize, const W: usize, const S: usize>(work: &TileWork) {
    let step = if S == 0 { work.source_step } else { S * VECTOR_BYTES };
    let rows: [*const u8; R] = std::array::from_fn(|r| work.source.wrapping_add(r * work.source_row));
    for group in 0..work.channels / G {
        // SAFETY: the caller vouches for all vectors of source and target that entries and tile name.
        unsafe {
            let target = |g: usize, r: usize, x: usize| {
                let channel = (group * G + g) * work.target_channel;
                work.target.add(channel + r * work.target_row + x * work.target_step)
            };
            let mut sums = [[[I::splat(0.0); W]; R]; G];
            for g in 0..G {
                let bias = I::splat(work.bias.get(group * G + g).copied().unwrap_or(0.0));
                for r in 0..R {
                    for x in 0..W {
                        sums[g][r][x] = if work.first { bias } else { I::load(target(g, r, x)) };
                    }
                }
            }
            let range = work.row_offsets[group] as usize * (1 + G)..work.row_offsets[group + 1] as usize * (1 + G);
            add_entries::<I, G, R, W>(&work.entries[range], &rows, step, &mut sums);
            for g in 0..G {
                for r in 0..R {
                    for x in 0..W {
                        I::store(target(g, r, x), sums[g][r][x]);
                    }
                }
            }
        }
    }
}

macro_rules! finder {
    ($name:ident, $isa:ty, $(#[$feature:meta])?; $($g:literal: $(($r:literal, $w:literal))*;)*) => {
        fn $name(channel_block: usize, size: [usize; 2], step: usize) -> Option<Run> {
            /// # Safety
            /// As for [`Run`].
            $(#[$feature])?
            unsafe fn one<const G: usize, const R: usize, const W: usize, const S: usize>(work: &TileWork) {
                // SAFETY: passed on to the caller.
                unsafe { run::<$isa, G, R, W, S>(work) }
            }
            match (channel_block, size, step) {
                $($(
                    ($g, [$r, $w], 1) => Some(one::<$g, $r, $w, 1> as Run),
                    ($g, [$r, $w], 2) => Some(one::<$g, $r, $w, 2> as Run),
                    ($g, [$r, $w], _) => Some(one::<$g, $r, $w, 0> as Run),
                )*)*
                _ => None,
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
finder! {
    avx512, Avx512, #[target_feature(enable = "avx512f")];
    1: (1, 1) (1, 2) (1, 3) (1, 4) (1, 5) (1, 6) (1, 7) (1, 8) (2, 1) (2, 2) (2, 3) (2, 4) (2, 5) (2, 6) (2, 7) (2, 8)
       (4, 1) (4, 2) (4, 3) (4, 4);
    2: (1, 1) (1, 2) (1, 3) (1, 4) (1, 5) (1, 6) (1, 7) (1, 8) (2, 1) (2, 2) (2, 3) (2, 4) (4, 1) (4, 2);
    4: (1, 1) (1, 2) (1, 3) (1, 4) (2, 1) (2, 2) (4, 1);
}
#[cfg(target_arch = "x86_64")]
finder! {
    avx2, Avx2, #[target_feature(enable = "avx2,fma")];
    1: (1, 1) (1, 2) (1, 3) (1, 4) (1, 5) (1, 6) (2, 1) (2, 2) (2, 3) (4, 1);
    2: (1, 1) (1, 2) (1, 3) (2, 1);
    4: (1, 1);
}
finder! {
    portable, Portable,;
    1: (1, 1) (1, 2) (1, 3) (1, 4) (1, 5) (1, 6) (2, 1) (2, 2) (2, 3) (4, 1);
    2: (1, 1) (1, 2) (1, 3) (2, 1);
    4: (1, 1);
}

/// The kernel for so many target channels at once and a tile of [`shape`] or a part of it.
pub(super) fn find(isa: Isa, channel_block: usize, size: [usize; 2], step: usize) -> Option<Run> {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512(channel_block, size, step),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2(channel_block, size, step),
        Level::Portable => portable(channel_block, size, step),
    }
}

/// Target channels that are computed at once where all weights are: they must divide the channels.
pub(super) fn dense_block(isa: Isa, channels: usize) -> usize {
    let largest = if most_vectors(isa, 4) > 1 { 4 } else { 2 };
    [4, 2].into_iter().find(|&block| block <= largest && channels.is_multiple_of(block)).unwrap_or(1)
}

/// Vectors of a tile: their sums fit into the registers beside weights and sources.
fn most_vectors(isa: Isa, channel_block: usize) -> usize {
    let all = match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => 16,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => 6,
        Level::Portable => 6,
    };
    all / channel_block
}

/// The largest tile for a target of this size; every tile of fewer columns, or of one row, has a kernel too.
pub(super) fn shape(isa: Isa, channel_block: usize, [height, width]: [usize; 2]) -> [usize; 2] {
    let most = most_vectors(isa, channel_block);
    let widest = width.clamp(1, most.min(8));
    // Tiles of even widths.
    let columns = width.max(1).div_ceil(width.max(1).div_ceil(widest));
    let rows = [4, 2].into_iter().find(|rows| rows * columns <= most && *rows <= height).unwrap_or(1);
    [rows, columns]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ISAS;

    #[test]
    fn every_part_of_a_tile_has_a_kernel() {
        for isa in ISAS.iter().filter_map(|row| row.open()) {
            for block in [1, 2, 4].into_iter().filter(|&block| block <= dense_block(isa, 4)) {
                for (height, width) in (1..9).flat_map(|height| (1..40).map(move |width| (height, width))) {
                    let [rows, columns] = shape(isa, block, [height, width]);
                    for (rows, columns) in
                        [1, rows].into_iter().flat_map(|rows| (1..=columns).map(move |columns| (rows, columns)))
                    {
                        assert!(find(isa, block, [rows, columns], 3).is_some(), "{block}: {rows} x {columns}");
                    }
                }
            }
        }
    }
}
