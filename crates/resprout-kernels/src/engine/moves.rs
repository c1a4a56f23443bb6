//! Moves of numbers between lanes: gathers, scatters and halos.

use super::arena::{LANES, VECTOR_BYTES};
use super::layout::{Gather, HaloCopy};
use crate::isa::{Isa, Level};
use crate::simd::{self, Simd};

/// Writes a vector of the channel `to` from anywhere in `from`.
///
/// # Safety
/// `gather` must be made for these values: `to` begins a channel that holds `gather.vector`, and `from` is the address from which
/// the offsets `gather.from` count. All of these offsets must be readable. Nobody else may write what is read, or read or write
/// the vector.
pub(super) unsafe fn gather_vector(isa: Isa, gather: &Gather, from: *const f32, to: *mut f32) {
    // SAFETY: the caller vouches for the vector and the offsets; `isa` proves the instructions.
    unsafe {
        let to = to.add(gather.vector as usize * LANES);
        match isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => simd::gather(from, &gather.from, gather.read, to),
            // Every lane has a valid offset: reading all of them is faster than a branch for each.
            _ => {
                let values: [f32; LANES] = std::array::from_fn(|lane| *from.add(gather.from[lane] as usize));
                let read = |lane: usize| if gather.read >> lane & 1 == 1 { values[lane] } else { 0.0 };
                to.cast::<[f32; LANES]>().write(std::array::from_fn(read));
            }
        }
    }
}

/// Writes the numbers of a channel to where each gather of the table would read them.
///
/// # Safety
/// The table must be made for these values: `from` begins a channel that holds every gather's vector, and `to` is the address from
/// which the offsets of the lanes that are read count. Nobody else may write the vectors, or read or write at the offsets.
pub(super) unsafe fn scatter(table: &[Gather], from: *const f32, to: *mut f32) {
    for gather in table {
        // SAFETY: the caller vouches for the vector.
        let vector = unsafe { from.add(gather.vector as usize * LANES).cast::<[f32; LANES]>().read() };
        for lane in (0..LANES).filter(|lane| gather.read >> lane & 1 == 1) {
            // SAFETY: the caller vouches for the offset of a lane that is read.
            unsafe { *to.add(gather.from[lane] as usize) = vector[lane] };
        }
    }
}

/// Writes vectors of the channel `to` with lanes of vectors of the channel `from`, which may be the same.
///
/// # Safety
/// `from` and `to` must begin channels of the values that `copies` was made for, so that they hold all of its vectors. Nobody else
/// may write those that are read, or read or write those that are written.
pub(super) unsafe fn fill_halo(isa: Isa, copies: &[HaloCopy], from: *const f32, to: *mut f32) {
    /// # Safety
    /// The CPU must have AVX-512F. `from` and `to` must begin channels that hold all vectors of `copies`. Nobody else may write those
    /// that are read, or read or write those that are written.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    unsafe fn avx512(copies: &[HaloCopy], from: *const u8, to: *mut u8) {
        // SAFETY: the caller's contract is the same.
        unsafe { copy_halo::<simd::Avx512>(copies, from, to) }
    }
    /// # Safety
    /// The CPU must have AVX2 and FMA. `from` and `to` must begin channels that hold all vectors of `copies`. Nobody else may write
    /// those that are read, or read or write those that are written.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(copies: &[HaloCopy], from: *const u8, to: *mut u8) {
        // SAFETY: the caller's contract is the same.
        unsafe { copy_halo::<simd::Avx2>(copies, from, to) }
    }
    // SAFETY: the caller vouches for the vectors; `isa` proves the instructions.
    unsafe {
        match isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512(copies, from.cast(), to.cast()),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2(copies, from.cast(), to.cast()),
            Level::Portable => copy_halo::<simd::Portable>(copies, from.cast(), to.cast()),
        }
    }
}

/// Writes vectors of the channel `to` with lanes of vectors of the channel `from`.
///
/// # Safety
/// The CPU must have the instructions of `I`. `from` and `to` must begin channels that hold all vectors of `copies`. Nobody else may
/// write those that are read, or read or write those that are written.
#[inline(always)]
pub(super) unsafe fn copy_halo<I: Simd>(copies: &[HaloCopy], from: *const u8, to: *mut u8) {
    // No closure: compilers do not always inline one, and out of line it lacks the caller's instructions.
    for copy in copies {
        // SAFETY: the caller vouches for the vectors and the instructions.
        unsafe {
            let vector = I::load(from.add(copy.from * VECTOR_BYTES));
            I::store(to.add(copy.to * VECTOR_BYTES), I::permute(vector, &copy.lanes, copy.read));
        }
    }
}

/// Prefetches vectors that lie one after another into the second-level cache; `first` may be any address.
pub(super) fn prefetch_vectors(first: *const f32, count: usize) {
    #[cfg(target_arch = "x86_64")]
    (0..count).for_each(|vector| {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 CPU has the instruction, which takes any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(first.wrapping_add(vector * LANES).cast()) }
    });
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (first, count);
}
