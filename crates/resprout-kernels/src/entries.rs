//! Entries of packed weights, and the sums of a tile of vectors over them.
//!
//! An *entry* has `1 + B` words: the offset of a source vector in bytes, then the bits of a weight for each of `B` channels.

use crate::simd::Simd;

/// Adds an entry to the sums of its `B` channels, each of `R` rows of `W` vectors.
///
/// # Safety
/// The CPU must have the instructions of `I`. `entry` must have `1 + B` words. At its offset from every row there must be `W` readable,
/// aligned vectors, `step` bytes apart.
#[inline(always)]
pub(crate) unsafe fn add_entry<I: Simd, const B: usize, const R: usize, const W: usize>(
    entry: &[u32],
    rows: &[*const u8; R],
    step: usize,
    sums: &mut [[[I::Vector; W]; R]; B],
) {
    // SAFETY: the caller vouches for the entry's words, the vectors and the instructions.
    unsafe {
        let weights: [I::Vector; B] = std::array::from_fn(|g| I::splat(f32::from_bits(*entry.get_unchecked(1 + g))));
        let offset = *entry.get_unchecked(0) as usize;
        for r in 0..R {
            for x in 0..W {
                let vector = I::load(rows[r].add(offset + x * step));
                for g in 0..B {
                    sums[g][r][x] = I::multiply_add(weights[g], vector, sums[g][r][x]);
                }
            }
        }
    }
}

/// Adds all entries, one after another.
///
/// # Safety
/// As for [`add_entry`], of every entry.
#[inline(always)]
pub(crate) unsafe fn add_entries<I: Simd, const B: usize, const R: usize, const W: usize>(
    mut entries: &[u32],
    rows: &[*const u8; R],
    step: usize,
    sums: &mut [[[I::Vector; W]; R]; B],
) {
    // SAFETY: the caller's contract is the same; chunks have the words of one entry or two.
    unsafe {
        // In some alignments Zen 3 takes twice as long for a loop of one such entry. Blocks of one wait for memory instead.
        if B > 1 {
            let mut pairs = entries.chunks_exact(2 * (1 + B));
            for pair in &mut pairs {
                add_entry::<I, B, R, W>(pair.get_unchecked(..1 + B), rows, step, sums);
                add_entry::<I, B, R, W>(pair.get_unchecked(1 + B..), rows, step, sums);
            }
            entries = pairs.remainder();
        }
        for entry in entries.chunks_exact(1 + B) {
            add_entry::<I, B, R, W>(entry, rows, step, sums);
        }
    }
}
