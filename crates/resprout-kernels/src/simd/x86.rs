//! Vectors of AVX-512 and AVX2.
#![allow(clippy::undocumented_unsafe_blocks, reason = "each block is the body of an unsafe function, whose contract it needs")]

use super::{LANES, Simd, VECTOR_BYTES};
use std::arch::x86_64::*;

/// `to[l] = from[offsets[l]]` where the bit of `read` is set, else 0.
///
/// # Safety
/// The CPU must have AVX-512F. `from[offsets[l]]` must be readable for every lane `l` whose bit is set. `to` must be the address of
/// a whole, aligned vector that nobody else reads or writes.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn gather(from: *const f32, offsets: &[u32; LANES], read: u16, to: *mut f32) {
    unsafe {
        let offsets = _mm512_loadu_si512(offsets.as_ptr().cast());
        _mm512_store_ps(to, _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), read, offsets, from.cast()));
    }
}

/// The sum of eight lanes, by halves.
///
/// # Safety
/// The CPU must have AVX.
#[inline(always)]
unsafe fn sum_of_eight(vector: __m256) -> f32 {
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(vector), _mm256_extractf128_ps::<1>(vector));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// One register for each vector.
pub(crate) struct Avx512;

impl Simd for Avx512 {
    type Vector = __m512;
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> __m512 {
        unsafe { _mm512_load_ps(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, vector: __m512) {
        unsafe { _mm512_store_ps(to.cast(), vector) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn multiply_add(weight: __m512, vector: __m512, sum: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(weight, vector, sum) }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn permute(vector: __m512, lanes: &[u32; LANES], read: u16) -> __m512 {
        unsafe { _mm512_maskz_permutexvar_ps(read, _mm512_loadu_si512(lanes.as_ptr().cast()), vector) }
    }
    #[inline(always)]
    unsafe fn sum(vector: __m512) -> f32 {
        unsafe {
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(vector)));
            sum_of_eight(_mm256_add_ps(_mm512_castps512_ps256(vector), high))
        }
    }
    #[inline(always)]
    unsafe fn clamp(vector: __m512, low: __m512, high: __m512) -> __m512 {
        // Where one operand is NaN, the result is the second one.
        unsafe { _mm512_min_ps(high, _mm512_max_ps(low, vector)) }
    }
}

/// Two registers for each vector.
pub(crate) struct Avx2;

impl Simd for Avx2 {
    type Vector = [__m256; 2];
    #[inline(always)]
    unsafe fn splat(value: f32) -> [__m256; 2] {
        unsafe { [_mm256_set1_ps(value); 2] }
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> [__m256; 2] {
        unsafe { [_mm256_load_ps(from.cast()), _mm256_load_ps(from.add(VECTOR_BYTES / 2).cast())] }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, vector: [__m256; 2]) {
        unsafe {
            _mm256_store_ps(to.cast(), vector[0]);
            _mm256_store_ps(to.add(VECTOR_BYTES / 2).cast(), vector[1]);
        }
    }
    #[inline(always)]
    unsafe fn add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn multiply_add(weight: [__m256; 2], vector: [__m256; 2], sum: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_fmadd_ps(weight[0], vector[0], sum[0]), _mm256_fmadd_ps(weight[1], vector[1], sum[1])] }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn permute([low, high]: [__m256; 2], lanes: &[u32; LANES], read: u16) -> [__m256; 2] {
        unsafe {
            let bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let mut halves = [low; 2];
            for half in 0..2 {
                let lanes = _mm256_loadu_si256(lanes.as_ptr().add(8 * half).cast());
                // Permutations use three bits of a lane. The fourth bit, moved to the sign, selects the half.
                let in_high = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(lanes));
                let values =
                    _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, lanes), _mm256_permutevar8x32_ps(high, lanes), in_high);
                let read = _mm256_set1_epi32(i32::from(read >> (8 * half)));
                let read = _mm256_cmpeq_epi32(_mm256_and_si256(read, bits), bits);
                halves[half] = _mm256_and_ps(values, _mm256_castsi256_ps(read));
            }
            halves
        }
    }
    #[inline(always)]
    unsafe fn sum(vector: [__m256; 2]) -> f32 {
        unsafe { sum_of_eight(_mm256_add_ps(vector[0], vector[1])) }
    }
    #[inline(always)]
    unsafe fn clamp(vector: [__m256; 2], low: [__m256; 2], high: [__m256; 2]) -> [__m256; 2] {
        unsafe {
            [_mm256_min_ps(high[0], _mm256_max_ps(low[0], vector[0])), _mm256_min_ps(high[1], _mm256_max_ps(low[1], vector[1]))]
        }
    }
}
