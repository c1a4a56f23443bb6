//! What runs.

use super::arena::{Arena, LANES, LINE};
use super::layout::{Extent, Gather};
use super::stream::{Row, Stream};
use super::team::{Member, Team};
use super::tile::{self, GROUPS, MOST_ROWS, ROWS, Run, Tile, Work};
use crate::table::Kernel;
use crate::{Activation, ConvShape};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Density above which several output channels are computed at once where nothing is measured.
const BREAK_EVEN: f64 = 0.7;

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
}

pub(super) enum Op {
    /// `[images, C, H, W]` comes in.
    Input {
        index: usize,
        to: Placed,
        table: Vec<Gather>,
    },
    Conv(Box<Conv>),
    /// Borders are filled.
    Border {
        value: Placed,
        table: Vec<Gather>,
    },
    /// The same pixels in other lanes.
    Move {
        from: Placed,
        to: Placed,
        table: Vec<Gather>,
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
    /// The mean over pixels. Lanes are read from the number of their image.
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
    pub choice: Choice,
    pub stream: Stream,
    pub tiles: Vec<(Tile, Run)>,
    /// The work before each output channel and, last, of all: a unit for each weight and one for each channel.
    pub work_before: Vec<usize>,
}

/// Operations on values in one arena.
pub struct Program {
    pub(super) kernel: Kernel,
    pub(super) ops: Vec<Op>,
    /// Names for tables, one per operation.
    pub(super) names: Vec<String>,
    pub(super) lines: usize,
    /// Elements of each input and output.
    pub(super) inputs: Vec<usize>,
    pub(super) outputs: Vec<usize>,
    pub(super) images: usize,
}

/// Addresses that all threads use at once, each its own parts.
#[derive(Clone, Copy)]
struct Base {
    arena: *mut f32,
    outputs: *const *mut f32,
}

// SAFETY: threads write to disjoint parts between two meetings, and read only what was written before the last one.
unsafe impl Send for Base {}
// SAFETY: as above.
unsafe impl Sync for Base {}

impl Program {
    /// Elements of each input and of each output.
    pub fn sizes(&self) -> (&[usize], &[usize]) {
        (&self.inputs, &self.outputs)
    }

    /// Memory for one run at a time.
    pub fn arena(&self) -> Arena {
        Arena::new(self.lines)
    }

    /// Runs on all threads of the team: they share each operation.
    ///
    /// # Panics
    /// If inputs or outputs do not have the lengths that the program was built for, or the arena is another's.
    pub fn run(&self, arena: &mut Arena, team: &mut Team, inputs: &[&[f32]], outputs: &mut [&mut [f32]]) {
        let (pointers, arena) = self.check(arena, inputs, outputs);
        let base = Base { arena, outputs: pointers.as_ptr() };
        team.run(&|member| self.run_part(base, inputs, member));
    }

    /// Runs on this thread alone.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_alone(&self, arena: &mut Arena, inputs: &[&[f32]], outputs: &mut [&mut [f32]]) {
        let (pointers, arena) = self.check(arena, inputs, outputs);
        self.run_part(Base { arena, outputs: pointers.as_ptr() }, inputs, &Member::alone());
    }

    fn check(&self, arena: &mut Arena, inputs: &[&[f32]], outputs: &mut [&mut [f32]]) -> (Vec<*mut f32>, *mut f32) {
        assert_eq!(arena.len(), self.lines, "an arena of another program");
        assert!(inputs.iter().map(|input| input.len()).eq(self.inputs.iter().copied()), "inputs of another size");
        assert!(outputs.iter().map(|output| output.len()).eq(self.outputs.iter().copied()), "outputs of another size");
        (outputs.iter_mut().map(|output| output.as_mut_ptr()).collect(), arena.pointer())
    }

    fn run_part(&self, base: Base, inputs: &[&[f32]], member: &Member) {
        for op in &self.ops {
            self.run_op(op, base, inputs, member);
            member.meet();
        }
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

    /// Seconds of every operation: the least of `runs` runs.
    pub fn time(
        &self,
        arena: &mut Arena,
        team: &mut Team,
        inputs: &[&[f32]],
        outputs: &mut [&mut [f32]],
        runs: usize,
    ) -> Vec<f64> {
        let (pointers, arena) = self.check(arena, inputs, outputs);
        let base = Base { arena, outputs: pointers.as_ptr() };
        let watches: Vec<Stopwatch> = self.ops.iter().map(|_| Stopwatch::default()).collect();
        team.run(&|member| {
            for _ in 0..runs {
                for (op, watch) in self.ops.iter().zip(&watches) {
                    watch.time(member, || self.run_op(op, base, inputs, member));
                }
            }
        });
        watches.into_iter().map(Stopwatch::least).collect()
    }

    fn convs(&self) -> impl Iterator<Item = &Conv> {
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

    /// Chooses among these paths, without measuring.
    pub fn restrict(&mut self, paths: Paths) {
        let kernel = self.kernel;
        let convs = self.ops.iter_mut().filter_map(|op| if let Op::Conv(conv) = op { Some(conv) } else { None });
        convs.for_each(|conv| conv.choose(kernel, conv.usual(kernel, paths)));
    }

    /// The shape of each convolution, for one image.
    pub fn shapes(&self) -> impl Iterator<Item = &ConvShape> {
        self.convs().map(|conv| &conv.shape)
    }

    /// Tries ways to cut each convolution, within about `limit`, and keeps the fastest of those that are on these paths.
    pub fn tune(&mut self, arena: &mut Arena, team: &mut Team, limit: Duration, paths: Paths) {
        let start = Instant::now();
        let base = Base { arena: arena.pointer(), outputs: std::ptr::null() };
        let mut known: Vec<(Signature, Choice)> = Vec::new();
        let mut left = self.convs().count();
        let kernel = self.kernel;
        for op in &mut self.ops {
            let Op::Conv(conv) = op else { continue };
            let signature = conv.signature();
            let found = known.iter().find(|(known, _)| *known == signature).map(|(_, choice)| *choice);
            let choice = found.unwrap_or_else(|| {
                let share = limit.saturating_sub(start.elapsed()) / u32::try_from(left).unwrap_or(1);
                conv.fastest(kernel, base, team, share, paths)
            });
            if conv.choice != choice {
                conv.choose(kernel, choice);
            }
            known.push((signature, choice));
            left -= 1;
        }
    }

    fn run_op(&self, op: &Op, base: Base, inputs: &[&[f32]], member: &Member) {
        // SAFETY: `Builder` has checked every extent against the arena; each thread writes its own channels or tiles.
        unsafe {
            match op {
                Op::Conv(conv) => conv.run(base, member),
                Op::Input { index, to, table } => {
                    let size = to.extent.size[0] * to.extent.size[1];
                    // Threads share the lines: images often have three channels, and tables are long.
                    let table = &table[member.part(table.len())];
                    for channel in 0..to.extent.channels {
                        let source = inputs[*index].as_ptr().add(channel * size);
                        table.iter().for_each(|gather| gather_line(gather, source, base.channel(to, channel)));
                    }
                }
                Op::Border { value, table } => {
                    for channel in member.part(value.extent.channels) {
                        let line = base.channel(value, channel);
                        table.iter().for_each(|gather| tile::shuffle_line(self.kernel, gather, line));
                    }
                }
                Op::Move { from, to, table } => {
                    for channel in member.part(to.extent.channels) {
                        let (source, line) = (base.channel(from, channel), base.channel(to, channel));
                        table.iter().for_each(|gather| gather_line(gather, source, line));
                    }
                }
                Op::Copy { from, to, first } => {
                    for channel in member.part(from.extent.channels) {
                        let (source, target) = (base.channel(from, channel), base.channel(to, first + channel));
                        for_rows(&from.extent, &to.extent, |a, b, count| {
                            source.add(a * LANES).copy_to_nonoverlapping(target.add(b * LANES), count * LANES);
                        });
                    }
                }
                Op::Pool { from, to, taps, step, kind } => pool(base, from, to, taps, *step, *kind, member),
                Op::Affine { from, to, scale, shift, activation } => {
                    for channel in member.part(from.extent.channels) {
                        let (source, target) = (base.channel(from, channel), base.channel(to, channel));
                        let (scale, shift) = (scale[channel], shift[channel]);
                        for_rows(&from.extent, &to.extent, |a, b, count| {
                            let source = std::slice::from_raw_parts(source.add(a * LANES), count * LANES);
                            let target = std::slice::from_raw_parts_mut(target.add(b * LANES), count * LANES);
                            target.iter_mut().zip(source).for_each(|(y, x)| *y = activation.apply(x * scale + shift));
                        });
                    }
                }
                Op::Add { a, b, to, activation } => {
                    for channel in member.part(to.extent.channels) {
                        let (left, right, target) =
                            (base.channel(a, channel), base.channel(b, channel), base.channel(to, channel));
                        for y in 0..to.extent.lanes.patch[0] as isize {
                            let count = to.extent.lanes.patch[1] * LANES;
                            let at = |placed: &Placed, line: *mut f32| line.add(placed.extent.line(y, 0) * LANES);
                            let (left, right, target) = (at(a, left), at(b, right), at(to, target));
                            for i in 0..count {
                                *target.add(i) = activation.apply(*left.add(i) + *right.add(i));
                            }
                        }
                    }
                }
                Op::Mean { from, to, table } => {
                    let size = from.extent.size[0] * from.extent.size[1];
                    for channel in member.part(from.extent.channels) {
                        let sums = image_sums(table, base.channel(from, channel));
                        let target = base.channel(to, channel);
                        for (image, sum) in sums.iter().enumerate().take(from.extent.lanes.images) {
                            *target.add(to.extent.float(image, [0, 0])) = (sum / size as f64) as f32;
                        }
                    }
                }
                Op::Output { from, index, table } => {
                    let size = from.extent.size[0] * from.extent.size[1];
                    for channel in member.part(from.extent.channels) {
                        let target = (*base.outputs.add(*index)).add(channel * size);
                        scatter(table, base.channel(from, channel), target);
                    }
                }
            }
        }
    }
}

impl Base {
    /// The first line (of the border) of a channel.
    unsafe fn channel(&self, value: &Placed, channel: usize) -> *mut f32 {
        // SAFETY: the caller asks for a channel of a value of this arena.
        unsafe { self.arena.add((value.start + channel * value.extent.pitch()) * LANES) }
    }
}

pub(super) unsafe fn gather_line(gather: &Gather, source: *const f32, line: *mut f32) {
    // SAFETY: tables are made of places inside of their values.
    let value = |lane: usize| unsafe { *source.add(gather.from[lane] as usize) };
    let values = std::array::from_fn(|lane| if gather.read >> lane & 1 == 1 { value(lane) } else { 0.0 });
    // SAFETY: as above.
    unsafe { line.add(gather.line as usize * LANES).cast::<[f32; LANES]>().write(values) }
}

/// Every lane that a table would read, to the place where it would be read from.
unsafe fn scatter(table: &[Gather], source: *const f32, target: *mut f32) {
    for gather in table {
        // SAFETY: tables are made of places inside of their values.
        let line = unsafe { source.add(gather.line as usize * LANES).cast::<[f32; LANES]>().read() };
        for lane in (0..LANES).filter(|lane| gather.read >> lane & 1 == 1) {
            // SAFETY: as above.
            unsafe { *target.add(gather.from[lane] as usize) = line[lane] };
        }
    }
}

/// The sums of all lanes with the same place.
unsafe fn image_sums(table: &[Gather], source: *const f32) -> [f64; LANES] {
    let mut sums = [0.0; LANES];
    for gather in table {
        // SAFETY: tables are made of lines inside of their values.
        let line = unsafe { source.add(gather.line as usize * LANES).cast::<[f32; LANES]>().read() };
        for lane in (0..LANES).filter(|lane| gather.read >> lane & 1 == 1) {
            sums[gather.from[lane] as usize] += f64::from(line[lane]);
        }
    }
    sums
}

/// Calls `work` with the first lines of each row of a patch in both values, and the row's length.
fn for_rows(from: &Extent, to: &Extent, work: impl Fn(usize, usize, usize)) {
    for y in 0..to.lanes.patch[0] as isize {
        work(from.line(y, 0), to.line(y, 0), to.lanes.patch[1]);
    }
}

unsafe fn pool(base: Base, from: &Placed, to: &Placed, taps: &[usize], step: [usize; 2], kind: Pool, member: &Member) {
    for channel in member.part(to.extent.channels) {
        // SAFETY: the builder has checked that all taps lie within the input's border.
        unsafe {
            let (source, target) = (base.channel(from, channel), base.channel(to, channel));
            for y in 0..to.extent.lanes.patch[0] {
                for x in 0..to.extent.lanes.patch[1] {
                    let origin = y * step[0] * from.extent.row() + x * step[1];
                    let line = |tap: usize| source.add((origin + tap) * LANES).cast::<[f32; LANES]>().read();
                    let mut result = line(taps[0]);
                    for &tap in &taps[1..] {
                        let other = line(tap);
                        for lane in 0..LANES {
                            result[lane] = match kind {
                                // NaN wins, as it must.
                                Pool::Max => {
                                    if other[lane] > result[lane] || other[lane].is_nan() {
                                        other[lane]
                                    } else {
                                        result[lane]
                                    }
                                }
                                Pool::Mean(_) => result[lane] + other[lane],
                            };
                        }
                    }
                    if let Pool::Mean(scale) = kind {
                        result.iter_mut().for_each(|value| *value *= scale);
                    }
                    target.add(to.extent.line(y as isize, x as isize) * LANES).cast::<[f32; LANES]>().write(result);
                }
            }
        }
    }
}

/// What decides which choice is the fastest.
#[derive(PartialEq)]
struct Signature {
    shape: ConvShape,
    patch: [usize; 2],
    added: bool,
    /// In sixteenths of a doubling.
    nonzero: i32,
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
    ) -> Conv {
        let mut work_before = vec![0];
        rows.iter().for_each(|row| work_before.push(work_before[work_before.len() - 1] + row.0.len() + 1));
        let stream = Stream { block: 1, blocks: 0, group: 1, starts: Vec::new(), entries: Vec::new() };
        let choice = Choice { rows: 1, columns: 1, block: shape.in_channels, group: 1, by_channel: false };
        let mut conv = Conv { shape, rows, bias, activation, from, added, to, choice, stream, tiles: Vec::new(), work_before };
        conv.choose(kernel, conv.usual(kernel, Paths::Any));
        conv
    }

    /// Whether lines of input, output and summand lie one behind another in the same order, without borders.
    fn flat(&self) -> bool {
        let plain = |placed: &Placed| placed.extent.pad == 0;
        self.shape.stride == [1, 1] && plain(&self.from) && plain(&self.to) && self.added.as_ref().is_none_or(plain)
    }

    /// Height and width of what is cut into tiles.
    fn plane(&self) -> [usize; 2] {
        let patch = self.to.extent.lanes.patch;
        if self.flat() { [1, patch[0] * patch[1]] } else { patch }
    }

    /// Weights that are there.
    fn nonzero(&self) -> usize {
        self.rows.iter().map(|row| row.0.len()).sum()
    }

    /// The same as a share of all.
    fn density(&self) -> f64 {
        self.nonzero() as f64 / (self.shape.dot_length() * self.shape.out_channels).max(1) as f64
    }

    /// Whether so many output channels can be computed at once: they must read the same inputs.
    fn groups_by(&self, group: usize) -> bool {
        group == 1 || (self.shape.groups == 1 && self.shape.out_channels.is_multiple_of(group))
    }

    fn largest_group(&self) -> usize {
        GROUPS.into_iter().rfind(|&group| self.groups_by(group)).unwrap_or(1)
    }

    /// A choice without measuring: many sums in registers, and blocks whose lines fit into half of a first-level cache.
    fn usual(&self, kernel: Kernel, paths: Paths) -> Choice {
        let [height, width] = self.plane();
        let step = self.shape.stride[1];
        let group = match paths {
            Paths::Sparse => 1,
            Paths::Any if self.density() <= BREAK_EVEN => 1,
            _ => self.largest_group(),
        };
        let most = tile::most_lines(kernel, group).min(14);
        let columns = even(tile::widest(kernel, group, width).min(most), width);
        let fits =
            |rows: &usize| *rows <= height && rows * columns <= most && tile::find(kernel, group, *rows, columns, step).is_some();
        let rows = ROWS.into_iter().find(fits).unwrap_or(1);
        let taps = self.shape.kernel[0] * self.shape.kernel[1];
        let lines = rows * columns * if taps > 1 { 2 } else { 1 };
        let nonzero = self.work_before[self.shape.out_channels] as f64 / self.shape.out_channels as f64;
        // Below four weights of a block, putting sums away costs more than reading lines from farther away.
        let least = (4.0 * self.shape.in_channels as f64 / nonzero.max(1.0)).ceil() as usize;
        let block = (16 * 1024 / (LINE * lines)).max(least).max(8).min(self.shape.in_channels);
        Choice { rows, columns, block, group, by_channel: false }
    }

    fn choose(&mut self, kernel: Kernel, choice: Choice) {
        let [height, width] = self.plane();
        let group = GROUPS.into_iter().rfind(|&group| group <= choice.group && self.groups_by(group)).unwrap_or(1);
        let columns = tile::widest(kernel, group, choice.columns.clamp(1, width));
        let fits = |rows: &usize| *rows <= choice.rows.clamp(1, height) && tile::find(kernel, group, *rows, columns, 1).is_some();
        let rows = ROWS.into_iter().find(fits).unwrap_or(1);
        self.choice = Choice { rows, columns, group, ..choice };
        self.tiles = self.cut(kernel, self.choice);
        let block = choice.block.clamp(1, self.shape.in_channels.max(1));
        if self.stream.blocks == 0 || self.stream.block != block || self.stream.group != group {
            self.stream = Stream::new(&self.shape, &self.rows, &self.from.extent, block, group);
        }
    }

    /// All tiles; at the edges smaller ones.
    fn cut(&self, kernel: Kernel, choice: Choice) -> Vec<(Tile, Run)> {
        let Choice { rows, columns, group, .. } = choice;
        let [height, width] = self.plane();
        let flat = self.flat();
        let step = self.shape.stride;
        let mut tiles = Vec::new();
        let mut y = 0;
        while y < height {
            let mut high = rows;
            while high > height - y {
                high = ROWS.into_iter().find(|&smaller| smaller < high).unwrap_or(1);
            }
            let mut x = 0;
            while x < width {
                let wide = (1..=columns.min(width - x))
                    .rev()
                    .find(|&wide| tile::find(kernel, group, high, wide, step[1]).is_some())
                    .unwrap_or(1);
                let place = |placed: &Placed, y: usize, x: usize| match flat {
                    true => LINE * x,
                    false => LINE * placed.extent.line(y as isize, x as isize),
                };
                // The input counts from its very first line, where the entries' offsets begin.
                let input = |y: usize| match flat {
                    true => LINE * x,
                    false => LINE * (y * step[0] * self.from.extent.row() + x * step[1]),
                };
                let each = |of: &dyn Fn(usize) -> usize| {
                    let mut all = [0; MOST_ROWS];
                    (0..high).for_each(|r| all[r] = of(y + r));
                    all
                };
                let tile = Tile {
                    input: each(&input),
                    output: each(&|y| place(&self.to, y, x)),
                    added: each(&|y| self.added.as_ref().map_or(0, |added| place(added, y, x))),
                };
                if let Some(run) = tile::find(kernel, group, high, wide, step[1]) {
                    tiles.push((tile, run));
                }
                x += wide;
            }
            y += high;
        }
        tiles
    }

    fn signature(&self) -> Signature {
        let nonzero = self.work_before[self.shape.out_channels] as f64;
        Signature {
            shape: self.shape.clone(),
            patch: self.to.extent.lanes.patch,
            added: self.added.is_some(),
            nonzero: (nonzero.log2() * 16.0).round() as i32,
        }
    }

    unsafe fn run(&self, base: Base, member: &Member) {
        let groups = self.shape.out_channels / self.choice.group;
        let (tiles, mine) = match (member.count, self.choice.by_channel) {
            (1, _) => (0..self.tiles.len(), 0..groups),
            (_, true) => {
                (0..self.tiles.len(), self.share(member.index, member.count)..self.share(member.index + 1, member.count))
            }
            (_, false) => (member.part(self.tiles.len()), 0..groups),
        };
        let step = groups + 1;
        // SAFETY: the builder has checked the extents; tiles and channels of different threads do not meet.
        unsafe {
            for (tile, run) in &self.tiles[tiles] {
                for block in 0..self.stream.blocks {
                    run(&Work {
                        tile,
                        input: base.channel(&self.from, 0).cast(),
                        output: base.channel(&self.to, 0).cast(),
                        output_pitch: self.to.extent.pitch() * LINE,
                        added: self.added.as_ref().map_or(std::ptr::null(), |added| base.channel(added, 0).cast_const().cast()),
                        added_pitch: self.added.as_ref().map_or(0, |added| added.extent.pitch() * LINE),
                        starts: &self.stream.starts[block * step..][..step],
                        entries: &self.stream.entries,
                        bias: &self.bias,
                        groups: mine.clone(),
                        first: block == 0,
                        last: block + 1 == self.stream.blocks,
                        activation: self.activation,
                    });
                }
            }
        }
    }

    /// The first group of output channels of a thread: all threads have about the same number of weights.
    fn share(&self, index: usize, count: usize) -> usize {
        let groups = self.shape.out_channels / self.choice.group;
        if index >= count {
            return groups;
        }
        let wanted = self.work_before[self.shape.out_channels] * index / count;
        (self.work_before.partition_point(|&before| before < wanted) / self.choice.group).min(groups)
    }

    /// Ways to cut that may be the fastest.
    fn candidates(&self, kernel: Kernel, threads: usize, paths: Paths) -> Vec<Choice> {
        let [height, width] = self.plane();
        let mut shapes: Vec<(usize, usize, usize)> = Vec::new();
        // Sharing what is read pays where most weights are there, or where so few lines are summed that each addition waits
        // for the one before.
        let shared = self.density() > BREAK_EVEN / 2.0 || height * width < 4;
        let allowed = |group: &usize| match paths {
            Paths::Any => *group == 1 || (shared && self.groups_by(*group)),
            Paths::Sparse => *group == 1,
            Paths::Dense => *group == self.largest_group(),
        };
        for group in GROUPS.into_iter().filter(allowed) {
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
        let mut blocks = vec![self.shape.in_channels];
        while let Some(&last) = blocks.last().filter(|last| **last > 8 && self.shape.groups == 1) {
            blocks.push(last.div_ceil(2));
        }
        let splits: &[bool] = if threads > 1 { &[false, true] } else { &[false] };
        let mut all = Vec::new();
        for &(group, rows, columns) in &shapes {
            for &block in &blocks {
                all.extend(splits.iter().map(|&by_channel| Choice { rows, columns, block, group, by_channel }));
            }
        }
        all
    }

    /// Measures candidates, each a few times, as long as there is time.
    fn fastest(&mut self, kernel: Kernel, base: Base, team: &mut Team, limit: Duration, paths: Paths) -> Choice {
        let start = Instant::now();
        if paths != Paths::Any {
            self.choose(kernel, self.usual(kernel, paths));
        }
        let first = self.choice;
        let mut best = (self.measure(base, team), first);
        let mut candidates = self.candidates(kernel, team.threads(), paths);
        // The likely ones come first, all tiles of a block together: its stream is laid out once.
        candidates.sort_by_key(|choice| {
            (
                choice.group != first.group,
                choice.block.max(1).ilog2().abs_diff(first.block.max(1).ilog2()),
                choice.group,
                choice.block,
            )
        });
        for choice in candidates {
            if start.elapsed() > limit {
                break;
            }
            self.choose(kernel, choice);
            let seconds = self.measure(base, team);
            if seconds < best.0 {
                best = (seconds, choice);
            }
        }
        best.1
    }

    fn measure(&self, base: Base, team: &mut Team) -> f64 {
        let watch = Stopwatch::default();
        team.run(&|member| {
            for _ in 0..4 {
                // SAFETY: as in `Program::run_op`.
                watch.time(member, || unsafe { self.run(base, member) });
            }
        });
        watch.least()
    }
}

/// The least time that a team has taken for some work.
#[derive(Default)]
struct Stopwatch(Mutex<Option<Duration>>);

impl Stopwatch {
    /// Does this thread's part of the work; the first thread takes the time from one meeting to the next.
    fn time(&self, member: &Member, work: impl FnOnce()) {
        member.meet();
        let start = Instant::now();
        work();
        member.meet();
        if member.index == 0 {
            let elapsed = start.elapsed();
            let mut least = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *least = Some(least.map_or(elapsed, |least| least.min(elapsed)));
        }
    }

    /// In seconds; infinite if nothing was timed.
    fn least(self) -> f64 {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(f64::INFINITY, |least| least.as_secs_f64())
    }
}

/// Multiply-accumulates per second that `threads` threads can do on this machine at the most: a dense convolution all of
/// whose numbers lie in the first-level cache.
pub fn limit(threads: usize) -> std::io::Result<f64> {
    const CHANNELS: usize = 16;
    const SIZE: [usize; 2] = [8, 28];
    let shape = ConvShape::pointwise(CHANNELS, SIZE, CHANNELS);
    let weight = [0.5; CHANNELS * CHANNELS];
    let mut builder = super::Builder::new(Kernel::best(), 1);
    let input = builder.input(CHANNELS, SIZE);
    let convolution = super::Convolution { shape, weight: &weight, bias: &[], activation: Activation::None, added: None };
    let output = builder.conv("limit", input, convolution);
    builder.output(output);
    let Some(program) = builder.finish() else { return Ok(f64::NAN) };
    let conv = program.convs().next();
    let watch = Stopwatch::default();
    const RUNS: usize = 2000;
    Team::new(threads)?.run(&|member| {
        let mut arena = program.arena();
        let base = Base { arena: arena.pointer(), outputs: std::ptr::null() };
        for _ in 0..5 {
            watch.time(member, || {
                for _ in 0..RUNS {
                    // SAFETY: as in `run_op`; each thread has an arena of its own.
                    conv.into_iter().for_each(|conv| unsafe { conv.run(base, &Member::alone()) });
                }
            });
        }
    });
    Ok((threads * RUNS * CHANNELS * CHANNELS * SIZE[0] * SIZE[1]) as f64 / watch.least())
}

/// The width up to `most` that cuts `width` into the same number of pieces, as even as can be.
fn even(most: usize, width: usize) -> usize {
    width.div_ceil(width.div_ceil(most.max(1)).max(1))
}
