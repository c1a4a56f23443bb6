//! What runs.

use super::arena::{Arena, LANES, LINE};
use super::layout::{Extent, Gather, Repair};
use super::pool::{PIECES, ThreadPool, Worker, run_alone};
use super::run::{Base, Run as ProgramRun};
use super::stream::{Row, Stream};
use super::tile::{self, GROUPS, MOST_ROWS, ROWS, Run, Tile, Work};
use crate::table::Kernel;
use crate::{Activation, ConvShape};

/// How a convolution is cut into pieces. No choice changes a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    /// Rows of a tile.
    pub rows: usize,
    /// Columns of a tile, in lines.
    pub columns: usize,
    /// Input channels that are read before the next output channel's sums are put away.
    pub block: usize,
    /// Output channels that are computed at once, sharing what they read; where one has a weight, all multiply.
    pub group: usize,
    /// Whether threads share the output channels, not the tiles.
    pub by_channel: bool,
}

/// Which ways to compute a convolution may be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paths {
    /// The fastest.
    #[default]
    Any,
    /// One output channel at a time, and of it only the weights that are there.
    Sparse,
    /// As many output channels at once as there can be, every one with all of their weights.
    Dense,
}

/// A value's place in the arena.
#[derive(Clone, Copy)]
pub(super) struct Placed {
    pub extent: Extent,
    /// Its first line.
    pub start: usize,
    /// The number of its first replica among those of all values.
    pub made: usize,
}

pub(super) enum Op {
    /// `[images, C, H, W]` comes in.
    Input {
        index: usize,
        to: Placed,
        table: Vec<Gather>,
    },
    Conv(Box<Conv>),
    /// Borders are filled, where a convolution has not done it: for each band the lines that are made of others, which may be
    /// another value's.
    Border {
        from: Placed,
        to: Placed,
        repairs: Vec<Vec<Repair>>,
    },
    /// Each thread makes a replica of its own, with a border.
    Replicate {
        from: Placed,
        to: Placed,
        lines: Vec<Repair>,
    },
    /// The same pixels in other lanes or bands: a table for each band.
    Move {
        from: Placed,
        to: Placed,
        tables: Vec<Vec<Gather>>,
    },
    /// All channels, to channels of another value from `first` on.
    Copy {
        from: Placed,
        to: Placed,
        first: usize,
    },
    Pool {
        from: Placed,
        to: Placed,
        taps: Vec<usize>,
        step: [usize; 2],
        kind: Pool,
    },
    /// `scale[c] * x + shift[c]`
    Affine {
        from: Placed,
        to: Placed,
        scale: Vec<f32>,
        shift: Vec<f32>,
        activation: Activation,
    },
    Add {
        a: Placed,
        b: Placed,
        to: Placed,
        activation: Activation,
    },
    /// The mean over pixels. The table says which lanes hold any.
    Mean {
        from: Placed,
        to: Placed,
        table: Vec<Gather>,
    },
    /// `[images, C, H, W]` goes out.
    Output {
        from: Placed,
        index: usize,
        table: Vec<Gather>,
    },
}

#[derive(Clone, Copy)]
pub(super) enum Pool {
    Max,
    /// The sum is multiplied by this.
    Mean(f32),
}

pub(super) struct Conv {
    pub shape: ConvShape,
    pub rows: Vec<Row>,
    pub bias: Vec<f32>,
    pub activation: Activation,
    pub from: Placed,
    pub added: Option<Placed>,
    pub to: Placed,
    /// What is made of the output's lines for whoever reads its border.
    pub repairs: Vec<Repair>,
    pub choice: Choice,
    pub stream: Stream,
    pub tiles: Vec<(Tile, Run)>,
    /// The first tile of each band, and past the last one's.
    pub band_starts: Vec<usize>,
    /// The work before each output channel and, last, of all: a unit for each weight and one for each channel.
    pub work_before: Vec<usize>,
    /// How many are to share it; others can, but their parts will not be as even.
    pub threads: usize,
}

/// Operations on values in one arena.
pub struct Program {
    pub(super) kernel: Kernel,
    pub(super) ops: Vec<Op>,
    /// Names for tables, one per operation.
    pub(super) names: Vec<String>,
    pub(super) lines: usize,
    /// How many replicas there are, of all values.
    pub(super) replicas: usize,
    /// Elements of each input and output.
    pub(super) inputs: Vec<usize>,
    pub(super) outputs: Vec<usize>,
    pub(super) images: usize,
}

impl Program {
    /// Elements of each input and of each output.
    pub fn sizes(&self) -> (&[usize], &[usize]) {
        (&self.inputs, &self.outputs)
    }

    /// Memory for one run at a time.
    pub fn arena(&self) -> Arena {
        Arena::new(self.lines, self.replicas)
    }

    /// Runs on the threads of the pool: they share each operation.
    ///
    /// # Panics
    /// If inputs or outputs do not have the lengths that the program was built for, or the arena is another's.
    pub fn run(&self, arena: &mut Arena, pool: &mut ThreadPool, inputs: &[&[f32]], outputs: &mut [&mut [f32]]) {
        let pointers = self.check(arena, inputs, outputs);
        pool.run(&ProgramRun { program: self, base: Base::new(arena, pointers.as_ptr()), inputs });
    }

    /// Runs on this thread alone.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_alone(&self, arena: &mut Arena, inputs: &[&[f32]], outputs: &mut [&mut [f32]]) {
        let pointers = self.check(arena, inputs, outputs);
        run_alone(&ProgramRun { program: self, base: Base::new(arena, pointers.as_ptr()), inputs }, 1);
    }

    /// The places of the outputs.
    pub(super) fn check(&self, arena: &Arena, inputs: &[&[f32]], outputs: &mut [&mut [f32]]) -> Vec<*mut f32> {
        assert_eq!(arena.len(), self.lines, "an arena of another program");
        assert!(inputs.iter().map(|input| input.len()).eq(self.inputs.iter().copied()), "inputs of another size");
        assert!(outputs.iter().map(|output| output.len()).eq(self.outputs.iter().copied()), "outputs of another size");
        outputs.iter_mut().map(|output| output.as_mut_ptr()).collect()
    }

    /// Names of the operations, and of each convolution its number.
    pub fn names(&self) -> impl Iterator<Item = (&str, Option<usize>)> {
        let mut convs = 0;
        self.names.iter().zip(&self.ops).map(move |(name, op)| {
            let conv = matches!(op, Op::Conv(_)).then(|| {
                convs += 1;
                convs - 1
            });
            (name.as_str(), conv)
        })
    }

    pub(super) fn convs(&self) -> impl Iterator<Item = &Conv> {
        self.ops.iter().filter_map(|op| if let Op::Conv(conv) = op { Some(&**conv) } else { None })
    }

    /// How each convolution is cut.
    pub fn choices(&self) -> Vec<Choice> {
        self.convs().map(|conv| conv.choice).collect()
    }

    /// Multiply-accumulates of each convolution for all lanes' images, and the share of its weights that is there.
    pub fn work(&self) -> Vec<(u64, f64)> {
        let work = |conv: &Conv| {
            let (height, width) = conv.shape.out_size();
            ((conv.nonzero() * height * width * self.images) as u64, conv.density())
        };
        self.convs().map(work).collect()
    }

    /// Cuts the convolutions in other ways. Choices that do not fit (of another machine, say) are brought to what does.
    pub fn choose(&mut self, choices: &[Choice]) {
        let kernel = self.kernel;
        let convs = self.ops.iter_mut().filter_map(|op| if let Op::Conv(conv) = op { Some(conv) } else { None });
        convs
            .zip(choices)
            .filter(|(conv, choice)| conv.choice != **choice)
            .for_each(|(conv, &choice)| conv.choose(kernel, choice));
    }

    /// How each convolution is cut where nothing is measured, on these paths.
    pub fn usual(&self, paths: Paths) -> Vec<Choice> {
        self.convs().map(|conv| conv.usual(self.kernel, paths)).collect()
    }

    /// The shape of each convolution, for one image.
    pub fn shapes(&self) -> impl Iterator<Item = &ConvShape> {
        self.convs().map(|conv| &conv.shape)
    }
}

impl Conv {
    pub fn new(
        kernel: Kernel,
        shape: ConvShape,
        rows: Vec<Row>,
        bias: Vec<f32>,
        activation: Activation,
        [from, to]: [Placed; 2],
        added: Option<Placed>,
        repairs: Vec<Repair>,
        threads: usize,
    ) -> Conv {
        let mut work_before = vec![0];
        rows.iter().for_each(|row| work_before.push(work_before[work_before.len() - 1] + row.0.len() + 1));
        let stream = Stream::default();
        let choice = Choice { rows: 1, columns: 1, block: shape.in_channels, group: 1, by_channel: false };
        let (tiles, band_starts) = (Vec::new(), Vec::new());
        let mut conv = Conv {
            shape,
            rows,
            bias,
            activation,
            from,
            added,
            to,
            repairs,
            choice,
            stream,
            tiles,
            band_starts,
            work_before,
            threads,
        };
        conv.choose(kernel, conv.usual(kernel, Paths::Any));
        conv
    }

    /// Whether lines of each band of input, output and summand lie one behind another in the same order, without borders.
    fn flat(&self) -> bool {
        let plain = |placed: &Placed| placed.extent.pad == [0, 0];
        self.shape.stride == [1, 1] && plain(&self.from) && plain(&self.to) && self.added.as_ref().is_none_or(plain)
    }

    /// Height and width of each band, which is cut into tiles.
    pub(super) fn bands(&self) -> impl Iterator<Item = [usize; 2]> {
        let (lanes, flat) = (self.to.extent.lanes, self.flat());
        let size = move |rows: usize| if flat { [1, rows * lanes.patch[1]] } else { [rows, lanes.patch[1]] };
        (0..lanes.bands).map(move |band| size(lanes.rows(band).len()))
    }

    /// The same of the first one; no other is larger.
    pub(super) fn plane(&self) -> [usize; 2] {
        self.bands().next().unwrap_or([1, 1])
    }

    /// Lines of each output channel.
    pub(super) fn lines(&self) -> usize {
        self.to.extent.lanes.lines()
    }

    /// A unit for each weight and one for each output channel.
    pub(super) fn work(&self) -> usize {
        self.work_before[self.shape.out_channels]
    }

    /// Weights that are there.
    pub(super) fn nonzero(&self) -> usize {
        self.work() - self.shape.out_channels
    }

    /// The same as a share of all.
    pub(super) fn density(&self) -> f64 {
        self.nonzero() as f64 / (self.shape.dot_length() * self.shape.out_channels).max(1) as f64
    }

    pub(super) fn choose(&mut self, kernel: Kernel, choice: Choice) {
        let [height, width] = self.plane();
        let group = GROUPS.into_iter().rfind(|&group| group <= choice.group && self.groups_by(kernel, group)).unwrap_or(1);
        let columns = tile::widest(kernel, group, choice.columns.clamp(1, width));
        let fits = |rows: &usize| *rows <= choice.rows.clamp(1, height) && tile::find(kernel, group, *rows, columns, 1).is_some();
        let rows = ROWS.into_iter().find(fits).unwrap_or(1);
        self.choice = Choice { rows, columns, group, ..choice };
        self.tiles.clear();
        self.band_starts = vec![0];
        for band in 0..self.to.extent.lanes.bands {
            self.cut(kernel, band);
            self.band_starts.push(self.tiles.len());
        }
        let block = choice.block.clamp(1, self.shape.in_channels.max(1));
        let parts = self.parts();
        if (self.stream.block, self.stream.group) != (block, group) || self.stream.parts != parts {
            self.stream = Stream::new(&self.shape, &self.rows, &self.from.extent, block, group, parts);
        }
    }

    /// Adds all tiles of a band; at the edges smaller ones.
    fn cut(&mut self, kernel: Kernel, band: usize) {
        let Choice { rows, columns, group, .. } = self.choice;
        let across = self.to.extent.lanes.patch[1];
        let begin = self.to.extent.lanes.first_row(band);
        let [height, width] = self.bands().nth(band).unwrap_or([0, 0]);
        let step = self.shape.stride;
        let mut y = 0;
        while y < height {
            let fits = |high: &usize| *high <= rows.min(height - y) && tile::find(kernel, group, *high, 1, step[1]).is_some();
            let high = ROWS.into_iter().find(fits).unwrap_or(1);
            let mut x = 0;
            while x < width {
                let wide = (1..=columns.min(width - x))
                    .rev()
                    .find(|&wide| tile::find(kernel, group, high, wide, step[1]).is_some())
                    .unwrap_or(1);
                // Where rows are not apart, a tile goes on in the next one.
                let pixel = |y: usize| (begin + y + x / across, x % across);
                let place = |placed: &Placed, y: usize| {
                    let (y, x) = pixel(y);
                    LINE * placed.extent.line_of(band, y as isize, x as isize)
                };
                // The input counts from its very first line, where the entries' offsets begin.
                let input = |y: usize| {
                    let (y, x) = pixel(y);
                    LINE * self.from.extent.shift(band, y * step[0], x * step[1])
                };
                let each = |of: &dyn Fn(usize) -> usize| {
                    let mut all = [0; MOST_ROWS];
                    (0..high).for_each(|r| all[r] = of(y + r));
                    all
                };
                let output = each(&|y| place(&self.to, y));
                let writes = |line: usize| output[..high].iter().any(|row| (row / LINE..row / LINE + wide).contains(&line));
                let added = each(&|y| self.added.as_ref().map_or(0, |added| place(added, y)));
                let ahead =
                    if group > 1 { self.lines_of_group(group, [&output[..high], &added[..high]], wide) } else { Vec::new() };
                let tile = Tile {
                    input: each(&input),
                    output,
                    added,
                    ahead,
                    repairs: self.repairs.iter().filter(|repair| writes(repair.from)).cloned().collect(),
                };
                if let Some(run) = tile::find(kernel, group, high, wide, step[1]) {
                    self.tiles.push((tile, run));
                }
                x += wide;
            }
            y += high;
        }
    }

    /// Bytes between channels: of the output and of the summand.
    fn pitches(&self) -> [usize; 2] {
        let pitch = |placed: &Placed| placed.extent.pitch() * LINE;
        [pitch(&self.to), self.added.as_ref().map_or(0, pitch)]
    }

    /// Rows of a tile, so many lines wide, of all output channels of a group: in the output and in the summand.
    fn lines_of_group(&self, group: usize, rows: [&[usize]; 2], wide: usize) -> Vec<[usize; 2]> {
        let pitches = self.pitches();
        let mut lines = Vec::with_capacity(group * rows[0].len() * wide);
        for channel in 0..group {
            for row in 0..rows[0].len() {
                let line = |x: usize| [0, 1].map(|of| rows[of][row] + channel * pitches[of] + x * LINE);
                lines.extend((0..wide).map(line));
            }
        }
        lines
    }

    /// Whether each worker begins with its band.
    fn by_band(&self, worker: Worker) -> bool {
        !self.choice.by_channel && self.band_starts.len() == worker.count + 1
    }

    /// Parts of the output channels.
    fn part_count(&self) -> usize {
        self.stream.parts.len() - 1
    }

    /// The first item of a worker's share, or past the last one: a part of the output channels of a tile.
    pub(super) fn first(&self, worker: Worker) -> usize {
        let parts = self.part_count();
        match self.by_band(worker) {
            true => parts * self.band_starts[worker.index],
            false => worker.first_of(self.tiles.len() * parts),
        }
    }

    /// # Safety
    /// The base must be that of an arena of the program's size, and all workers must run the same.
    pub(super) unsafe fn run(&self, base: Base, item: usize, worker: Worker) {
        let (tiles, parts) = (self.tiles.len(), self.part_count());
        // What a worker begins with lies side by side: its tiles with all channels, or its channels of all tiles.
        let own = if self.choice.by_channel && parts.is_multiple_of(worker.count) { parts / worker.count } else { parts };
        if self.by_band(worker) && worker.count > 1 {
            let starts = &self.band_starts[..worker.count];
            let band = starts.iter().position(|first| parts * first == item);
            band.into_iter().for_each(|band| self.ask_for_edges(base, band));
        }
        let (owner, item) = (item / (tiles * own), item % (tiles * own));
        let (tile, part) = (item / own, owner * own + item % own);
        let groups = self.stream.parts[part]..self.stream.parts[part + 1];
        // SAFETY: passed on to the caller; different tiles and channels do not meet.
        unsafe { self.run_tile([base.nearest(&self.from, worker), base], &self.tiles[tile], groups) };
    }

    /// Asks for the rows beyond a band's own, which other threads have written: all at once, or sums would wait for one by one.
    fn ask_for_edges(&self, base: Base, band: usize) {
        let extent = &self.from.extent;
        let [rows, left] = extent.pad.map(|pad| pad as isize);
        let own = extent.lanes.rows(band);
        let (begin, end) = (own.start as isize, own.end as isize);
        for channel in 0..self.shape.in_channels {
            // SAFETY: a channel of a value of this arena.
            let first = unsafe { base.channel(&self.from, channel) };
            for y in (begin - rows..begin).chain(end..end + rows) {
                tile::ask_for_lines(first.wrapping_add(extent.line_of(band, y, -left) * LANES), extent.row());
            }
        }
    }

    /// Where each part of the groups of output channels of a tile begins, and the end: enough parts for threads to help each
    /// other, all with about the same number of weights.
    fn parts(&self) -> Vec<usize> {
        let groups = self.shape.out_channels / self.choice.group;
        let wanted = (PIECES * self.threads).div_ceil(self.tiles.len().max(1)).min(groups / 4).max(1);
        let parts = match (self.threads, self.choice.by_channel) {
            (1, _) => 1,
            (_, true) => wanted.next_multiple_of(self.threads),
            (_, false) => wanted,
        };
        let first = |part: usize| {
            let wanted = self.work() * part / parts;
            (self.work_before.partition_point(|&before| before < wanted) / self.choice.group).min(groups)
        };
        (0..parts).map(first).chain([groups]).collect()
    }

    /// With the input of one base, and all else of the other.
    ///
    /// # Safety
    /// The arenas of both bases must hold all values of this convolution. Nobody else may write its input, or read or write the
    /// tile's lines of the groups' output.
    unsafe fn run_tile(&self, [own_input, base]: [Base; 2], (tile, run): &(Tile, Run), groups: std::ops::Range<usize>) {
        let step = self.shape.out_channels / self.choice.group + 1;
        let [output_pitch, added_pitch] = self.pitches();
        // SAFETY: the builder has checked the extents.
        unsafe {
            for block in 0..self.stream.blocks {
                run(&Work {
                    tile,
                    input: own_input.channel(&self.from, 0).cast(),
                    output: base.channel(&self.to, 0).cast(),
                    output_pitch,
                    added: self.added.as_ref().map_or(std::ptr::null(), |added| base.channel(added, 0).cast_const().cast()),
                    added_pitch,
                    order: &self.stream.order[block * step..][..step],
                    starts: &self.stream.starts[block * step..][..step],
                    entries: &self.stream.entries,
                    bias: &self.bias,
                    groups: groups.clone(),
                    first: block == 0,
                    last: block + 1 == self.stream.blocks,
                    activation: self.activation,
                });
            }
        }
    }
}
