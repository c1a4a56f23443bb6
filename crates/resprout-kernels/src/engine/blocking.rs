//! Ways to cut a convolution into pieces, and which is taken where nothing is measured: the least by a model of cycles, whose
//! numbers come from a Xeon with AVX-512 and fit others in the order of the blockings, not in their times.

use super::arena::VECTOR_BYTES;
use super::program::{Blocking, Conv, Paths};
use super::tile::{self, CHANNEL_BLOCKS, ROWS};
use crate::isa::Isa;

/// Density above which several output channels are computed at once where nothing is measured.
const BREAK_EVEN: f64 = 0.7;

/// Bytes of the smallest first-level caches of today.
const FIRST_LEVEL: f64 = 32.0 * 1024.0;

/// Cycles for an output channel of a tile and block: mostly those of a wrong guess where its weights end.
const VISIT: f64 = 26.0;

/// Cycles for a line of sums that is taken up and put away again. Those of all output channels together do not fit into the
/// first-level cache.
const SUMS: f64 = 4.9;

/// Lines of an output channel that a core fetches at once, and cycles for each more: they come when they are waited for.
const AT_ONCE: usize = 7;
const LATE: f64 = 10.0;

/// Cycles for a weight, beside those of its lines.
const WEIGHT: f64 = 1.0;

/// Cycles that a line of input takes longer whenever a block's input outgrows the first-level cache twofold.
const FARTHER: f64 = 0.3;

impl Conv {
    /// Shapes of tiles that may be the fastest, with groups of these sizes: group, rows, columns.
    fn shapes(&self, isa: Isa, channel_blocks: &[usize]) -> Vec<(usize, usize, usize)> {
        let [height, width] = self.plane();
        let mut shapes = Vec::new();
        for &channel_block in channel_blocks {
            let most = tile::max_vectors(isa, channel_block);
            for rows in ROWS.into_iter().filter(|&rows| rows <= height) {
                for columns in 1..=width.min(most / rows) {
                    let whole = width % columns == 0 || width.div_ceil(columns) < width.div_ceil(columns - columns.min(2) / 2);
                    let enough = rows * columns * channel_block >= 4.min(height * width);
                    if whole && enough && tile::find(isa, channel_block, rows, columns, self.shape.stride[1]).is_some() {
                        shapes.push((channel_block, rows, columns));
                    }
                }
            }
        }
        shapes
    }

    /// Numbers of input channels of a block: all, and half as many, down to eight.
    fn blocks(&self) -> Vec<usize> {
        let mut blocks = vec![self.shape.in_channels];
        while let Some(&last) = blocks.last().filter(|last| **last > 8 && self.shape.groups == 1) {
            blocks.push(last.div_ceil(2));
        }
        blocks
    }

    /// Ways to cut that may be the fastest, of groups of these sizes.
    pub(super) fn candidates(&self, isa: Isa, threads: usize, channel_blocks: &[usize]) -> Vec<Blocking> {
        let blocks = self.blocks();
        // Threads that have bands would write into each other's; alone, again and again, that costs nothing and looks good.
        let splits: &[bool] = if threads > 1 && self.to.extent.layout.row_partitions == 1 { &[false, true] } else { &[false] };
        let mut all = Vec::new();
        for (channel_block, rows, columns) in self.shapes(isa, channel_blocks) {
            for &block in &blocks {
                all.extend(splits.iter().map(|&split_channels| Blocking { rows, columns, block, channel_block, split_channels }));
            }
        }
        all
    }

    /// A blocking without measuring.
    pub(super) fn default_blocking(&self, isa: Isa, paths: Paths) -> Blocking {
        let channel_block = match paths {
            Paths::Sparse => 1,
            Paths::Any if self.density() <= BREAK_EVEN => 1,
            _ => self.largest_block(isa),
        };
        if channel_block > 1 { self.default_blocked(isa, channel_block) } else { self.cheapest(isa) }
    }

    /// One output channel at a time, cut as the model of its cycles says.
    fn cheapest(&self, isa: Isa) -> Blocking {
        let cycles = |blocking: &Blocking| self.cycles(isa, blocking);
        let all = self.candidates(isa, 1, &[1]);
        let least = all.into_iter().min_by(|a, b| cycles(a).total_cmp(&cycles(b)));
        least.unwrap_or(Blocking { rows: 1, columns: 1, block: self.shape.in_channels, channel_block: 1, split_channels: false })
    }

    /// A model of what one output channel at a time costs. Small tiles and blocks have their input near, but take up sums again
    /// and again; large ones read it from farther away.
    fn cycles(&self, isa: Isa, blocking: &Blocking) -> f64 {
        let tiles = |[height, width]: [usize; 2]| height.div_ceil(blocking.rows) * width.div_ceil(blocking.columns);
        let tiles = self.row_partitions().map(tiles).sum::<usize>() as f64;
        let vectors = self.vectors() as f64;
        let blocks = self.shape.in_channels.div_ceil(blocking.block.max(1)).max(1) as f64;
        let [near, far] = tile::vector_cycles(isa);
        let farther = (self.input_bytes(blocking) / FIRST_LEVEL).log2().max(0.0);
        let vector = (near + FARTHER * farther).min(far);
        // With one block, sums are only put away.
        let sums = if blocks > 1.0 { SUMS } else { SUMS / 2.0 };
        let late = LATE * (blocking.rows * blocking.columns).saturating_sub(AT_ONCE) as f64;
        let channels = self.shape.out_channels as f64;
        channels * (tiles * (blocks * VISIT + late) + blocks * vectors * sums)
            + self.nonzero() as f64 * (tiles * WEIGHT + vectors * vector)
    }

    /// Bytes of input that a tile reads of a block.
    fn input_bytes(&self, blocking: &Blocking) -> f64 {
        let reach = |axis: usize, size: usize| (size - 1) * self.shape.stride[axis] + self.shape.kernel[axis];
        (reach(0, blocking.rows) * reach(1, blocking.columns) * blocking.block * VECTOR_BYTES) as f64
    }

    /// Several output channels at once: as many sums in registers as there can be, and blocks whose lines fit into a
    /// first-level cache.
    fn default_blocked(&self, isa: Isa, channel_block: usize) -> Blocking {
        let [height, width] = self.plane();
        let step = self.shape.stride[1];
        let most = tile::max_vectors(isa, channel_block).min(14);
        let columns = even(tile::widest(isa, channel_block, width).min(most), width);
        let fits = |rows: &usize| {
            *rows <= height && rows * columns <= most && tile::find(isa, channel_block, *rows, columns, step).is_some()
        };
        let rows = ROWS.into_iter().find(fits).unwrap_or(1);
        let taps = self.shape.kernel[0] * self.shape.kernel[1];
        let vectors = rows * columns * if taps > 1 { 2 } else { 1 };
        let block = (tile::block_bytes(isa) / (VECTOR_BYTES * vectors)).max(8).min(self.shape.in_channels);
        Blocking { rows, columns, block, channel_block, split_channels: false }
    }

    /// Whether so many output channels can be computed at once: they must read the same inputs, and leave registers for more
    /// than one line, or all weights are read again for every line.
    pub(super) fn fits_block(&self, isa: Isa, channel_block: usize) -> bool {
        let together = self.shape.groups == 1 && self.shape.out_channels.is_multiple_of(channel_block);
        channel_block == 1 || (together && tile::max_vectors(isa, channel_block) >= 2.min(self.vectors()))
    }

    pub(super) fn largest_block(&self, isa: Isa) -> usize {
        CHANNEL_BLOCKS.into_iter().rfind(|&channel_block| self.fits_block(isa, channel_block)).unwrap_or(1)
    }
}

/// The width up to `most` that cuts `width` into the same number of pieces, as even as can be.
fn even(most: usize, width: usize) -> usize {
    width.div_ceil(width.div_ceil(most.max(1)).max(1))
}
