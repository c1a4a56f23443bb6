//! The innermost loops: one tile of lines of one output channel after another.

use super::arena::{LANES, VECTOR_BYTES};
use super::layout::{Gather, HaloCopy};
use crate::Activation;
use crate::isa::{Isa, Level};

/// The most rows of a tile.
pub(super) const MOST_ROWS: usize = 7;

/// Where the rows of a tile lie, in bytes. How many there are, and how wide, its kernel knows.
#[derive(Clone, Debug)]
pub(super) struct OutputTile {
    /// From the input's first line.
    pub input: [usize; MOST_ROWS],
    /// From the first line of the output's channel.
    pub output: [usize; MOST_ROWS],
    /// From the first line of the summand's channel.
    pub added: [usize; MOST_ROWS],
    /// Where several output channels are computed at once: where all their lines lie, from the first line of the first one's
    /// channel, in the output and in the summand.
    pub ahead: Vec<[usize; 2]>,
    /// Lines of the output's border that are made of this tile's lines, and those of its lines that reach beyond the image.
    pub halo_copies: Vec<HaloCopy>,
}

/// What a call works on. Addresses are bytes; whoever makes it vouches for every extent.
pub(super) struct Work<'a> {
    pub tile: &'a OutputTile,
    pub input: *const u8,
    pub output: *mut u8,
    /// Bytes between channels of the output.
    pub output_pitch: usize,
    /// What is added, if anything.
    pub added: *const u8,
    pub added_pitch: usize,
    /// The groups of output channels in the order in which their entries lie in this block; the last one twice.
    pub order: &'a [u32],
    /// Where the entries of each begin; one more at the end.
    pub row_offsets: &'a [u32],
    /// Entries of `1 + G` words: how many bytes the line lies behind the tile's, then one weight for each output channel of
    /// the group.
    pub entries: &'a [u32],
    pub bias: &'a [f32],
    /// Which of them, by their place in the order.
    pub channel_blocks: std::ops::Range<usize>,
    /// Whether sums begin here (with the bias and what is added), and whether they end here (with the activation).
    pub first: bool,
    pub last: bool,
    pub activation: Activation,
}

impl Work<'_> {
    /// Whether sums begin with lines that are not the output's: it can take the place of what is added.
    #[inline(always)]
    fn adds_apart(&self) -> bool {
        self.first && !self.added.is_null() && !std::ptr::addr_eq(self.added, self.output)
    }
}

/// Arithmetic on a line.
///
/// # Safety
/// Of every function: the CPU must have the instructions. A function that is called with `#[inline(always)]` takes them from
/// its caller, which must be compiled for them.
pub(crate) trait Simd {
    type Vector: Copy;
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn splat(value: f32) -> Self::Vector;
    /// # Safety
    /// `from` is the address of a whole, aligned line that may be read.
    unsafe fn load(from: *const u8) -> Self::Vector;
    /// # Safety
    /// `to` is the address of a whole, aligned line that nobody else reads or writes.
    unsafe fn store(to: *mut u8, vector: Self::Vector);
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn multiply_add(weight: Self::Vector, vector: Self::Vector, sum: Self::Vector) -> Self::Vector;
    /// Asks for a line that will be needed soon; any address will do.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn prefetch(from: *const u8);
    /// Makes a line of the channel `to` of one of the channel `from`.
    ///
    /// # Safety
    /// Both must be whole channels of the values that `repair` was made for.
    unsafe fn halo_copy(halo_copy: &HaloCopy, from: *const u8, to: *mut u8);
    /// The sum over lanes: halves are added until one is left.
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

/// Sums of a tile of one output channel: `R` rows of `W` lines.
type Sums<L, const R: usize, const W: usize> = [[L; W]; R];

/// What the sums of an output channel begin with in this block.
///
/// # Safety
/// As for [`Run`]; `channel` is one of the output's.
#[inline(always)]
unsafe fn load_accumulators<I: Simd, const R: usize, const W: usize>(work: &Work, channel: usize) -> Sums<I::Vector, R, W> {
    // SAFETY: the caller vouches for the extents of `work`, from which all addresses come.
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

/// The lines of a tile in a channel.
///
/// # Safety
/// The tile must be one of the value that `channel` begins a channel of; the CPU must have the instructions.
#[inline(always)]
unsafe fn vectors<I: Simd, const R: usize, const W: usize>(
    channel: *const u8,
    rows: &[usize; MOST_ROWS],
) -> Sums<I::Vector, R, W> {
    // SAFETY: the caller vouches for the tile being of the channel's value.
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

/// Asks for what the sums of an output channel will begin with: it lies far apart, where no hardware prefetcher looks.
///
/// # Safety
/// The CPU must have the instructions; any address will do.
#[inline(always)]
unsafe fn prefetch<I: Simd, const R: usize, const W: usize>(work: &Work, channel: usize) {
    let out = work.output.wrapping_add(channel * work.output_pitch);
    let added = work.added.wrapping_add(channel * work.added_pitch);
    let apart = work.adds_apart();
    for r in 0..R {
        for x in 0..W {
            // SAFETY: any address will do.
            unsafe {
                I::prefetch(out.wrapping_add(work.tile.output[r] + x * VECTOR_BYTES));
                if apart {
                    I::prefetch(added.wrapping_add(work.tile.added[r] + x * VECTOR_BYTES));
                }
            }
        }
    }
}

/// Asks for lines that lie one behind another, as far as the second-level cache.
pub(super) fn prefetch_vectors(first: *const f32, count: usize) {
    #[cfg(target_arch = "x86_64")]
    (0..count).for_each(|vector| {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: any address will do, and all CPUs of this kind have the instruction.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(first.wrapping_add(vector * LANES).cast()) }
    });
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (first, count);
}

/// Writes the sums of an output channel and, behind the last block, what is made of them.
///
/// # Safety
/// As for [`Run`]; `channel` is one of the output's.
#[inline(always)]
unsafe fn store_accumulators<I: Simd, const R: usize, const W: usize>(
    work: &Work,
    channel: usize,
    accumulators: &Sums<I::Vector, R, W>,
) {
    let (low, high) = match work.activation {
        Activation::Clamp { low, high } => (low, high),
        Activation::None => (f32::NEG_INFINITY, f32::INFINITY),
    };
    let clamps = work.last && work.activation != Activation::None;
    // SAFETY: the caller vouches for the extents of `work`, from which all addresses come.
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

/// Makes lines of the channel `to` of some of the channel `from`.
///
/// # Safety
/// Both must be whole channels of the values that the repairs were made for; the CPU must have the instructions.
#[inline(always)]
unsafe fn copy_halo<I: Simd>(halo_copies: &[HaloCopy], from: *const u8, to: *mut u8) {
    // No closure: compilers leave one out of line, where it does not have the caller's instructions.
    for halo_copy in halo_copies {
        // SAFETY: the caller vouches for the channels being of the values that the repairs were made for.
        unsafe { I::halo_copy(halo_copy, from, to) };
    }
}

/// The group of output channels at a place in the order.
///
/// # Safety
/// `place` must lie within `work.order`.
#[inline(always)]
unsafe fn block_at(work: &Work, place: usize) -> usize {
    // SAFETY: the caller vouches for the streams of `work`.
    unsafe { *work.order.get_unchecked(place) as usize }
}

/// The entries of the group of `G` output channels there.
///
/// # Safety
/// `place + 1` must lie within `work.starts`, which must count entries of `1 + G` words that `work.entries` has.
#[inline(always)]
unsafe fn entries<'a, const G: usize>(work: &Work<'a>, place: usize) -> &'a [u32] {
    // SAFETY: the caller vouches for the streams of `work`.
    unsafe {
        let range = *work.row_offsets.get_unchecked(place) as usize..*work.row_offsets.get_unchecked(place + 1) as usize;
        work.entries.get_unchecked(range.start * (1 + G)..range.end * (1 + G))
    }
}

/// Where the rows of the input's tile begin.
///
/// # Safety
/// `work.input` must begin the value that the tile is of, and the tile must have `R` rows.
#[inline(always)]
unsafe fn rows<const R: usize>(work: &Work) -> [*const u8; R] {
    // SAFETY: the caller vouches for the extents of `work`.
    std::array::from_fn(|r| unsafe { work.input.add(work.tile.input[r]) })
}

/// Adds an entry of a group to the sums of its `G` output channels.
///
/// # Safety
/// `entry` must have `1 + G` words, and its offset must lead from every row to `W` lines at steps of `S` that may be read.
#[inline(always)]
unsafe fn add_entry<I: Simd, const G: usize, const R: usize, const W: usize, const S: usize>(
    entry: &[u32],
    rows: &[*const u8; R],
    accumulators: &mut [Sums<I::Vector, R, W>; G],
) {
    // SAFETY: the caller vouches for the extents of `work`, from which all addresses come.
    unsafe {
        let weights: [I::Vector; G] = std::array::from_fn(|g| I::splat(f32::from_bits(*entry.get_unchecked(1 + g))));
        let offset = *entry.get_unchecked(0) as usize;
        for r in 0..R {
            for x in 0..W {
                let vector = I::load(rows[r].add(offset + x * S * VECTOR_BYTES));
                for g in 0..G {
                    accumulators[g][r][x] = I::multiply_add(weights[g], vector, accumulators[g][r][x]);
                }
            }
        }
    }
}

/// `G` output channels at once, `R` rows of `W` lines at a horizontal step of `S` lines.
///
/// # Safety
/// As for [`Run`].
#[inline(always)]
unsafe fn run<I: Simd, const G: usize, const R: usize, const W: usize, const S: usize>(work: &Work) {
    // SAFETY: passed on to the caller.
    unsafe { run_blocks::<I, G, R, W, S>(work, work.channel_blocks.clone()) }
}

/// The same for some of the groups.
///
/// # Safety
/// As for [`Run`]; `groups` must lie within the order.
#[inline(always)]
unsafe fn run_blocks<I: Simd, const G: usize, const R: usize, const W: usize, const S: usize>(
    work: &Work,
    channel_blocks: std::ops::Range<usize>,
) {
    // SAFETY: the caller vouches for the extents of `work`, from which all addresses come.
    unsafe {
        let rows: [*const u8; R] = rows(work);
        for place in channel_blocks {
            let (channel_block, next) = (block_at(work, place), block_at(work, place + 1));
            let mut accumulators = [[[I::splat(0.0); W]; R]; G];
            for g in 0..G {
                accumulators[g] = load_accumulators::<I, R, W>(work, channel_block * G + g);
            }
            let mut entries = entries::<G>(work, place).chunks_exact(1 + G);
            if G == 1 {
                prefetch::<I, R, W>(work, next);
            } else {
                // There are many, and an entry leaves time to ask for a line.
                let out = work.output.wrapping_add(next * G * work.output_pitch);
                let added = work.added.wrapping_add(next * G * work.added_pitch);
                let apart = work.adds_apart();
                for &[vector, other] in &work.tile.ahead {
                    I::prefetch(out.wrapping_add(vector));
                    if apart {
                        I::prefetch(added.wrapping_add(other));
                    }
                    if let Some(entry) = entries.next() {
                        add_entry::<I, G, R, W, S>(entry, &rows, &mut accumulators);
                    }
                }
            }
            for entry in entries {
                add_entry::<I, G, R, W, S>(entry, &rows, &mut accumulators);
            }
            for g in 0..G {
                store_accumulators::<I, R, W>(work, channel_block * G + g, &accumulators[g]);
            }
        }
    }
}

/// The same as [`run`] for groups of one: `P` output channels in turns, each with its own entries. Every addition to a sum
/// waits for the one before, so that few lines alone leave the arithmetic idle.
///
/// # Safety
/// As for [`Run`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn run_interleaved<I: Simd, const P: usize, const R: usize, const W: usize, const S: usize>(work: &Work) {
    // SAFETY: the caller vouches for the extents of `work`, from which all addresses come.
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
                    add_entry::<I, 1, R, W, S>(own[p].get_unchecked(at..at + 2), &rows, &mut accumulators[p]);
                }
            }
            for p in 0..P {
                for entry in own[p].get_unchecked(shared..).chunks_exact(2) {
                    add_entry::<I, 1, R, W, S>(entry, &rows, &mut accumulators[p]);
                }
                store_accumulators::<I, R, W>(work, channels[p], &accumulators[p][0]);
            }
            place += P;
        }
        run_blocks::<I, 1, R, W, S>(work, place..work.channel_blocks.end);
    }
}

// Each block is the body of an `unsafe fn`, whose contract is that of the trait.
#[allow(clippy::undocumented_unsafe_blocks)]
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use super::{HaloCopy, Simd, VECTOR_BYTES};
    use std::arch::x86_64::*;

    /// `to[l] = from[places[l]]` where the bit of `read` is set, else 0.
    ///
    /// # Safety
    /// The CPU must have AVX-512F. Every place whose bit is set may be read from `from`; `to` is a whole, aligned line.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn gather(from: *const f32, places: &[u32; 16], read: u16, to: *mut f32) {
        unsafe {
            let places = _mm512_loadu_si512(places.as_ptr().cast());
            _mm512_store_ps(to, _mm512_mask_i32gather_ps::<4>(_mm512_setzero_ps(), read, places, from.cast()));
        }
    }

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

    pub struct Avx512;

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
        unsafe fn halo_copy(halo_copy: &HaloCopy, from: *const u8, to: *mut u8) {
            unsafe {
                let lanes = _mm512_loadu_si512(halo_copy.lanes.as_ptr().cast());
                let from = Self::load(from.add(halo_copy.from * VECTOR_BYTES));
                Self::store(to.add(halo_copy.to * VECTOR_BYTES), _mm512_maskz_permutexvar_ps(halo_copy.read, lanes, from));
            }
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
            // The second operand comes back where one is NaN.
            unsafe { _mm512_min_ps(high, _mm512_max_ps(low, vector)) }
        }
    }

    pub struct Avx2;

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
        unsafe fn halo_copy(halo_copy: &HaloCopy, from: *const u8, to: *mut u8) {
            unsafe {
                let [low, high] = Self::load(from.add(halo_copy.from * VECTOR_BYTES));
                let bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
                let mut halves = [low; 2];
                for half in 0..2 {
                    let lanes = _mm256_loadu_si256(halo_copy.lanes.as_ptr().add(8 * half).cast());
                    // Permutations look at three bits of a lane; the fourth, as a sign, says which half it is in.
                    let in_high = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(lanes));
                    let values =
                        _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, lanes), _mm256_permutevar8x32_ps(high, lanes), in_high);
                    let read = _mm256_set1_epi32(i32::from(halo_copy.read >> (8 * half)));
                    let read = _mm256_cmpeq_epi32(_mm256_and_si256(read, bits), bits);
                    halves[half] = _mm256_and_ps(values, _mm256_castsi256_ps(read));
                }
                Self::store(to.add(halo_copy.to * VECTOR_BYTES), halves);
            }
        }
        #[inline(always)]
        unsafe fn sum(vector: [__m256; 2]) -> f32 {
            unsafe { sum_of_eight(_mm256_add_ps(vector[0], vector[1])) }
        }
        #[inline(always)]
        unsafe fn clamp(vector: [__m256; 2], low: [__m256; 2], high: [__m256; 2]) -> [__m256; 2] {
            unsafe {
                [
                    _mm256_min_ps(high[0], _mm256_max_ps(low[0], vector[0])),
                    _mm256_min_ps(high[1], _mm256_max_ps(low[1], vector[1])),
                ]
            }
        }
    }
}

/// Plain loops over the lanes: what the compiler makes of them is four vectors on a 128-bit machine (NEON), two on a
/// 256-bit one.
pub(crate) struct Portable;

#[allow(clippy::undocumented_unsafe_blocks)] // As above.
impl Simd for Portable {
    type Vector = [f32; LANES];
    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; LANES] {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const u8) -> [f32; LANES] {
        unsafe { from.cast::<[f32; LANES]>().read() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut u8, vector: [f32; LANES]) {
        unsafe { to.cast::<[f32; LANES]>().write(vector) }
    }
    #[inline(always)]
    unsafe fn add(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|l| a[l] + b[l])
    }
    #[inline(always)]
    unsafe fn multiply_add(weight: [f32; LANES], vector: [f32; LANES], sum: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|l| weight[l] * vector[l] + sum[l])
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
    #[inline(always)]
    unsafe fn halo_copy(halo_copy: &HaloCopy, from: *const u8, to: *mut u8) {
        unsafe {
            let from = Self::load(from.add(halo_copy.from * VECTOR_BYTES));
            let lane = |lane: usize| if halo_copy.read >> lane & 1 == 1 { from[halo_copy.lanes[lane] as usize] } else { 0.0 };
            Self::store(to.add(halo_copy.to * VECTOR_BYTES), std::array::from_fn(lane));
        }
    }
    #[inline(always)]
    unsafe fn sum(vector: [f32; LANES]) -> f32 {
        let mut sums = vector;
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                sums[lane] += sums[lane + half];
            }
        }
        sums[0]
    }
    #[inline(always)]
    unsafe fn clamp(vector: [f32; LANES], low: [f32; LANES], high: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|l| Activation::Clamp { low: low[l], high: high[l] }.apply(vector[l]))
    }
}

/// A kernel for one shape of tile.
///
/// # Safety
/// The CPU must have the instructions of the table that the kernel is from. The addresses of the [`Work`] begin values (input,
/// output, and what is added unless that is null) that the tile was made for, with all their channels. Its order, starts and
/// entries are of one stream, packed for as many output channels at once as the kernel computes. Nobody else writes what it
/// reads, or reads or writes its tile of the output.
pub(super) type Run = unsafe fn(&Work);

macro_rules! finder {
    ($name:ident, $run:ident, $isa:ty, $(#[$feature:meta])?; $($g:literal: $(($r:literal, $w:literal))*;)*) => {
        fn $name(channel_block: usize, rows: usize, columns: usize, step: usize) -> Option<Run> {
            /// # Safety
            /// As for [`Run`].
            $(#[$feature])?
            unsafe fn one<const G: usize, const R: usize, const W: usize, const S: usize>(work: &Work) {
                // SAFETY: passed on to the caller.
                unsafe { $run::<$isa, G, R, W, S>(work) }
            }
            match (channel_block, rows, columns, step) {
                $($(
                    ($g, $r, $w, 1) => Some(one::<$g, $r, $w, 1> as Run),
                    ($g, $r, $w, 2) => Some(one::<$g, $r, $w, 2> as Run),
                )*)*
                _ => None,
            }
        }
    };
}

/// All shapes of tiles: output channels at once; rows, columns. With 24 sums of four channels compilers keep some of them in
/// memory, and 20 are faster.
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

/// Output channels that take turns.
#[cfg(target_arch = "x86_64")]
const INTERLEAVED: usize = 2;

// Tiles of groups of one that have too few lines to keep the arithmetic busy; with more lines turns cost more than they bring. A
// line is one register here, and two there.
#[cfg(target_arch = "x86_64")]
finder!(avx512_interleaved, run_interleaved, x86::Avx512, #[target_feature(enable = "avx512f")]; 2: (1, 1) (1, 2) (2, 1););
#[cfg(target_arch = "x86_64")]
finder!(avx2_interleaved, run_interleaved, x86::Avx2, #[target_feature(enable = "avx2,fma")]; 2: (1, 1););

#[cfg(target_arch = "x86_64")]
with_shapes!(avx512, run, x86::Avx512, #[target_feature(enable = "avx512f")]);
#[cfg(target_arch = "x86_64")]
with_shapes!(avx2, run, x86::Avx2, #[target_feature(enable = "avx2,fma")]);
with_shapes!(portable, run, Portable,);

/// The kernel for so many output channels at once, a shape of tile and a horizontal step of 1 or 2, if there is one.
pub(super) fn find(isa: Isa, channel_block: usize, rows: usize, columns: usize, step: usize) -> Option<Run> {
    #[cfg(target_arch = "x86_64")]
    let interleaved = |kernels: fn(usize, usize, usize, usize) -> Option<Run>| {
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

/// Lines whose sums fit into the registers, beside the weights.
pub(super) fn max_vectors(isa: Isa, channel_block: usize) -> usize {
    let all = match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => 28,
        // Two registers of sixteen for each line. Seven would fit, but are slower: every addition reads memory as it is.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => 6,
        // Four of thirty-two on NEON.
        Level::Portable => 6,
    };
    (all / channel_block).max(1)
}

/// Cycles for a line of input and its multiplications, from the first-level cache and from farther away.
pub(super) fn vector_cycles(isa: Isa) -> [f64; 2] {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => [0.57, 1.4],
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => [1.1, 2.0],
        Level::Portable => [2.2, 2.8],
    }
}

/// Bytes of input lines that a block of input channels should have where nothing is measured and several output channels are
/// computed at once. On narrower registers more time goes into the sums, so that it pays to take them up again less often.
pub(super) fn block_bytes(isa: Isa) -> usize {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => 24 * 1024,
        _ => 32 * 1024,
    }
}

/// Writes a line of the channel `to` from anywhere in `from`.
///
/// # Safety
/// Both must be whole channels of the values that `gather` was made for.
pub(super) unsafe fn gather_vector(isa: Isa, gather: &Gather, from: *const f32, to: *mut f32) {
    // SAFETY: the tables lie inside of their values; the kernel is the proof of the instructions.
    unsafe {
        let to = to.add(gather.vector as usize * LANES);
        match isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => x86::gather(from, &gather.from, gather.read, to),
            // All lanes have a place: reading those that are not needed is faster than asking.
            _ => {
                let values: [f32; LANES] = std::array::from_fn(|lane| *from.add(gather.from[lane] as usize));
                let read = |lane: usize| if gather.read >> lane & 1 == 1 { values[lane] } else { 0.0 };
                to.cast::<[f32; LANES]>().write(std::array::from_fn(read));
            }
        }
    }
}

/// Makes lines of the channel `to` of some of the channel `from`, which may be the same.
///
/// # Safety
/// Both must be whole channels of the values that the repairs were made for.
pub(super) unsafe fn fill_halo(isa: Isa, halo_copies: &[HaloCopy], from: *const f32, to: *mut f32) {
    /// # Safety
    /// As for [`copy_halo`].
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    unsafe fn avx512(halo_copies: &[HaloCopy], from: *const u8, to: *mut u8) {
        // SAFETY: passed on to the caller.
        unsafe { copy_halo::<x86::Avx512>(halo_copies, from, to) }
    }
    /// # Safety
    /// As for [`copy_halo`].
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(halo_copies: &[HaloCopy], from: *const u8, to: *mut u8) {
        // SAFETY: passed on to the caller.
        unsafe { copy_halo::<x86::Avx2>(halo_copies, from, to) }
    }
    // SAFETY: passed on to the caller; the kernel is the proof of the instructions.
    unsafe {
        match isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512(halo_copies, from.cast(), to.cast()),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2(halo_copies, from.cast(), to.cast()),
            Level::Portable => copy_halo::<Portable>(halo_copies, from.cast(), to.cast()),
        }
    }
}

/// Output channels that can be computed at once.
pub(super) const CHANNEL_BLOCKS: [usize; 3] = [1, 2, 4];

/// The sizes that rows of a tile come in, the largest first.
pub(super) const ROWS: [usize; 5] = [7, 4, 3, 2, 1];

/// The widest tile of one row that fits into the registers.
pub(super) fn widest(isa: Isa, channel_block: usize, columns: usize) -> usize {
    let most = columns.min(max_vectors(isa, channel_block));
    (1..=most).rev().find(|&columns| find(isa, channel_block, 1, columns, 1).is_some()).unwrap_or(1)
}
