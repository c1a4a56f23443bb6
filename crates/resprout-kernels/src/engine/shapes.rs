//! The shapes of tiles that there are kernels for, by instruction set.

#[cfg(target_arch = "x86_64")]
use super::tile::run_interleaved;
use super::tile::{TileKernel, Work, run};
use crate::isa::{Isa, Level};
use crate::simd;

/// The sizes of a block of output channels.
pub(super) const CHANNEL_BLOCKS: [usize; 3] = [1, 2, 4];

/// The numbers of rows that a tile may have, in descending order.
pub(super) const ROWS: [usize; 5] = [7, 4, 3, 2, 1];

/// Defines a function that finds the kernel of a shape, and the kernels themselves, compiled for one instruction set.
macro_rules! finder {
    ($name:ident, $run:ident, $isa:ty, $(#[$feature:meta])?; $($b:literal: $(($r:literal, $w:literal))*;)*) => {
        fn $name(channel_block: usize, rows: usize, columns: usize, step: usize) -> Option<TileKernel> {
            /// # Safety
            /// The CPU must have the enabled instructions. `work` must be [valid](Work#validity) for `B`, `R`, `W` and `S`;
            /// an interleaved kernel takes blocks of one instead of `B`.
            $(#[$feature])?
            unsafe fn kernel<const B: usize, const R: usize, const W: usize, const S: usize>(work: &Work) {
                // SAFETY: the caller's contract is the same.
                unsafe { $run::<$isa, B, R, W, S>(work) }
            }
            match (channel_block, rows, columns, step) {
                $($(
                    ($b, $r, $w, 1) => Some(kernel::<$b, $r, $w, 1> as TileKernel),
                    ($b, $r, $w, 2) => Some(kernel::<$b, $r, $w, 2> as TileKernel),
                )*)*
                _ => None,
            }
        }
    };
}

/// All shapes of tiles: output channels of a block; rows, columns. Blocks of four have at most 20 sums: with 24, compilers keep some
/// of them in memory.
macro_rules! with_shapes {
    ($($head:tt)*) => {
        finder! {
            $($head)*;
            1: (1, 1) (1, 2) (1, 3) (1, 4) (1, 5) (1, 6) (1, 7) (1, 8) (1, 9) (1, 10) (1, 11) (1, 12) (1, 13) (1, 14) (1, 15) (1, 16)
               (1, 28) (2, 1) (2, 2) (2, 3) (2, 4) (2, 5) (2, 6) (2, 7) (2, 8) (2, 14) (3, 1) (3, 2) (3, 3) (3, 4) (3, 7) (4, 1) (4, 2) (4, 3) (4, 4) (4, 5) (4, 6) (4, 7)
               (7, 1) (7, 2) (7, 3) (7, 4);
            2: (1, 1) (1, 2) (1, 3) (1, 4) (1, 5) (1, 6) (1, 7) (1, 8) (1, 9) (1, 10) (1, 11) (1, 12) (1, 13)
               (2, 1) (2, 2) (2, 3) (2, 4) (2, 5) (2, 6) (4, 1) (4, 2) (4, 3);
            4: (1, 1) (1, 2) (1, 3) (1, 4) (1, 5) (2, 1) (2, 2) (4, 1);
        }
    };
}

/// Output channels that are interleaved.
#[cfg(target_arch = "x86_64")]
const INTERLEAVED: usize = 2;

// Tiles with too few vectors to keep the arithmetic busy, in blocks of one. With more vectors, interleaving costs more than it
// gains. A vector is one register of AVX-512 and two of AVX2.
#[cfg(target_arch = "x86_64")]
finder!(avx512_interleaved, run_interleaved, simd::Avx512, #[target_feature(enable = "avx512f")]; 2: (1, 1) (1, 2) (2, 1););
#[cfg(target_arch = "x86_64")]
finder!(avx2_interleaved, run_interleaved, simd::Avx2, #[target_feature(enable = "avx2,fma")]; 2: (1, 1););

#[cfg(target_arch = "x86_64")]
with_shapes!(avx512, run, simd::Avx512, #[target_feature(enable = "avx512f")]);
#[cfg(target_arch = "x86_64")]
with_shapes!(avx2, run, simd::Avx2, #[target_feature(enable = "avx2,fma")]);
with_shapes!(portable, run, simd::Portable,);

/// The kernel for blocks of so many output channels, a shape of tile and a horizontal step of 1 or 2, if there is one.
pub(super) fn find(isa: Isa, channel_block: usize, rows: usize, columns: usize, step: usize) -> Option<TileKernel> {
    #[cfg(target_arch = "x86_64")]
    let interleaved = |kernels: fn(usize, usize, usize, usize) -> Option<TileKernel>| {
        if channel_block == 1 { kernels(INTERLEAVED, rows, columns, step) } else { None }
    };
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => interleaved(avx512_interleaved).or_else(|| avx512(channel_block, rows, columns, step)),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => interleaved(avx2_interleaved).or_else(|| avx2(channel_block, rows, columns, step)),
        Level::Portable => portable(channel_block, rows, columns, step),
    }
}

/// Vectors of a tile whose sums fit into the registers, beside the weights.
pub(super) fn max_vectors(isa: Isa, channel_block: usize) -> usize {
    let all = match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => 28,
        // Two of sixteen registers for each vector. Seven vectors would fit, but are slower: every addition reads memory anyway.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => 6,
        // Four of thirty-two registers for each vector on NEON.
        Level::Portable => 6,
    };
    (all / channel_block).max(1)
}

/// The widest tile of one row, up to so many columns, whose sums fit into the registers.
pub(super) fn widest(isa: Isa, channel_block: usize, columns: usize) -> usize {
    let most = columns.min(max_vectors(isa, channel_block));
    (1..=most).rev().find(|&columns| find(isa, channel_block, 1, columns, 1).is_some()).unwrap_or(1)
}
