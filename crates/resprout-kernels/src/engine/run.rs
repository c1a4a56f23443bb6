//! Runs a program: each operation is a parallel loop over items that write apart from each other.

use super::arena::{Arena, LANES};
use super::layout::{Extent, Gather, HaloCopy};
use super::pool::{Loops, PIECES, Worker};
use super::program::{Op, Placed, Pool, Program};
use super::tile;
use crate::Activation;
use crate::isa::{Isa, per_isa};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Addresses that all threads use at once, each its own parts.
#[derive(Clone, Copy)]
pub(super) struct Base {
    arena: *mut f32,
    /// For each replica of a value, whether it is there.
    made: *const AtomicBool,
    /// Null if nobody asks for them.
    outputs: *const *mut f32,
}

// SAFETY: items of a loop write to disjoint parts, and read only what was written before the last barrier.
unsafe impl Send for Base {}
// SAFETY: as above.
unsafe impl Sync for Base {}

/// A run of a program: one loop for each operation.
pub(super) struct Run<'a> {
    pub program: &'a Program,
    pub base: Base,
    pub inputs: &'a [&'a [f32]],
}

impl Loops for Run<'_> {
    fn count(&self) -> usize {
        self.program.ops.len()
    }

    fn first(&self, index: usize, worker: Worker) -> usize {
        self.program.ops[index].first(self.base, worker)
    }

    fn run(&self, index: usize, item: usize, worker: Worker) {
        self.program.run_item(&self.program.ops[index], self.base, self.inputs, item, worker);
    }
}

/// As many pieces of neighbours as workers can share well.
fn pieces(things: usize, worker: Worker) -> usize {
    things.min(PIECES * worker.count).max(1)
}

impl Op {
    /// The first item of a worker's share, or past the last one.
    pub fn first(&self, base: Base, worker: Worker) -> usize {
        match self {
            Op::Conv(conv) => conv.first(worker),
            // Each worker begins with its own.
            Op::Replicate { to, .. } if worker.index < worker.count => worker.index.min(to.extent.replicas),
            Op::Replicate { to, .. } => to.extent.replicas,
            Op::Output { .. } if base.outputs.is_null() => 0,
            _ => {
                let [row_partitions, things] = self.things();
                worker.first_of(row_partitions * pieces(things, worker))
            }
        }
    }

    /// Bands, and what is shared of each: channels. Of an input it is the lines: images often have three channels, and
    /// tables are long.
    fn things(&self) -> [usize; 2] {
        match self {
            Op::Conv(_) | Op::Replicate { .. } => [0, 0],
            Op::Input { table, .. } => [1, table.len()],
            Op::FillHalo { to, halo_copies, .. } => [halo_copies.len(), to.extent.channels],
            Op::Move { to, tables, .. } => [tables.len(), to.extent.channels],
            Op::Copy { from, to, .. } | Op::Affine { from, to, .. } => [to.extent.layout.row_partitions, from.extent.channels],
            Op::Pool { to, .. } | Op::Add { to, .. } => [to.extent.layout.row_partitions, to.extent.channels],
            Op::Mean { from, .. } | Op::Output { from, .. } => [1, from.extent.channels],
        }
    }

    /// The band of an item and its part of the things.
    fn part(&self, item: usize, worker: Worker) -> (usize, Range<usize>) {
        let things = self.things()[1];
        let pieces = pieces(things, worker);
        let (partition, piece) = (item / pieces, item % pieces);
        (partition, things * piece / pieces..things * (piece + 1) / pieces)
    }
}

impl Program {
    pub(super) fn run_item(&self, op: &Op, base: Base, inputs: &[&[f32]], item: usize, worker: Worker) {
        // SAFETY: `Builder` has checked every extent against the arena; items write different channels, bands or tiles.
        unsafe {
            match op {
                Op::Conv(conv) => conv.run(base, item, worker),
                Op::Replicate { from, to, vectors } => replicate(self.isa, vectors, base, [from, to], item, worker),
                _ => {
                    let (partition, things) = op.part(item, worker);
                    self.run_part(op, base, inputs, partition, things);
                }
            }
        }
    }

    /// A part of an operation, for all but convolutions and replicas.
    ///
    /// # Safety
    /// As for [`Conv::run`](super::program::Conv::run); nobody else may write the same things of the same band.
    unsafe fn run_part(&self, op: &Op, base: Base, inputs: &[&[f32]], partition: usize, things: Range<usize>) {
        // SAFETY: passed on to the caller.
        unsafe {
            match op {
                Op::Conv(_) | Op::Replicate { .. } => {}
                Op::Input { index, to, table } => {
                    let size = to.extent.size[0] * to.extent.size[1];
                    for (vector, channel) in
                        things.flat_map(|vector| (0..to.extent.channels).map(move |channel| (vector, channel)))
                    {
                        let source = inputs[*index].as_ptr().add(channel * size);
                        tile::gather_vector(self.isa, &table[vector], source, base.channel(to, channel));
                    }
                }
                Op::FillHalo { from, to, halo_copies } => things.for_each(|channel| {
                    let (source, target) = (base.channel(from, channel), base.channel(to, channel));
                    tile::fill_halo(self.isa, &halo_copies[partition], source, target);
                }),
                Op::Move { from, to, tables } => things.for_each(|channel| {
                    let (source, vector) = (base.channel(from, channel), base.channel(to, channel));
                    tables[partition].iter().for_each(|gather| tile::gather_vector(self.isa, gather, source, vector));
                }),
                Op::Copy { from, to, first } => things.for_each(|channel| {
                    let (source, target) = (base.channel(from, channel), base.channel(to, first + channel));
                    for_rows(partition, &from.extent, &to.extent, |a, b, count| {
                        source.add(a * LANES).copy_to_nonoverlapping(target.add(b * LANES), count * LANES);
                    });
                }),
                Op::Pool { from, to, taps, step, kind } => {
                    let window = Window { from, to, taps, step: *step, kind: *kind };
                    things.for_each(|channel| window.run(self.isa, base, partition, channel));
                }
                Op::Affine { from, to, scale, shift, activation } => things.for_each(|channel| {
                    let (source, target) = (base.channel(from, channel), base.channel(to, channel));
                    let (scale, shift) = (scale[channel], shift[channel]);
                    for_rows(partition, &from.extent, &to.extent, |a, b, count| {
                        let source = std::slice::from_raw_parts(source.add(a * LANES), count * LANES);
                        let target = std::slice::from_raw_parts_mut(target.add(b * LANES), count * LANES);
                        affine(self.isa, source, target, scale, shift, *activation);
                    });
                }),
                Op::Add { a, b, to, activation } => {
                    things.for_each(|channel| add_rows(self.isa, base, [a, b, to], *activation, partition, channel));
                }
                Op::Mean { from, to, table } => things.for_each(|channel| mean(self.isa, base, [from, to], table, channel)),
                Op::Output { from, index, table } => {
                    let size = from.extent.size[0] * from.extent.size[1];
                    things.for_each(|channel| {
                        let target = (*base.outputs.add(*index)).add(channel * size);
                        scatter(table, base.channel(from, channel), target);
                    });
                }
            }
        }
    }
}

/// A worker makes its own replica. One that is through leaves out those of others, which have not come so far: they can read
/// this one's. Only a worker that has none of its own makes another's.
///
/// # Safety
/// Both values must lie in the base's arena, `to` with all its replicas, of which `item` is one that nobody else makes.
unsafe fn replicate(isa: Isa, vectors: &[HaloCopy], base: Base, [from, to]: [&Placed; 2], item: usize, worker: Worker) {
    let make = item == worker.index || worker.index >= to.extent.replicas;
    if make {
        // SAFETY: passed on to the caller; each replica is an item of its own.
        unsafe {
            let replica = base.replica(to, item);
            for channel in 0..to.extent.channels {
                tile::fill_halo(isa, vectors, base.channel(from, channel), replica.channel(to, channel));
            }
        }
    }
    // SAFETY: the builder has counted the replicas. The barrier behind this loop orders it before those that read it.
    unsafe { (*base.made.add(to.made + item)).store(make, Ordering::Relaxed) };
}

impl Base {
    /// Of an arena, and the places of all outputs, which may be null.
    pub fn new(arena: &mut Arena, outputs: *const *mut f32) -> Base {
        Base { made: arena.made().as_ptr(), arena: arena.pointer(), outputs }
    }

    /// The first line (of the border) of a channel.
    ///
    /// # Safety
    /// It must be a channel of a value of this arena.
    pub unsafe fn channel(&self, value: &Placed, channel: usize) -> *mut f32 {
        // SAFETY: passed on to the caller.
        unsafe { self.arena.add((value.start + channel * value.extent.pitch()) * LANES) }
    }

    /// Where `value` lies as this replica.
    ///
    /// # Safety
    /// It must be a replica of a value of this arena.
    unsafe fn replica(&self, value: &Placed, replica: usize) -> Base {
        // SAFETY: each replica is a band behind the one before, in this arena.
        Base { arena: unsafe { self.arena.add(replica * value.extent.partition * LANES) }, ..*self }
    }

    /// Where a worker reads `value`: its own replica, if there are any and it came in time to make it, or the first one.
    ///
    /// # Safety
    /// As of [`channel`](Self::channel).
    pub unsafe fn nearest(&self, value: &Placed, worker: Worker) -> Base {
        let replicas = value.extent.replicas;
        if replicas == 1 {
            return *self;
        }
        // SAFETY: the builder has counted the replicas.
        let made = |replica: &usize| unsafe { (*self.made.add(value.made + replica)).load(Ordering::Relaxed) };
        let own = Some(worker.index).filter(|own| *own < replicas).filter(made);
        // SAFETY: as above. The first worker that has come to the replicas has made one.
        unsafe { self.replica(value, own.or_else(|| (0..replicas).find(made)).unwrap_or(0)) }
    }
}

/// A pooling.
struct Window<'a> {
    from: &'a Placed,
    to: &'a Placed,
    taps: &'a [usize],
    step: [usize; 2],
    kind: Pool,
}

impl Window<'_> {
    /// Makes the rows of a band in a channel.
    ///
    /// # Safety
    /// Both values must lie in the base's arena and have the channel; nobody else may write these rows.
    unsafe fn run(&self, isa: Isa, base: Base, partition: usize, channel: usize) {
        let (from, to) = (&self.from.extent, &self.to.extent);
        let [down, across] = self.step;
        // SAFETY: passed on to the caller.
        unsafe {
            let source = std::slice::from_raw_parts(base.channel(self.from, channel), from.span() * LANES);
            for y in to.layout.rows(partition) {
                let target = base.channel(self.to, channel).add(to.vector_of(partition, y as isize, 0) * LANES);
                let target = std::slice::from_raw_parts_mut(target, to.layout.patch[1] * LANES);
                let source = &source[from.shift(partition, y * down, 0) * LANES..];
                pool(isa, source, target, self.taps, across, self.kind);
            }
        }
    }
}

/// Adds the rows of a band in a channel of the first two places into those of the third.
///
/// # Safety
/// As for [`Window::run`].
unsafe fn add_rows(isa: Isa, base: Base, places: [&Placed; 3], activation: Activation, partition: usize, channel: usize) {
    let lanes = &places[2].extent.layout;
    let count = lanes.patch[1] * LANES;
    for y in lanes.rows(partition) {
        // SAFETY: passed on to the caller.
        unsafe {
            let [left, right, target] =
                places.map(|placed| base.channel(placed, channel).add(placed.extent.vector_of(partition, y as isize, 0) * LANES));
            let left = std::slice::from_raw_parts(left, count);
            let right = std::slice::from_raw_parts(right, count);
            add(isa, left, right, std::slice::from_raw_parts_mut(target, count), activation);
        }
    }
}

/// The mean of each image's pixels in a channel.
///
/// # Safety
/// As for [`Window::run`], of whole channels.
unsafe fn mean(isa: Isa, base: Base, [from, to]: [&Placed; 2], table: &[Gather], channel: usize) {
    let size = from.extent.size[0] * from.extent.size[1];
    // SAFETY: passed on to the caller.
    unsafe {
        let source = std::slice::from_raw_parts(base.channel(from, channel), from.extent.span() * LANES);
        let sums = lane_sums(isa, table, source);
        let target = base.channel(to, channel);
        // The lanes of an image lie side by side.
        for (image, lanes) in sums.chunks_exact(LANES / from.extent.layout.images).enumerate() {
            let sum: f64 = lanes.iter().sum();
            *target.add(to.extent.float(image, [0, 0])) = (sum / size as f64) as f32;
        }
    }
}

/// Every lane that a table would read, to the place where it would be read from.
///
/// # Safety
/// Both must be whole channels of the values that the table was made for, `target` the one that it reads.
unsafe fn scatter(table: &[Gather], source: *const f32, target: *mut f32) {
    for gather in table {
        // SAFETY: tables are made of places inside of their values.
        let vector = unsafe { source.add(gather.vector as usize * LANES).cast::<[f32; LANES]>().read() };
        for lane in (0..LANES).filter(|lane| gather.read >> lane & 1 == 1) {
            // SAFETY: as above.
            unsafe { *target.add(gather.from[lane] as usize) = vector[lane] };
        }
    }
}

/// The sums of each lane's pixels, of a channel from its first line on.
#[inline(always)]
fn lane_sums_body(table: &[Gather], source: &[f32]) -> [f64; LANES] {
    let (source, _) = source.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for gather in table {
        let vector = &source[gather.vector as usize];
        for lane in 0..LANES {
            lanes[lane] += if gather.read >> lane & 1 == 1 { f64::from(vector[lane]) } else { 0.0 };
        }
    }
    lanes
}

/// Calls `work` with the first lines of each row of a band in both values, and the row's length.
fn for_rows(partition: usize, from: &Extent, to: &Extent, work: impl Fn(usize, usize, usize)) {
    for y in to.layout.rows(partition) {
        work(from.vector_of(partition, y as isize, 0), to.vector_of(partition, y as isize, 0), to.layout.patch[1]);
    }
}

per_isa!(fn pool(source: &[f32], target: &mut [f32], taps: &[usize], step: usize, kind: Pool) = pool_body);
per_isa!(fn lane_sums(table: &[Gather], source: &[f32]) -> [f64; LANES] = lane_sums_body);
per_isa!(fn affine(source: &[f32], target: &mut [f32], scale: f32, shift: f32, activation: Activation) = affine_body);
per_isa!(fn add(left: &[f32], right: &[f32], target: &mut [f32], activation: Activation) = add_body);

/// A row of lines; the taps are those of its first one.
#[inline(always)]
fn pool_body(source: &[f32], target: &mut [f32], taps: &[usize], step: usize, kind: Pool) {
    let (source, _) = source.as_chunks::<LANES>();
    let (target, _) = target.as_chunks_mut::<LANES>();
    for (x, target) in target.iter_mut().enumerate() {
        let mut result = source[x * step + taps[0]];
        for &tap in &taps[1..] {
            let other = source[x * step + tap];
            for lane in 0..LANES {
                result[lane] = match kind {
                    // NaN wins, as it must.
                    Pool::Max if other[lane] > result[lane] || other[lane].is_nan() => other[lane],
                    Pool::Max => result[lane],
                    Pool::Mean(_) => result[lane] + other[lane],
                };
            }
        }
        if let Pool::Mean(scale) = kind {
            result.iter_mut().for_each(|value| *value *= scale);
        }
        *target = result;
    }
}

#[inline(always)]
fn affine_body(source: &[f32], target: &mut [f32], scale: f32, shift: f32, activation: Activation) {
    target.iter_mut().zip(source).for_each(|(y, x)| *y = activation.apply(x * scale + shift));
}

#[inline(always)]
fn add_body(left: &[f32], right: &[f32], target: &mut [f32], activation: Activation) {
    target.iter_mut().zip(left.iter().zip(right)).for_each(|(sum, (a, b))| *sum = activation.apply(a + b));
}
