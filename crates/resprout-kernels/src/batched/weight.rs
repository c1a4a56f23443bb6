//! The gradient of a convolution's weights: products of the input's and the output gradient's vectors, summed.

use super::pass::{Scratch, Source, Strip, Tap, VECTOR_BYTES};
use super::{Entry, LANES, taps};
use crate::isa::Level;
use crate::simd::Portable;
use crate::simd::Simd;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::{ConvShape, Isa};
use std::ops::Range;

/// Vectors of the output's gradient that are multiplied at a time: many, so that the sums over lanes at their end are few; few, so
/// that those of one channel stay in the first-level cache.
const TILE: usize = 128;

/// Bytes of the input's vectors in a tile: a part of the second-level cache.
const BLOCK_BYTES: usize = 192 * 1024;

/// The same where all weights are computed: every vector is read often enough to fill the first-level cache for it.
const DENSE_TILE: usize = 32;
const DENSE_BLOCK_BYTES: usize = 20 * 1024;

/// Entries of one output channel that share its gradient's vectors.
const ENTRIES: usize = 6;

/// Output and input channels of a block where all weights are computed.
const BLOCK: [usize; 2] = [2, 3];

/// What sums over the pixels of all chunks.
pub(super) struct WeightPass {
    source: Source,
    count: [usize; 2],
    strip: Strip,
    /// Chunks that are laid out at a time: several, where an image has few pixels.
    chunks: usize,
    /// Lines of a tile.
    lines: usize,
    /// Input channels whose part of a tile stays in the cache.
    block: usize,
    /// Of each output channel, by input channel and tap.
    rows: Vec<Vec<Entry>>,
    /// Where the entries of each output channel's blocks begin, and their end.
    splits: Vec<Vec<u32>>,
    /// In bytes from a window's first vector.
    offsets: Vec<usize>,
    taps: usize,
    /// Weights of an output channel.
    length: usize,
    in_channels: usize,
    dense: bool,
}

/// Lines of windows, whose input and output gradient are multiplied: distances in bytes.
struct Window<'a> {
    source: *const u8,
    source_step: usize,
    grad: *const u8,
    /// Of each line's first window: in the source, and in the gradient.
    lines: &'a [(usize, usize)],
    columns: usize,
}

impl WeightPass {
    pub fn new(shape: &ConvShape, rows: Vec<Vec<Entry>>, dense: bool) -> WeightPass {
        let source = Source::forward(shape);
        let (out_h, out_w) = shape.out_size();
        let (height, width) = (out_h.max(1), out_w.max(1));
        let strip = source.strip((TILE / width).clamp(1, height), width);
        let chunks = if strip.rows == height { (TILE / (height * width)).max(1) } else { 1 };
        let all = chunks * strip.rows;
        let (lines, bytes) = if dense { ((DENSE_TILE / width).clamp(1, all), DENSE_BLOCK_BYTES) } else { (all, BLOCK_BYTES) };
        let seen = chunks * strip.seen() * VECTOR_BYTES * lines / all;
        let block = (bytes / seen.max(1)).clamp(1, shape.in_channels.max(1));
        let blocks = shape.in_channels.div_ceil(block).max(1);
        let split = |row: &Vec<Entry>, at: usize| row.partition_point(|entry| (entry.channel as usize) < at * block) as u32;
        let splits = rows.iter().map(|row| (0..=blocks).map(|at| split(row, at)).collect()).collect();
        let offset = |Tap([y, x]): &Tap| (*y as usize * strip.row + *x as usize) * VECTOR_BYTES;
        WeightPass {
            count: [out_h, out_w],
            chunks,
            lines,
            block,
            rows,
            splits,
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

    /// Adds the gradient of all chunks to `out`, that of some output channels.
    pub fn add(&self, isa: Isa, inputs: &[f32], grads: &[f32], channels: Range<usize>, out: &mut [f32], scratch: &mut Scratch) {
        assert_eq!(out.len(), channels.len() * self.length, "weights of {channels:?}");
        let grad = self.rows.len() * self.count[0] * self.count[1] * LANES;
        let input = inputs.len() / (grads.len() / grad.max(1)).max(1);
        let mut lines = Vec::new();
        for (inputs, grads) in inputs.chunks(self.chunks * input).zip(grads.chunks(self.chunks * grad)) {
            let chunks = grads.len() / grad;
            for first in (0..self.count[0]).step_by(self.strip.rows) {
                let rows = self.strip.rows.min(self.count[0] - first);
                let strip = Strip { rows, ..self.strip };
                let (source, distance) = self.source.open_all(&strip, first, inputs, chunks, &mut scratch.strip);
                let [row, step] = self.source.steps(&self.strip);
                lines.clear();
                for chunk in 0..chunks {
                    let line = |y: usize| (chunk * distance * 4 + y * row, (chunk * grad + y * self.count[1] * LANES) * 4);
                    lines.extend((0..rows).map(line));
                }
                for lines in lines.chunks(self.lines) {
                    let window = Window {
                        source: source.as_ptr().cast(),
                        source_step: step,
                        grad: grads[first * self.count[1] * LANES..].as_ptr().cast(),
                        lines,
                        columns: self.count[1],
                    };
                    // SAFETY: `open_all` has copied or found every window of the strip in every chunk; `grads` has every output
                    // channel's pixels, as `BatchedConv::weight_gradient` has checked; an `Isa` exists only where the CPU has its
                    // instructions.
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
    let base = channels.start * pass.length;
    for block in 0..pass.in_channels.div_ceil(pass.block) {
        for m in channels.clone() {
            let splits = &pass.splits[m][block..block + 2];
            let window = Window { grad: window.grad.wrapping_add(m * grad_channel), ..*window };
            for entries in pass.rows[m][splits[0] as usize..splits[1] as usize].chunks(ENTRIES) {
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
        for &(source, grad) in window.lines {
            let (grad, source) = (window.grad.add(grad), window.source.add(source));
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
            for &(line, grad_line) in window.lines {
                let source = source.add(line);
                for x in 0..window.columns {
                    let sources: [I::Vector; C] =
                        std::array::from_fn(|j| I::load(source.add(j * channel + x * window.source_step)));
                    for i in 0..M {
                        let grad = I::load(grads[i].add(grad_line + x * VECTOR_BYTES));
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
