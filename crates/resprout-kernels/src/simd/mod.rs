//! Arithmetic on vectors of [`LANES`] lanes, once per instruction set.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512, gather};

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Bytes of a vector.
pub(crate) const VECTOR_BYTES: usize = LANES * size_of::<f32>();

/// A vector in memory, aligned to a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Vector(pub [f32; LANES]);

impl Vector {
    pub const ZERO: Vector = Vector([0.0; LANES]);
}

/// Arithmetic on a vector.
///
/// # Safety
/// Every function needs a CPU that has the instructions. All are `#[inline(always)]`, so the caller must be compiled for the
/// instructions.
pub(crate) trait Simd {
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
    /// `vector[lanes[l]]` for each lane `l` whose bit of `read` is set; 0 for the others.
    ///
    /// # Safety
    /// The CPU must have the instructions. Lanes must be below [`LANES`].
    unsafe fn permute(vector: Self::Vector, lanes: &[u32; LANES], read: u16) -> Self::Vector;
    /// The sum over lanes: halves are added until one lane is left.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn sum(vector: Self::Vector) -> f32;
    /// NaN stays NaN.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn clamp(vector: Self::Vector, low: Self::Vector, high: Self::Vector) -> Self::Vector;
}
