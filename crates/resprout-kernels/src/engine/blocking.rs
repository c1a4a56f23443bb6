//! Candidate blockings of a convolution, and the cycle model that picks the default. Its constants were fitted on one AVX-512 Xeon;
//! elsewhere only the ranking is meaningful.

use super::arena::VECTOR_BYTES;
use super::conv::Conv;
use super::place::Placed;
use super::shapes::{self, CHANNEL_BLOCKS, ROWS};
use crate::isa::{Isa, Level};

/// How a convolution is cut into pieces. No blocking changes a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blocking {
    /// Rows of a tile.
    pub rows: usize,
    /// Columns of a tile, in vectors.
    pub columns: usize,
    /// Input channels that are read before the sums of the next output channel are loaded.
    pub block: usize,
    /// Output channels that are computed at once and share what they read. Where one has a weight, all multiply.
    pub channel_block: usize,
    /// Whether threads share the output channels instead of the tiles.
    pub split_channels: bool,
}

/// Which paths a convolution may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paths {
    /// The fastest.
    #[default]
    Any,
    /// One output channel at a time, with its nonzero weights only.
    Sparse,
    /// As many output channels at once as possible, each with all weights of all of them.
    Dense,
}

/// Density above which the default computes several output channels at once.
const BREAK_EVEN: f64 = 0.7;

/// Bytes of the smallest first-level caches in use.
const FIRST_LEVEL: f64 = 32.0 * 1024.0;

/// Cycles for an output channel of a tile and block: mostly a branch misprediction where its weights end.
const VISIT: f64 = 26.0;

/// Cycles to load and store a vector of sums. Those of all output channels do not fit into the first-level cache.
const SUMS: f64 = 4.9;

/// Vectors of an output channel that a core fetches at once.
const AT_ONCE: usize = 7;

/// Cycles for each vector beyond these: it arrives late.
const LATE: f64 = 10.0;

/// Cycles for a weight, beside those of its vectors.
const WEIGHT: f64 = 1.0;

/// Extra cycles for a vector of input each time that a block's input exceeds the first-level cache twofold.
const FARTHER: f64 = 0.3;

impl Conv<Placed> {
    /// Tile shapes that may be the fastest, for these sizes of a block of output channels: block, rows, columns.
    fn shapes(&self, isa: Isa, channel_blocks: &[usize]) -> Vec<(usize, usize, usize)> {
        let [height, width] = self.first_partition();
        let mut shapes = Vec::new();
        for &channel_block in channel_blocks {
            let most = shapes::max_vectors(isa, channel_block);
            for rows in ROWS.into_iter().filter(|&rows| rows <= height) {
                for columns in 1..=width.min(most / rows) {
                    let whole = width % columns == 0 || width.div_ceil(columns) < width.div_ceil(columns - columns.min(2) / 2);
                    let enough = rows * columns * channel_block >= 4.min(height * width);
                    if whole && enough && shapes::find(isa, channel_block, rows, columns, self.shape.stride[1]).is_some() {
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

    /// Blockings that may be the fastest, for these sizes of a block of output channels.
    pub(super) fn candidates(&self, isa: Isa, threads: usize, channel_blocks: &[usize]) -> Vec<Blocking> {
        let blocks = self.blocks();
        // With row partitions, split channels make threads write into each other's memory. A benchmark of one operation does not
        // see that cost.
        let splits: &[bool] = if threads > 1 && self.to.extent.layout.row_partitions == 1 { &[false, true] } else { &[false] };
        let mut all = Vec::new();
        for (channel_block, rows, columns) in self.shapes(isa, channel_blocks) {
            for &block in &blocks {
                all.extend(splits.iter().map(|&split_channels| Blocking { rows, columns, block, channel_block, split_channels }));
            }
        }
        all
    }

    /// The blocking that is used unless others are measured.
    pub(super) fn default_blocking(&self, isa: Isa, paths: Paths) -> Blocking {
        let channel_block = match paths {
            Paths::Sparse => 1,
            Paths::Any if self.density() <= BREAK_EVEN => 1,
            _ => self.largest_block(isa),
        };
        if channel_block > 1 { self.default_blocked(isa, channel_block) } else { self.cheapest(isa) }
    }

    /// One output channel at a time, with the least cycles by the model.
    fn cheapest(&self, isa: Isa) -> Blocking {
        let cycles = |blocking: &Blocking| self.cycles(isa, blocking);
        let all = self.candidates(isa, 1, &[1]);
        let least = all.into_iter().min_by(|a, b| cycles(a).total_cmp(&cycles(b)));
        least.unwrap_or(Blocking { rows: 1, columns: 1, block: self.shape.in_channels, channel_block: 1, split_channels: false })
    }

    /// The cycle model for one output channel at a time. Small tiles and blocks have their input in a near cache, but load and
    /// store sums often. Large ones read input from a farther cache.
    fn cycles(&self, isa: Isa, blocking: &Blocking) -> f64 {
        let tiles = |[height, width]: [usize; 2]| height.div_ceil(blocking.rows) * width.div_ceil(blocking.columns);
        let tiles = self.row_partitions().map(tiles).sum::<usize>() as f64;
        let vectors = self.vectors() as f64;
        let blocks = self.shape.in_channels.div_ceil(blocking.block.max(1)).max(1) as f64;
        let [near, far] = vector_cycles(isa);
        let farther = (self.input_bytes(blocking) / FIRST_LEVEL).log2().max(0.0);
        let vector = (near + FARTHER * farther).min(far);
        // With one block, sums are stored but not loaded.
        let sums = if blocks > 1.0 { SUMS } else { SUMS / 2.0 };
        let late = LATE * (blocking.rows * blocking.columns).saturating_sub(AT_ONCE) as f64;
        let channels = self.shape.out_channels as f64;
        channels * (tiles * (blocks * VISIT + late) + blocks * vectors * sums)
            + self.nonzero as f64 * (tiles * WEIGHT + vectors * vector)
    }

    /// Bytes of input that a tile reads in a block.
    fn input_bytes(&self, blocking: &Blocking) -> f64 {
        let reach = |axis: usize, size: usize| (size - 1) * self.shape.stride[axis] + self.shape.kernel[axis];
        (reach(0, blocking.rows) * reach(1, blocking.columns) * blocking.block * VECTOR_BYTES) as f64
    }

    /// Several output channels at once: as many sums in registers as possible, and blocks whose vectors fit into the first-level
    /// cache.
    fn default_blocked(&self, isa: Isa, channel_block: usize) -> Blocking {
        let [height, width] = self.first_partition();
        let step = self.shape.stride[1];
        let most = shapes::max_vectors(isa, channel_block).min(14);
        let columns = even(shapes::widest(isa, channel_block, width).min(most), width);
        let fits = |rows: &usize| {
            *rows <= height && rows * columns <= most && shapes::find(isa, channel_block, *rows, columns, step).is_some()
        };
        let rows = ROWS.into_iter().find(fits).unwrap_or(1);
        let taps = self.shape.kernel[0] * self.shape.kernel[1];
        let vectors = rows * columns * if taps > 1 { 2 } else { 1 };
        let block = (block_bytes(isa) / (VECTOR_BYTES * vectors)).max(8).min(self.shape.in_channels);
        Blocking { rows, columns, block, channel_block, split_channels: false }
    }

    /// Whether so many output channels can be computed at once. They must read the same inputs, and leave registers for more
    /// than one vector: otherwise all weights are read again for every vector.
    pub(super) fn fits_block(&self, isa: Isa, channel_block: usize) -> bool {
        let divides = self.shape.groups == 1 && self.shape.out_channels.is_multiple_of(channel_block);
        channel_block == 1 || (divides && shapes::max_vectors(isa, channel_block) >= 2.min(self.vectors()))
    }

    /// The most output channels that can be computed at once.
    pub(super) fn largest_block(&self, isa: Isa) -> usize {
        CHANNEL_BLOCKS.into_iter().rfind(|&channel_block| self.fits_block(isa, channel_block)).unwrap_or(1)
    }
}

/// Cycles for a vector of input and its multiplications: from the first-level cache, and from farther away.
fn vector_cycles(isa: Isa) -> [f64; 2] {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => [0.57, 1.4],
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => [1.1, 2.0],
        Level::Portable => [2.2, 2.8],
    }
}

/// Bytes of input vectors of a default block of input channels, where several output channels are computed at once. Narrower
/// registers spend more time on sums, so it pays to load them less often.
fn block_bytes(isa: Isa) -> usize {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => 24 * 1024,
        _ => 32 * 1024,
    }
}

/// The width up to `most` that cuts `width` into the same number of pieces as `most`, but evenly.
fn even(most: usize, width: usize) -> usize {
    width.div_ceil(width.div_ceil(most.max(1)).max(1))
}
