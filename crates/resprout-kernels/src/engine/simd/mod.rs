//! Arithmetic on vectors of [`LANES`](super::arena::LANES) lanes, once per instruction set.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::layout::HaloCopy;
pub(super) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512, gather};

/// Arithmetic on a vector.
///
/// # Safety
/// Every function needs a CPU that has the instructions. All are `#[inline(always)]`, so the caller must be compiled for the
/// instructions.
pub(super) trait Simd {
    type Vector: Copy;
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn splat(value: f32) -> Self::Vector;
    /// # Safety
    /// The CPU must have the instructions. `from` must be the address of a whole, aligned vector that may be read.
    unsafe fn load(from: *const u8) -> Self::Vector;
    /// # Safety
    /// The CPU must have the instructions. `to` must be the address of a whole, aligned vector that nobody else reads or writes.
    unsafe fn store(to: *mut u8, vector: Self::Vector);
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn multiply_add(weight: Self::Vector, vector: Self::Vector, sum: Self::Vector) -> Self::Vector;
    /// Prefetches a vector into the first-level cache; `from` may be any address.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn prefetch(from: *const u8);
    /// Writes vector `copy.to` of the channel `to` with lanes of vector `copy.from` of the channel `from`.
    ///
    /// # Safety
    /// The CPU must have the instructions. `from` and `to` must be the addresses of channels that hold these vectors. Nobody else
    /// may write the one, or read or write the other.
    unsafe fn halo_copy(copy: &HaloCopy, from: *const u8, to: *mut u8);
    /// NaN stays NaN.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn clamp(vector: Self::Vector, low: Self::Vector, high: Self::Vector) -> Self::Vector;
}
