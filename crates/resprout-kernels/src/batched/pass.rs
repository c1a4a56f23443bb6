//! One way through a convolution: forward, or the input's gradient at one phase of the stride.
//!
//! Both are the same: each target pixel is a sum of weights times source pixels at fixed distances. The source is copied strip by
//! strip, with zeros around it, so that no tap needs a check. Within a strip, a block of source channels stays in the first-level
//! cache while all target channels read it.

use super::tile::{self, TileWork};
use super::{Buffer, Entry, LANES, taps};
pub(super) use crate::simd::VECTOR_BYTES;
use crate::{ConvShape, Isa};
use std::ops::Range;

/// Bytes of source vectors that a tile reads before the next target channel's sums are taken up.
const BLOCK_BYTES: usize = 20 * 1024;

/// Bytes of a strip, if one row of tiles needs no more.
const STRIP_BYTES: usize = 256 * 1024;

/// Buffers that a thread reuses from call to call.
#[derive(Default)]
pub struct Scratch {
    pub(super) strip: Buffer,
}

/// Rows and columns from a window's first pixel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tap(pub [isize; 2]);

/// The source of a pass, and how windows lie on it.
pub(super) struct Source {
    channels: usize,
    size: [usize; 2],
    /// Where the window of the first target pixel begins: negative in the padding.
    first: [isize; 2],
    /// From one window to the next.
    step: [usize; 2],
    /// Rows and columns of a window.
    window: [usize; 2],
    /// Whether windows are single pixels that lie as the source does.
    plain: bool,
}

impl Source {
    /// That of a forward pass.
    pub fn forward(shape: &ConvShape) -> Source {
        let (out_h, out_w) = shape.out_size();
        let first = [-(shape.pads[0] as isize), -(shape.pads[1] as isize)];
        let window = [0, 1].map(|axis| (shape.kernel[axis] - 1) * shape.dilation[axis] + 1);
        Source::new(shape.in_channels, [shape.in_h, shape.in_w], first, shape.stride, window, [out_h, out_w])
    }

    /// `count` are the rows and columns of windows.
    fn new(
        channels: usize,
        size: [usize; 2],
        first: [isize; 2],
        step: [usize; 2],
        window: [usize; 2],
        count: [usize; 2],
    ) -> Source {
        // Offsets have 32 bits.
        let near = channels * size[0] * size[1] * VECTOR_BYTES <= u32::MAX as usize;
        let as_it_lies = step == [1, 1] && window == [1, 1] && first == [0, 0] && count[1] == size[1] && count[0] <= size[0];
        let plain = near && as_it_lies;
        Source { channels, size, first, step, window, plain }
    }

    /// Bytes of one channel's vectors that a tile of windows sees.
    pub fn window_bytes(&self, tile: [usize; 2]) -> usize {
        let extent = [0, 1].map(|axis| (tile[axis] - 1) * self.step[axis] + self.window[axis]);
        extent[0] * extent[1] * VECTOR_BYTES
    }

    /// Bytes from one window to the next: down and across.
    pub fn steps(&self, strip: &Strip) -> [usize; 2] {
        [self.step[0] * strip.row * VECTOR_BYTES, self.step[1] * VECTOR_BYTES]
    }

    /// How a strip of so many rows of windows, of so many columns, lies in memory.
    pub fn strip(&self, rows: usize, columns: usize) -> Strip {
        if self.plain {
            return Strip { rows, row: columns, channel: self.size[0] * columns, copied: false };
        }
        let extent = |axis: usize, count: usize| (count - 1) * self.step[axis] + self.window[axis];
        let row = extent(1, columns);
        // Odd, so that channels do not fall into the same sets of the cache.
        Strip { rows, row, channel: (extent(0, rows) * row) | 1, copied: true }
    }

    /// The strip of windows from row `first` on, in `scratch` or where it lies. Returns its first vector.
    pub fn open<'a>(&self, strip: &Strip, first: usize, source: &'a [f32], scratch: &'a mut Buffer) -> &'a [f32] {
        self.open_all(strip, first, source, 1, scratch).0
    }

    /// Copies the strip's pixels, with zeros around the image.
    fn copy(&self, strip: &Strip, first: usize, source: &[f32], scratch: &mut [f32]) {
        let [height, width] = self.size;
        let rows = (strip.rows - 1) * self.step[0] + self.window[0];
        let left = (-self.first[1]).max(0) as usize;
        let skipped = self.first[1].max(0) as usize;
        let inside = strip.row.saturating_sub(left).min(width.saturating_sub(skipped));
        let top = (first * self.step[0]) as isize + self.first[0];
        for c in 0..self.channels {
            for r in 0..rows {
                let to = &mut scratch[(c * strip.channel + r * strip.row) * LANES..][..strip.row * LANES];
                let y = top + r as isize;
                if y < 0 || y as usize >= height || inside == 0 {
                    to.fill(0.0);
                    continue;
                }
                let from = &source[((c * height + y as usize) * width + skipped) * LANES..][..inside * LANES];
                let left = left.min(strip.row);
                to[..left * LANES].fill(0.0);
                to[left * LANES..][..inside * LANES].copy_from_slice(from);
                to[(left + inside) * LANES..].fill(0.0);
            }
        }
    }

    /// The same strip of several chunks. Returns the first vector too, and the distance from one chunk's to the next's.
    pub fn open_all<'a>(
        &self,
        strip: &Strip,
        first: usize,
        sources: &'a [f32],
        chunks: usize,
        scratch: &'a mut Buffer,
    ) -> (&'a [f32], usize) {
        let chunk = sources.len() / chunks;
        if !strip.copied {
            return (&sources[first * strip.row * LANES..], chunk);
        }
        let distance = self.channels * strip.channel * LANES;
        if scratch.len() < chunks * distance {
            scratch.resize(chunks * distance);
        }
        for (source, scratch) in sources.chunks_exact(chunk).zip(scratch.chunks_exact_mut(distance)) {
            self.copy(strip, first, source, scratch);
        }
        (scratch, distance)
    }
}

/// A strip in memory, in vectors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strip {
    /// Rows of windows.
    pub rows: usize,
    /// From one row of the source to the next.
    pub row: usize,
    /// From one channel to the next.
    pub channel: usize,
    /// Whether it is a copy; else the source itself.
    pub copied: bool,
}

impl Strip {
    /// Vectors of one channel that its windows see.
    pub fn seen(&self) -> usize {
        if self.copied { self.channel } else { self.rows * self.row }
    }
}

/// A convolution from a source to some pixels of a target.
pub(super) struct Pass {
    source: Source,
    /// Size of the target, its first pixel that is computed, the step to the next, and how many there are.
    target: [usize; 2],
    first: [usize; 2],
    step: [usize; 2],
    count: [usize; 2],
    channels: usize,
    strip: Strip,
    /// Rows and columns of a tile.
    tile: [usize; 2],
    /// Target channels at once.
    channel_block: usize,
    blocks: usize,
    /// `[blocks][channels / channel_block + 1]`, in entries.
    row_offsets: Vec<u32>,
    /// Offset in bytes, then the bits of a weight for each channel of a block.
    entries: Vec<u32>,
    /// The place of each weight of `entries`, or `NONE`.
    places: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl Pass {
    /// From input to output; `rows` are the entries of each output channel.
    pub fn forward(isa: Isa, shape: &ConvShape, rows: &[Vec<Entry>], dense: bool) -> Pass {
        let (height, width) = shape.out_size();
        let target = [height, width];
        let taps: Vec<Option<Tap>> = taps(shape).into_iter().map(Some).collect();
        Pass::new(isa, Source::forward(shape), target, [0, 0], [1, 1], target, rows, &taps, dense)
    }

    /// From the output's gradient to the input's; `columns` are the entries of each input channel.
    pub fn backward(isa: Isa, shape: &ConvShape, columns: &[Vec<Entry>], dense: bool) -> Vec<Pass> {
        let phases = (0..shape.stride[0].min(shape.in_h)).flat_map(|y| (0..shape.stride[1].min(shape.in_w)).map(move |x| [y, x]));
        phases.map(|phase| Pass::phase(isa, shape, phase, columns, dense)).collect()
    }

    /// The pixels `phase + stride * j` of the input: those taps reach them that are as far off, up to a multiple of the stride.
    fn phase(isa: Isa, shape: &ConvShape, phase: [usize; 2], columns: &[Vec<Entry>], dense: bool) -> Pass {
        let (out_h, out_w) = shape.out_size();
        let distance = |tap: &Tap, axis: usize| (phase[axis] + shape.pads[axis]) as isize - tap.0[axis];
        let reaches = |tap: &Tap, axis: usize| distance(tap, axis) % shape.stride[axis] as isize == 0;
        let place = |tap: &Tap| [0, 1].map(|axis| distance(tap, axis) / shape.stride[axis] as isize);
        let all = taps(shape);
        let reached: Vec<Option<[isize; 2]>> =
            all.iter().map(|tap| (reaches(tap, 0) && reaches(tap, 1)).then(|| place(tap))).collect();
        let bound =
            |axis: usize, of: fn(isize, isize) -> isize| reached.iter().flatten().map(|at| at[axis]).reduce(of).unwrap_or(0);
        let first = [bound(0, isize::min), bound(1, isize::min)];
        let last = [bound(0, isize::max), bound(1, isize::max)];
        let relative: Vec<Option<Tap>> =
            reached.into_iter().map(|at| at.map(|at| Tap([at[0] - first[0], at[1] - first[1]]))).collect();
        let target = [shape.in_h, shape.in_w];
        let count = [0, 1].map(|axis| (target[axis] - phase[axis]).div_ceil(shape.stride[axis]));
        let window = [0, 1].map(|axis| (last[axis] - first[axis]) as usize + 1);
        let source = Source::new(shape.out_channels, [out_h, out_w], first, [1, 1], window, count);
        Pass::new(isa, source, target, phase, shape.stride, count, columns, &relative, dense)
    }

    fn new(
        isa: Isa,
        source: Source,
        target: [usize; 2],
        first: [usize; 2],
        step: [usize; 2],
        count: [usize; 2],
        lists: &[Vec<Entry>],
        taps: &[Option<Tap>],
        dense: bool,
    ) -> Pass {
        let channel_block = if dense { tile::dense_block(isa, lists.len()) } else { 1 };
        let tile = tile::shape(isa, channel_block, count);
        let block = (BLOCK_BYTES / source.window_bytes(tile)).clamp(1, source.channels.max(1));
        let one = source.strip(tile[0], count[1]).channel * source.channels * VECTOR_BYTES;
        let rows = (STRIP_BYTES / one.max(1)).max(1) * tile[0];
        let strip = source.strip(rows.min(count[0]), count[1]);
        let blocks = source.channels.div_ceil(block).max(1);
        let channels = lists.len();
        let (row_offsets, entries, places) = (Vec::new(), Vec::new(), Vec::new());
        let mut pass = Pass {
            source,
            target,
            first,
            step,
            count,
            channels,
            strip,
            tile,
            channel_block,
            blocks,
            row_offsets,
            entries,
            places,
        };
        pass.pack(lists, taps, block);
        pass
    }

    /// Lays the entries out by block of source channels, then target channels.
    fn pack(&mut self, lists: &[Vec<Entry>], taps: &[Option<Tap>], block: usize) {
        let mut next = vec![0; lists.len()];
        for index in 0..self.blocks {
            let end = ((index + 1) * block) as u32;
            for (lists, next) in lists.chunks(self.channel_block).zip(next.chunks_mut(self.channel_block)) {
                self.row_offsets.push(self.entry_count());
                self.pack_block(lists, next, taps, end);
            }
            self.row_offsets.push(self.entry_count());
        }
    }

    /// Target channels that are computed at once share their entries: where one has a weight, all have one, be it zero.
    fn pack_block(&mut self, lists: &[Vec<Entry>], next: &mut [usize], taps: &[Option<Tap>], end: u32) {
        let head = |lists: &[Vec<Entry>], next: &[usize]| {
            let heads = lists.iter().zip(next).filter_map(|(list, &next)| list.get(next));
            heads.map(|entry| (entry.channel, entry.tap)).min().filter(|(channel, _)| *channel < end)
        };
        while let Some((channel, tap)) = head(lists, next) {
            let offset = taps[tap as usize].map(|Tap([y, x])| {
                (channel as usize * self.strip.channel + y as usize * self.strip.row + x as usize) * VECTOR_BYTES
            });
            self.entries.extend(offset.map(|offset| offset as u32));
            for (list, next) in lists.iter().zip(next.iter_mut()) {
                let own = list.get(*next).filter(|entry| (entry.channel, entry.tap) == (channel, tap));
                *next += usize::from(own.is_some());
                if offset.is_some() {
                    self.entries.push(0);
                    self.places.push(own.map_or(NONE, |entry| entry.weight));
                }
            }
        }
    }

    fn entry_count(&self) -> u32 {
        (self.entries.len() / (1 + self.channel_block)) as u32
    }

    /// Target channels that are computed at once.
    pub fn channel_block(&self) -> usize {
        self.channel_block
    }

    /// Takes the weights' values.
    pub fn load(&mut self, weight: &[f32]) {
        let own = self.entries.chunks_exact_mut(1 + self.channel_block).zip(self.places.chunks_exact(self.channel_block));
        for (entry, places) in own {
            for (to, &place) in entry[1..].iter_mut().zip(places) {
                *to = if place == NONE { 0 } else { weight[place as usize].to_bits() };
            }
        }
    }

    /// Computes some target channels: `source` and `out` are whole chunks of theirs.
    pub fn run(&self, isa: Isa, source: &[f32], bias: &[f32], channels: Range<usize>, out: &mut [f32], scratch: &mut Scratch) {
        let [height, width] = self.source.size;
        assert_eq!(source.len(), self.source.channels * height * width * LANES, "source of {channels:?}");
        assert_eq!(out.len(), channels.len() * self.target[0] * self.target[1] * LANES, "target of {channels:?}");
        assert!(bias.is_empty() || bias.len() == self.channels, "bias of {channels:?}");
        assert!(
            super::is_aligned(source) && super::is_aligned(out),
            "vectors of {channels:?} begin at no multiple of their size"
        );
        assert!(channels.end <= self.channels && channels.start.is_multiple_of(self.channel_block), "channels {channels:?}");
        if self.count.contains(&0) || channels.is_empty() {
            return;
        }
        for first in (0..self.count[0]).step_by(self.strip.rows) {
            let rows = self.strip.rows.min(self.count[0] - first);
            let strip = self.source.open(&Strip { rows, ..self.strip }, first, source, &mut scratch.strip);
            self.run_strip(isa, strip, first..first + rows, bias, channels.clone(), out);
        }
    }

    /// Block by block, so that the block's weights stay in the second-level cache for all tiles.
    fn run_strip(&self, isa: Isa, strip: &[f32], rows: Range<usize>, bias: &[f32], channels: Range<usize>, out: &mut [f32]) {
        let [tile_rows, tile_columns] = self.tile;
        for block in 0..self.blocks {
            for y in rows.clone().step_by(tile_rows) {
                let height = tile_rows.min(rows.end - y);
                // A last tile with fewer rows is computed row by row.
                let each = if height == tile_rows { height } else { 1 };
                for x in (0..self.count[1]).step_by(tile_columns) {
                    let width = tile_columns.min(self.count[1] - x);
                    for y in (y..y + height).step_by(each) {
                        self.run_tile(isa, block, strip, [y - rows.start, y, x], [each, width], bias, channels.clone(), out);
                    }
                }
            }
        }
    }

    /// `[row]` in the strip and in the pass, column.
    fn run_tile(
        &self,
        isa: Isa,
        block: usize,
        strip: &[f32],
        [strip_y, y, x]: [usize; 3],
        size: [usize; 2],
        bias: &[f32],
        channels: Range<usize>,
        out: &mut [f32],
    ) {
        let Some(run) = tile::find(isa, self.channel_block, size, self.source.step[1]) else {
            unreachable!("every part of a tile has a kernel");
        };
        let first = (strip_y * self.source.step[0] * self.strip.row + x * self.source.step[1]) * LANES;
        let [top, left] = [self.first[0] + y * self.step[0], self.first[1] + x * self.step[1]];
        let groups = channels.len().div_ceil(self.channel_block);
        let first_group = channels.start / self.channel_block;
        let offsets = self.channels.div_ceil(self.channel_block) + 1;
        let work = TileWork {
            source: strip[first..].as_ptr().cast(),
            source_row: self.source.step[0] * self.strip.row * VECTOR_BYTES,
            source_step: self.source.step[1] * VECTOR_BYTES,
            target: out[(top * self.target[1] + left) * LANES..].as_mut_ptr().cast(),
            target_channel: self.target[0] * self.target[1] * VECTOR_BYTES,
            target_row: self.step[0] * self.target[1] * VECTOR_BYTES,
            target_step: self.step[1] * VECTOR_BYTES,
            row_offsets: &self.row_offsets[block * offsets + first_group..][..groups + 1],
            entries: &self.entries,
            channels: channels.len(),
            bias: bias.get(channels.clone()).unwrap_or(&[]),
            first: block == 0,
        };
        // SAFETY: `pack` made the offsets for this strip, whose rows and columns hold every window of the tile: `open`
        // has copied or found them. The tile lies in the target, whose channels `out` has; sizes were checked in `run`.
        unsafe { run(&work) };
    }
}
