//! The gradient of a convolution's weights: products of the input's and the output gradient's vectors, summed.

use super::pass::{Scratch, Source, Strip, Tap, VECTOR_BYTES};
use super::{Entry, LANES, taps};
use crate::engine::simd::Simd;
#[cfg(target_arch = "x86_64")]
use crate::engine::simd::{Avx2, Avx512};
use crate::engine::simd::Portable;
use crate::isa::Level;
use crate::{ConvShape, Isa};
use std::ops::Range;

/// Pixels of a tile: many, so that the sums over lanes at its end are few; few, so that it stays in the first-level cache.
const TILE_PIXELS: usize = 32;

/// Bytes of the input in a tile.
const BLOCK_BYTES: usize = 20 * 1024;

/// Bytes of a strip, if one row of tiles needs no more.
const STRIP_BYTES: usize = 256 * 1024;

/// Entries of one output channel that share its gradient's vectors.
const ENTRIES: usize = 6;

/// Output and input channels of a block where all weights are computed.
const BLOCK: [usize; 2] = [2, 3];

/// What sums over pixels of one image's worth of vectors.
pub(super) struct WeightPass {
    source: Source,
    count: [usize; 2],
    strip: Strip,
    tile: [usize; 2],
    /// Input channels whose part of a tile stays in the cache.
    block: usize,
    /// Of each output channel, by input channel and tap.
    rows: Vec<Vec<Entry>>,
    /// In bytes from a window's first vector.
    offsets: Vec<usize>,
    taps: usize,
    /// Weights of an output channel.
    length: usize,
    in_channels: usize,
    dense: bool,
}

/// A tile: distances in bytes.
#[derive(Clone, Copy)]
struct Window {
    source: *const u8,
    source_row: usize,
    source_step: usize,
    grad: *const u8,
    grad_row: usize,
    rows: usize,
    columns: usize,
}

impl WeightPass {
    pub fn new(isa: Isa, shape: &ConvShape, rows: Vec<Vec<Entry>>, dense: bool) -> WeightPass {
        let _ = isa;
        let source = Source::forward(shape);
        let (out_h, out_w) = shape.out_size();
        let columns = out_w.clamp(1, 16);
        let tile = [(TILE_PIXELS / columns).clamp(1, out_h.max(1)), columns];
        let one = source.strip(tile[0], out_w.max(1)).channel * shape.in_channels * VECTOR_BYTES;
        let strip_rows = (STRIP_BYTES / one.max(1)).max(1) * tile[0];
        let strip = source.strip(strip_rows.min(out_h.max(1)), out_w.max(1));
        let window = source.window_bytes(tile);
        let offset = |Tap([y, x]): &Tap| (*y as usize * strip.row + *x as usize) * VECTOR_BYTES;
        WeightPass {
            count: [out_h, out_w],
            tile,
            block: (BLOCK_BYTES / window).clamp(1, shape.in_channels.max(1)),
            rows,
            offsets: taps(shape).iter().map(offset).collect(),
            taps: shape.kernel[0] * shape.kernel[1],
            length: shape.dot_length(),
            in_channels: shape.in_channels,
            dense,
            strip,
            source,
        }
    }

    /// Weights that have a gradient.
    pub fn computed(&self) -> usize {
        self.rows.iter().map(Vec::len).sum()
    }

    /// Adds the gradient of one chunk to `out`, that of some output channels.
    pub fn add(
        &self,
        isa: Isa,
        input: &[f32],
        grad: &[f32],
        channels: Range<usize>,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) {
        assert_eq!(out.len(), channels.len() * self.length, "weights of {channels:?}");
        for first in (0..self.count[0]).step_by(self.strip.rows) {
            let rows = self.strip.rows.min(self.count[0] - first);
            let strip = self.source.open(&Strip { rows, ..self.strip }, first, input, &mut scratch.strip);
            for y in (0..rows).step_by(self.tile[0]) {
                for x in (0..self.count[1]).step_by(self.tile[1]) {
                    let [source_row, source_step] = self.source.steps(&self.strip);
                    let window = Window {
                        source: strip.as_ptr().cast::<u8>().wrapping_add(y * source_row + x * source_step),
                        source_row,
                        source_step,
                        grad: grad[((first + y) * self.count[1] + x) * LANES..].as_ptr().cast(),
                        grad_row: self.count[1] * VECTOR_BYTES,
                        rows: self.tile[0].min(rows - y),
                        columns: self.tile[1].min(self.count[1] - x),
                    };
                    // SAFETY: `open` has copied or found every window of the strip; `grad` has every output channel's pixels,
                    // as `BatchedConv::weight_gradient` has checked; an `Isa` exists only where the CPU has its instructions.
                    unsafe { self.add_tile(isa, &window, channels.clone(), out) };
                }
            }
        }
    }

    /// # Safety
    /// The CPU must have the instructions, and the window lie in whole strips and gradients.
    unsafe fn add_tile(&self, isa: Isa, window: &Window, channels: Range<usize>, out: &mut [f32]) {
        // SAFETY: passed on to the caller.
        unsafe {
            match isa.level() {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => avx512(self, window, channels, out),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => avx2(self, window, channels, out),
                Level::Portable => tile::<Portable>(self, window, channels, out),
            }
        }
    }
}

/// # Safety
/// As for [`WeightPass::add_tile`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512(pass: &WeightPass, window: &Window, channels: Range<usize>, out: &mut [f32]) {
    // SAFETY: passed on to the caller.
    unsafe { tile::<Avx512>(pass, window, channels, out) }
}

/// # Safety
/// As for [`WeightPass::add_tile`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(pass: &WeightPass, window: &Window, channels: Range<usize>, out: &mut [f32]) {
    // SAFETY: passed on to the caller.
    unsafe { tile::<Avx2>(pass, window, channels, out) }
}

/// # Safety
/// As for [`WeightPass::add_tile`].
#[inline(always)]
unsafe fn tile<I: Simd>(pass: &WeightPass, window: &Window, channels: Range<usize>, out: &mut [f32]) {
    // SAFETY: passed on to the caller.
    unsafe {
        if pass.dense {
            dense_tile::<I>(pass, window, channels, out);
        } else {
            sparse_tile::<I>(pass, window, channels, out);
        }
    }
}

/// By block of input channels, all output channels: a few of one channel's entries at a time.
///
/// # Safety
/// As for [`WeightPass::add_tile`].
#[inline(always)]
unsafe fn sparse_tile<I: Simd>(pass: &WeightPass, window: &Window, channels: Range<usize>, out: &mut [f32]) {
    let grad_channel = pass.count[0] * pass.count[1] * VECTOR_BYTES;
    for block in (0..pass.in_channels).step_by(pass.block) {
        let end = (block + pass.block) as u32;
        for m in channels.clone() {
            let row = &pass.rows[m];
            let first = row.partition_point(|entry| (entry.channel as usize) < block);
            let row = &row[first..];
            let row = &row[..row.partition_point(|entry| entry.channel < end)];
            let window = Window { grad: window.grad.wrapping_add(m * grad_channel), ..*window };
            let base = channels.start * pass.length;
            for entries in row.chunks(ENTRIES) {
                // SAFETY: passed on to the caller.
                unsafe {
                    match entries.len() {
                        1 => products::<I, 1>(pass, &window, entries, base, out),
                        2 => products::<I, 2>(pass, &window, entries, base, out),
                        3 => products::<I, 3>(pass, &window, entries, base, out),
                        4 => products::<I, 4>(pass, &window, entries, base, out),
                        5 => products::<I, 5>(pass, &window, entries, base, out),
                        _ => products::<I, 6>(pass, &window, entries, base, out),
                    }
                }
            }
        }
    }
}

/// Adds the products of one output channel's gradient with `E` entries.
///
/// # Safety
/// As for [`WeightPass::add_tile`]; there are `E` entries, of weights that `out` has from `base` on.
#[inline(always)]
unsafe fn products<I: Simd, const E: usize>(pass: &WeightPass, window: &Window, entries: &[Entry], base: usize, out: &mut [f32]) {
    let offsets: [usize; E] = std::array::from_fn(|e| {
        entries[e].channel as usize * pass.strip.channel * VECTOR_BYTES + pass.offsets[entries[e].tap as usize]
    });
    // SAFETY: the caller vouches for the windows.
    unsafe {
        let mut sums = [I::splat(0.0); E];
        for y in 0..window.rows {
            let (grad, source) = (window.grad.add(y * window.grad_row), window.source.add(y * window.source_row));
            for x in 0..window.columns {
                let grad = I::load(grad.add(x * VECTOR_BYTES));
                let source = source.add(x * window.source_step);
                for e in 0..E {
                    sums[e] = I::multiply_add(grad, I::load(source.add(offsets[e])), sums[e]);
                }
            }
        }
        for e in 0..E {
            out[entries[e].weight as usize - base] += I::sum(sums[e]);
        }
    }
}

/// By block of input channels, all output channels, all taps.
///
/// # Safety
/// As for [`WeightPass::add_tile`].
#[inline(always)]
unsafe fn dense_tile<I: Simd>(pass: &WeightPass, window: &Window, channels: Range<usize>, out: &mut [f32]) {
    for block in (0..pass.in_channels).step_by(pass.block) {
        let end = (block + pass.block).min(pass.in_channels);
        for m in channels.clone().step_by(BLOCK[0]) {
            for c in (block..end).step_by(BLOCK[1]) {
                let size = [BLOCK[0].min(channels.end - m), BLOCK[1].min(end - c)];
                // SAFETY: passed on to the caller.
                unsafe {
                    match size {
                        [2, 3] => outer::<I, 2, 3>(pass, window, [m, c], channels.start, out),
                        [2, 2] => outer::<I, 2, 2>(pass, window, [m, c], channels.start, out),
                        [2, _] => outer::<I, 2, 1>(pass, window, [m, c], channels.start, out),
                        [_, 3] => outer::<I, 1, 3>(pass, window, [m, c], channels.start, out),
                        [_, 2] => outer::<I, 1, 2>(pass, window, [m, c], channels.start, out),
                        _ => outer::<I, 1, 1>(pass, window, [m, c], channels.start, out),
                    }
                }
            }
        }
    }
}

/// Adds the products of `M` output channels' gradients with `C` input channels, for all taps.
///
/// # Safety
/// As for [`WeightPass::add_tile`]; `out` has the weights of these output channels, from `first` on.
#[inline(always)]
unsafe fn outer<I: Simd, const M: usize, const C: usize>(
    pass: &WeightPass,
    window: &Window,
    [m, c]: [usize; 2],
    first: usize,
    out: &mut [f32],
) {
    let (grad_channel, channel) = (pass.count[0] * pass.count[1] * VECTOR_BYTES, pass.strip.channel * VECTOR_BYTES);
    for tap in 0..pass.taps {
        // SAFETY: the caller vouches for the windows.
        unsafe {
            let grads: [*const u8; M] = std::array::from_fn(|i| window.grad.add((m + i) * grad_channel));
            let source = window.source.add(c * channel + pass.offsets[tap]);
            let mut sums = [[I::splat(0.0); C]; M];
            for y in 0..window.rows {
                let source = source.add(y * window.source_row);
                for x in 0..window.columns {
                    let sources: [I::Vector; C] = std::array::from_fn(|j| I::load(source.add(j * channel + x * window.source_step)));
                    for i in 0..M {
                        let grad = I::load(grads[i].add(y * window.grad_row + x * VECTOR_BYTES));
                        for j in 0..C {
                            sums[i][j] = I::multiply_add(grad, sources[j], sums[i][j]);
                        }
                    }
                }
            }
            for i in 0..M {
                for j in 0..C {
                    out[(m + i - first) * pass.length + (c + j) * pass.taps + tap] += I::sum(sums[i][j]);
                }
            }
        }
    }
}
