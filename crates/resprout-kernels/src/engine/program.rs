//! What runs.

use super::arena::{Arena, LANES, VECTOR_BYTES};
use super::layout::{Extent, Gather, HaloCopy};
use super::pool::{PIECES, ThreadPool, Worker, run_alone};
use super::run::{Base, Run as ProgramRun};
use super::stream::{PackedSparse, SparseRow};
use super::tile::{self, CHANNEL_BLOCKS, MOST_ROWS, OutputTile, ROWS, Run, Work};
use crate::isa::Isa;
use crate::{Activation, ConvShape};

/// How a convolution is cut into pieces. No blocking changes a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blocking {
    /// Rows of a tile.
    pub rows: usize,
    /// Columns of a tile, in lines.
    pub columns: usize,
    /// Input channels that are read before the next output channel's sums are put away.
    pub block: usize,
    /// Output channels that are computed at once, sharing what they read; where one has a weight, all multiply.
    pub channel_block: usize,
    /// Whether threads share the output channels, not the tiles.
    pub split_channels: bool,
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
    FillHalo {
        from: Placed,
        to: Placed,
        halo_copies: Vec<Vec<HaloCopy>>,
    },
    /// Each thread makes a replica of its own, with a border.
    Replicate {
        from: Placed,
        to: Placed,
        vectors: Vec<HaloCopy>,
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
    pub rows: Vec<SparseRow>,
    pub bias: Vec<f32>,
    pub activation: Activation,
    pub from: Placed,
    pub added: Option<Placed>,
    pub to: Placed,
    /// What is made of the output's lines for whoever reads its border.
    pub halo_copies: Vec<HaloCopy>,
    pub blocking: Blocking,
    pub stream: PackedSparse,
    pub tiles: Vec<(OutputTile, Run)>,
    /// The first tile of each band, and past the last one's.
    pub partition_starts: Vec<usize>,
    /// The work before each output channel and, last, of all: a unit for each weight and one for each channel.
    pub work_before: Vec<usize>,
    /// How many are to share it; others can, but their parts will not be as even.
    pub threads: usize,
}

/// Operations on values in one arena.
pub struct Program {
    pub(super) isa: Isa,
    pub(super) ops: Vec<Op>,
    /// Names for tables, one per operation.
    pub(super) names: Vec<String>,
    pub(super) vectors: usize,
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
        Arena::new(self.vectors, self.replicas)
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
        assert_eq!(arena.len(), self.vectors, "an arena of another program");
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
    pub fn blockings(&self) -> Vec<Blocking> {
        self.convs().map(|conv| conv.blocking).collect()
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
    pub fn apply(&mut self, blockings: &[Blocking]) {
        let kernel = self.isa;
        let convs = self.ops.iter_mut().filter_map(|op| if let Op::Conv(conv) = op { Some(conv) } else { None });
        convs
            .zip(blockings)
            .filter(|(conv, blocking)| conv.blocking != **blocking)
            .for_each(|(conv, &blocking)| conv.apply(kernel, blocking));
    }

    /// How each convolution is cut where nothing is measured, on these paths.
    pub fn default_blockings(&self, paths: Paths) -> Vec<Blocking> {
        self.convs().map(|conv| conv.default_blocking(self.isa, paths)).collect()
    }

    /// The shape of each convolution, for one image.
    pub fn shapes(&self) -> impl Iterator<Item = &ConvShape> {
        self.convs().map(|conv| &conv.shape)
    }
}

impl Conv {
    pub fn new(
        isa: Isa,
        shape: ConvShape,
        rows: Vec<SparseRow>,
        bias: Vec<f32>,
        activation: Activation,
        [from, to]: [Placed; 2],
        added: Option<Placed>,
        halo_copies: Vec<HaloCopy>,
        threads: usize,
    ) -> Conv {
        let mut work_before = vec![0];
        rows.iter().for_each(|row| work_before.push(work_before[work_before.len() - 1] + row.0.len() + 1));
        let stream = PackedSparse::default();
        let blocking = Blocking { rows: 1, columns: 1, block: shape.in_channels, channel_block: 1, split_channels: false };
        let (tiles, partition_starts) = (Vec::new(), Vec::new());
        let mut conv = Conv {
            shape,
            rows,
            bias,
            activation,
            from,
            added,
            to,
            halo_copies,
            blocking,
            stream,
            tiles,
            partition_starts,
            work_before,
            threads,
        };
        conv.apply(isa, conv.default_blocking(isa, Paths::Any));
        conv
    }

    /// Whether lines of each band of input, output and summand lie one behind another in the same order, without borders.
    fn flat(&self) -> bool {
        let plain = |placed: &Placed| placed.extent.halo == [0, 0];
        self.shape.stride == [1, 1] && plain(&self.from) && plain(&self.to) && self.added.as_ref().is_none_or(plain)
    }

    /// Height and width of each band, which is cut into tiles.
    pub(super) fn row_partitions(&self) -> impl Iterator<Item = [usize; 2]> {
        let (lanes, flat) = (self.to.extent.layout, self.flat());
        let size = move |rows: usize| if flat { [1, rows * lanes.patch[1]] } else { [rows, lanes.patch[1]] };
        (0..lanes.row_partitions).map(move |partition| size(lanes.rows(partition).len()))
    }

    /// The same of the first one; no other is larger.
    pub(super) fn plane(&self) -> [usize; 2] {
        self.row_partitions().next().unwrap_or([1, 1])
    }

    /// Lines of each output channel.
    pub(super) fn vectors(&self) -> usize {
        self.to.extent.layout.vectors()
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

    pub(super) fn apply(&mut self, isa: Isa, blocking: Blocking) {
        let [height, width] = self.plane();
        let channel_block = CHANNEL_BLOCKS
            .into_iter()
            .rfind(|&channel_block| channel_block <= blocking.channel_block && self.fits_block(isa, channel_block))
            .unwrap_or(1);
        let columns = tile::widest(isa, channel_block, blocking.columns.clamp(1, width));
        let fits =
            |rows: &usize| *rows <= blocking.rows.clamp(1, height) && tile::find(isa, channel_block, *rows, columns, 1).is_some();
        let rows = ROWS.into_iter().find(fits).unwrap_or(1);
        self.blocking = Blocking { rows, columns, channel_block, ..blocking };
        self.tiles.clear();
        self.partition_starts = vec![0];
        for partition in 0..self.to.extent.layout.row_partitions {
            self.cut(isa, partition);
            self.partition_starts.push(self.tiles.len());
        }
        let block = blocking.block.clamp(1, self.shape.in_channels.max(1));
        let parts = self.parts();
        if (self.stream.block, self.stream.channel_block) != (block, channel_block) || self.stream.parts != parts {
            self.stream = PackedSparse::new(&self.shape, &self.rows, &self.from.extent, block, channel_block, parts);
        }
    }

    /// Adds all tiles of a band; at the edges smaller ones.
    fn cut(&mut self, isa: Isa, partition: usize) {
        let Blocking { rows, columns, channel_block, .. } = self.blocking;
        let across = self.to.extent.layout.patch[1];
        let begin = self.to.extent.layout.first_row(partition);
        let [height, width] = self.row_partitions().nth(partition).unwrap_or([0, 0]);
        let step = self.shape.stride;
        let mut y = 0;
        while y < height {
            let fits =
                |high: &usize| *high <= rows.min(height - y) && tile::find(isa, channel_block, *high, 1, step[1]).is_some();
            let high = ROWS.into_iter().find(fits).unwrap_or(1);
            let mut x = 0;
            while x < width {
                let wide = (1..=columns.min(width - x))
                    .rev()
                    .find(|&wide| tile::find(isa, channel_block, high, wide, step[1]).is_some())
                    .unwrap_or(1);
                // Where rows are not apart, a tile goes on in the next one.
                let pixel = |y: usize| (begin + y + x / across, x % across);
                let place = |placed: &Placed, y: usize| {
                    let (y, x) = pixel(y);
                    VECTOR_BYTES * placed.extent.vector_of(partition, y as isize, x as isize)
                };
                // The input counts from its very first line, where the entries' offsets begin.
                let input = |y: usize| {
                    let (y, x) = pixel(y);
                    VECTOR_BYTES * self.from.extent.shift(partition, y * step[0], x * step[1])
                };
                let each = |of: &dyn Fn(usize) -> usize| {
                    let mut all = [0; MOST_ROWS];
                    (0..high).for_each(|r| all[r] = of(y + r));
                    all
                };
                let output = each(&|y| place(&self.to, y));
                let writes = |vector: usize| {
                    output[..high].iter().any(|row| (row / VECTOR_BYTES..row / VECTOR_BYTES + wide).contains(&vector))
                };
                let added = each(&|y| self.added.as_ref().map_or(0, |added| place(added, y)));
                let ahead = if channel_block > 1 {
                    self.vectors_of_block(channel_block, [&output[..high], &added[..high]], wide)
                } else {
                    Vec::new()
                };
                let tile = OutputTile {
                    input: each(&input),
                    output,
                    added,
                    ahead,
                    halo_copies: self.halo_copies.iter().filter(|halo_copy| writes(halo_copy.from)).cloned().collect(),
                };
                if let Some(run) = tile::find(isa, channel_block, high, wide, step[1]) {
                    self.tiles.push((tile, run));
                }
                x += wide;
            }
            y += high;
        }
    }

    /// Bytes between channels: of the output and of the summand.
    fn pitches(&self) -> [usize; 2] {
        let pitch = |placed: &Placed| placed.extent.pitch() * VECTOR_BYTES;
        [pitch(&self.to), self.added.as_ref().map_or(0, pitch)]
    }

    /// Rows of a tile, so many lines wide, of all output channels of a group: in the output and in the summand.
    fn vectors_of_block(&self, channel_block: usize, rows: [&[usize]; 2], wide: usize) -> Vec<[usize; 2]> {
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

    /// Whether each worker begins with its band.
    fn by_band(&self, worker: Worker) -> bool {
        !self.blocking.split_channels && self.partition_starts.len() == worker.count + 1
    }

    /// Parts of the output channels.
    fn part_count(&self) -> usize {
        self.stream.parts.len() - 1
    }

    /// The first item of a worker's share, or past the last one: a part of the output channels of a tile.
    pub(super) fn first(&self, worker: Worker) -> usize {
        let parts = self.part_count();
        match self.by_band(worker) {
            true => parts * self.partition_starts[worker.index],
            false => worker.first_of(self.tiles.len() * parts),
        }
    }

    /// # Safety
    /// The base must be that of an arena of the program's size, and all workers must run the same.
    pub(super) unsafe fn run(&self, base: Base, item: usize, worker: Worker) {
        let (tiles, parts) = (self.tiles.len(), self.part_count());
        // What a worker begins with lies side by side: its tiles with all channels, or its channels of all tiles.
        let own = if self.blocking.split_channels && parts.is_multiple_of(worker.count) { parts / worker.count } else { parts };
        if self.by_band(worker) && worker.count > 1 {
            let row_offsets = &self.partition_starts[..worker.count];
            let partition = row_offsets.iter().position(|first| parts * first == item);
            partition.into_iter().for_each(|partition| self.ask_for_edges(base, partition));
        }
        let (owner, item) = (item / (tiles * own), item % (tiles * own));
        let (tile, part) = (item / own, owner * own + item % own);
        let channel_blocks = self.stream.parts[part]..self.stream.parts[part + 1];
        // SAFETY: passed on to the caller; different tiles and channels do not meet.
        unsafe { self.run_tile([base.nearest(&self.from, worker), base], &self.tiles[tile], channel_blocks) };
    }

    /// Asks for the rows beyond a band's own, which other threads have written: all at once, or sums would wait for one by one.
    fn ask_for_edges(&self, base: Base, partition: usize) {
        let extent = &self.from.extent;
        let [rows, left] = extent.halo.map(|halo| halo as isize);
        let own = extent.layout.rows(partition);
        let (begin, end) = (own.start as isize, own.end as isize);
        for channel in 0..self.shape.in_channels {
            // SAFETY: a channel of a value of this arena.
            let first = unsafe { base.channel(&self.from, channel) };
            for y in (begin - rows..begin).chain(end..end + rows) {
                tile::prefetch_vectors(first.wrapping_add(extent.vector_of(partition, y, -left) * LANES), extent.row());
            }
        }
    }

    /// Where each part of the groups of output channels of a tile begins, and the end: enough parts for threads to help each
    /// other, all with about the same number of weights.
    fn parts(&self) -> Vec<usize> {
        let channel_blocks = self.shape.out_channels / self.blocking.channel_block;
        let wanted = (PIECES * self.threads).div_ceil(self.tiles.len().max(1)).min(channel_blocks / 4).max(1);
        let parts = match (self.threads, self.blocking.split_channels) {
            (1, _) => 1,
            (_, true) => wanted.next_multiple_of(self.threads),
            (_, false) => wanted,
        };
        let first = |part: usize| {
            let wanted = self.work() * part / parts;
            (self.work_before.partition_point(|&before| before < wanted) / self.blocking.channel_block).min(channel_blocks)
        };
        (0..parts).map(first).chain([channel_blocks]).collect()
    }

    /// With the input of one base, and all else of the other.
    ///
    /// # Safety
    /// The arenas of both bases must hold all values of this convolution. Nobody else may write its input, or read or write the
    /// tile's lines of the groups' output.
    unsafe fn run_tile(
        &self,
        [own_input, base]: [Base; 2],
        (tile, run): &(OutputTile, Run),
        channel_blocks: std::ops::Range<usize>,
    ) {
        let step = self.shape.out_channels / self.blocking.channel_block + 1;
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
                    row_offsets: &self.stream.row_offsets[block * step..][..step],
                    entries: &self.stream.entries,
                    bias: &self.bias,
                    channel_blocks: channel_blocks.clone(),
                    first: block == 0,
                    last: block + 1 == self.stream.blocks,
                    activation: self.activation,
                });
            }
        }
    }
}
