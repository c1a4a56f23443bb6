//! Ways to cut a convolution into pieces, and which is taken where nothing is measured: the least by a model of cycles, whose
//! numbers come from a Xeon with AVX-512 and fit others in the order of the choices, not in their times.

use super::arena::LINE;
use super::program::{Choice, Conv, Paths};
use super::tile::{self, GROUPS, ROWS};
use crate::table::Kernel;

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
    fn shapes(&self, kernel: Kernel, groups: &[usize]) -> Vec<(usize, usize, usize)> {
        let [height, width] = self.plane();
        let mut shapes = Vec::new();
        for &group in groups {
            let most = tile::most_lines(kernel, group);
            for rows in ROWS.into_iter().filter(|&rows| rows <= height) {
                for columns in 1..=width.min(most / rows) {
                    let whole = width % columns == 0 || width.div_ceil(columns) < width.div_ceil(columns - columns.min(2) / 2);
                    let enough = rows * columns * group >= 4.min(height * width);
                    if whole && enough && tile::find(kernel, group, rows, columns, self.shape.stride[1]).is_some() {
                        shapes.push((group, rows, columns));
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
    pub(super) fn candidates(&self, kernel: Kernel, threads: usize, groups: &[usize]) -> Vec<Choice> {
        let blocks = self.blocks();
        // Threads that have bands would write into each other's; alone, again and again, that costs nothing and looks good.
        let splits: &[bool] = if threads > 1 && self.to.extent.lanes.bands == 1 { &[false, true] } else { &[false] };
        let mut all = Vec::new();
        for (group, rows, columns) in self.shapes(kernel, groups) {
            for &block in &blocks {
                all.extend(splits.iter().map(|&by_channel| Choice { rows, columns, block, group, by_channel }));
            }
        }
        all
    }

    /// A choice without measuring.
    pub(super) fn usual(&self, kernel: Kernel, paths: Paths) -> Choice {
        let group = match paths {
            Paths::Sparse => 1,
            Paths::Any if self.density() <= BREAK_EVEN => 1,
            _ => self.largest_group(kernel),
        };
        if group > 1 { self.usual_together(kernel, group) } else { self.cheapest(kernel) }
    }

    /// One output channel at a time, cut as the model of its cycles says.
    fn cheapest(&self, kernel: Kernel) -> Choice {
        let cycles = |choice: &Choice| self.cycles(kernel, choice);
        let all = self.candidates(kernel, 1, &[1]);
        let least = all.into_iter().min_by(|a, b| cycles(a).total_cmp(&cycles(b)));
        least.unwrap_or(Choice { rows: 1, columns: 1, block: self.shape.in_channels, group: 1, by_channel: false })
    }

    /// A model of what one output channel at a time costs. Small tiles and blocks have their input near, but take up sums again
    /// and again; large ones read it from farther away.
    fn cycles(&self, kernel: Kernel, choice: &Choice) -> f64 {
        let tiles = |[height, width]: [usize; 2]| height.div_ceil(choice.rows) * width.div_ceil(choice.columns);
        let tiles = self.bands().map(tiles).sum::<usize>() as f64;
        let lines = self.lines() as f64;
        let blocks = self.shape.in_channels.div_ceil(choice.block.max(1)).max(1) as f64;
        let [near, far] = tile::line_cycles(kernel);
        let farther = (self.input_bytes(choice) / FIRST_LEVEL).log2().max(0.0);
        let line = (near + FARTHER * farther).min(far);
        // With one block, sums are only put away.
        let sums = if blocks > 1.0 { SUMS } else { SUMS / 2.0 };
        let late = LATE * (choice.rows * choice.columns).saturating_sub(AT_ONCE) as f64;
        let channels = self.shape.out_channels as f64;
        channels * (tiles * (blocks * VISIT + late) + blocks * lines * sums)
            + self.nonzero() as f64 * (tiles * WEIGHT + lines * line)
    }

    /// Bytes of input that a tile reads of a block.
    fn input_bytes(&self, choice: &Choice) -> f64 {
        let reach = |axis: usize, size: usize| (size - 1) * self.shape.stride[axis] + self.shape.kernel[axis];
        (reach(0, choice.rows) * reach(1, choice.columns) * choice.block * LINE) as f64
    }

    /// Several output channels at once: as many sums in registers as there can be, and blocks whose lines fit into a
    /// first-level cache.
    fn usual_together(&self, kernel: Kernel, group: usize) -> Choice {
        let [height, width] = self.plane();
        let step = self.shape.stride[1];
        let most = tile::most_lines(kernel, group).min(14);
        let columns = even(tile::widest(kernel, group, width).min(most), width);
        let fits =
            |rows: &usize| *rows <= height && rows * columns <= most && tile::find(kernel, group, *rows, columns, step).is_some();
        let rows = ROWS.into_iter().find(fits).unwrap_or(1);
        let taps = self.shape.kernel[0] * self.shape.kernel[1];
        let lines = rows * columns * if taps > 1 { 2 } else { 1 };
        let block = (tile::block_bytes(kernel) / (LINE * lines)).max(8).min(self.shape.in_channels);
        Choice { rows, columns, block, group, by_channel: false }
    }

    /// Whether so many output channels can be computed at once: they must read the same inputs, and leave registers for more
    /// than one line, or all weights are read again for every line.
    pub(super) fn groups_by(&self, kernel: Kernel, group: usize) -> bool {
        let together = self.shape.groups == 1 && self.shape.out_channels.is_multiple_of(group);
        group == 1 || (together && tile::most_lines(kernel, group) >= 2.min(self.lines()))
    }

    pub(super) fn largest_group(&self, kernel: Kernel) -> usize {
        GROUPS.into_iter().rfind(|&group| self.groups_by(kernel, group)).unwrap_or(1)
    }
}

/// The width up to `most` that cuts `width` into the same number of pieces, as even as can be.
fn even(most: usize, width: usize) -> usize {
    width.div_ceil(width.div_ceil(most.max(1)).max(1))
}
