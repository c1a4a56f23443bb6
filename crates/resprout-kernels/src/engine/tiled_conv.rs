//! A convolution that is cut into tiles, and how threads share them.

use super::arena::{LANES, VECTOR_BYTES};
use super::blocking::{Blocking, Paths};
use super::conv::Conv;
use super::layout::{Gather, HaloCopy};
use super::moves::prefetch_vectors;
use super::op::Operand;
use super::packed_sparse::PackedSparse;
use super::place::{Base, Placed};
use super::pool::{PIECES, Worker};
use super::shapes::{self, CHANNEL_BLOCKS, ROWS};
use super::tile::{MAX_ROWS, OutputTile, TileKernel, Work};
use crate::isa::Isa;
use std::ops::Range;

/// A convolution with its blocking, and all that follows from it.
pub(super) struct TiledConv {
    pub conv: Conv<Placed>,
    pub blocking: Blocking,
    /// How the halo of the output is made of its vectors, if something reads that halo.
    halo_copies: Vec<HaloCopy>,
    packed: PackedSparse,
    tiles: Vec<(OutputTile, TileKernel)>,
    /// The first tile of each row partition, and past the last one.
    partition_starts: Vec<usize>,
    /// The work before each output channel and, last, of all: a unit for each weight and one for each channel.
    work_before: Vec<usize>,
    /// How many threads the work is cut for. Others can run it, but their parts are less even.
    threads: usize,
}

impl Operand for Placed {
    type Conv = TiledConv;
    type Gather = Gather;
    type HaloCopy = HaloCopy;
    /// Vectors from the first one of a channel.
    type Tap = usize;
}

impl TiledConv {
    /// Cuts a convolution by its default blocking.
    pub fn new(isa: Isa, conv: Conv<Placed>, halo_copies: Vec<HaloCopy>, threads: usize) -> TiledConv {
        let mut work_before = vec![0];
        conv.rows.iter().for_each(|row| work_before.push(work_before[work_before.len() - 1] + row.0.len() + 1));
        let blocking = conv.default_blocking(isa, Paths::Any);
        let packed = PackedSparse::default();
        let (tiles, partition_starts) = (Vec::new(), Vec::new());
        let mut tiled = TiledConv { conv, blocking, halo_copies, packed, tiles, partition_starts, work_before, threads };
        tiled.apply(isa, blocking);
        tiled
    }

    /// Cuts the convolution by another blocking, or the nearest one that fits.
    pub fn apply(&mut self, isa: Isa, blocking: Blocking) {
        let [height, width] = self.conv.first_partition();
        let channel_block = CHANNEL_BLOCKS
            .into_iter()
            .rfind(|&channel_block| channel_block <= blocking.channel_block && self.conv.fits_block(isa, channel_block))
            .unwrap_or(1);
        let columns = shapes::widest(isa, channel_block, blocking.columns.clamp(1, width));
        let fits = |rows: &usize| {
            *rows <= blocking.rows.clamp(1, height) && shapes::find(isa, channel_block, *rows, columns, 1).is_some()
        };
        let rows = ROWS.into_iter().find(fits).unwrap_or(1);
        self.blocking = Blocking { rows, columns, channel_block, ..blocking };
        self.tiles.clear();
        self.partition_starts = vec![0];
        for partition in 0..self.conv.to.extent.layout.row_partitions {
            self.add_tiles(isa, partition);
            self.partition_starts.push(self.tiles.len());
        }
        let block = blocking.block.clamp(1, self.conv.shape.in_channels.max(1));
        let parts = self.parts();
        if (self.packed.block, self.packed.channel_block) != (block, channel_block) || self.packed.parts != parts {
            let Conv { shape, rows, from, .. } = &self.conv;
            self.packed = PackedSparse::new(shape, rows, &from.extent, block, channel_block, parts);
        }
    }

    /// Adds all tiles of a row partition; at the edges smaller ones.
    fn add_tiles(&mut self, isa: Isa, partition: usize) {
        let Blocking { rows, columns, channel_block, .. } = self.blocking;
        let [height, width] = self.conv.row_partitions().nth(partition).unwrap_or([0, 0]);
        let step = self.conv.shape.stride[1];
        let find = |high: usize, wide: usize| shapes::find(isa, channel_block, high, wide, step);
        let mut y = 0;
        while y < height {
            let fits = |high: &usize| *high <= rows.min(height - y) && find(*high, 1).is_some();
            let high = ROWS.into_iter().find(fits).unwrap_or(1);
            let mut x = 0;
            while x < width {
                let wide = (1..=columns.min(width - x)).rev().find(|&wide| find(high, wide).is_some()).unwrap_or(1);
                if let Some(kernel) = find(high, wide) {
                    self.tiles.push((self.tile(partition, [y, x], [high, wide]), kernel));
                }
                x += wide;
            }
            y += high;
        }
    }

    /// The tile of `high` rows of `wide` vectors at row `y` and column `x` of a row partition.
    fn tile(&self, partition: usize, [y, x]: [usize; 2], [high, wide]: [usize; 2]) -> OutputTile {
        let Conv { from, to, added, shape, .. } = &self.conv;
        let across = to.extent.layout.patch[1];
        let begin = to.extent.layout.first_row(partition);
        let step = shape.stride;
        // A flat row partition is a single row: its tiles continue in the next row of the patch.
        let pixel = |y: usize| (begin + y + x / across, x % across);
        let place = |placed: &Placed, y: usize| {
            let (y, x) = pixel(y);
            VECTOR_BYTES * placed.extent.vector_of(partition, y as isize, x as isize)
        };
        // The input counts from its very first vector, as the offsets of the entries do.
        let place_in_input = |y: usize| {
            let (y, x) = pixel(y);
            VECTOR_BYTES * from.extent.shift(partition, y * step[0], x * step[1])
        };
        let of_rows = |place: &dyn Fn(usize) -> usize| {
            let mut all = [0; MAX_ROWS];
            (0..high).for_each(|r| all[r] = place(y + r));
            all
        };
        let output = of_rows(&|y| place(to, y));
        let added = of_rows(&|y| added.as_ref().map_or(0, |added| place(added, y)));
        let writes =
            |vector: usize| output[..high].iter().any(|row| (row / VECTOR_BYTES..row / VECTOR_BYTES + wide).contains(&vector));
        OutputTile {
            input: of_rows(&place_in_input),
            output,
            added,
            ahead: self.vectors_of_block([&output[..high], &added[..high]], wide),
            halo_copies: self.halo_copies.iter().filter(|copy| writes(copy.from)).cloned().collect(),
        }
    }

    /// Bytes between channels: of the output and of the summand.
    fn pitches(&self) -> [usize; 2] {
        let pitch = |placed: &Placed| placed.extent.pitch() * VECTOR_BYTES;
        [pitch(&self.conv.to), self.conv.added.as_ref().map_or(0, pitch)]
    }

    /// The vectors of a tile in all channels of a block, in the output and in the summand; none if the block is a single channel.
    fn vectors_of_block(&self, rows: [&[usize]; 2], wide: usize) -> Vec<[usize; 2]> {
        let channel_block = self.blocking.channel_block;
        if channel_block == 1 {
            return Vec::new();
        }
        let pitches = self.pitches();
        let mut vectors = Vec::with_capacity(channel_block * rows[0].len() * wide);
        for channel in 0..channel_block {
            for row in 0..rows[0].len() {
                let vector = |x: usize| [0, 1].map(|of| rows[of][row] + channel * pitches[of] + x * VECTOR_BYTES);
                vectors.extend((0..wide).map(vector));
            }
        }
        vectors
    }

    /// Where each part of the blocks of output channels of a tile begins, and the end of the last. There are enough parts for
    /// threads to take over some of each other's, and all have about the same number of weights.
    fn parts(&self) -> Vec<usize> {
        let channel_blocks = self.conv.shape.out_channels / self.blocking.channel_block;
        let wanted = (PIECES * self.threads).div_ceil(self.tiles.len().max(1)).min(channel_blocks / 4).max(1);
        let parts = match (self.threads, self.blocking.split_channels) {
            (1, _) => 1,
            (_, true) => wanted.next_multiple_of(self.threads),
            (_, false) => wanted,
        };
        let first = |part: usize| {
            let wanted = self.conv.work() * part / parts;
            (self.work_before.partition_point(|&before| before < wanted) / self.blocking.channel_block).min(channel_blocks)
        };
        (0..parts).map(first).chain([channel_blocks]).collect()
    }

    /// Whether each worker begins with its row partition.
    fn starts_by_partition(&self, worker: Worker) -> bool {
        !self.blocking.split_channels && self.partition_starts.len() == worker.count + 1
    }

    /// Parts of the output channels.
    fn part_count(&self) -> usize {
        self.packed.parts.len() - 1
    }

    /// The first item of a worker's share, or past the last one. An item is a part of the output channels of a tile.
    pub fn first(&self, worker: Worker) -> usize {
        let parts = self.part_count();
        match self.starts_by_partition(worker) {
            true => parts * self.partition_starts[worker.index],
            false => worker.first_of(self.tiles.len() * parts),
        }
    }

    /// Runs an item.
    ///
    /// # Safety
    /// `base` must be that of an arena of this program. All workers must have the same `worker.count`, and no item may run on two.
    /// Whatever else runs at the same time must not write what this convolution reads, or read or write its output.
    pub unsafe fn run(&self, base: Base, item: usize, worker: Worker) {
        let (tiles, parts) = (self.tiles.len(), self.part_count());
        // The first items of a worker are contiguous: its tiles with all channels, or its channels of all tiles.
        let own = if self.blocking.split_channels && parts.is_multiple_of(worker.count) { parts / worker.count } else { parts };
        if self.starts_by_partition(worker) && worker.count > 1 {
            let starts = &self.partition_starts[..worker.count];
            let partition = starts.iter().position(|first| parts * first == item);
            // SAFETY: the caller vouches for the base.
            partition.into_iter().for_each(|partition| unsafe { self.prefetch_edges(base, partition) });
        }
        let (owner, item) = (item / (tiles * own), item % (tiles * own));
        let (tile, part) = (item / own, owner * own + item % own);
        let channel_blocks = self.packed.parts[part]..self.packed.parts[part + 1];
        // SAFETY: the caller vouches for the base. Different items differ in the tile or in the blocks of channels.
        unsafe { self.run_tile([base.nearest(&self.conv.from, worker), base], &self.tiles[tile], channel_blocks) };
    }

    /// Prefetches the input rows beyond a row partition, which other threads have written. All at once: otherwise the sums wait
    /// for each of them.
    ///
    /// # Safety
    /// `base` must be that of an arena of this program.
    unsafe fn prefetch_edges(&self, base: Base, partition: usize) {
        let extent = &self.conv.from.extent;
        let [rows, left] = extent.halo.map(|halo| halo as isize);
        let own = extent.layout.rows(partition);
        let (begin, end) = (own.start as isize, own.end as isize);
        for channel in 0..self.conv.shape.in_channels {
            // SAFETY: the input lies in the arena and has the channel.
            let first = unsafe { base.channel(&self.conv.from, channel) };
            for y in (begin - rows..begin).chain(end..end + rows) {
                prefetch_vectors(first.wrapping_add(extent.vector_of(partition, y, -left) * LANES), extent.row());
            }
        }
    }

    /// Computes blocks of output channels of a tile: with the input of one base, and all else of the other.
    ///
    /// # Safety
    /// The arenas of both bases must hold all values of this convolution, and the tile must be one of its tiles. Nobody else may
    /// write what is read, or read or write the tile and its halo in these output channels.
    unsafe fn run_tile(
        &self,
        [own_input, base]: [Base; 2],
        (tile, kernel): &(OutputTile, TileKernel),
        channel_blocks: Range<usize>,
    ) {
        let Conv { from, to, added, shape, bias, activation, .. } = &self.conv;
        let step = shape.out_channels / self.blocking.channel_block + 1;
        let [output_pitch, added_pitch] = self.pitches();
        // SAFETY: the caller vouches for the values. Tile, kernel and packed weights are all of the current blocking.
        unsafe {
            for block in 0..self.packed.blocks {
                kernel(&Work {
                    tile,
                    input: own_input.channel(from, 0).cast(),
                    output: base.channel(to, 0).cast(),
                    output_pitch,
                    added: added.as_ref().map_or(std::ptr::null(), |added| base.channel(added, 0).cast_const().cast()),
                    added_pitch,
                    order: &self.packed.order[block * step..][..step],
                    row_offsets: &self.packed.row_offsets[block * step..][..step],
                    entries: &self.packed.entries,
                    bias,
                    channel_blocks: channel_blocks.clone(),
                    first: block == 0,
                    last: block + 1 == self.packed.blocks,
                    activation: *activation,
                });
            }
        }
    }
}
