//! Runs a program: each operation is a parallel loop over items that write apart from each other.

use super::arena::LANES;
use super::layout::{Extent, Gather, HaloCopy};
use super::moves::{fill_halo, gather_vector, scatter};
use super::op::{Op, Pool};
use super::place::{Base, Placed};
use super::pool::{Loops, PIECES, Worker};
use crate::Activation;
use crate::isa::{Isa, per_isa};
use std::ops::Range;

/// A run of a program: one loop for each operation.
pub(super) struct ProgramRun<'a> {
    isa: Isa,
    ops: &'a [Op<Placed>],
    base: Base,
    inputs: &'a [&'a [f32]],
}

impl<'a> ProgramRun<'a> {
    /// # Safety
    /// `base` must be that of an arena of the program with these operations, which nobody else uses during the run. `inputs`, and
    /// the outputs of `base` if it has any, must be as many and as long as the program's.
    pub unsafe fn new(isa: Isa, ops: &'a [Op<Placed>], base: Base, inputs: &'a [&'a [f32]]) -> ProgramRun<'a> {
        ProgramRun { isa, ops, base, inputs }
    }
}

impl Loops for ProgramRun<'_> {
    fn count(&self) -> usize {
        self.ops.len()
    }

    fn first(&self, index: usize, worker: Worker) -> usize {
        self.ops[index].first(self.base, worker)
    }

    fn run(&self, index: usize, item: usize, worker: Worker) {
        // SAFETY: `new` has the contract of base and inputs; a pool gives each item to one worker and runs one loop at a time.
        unsafe { self.ops[index].run_item(self.isa, self.base, self.inputs, item, worker) };
    }
}

/// How many pieces elements are divided into: enough for workers to share them well.
fn pieces(elements: usize, worker: Worker) -> usize {
    elements.min(PIECES * worker.count).max(1)
}

impl Op<Placed> {
    /// The first item of a worker's share, or past the last one.
    pub fn first(&self, base: Base, worker: Worker) -> usize {
        match self {
            Op::Conv(conv) => conv.first(worker),
            // Each worker begins with its own.
            Op::Replicate { to, .. } if worker.index < worker.count => worker.index.min(to.extent.replicas),
            Op::Replicate { to, .. } => to.extent.replicas,
            Op::Output { .. } if !base.has_outputs() => 0,
            _ => {
                let [row_partitions, elements] = self.elements();
                worker.first_of(row_partitions * pieces(elements, worker))
            }
        }
    }

    /// Row partitions, and the elements of each that workers share: channels. The elements of an input are vectors, because
    /// images often have three channels, and tables are long.
    fn elements(&self) -> [usize; 2] {
        match self {
            Op::Conv(_) | Op::Replicate { .. } => [0, 0],
            Op::Input { gathers, .. } => [1, gathers.len()],
            Op::FillHalo { to, copies, .. } => [copies.len(), to.extent.channels],
            Op::Move { to, gathers, .. } => [gathers.len(), to.extent.channels],
            Op::Copy { from, to, .. } | Op::Affine { from, to, .. } => [to.extent.layout.row_partitions, from.extent.channels],
            Op::Pool { to, .. } | Op::Add { to, .. } => [to.extent.layout.row_partitions, to.extent.channels],
            Op::Mean { from, .. } | Op::Output { from, .. } => [1, from.extent.channels],
        }
    }

    /// The row partition of an item, and its part of the elements.
    fn part(&self, item: usize, worker: Worker) -> (usize, Range<usize>) {
        let elements = self.elements()[1];
        let pieces = pieces(elements, worker);
        let (partition, piece) = (item / pieces, item % pieces);
        (partition, elements * piece / pieces..elements * (piece + 1) / pieces)
    }

    /// Runs an item.
    ///
    /// # Safety
    /// `base` must be that of an arena of the program that this operation belongs to. `inputs`, and the outputs of `base` if it has
    /// any, must be as many and as long as the program's. All workers must have the same `worker.count`, and no item may run on two.
    /// Nothing else may write what this operation reads, or read or write what it writes.
    pub unsafe fn run_item(&self, isa: Isa, base: Base, inputs: &[&[f32]], item: usize, worker: Worker) {
        // SAFETY: the caller vouches for the arena, in which the builder has placed all values; items write different channels,
        // row partitions, tiles or replicas.
        unsafe {
            match self {
                Op::Conv(conv) => conv.run(base, item, worker),
                Op::Replicate { from, to, copies } => replicate(isa, copies, base, [from, to], item, worker),
                _ => {
                    let (partition, elements) = self.part(item, worker);
                    self.run_part(isa, base, inputs, partition, elements);
                }
            }
        }
    }

    /// A part of an operation, for all but convolutions and replicas.
    ///
    /// # Safety
    /// `base` must be that of an arena of the program that this operation belongs to. `inputs`, and the outputs of `base`, must be as
    /// many and as long as the program's. Nobody else may write what is read, or read or write these elements of this row
    /// partition.
    unsafe fn run_part(&self, isa: Isa, base: Base, inputs: &[&[f32]], partition: usize, elements: Range<usize>) {
        // SAFETY: the caller vouches for the arena, inputs and outputs. Tables are made for the values, and elements lie within.
        unsafe {
            match self {
                Op::Conv(_) | Op::Replicate { .. } => {}
                Op::Input { index, to, gathers } => {
                    let size = to.extent.size[0] * to.extent.size[1];
                    for (vector, channel) in
                        elements.flat_map(|vector| (0..to.extent.channels).map(move |channel| (vector, channel)))
                    {
                        let source = inputs[*index].as_ptr().add(channel * size);
                        gather_vector(isa, &gathers[vector], source, base.channel(to, channel));
                    }
                }
                Op::FillHalo { from, to, copies } => elements.for_each(|channel| {
                    let (source, target) = (base.channel(from, channel), base.channel(to, channel));
                    fill_halo(isa, &copies[partition], source, target);
                }),
                Op::Move { from, to, gathers } => elements.for_each(|channel| {
                    let (source, target) = (base.channel(from, channel), base.channel(to, channel));
                    gathers[partition].iter().for_each(|gather| gather_vector(isa, gather, source, target));
                }),
                Op::Copy { from, to, first } => elements.for_each(|channel| {
                    let (source, target) = (base.channel(from, channel), base.channel(to, first + channel));
                    for_rows(partition, &from.extent, &to.extent, |a, b, count| {
                        source.add(a * LANES).copy_to_nonoverlapping(target.add(b * LANES), count * LANES);
                    });
                }),
                Op::Pool { from, to, taps, step, kind, .. } => {
                    let pooling = Pooling { from, to, taps, step: *step, kind: *kind };
                    elements.for_each(|channel| pooling.run(isa, base, partition, channel));
                }
                Op::Affine { from, to, scale, shift, activation } => elements.for_each(|channel| {
                    let (source, target) = (base.channel(from, channel), base.channel(to, channel));
                    let (scale, shift) = (scale[channel], shift[channel]);
                    for_rows(partition, &from.extent, &to.extent, |a, b, count| {
                        let source = std::slice::from_raw_parts(source.add(a * LANES), count * LANES);
                        let target = std::slice::from_raw_parts_mut(target.add(b * LANES), count * LANES);
                        affine(isa, source, target, scale, shift, *activation);
                    });
                }),
                Op::Add { a, b, to, activation } => {
                    elements.for_each(|channel| add_rows(isa, base, [a, b, to], *activation, partition, channel));
                }
                Op::Mean { from, to, gathers } => elements.for_each(|channel| mean(isa, base, [from, to], gathers, channel)),
                Op::Output { from, index, gathers } => {
                    let size = from.extent.size[0] * from.extent.size[1];
                    elements.for_each(|channel| {
                        scatter(gathers, base.channel(from, channel), base.output(*index).add(channel * size));
                    });
                }
            }
        }
    }
}

/// Makes a replica, or skips it. A worker makes its own and then skips those of others, which are late: they can read this one.
/// Only a worker without a replica of its own makes another's.
///
/// # Safety
/// Both values must lie in the arena of `base`, and `to` must have the replica `item`, which nobody else makes. `copies` must be made
/// for these values. Nobody may write `from`.
unsafe fn replicate(isa: Isa, copies: &[HaloCopy], base: Base, [from, to]: [&Placed; 2], item: usize, worker: Worker) {
    let make = item == worker.index || worker.index >= to.extent.replicas;
    if make {
        // SAFETY: the caller vouches for the values and for the replica.
        unsafe {
            let replica = base.replica(to, item);
            for channel in 0..to.extent.channels {
                fill_halo(isa, copies, base.channel(from, channel), replica.channel(to, channel));
            }
        }
    }
    // SAFETY: the caller vouches for the replica. The barrier after this loop orders the flag before those that read it.
    unsafe { base.set_made(to, item, make) };
}

/// A pooling operation.
struct Pooling<'a> {
    from: &'a Placed,
    to: &'a Placed,
    taps: &'a [usize],
    step: [usize; 2],
    kind: Pool,
}

impl Pooling<'_> {
    /// Computes the rows of a row partition in a channel.
    ///
    /// # Safety
    /// Both values must lie in the arena of `base` and have the channel. Nobody else may write the channel of `from`, or read or write
    /// these rows of `to`.
    unsafe fn run(&self, isa: Isa, base: Base, partition: usize, channel: usize) {
        let (from, to) = (&self.from.extent, &self.to.extent);
        let [down, across] = self.step;
        // SAFETY: the caller vouches for the channels, which have `span` vectors and these rows.
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

/// Adds the rows of a row partition in a channel of the first two values into those of the third.
///
/// # Safety
/// All values must lie in the arena of `base`, have the channel, and have the layout of the third. Nobody else may write these rows
/// of the first two, or read or write those of the third.
unsafe fn add_rows(isa: Isa, base: Base, places: [&Placed; 3], activation: Activation, partition: usize, channel: usize) {
    let layout = &places[2].extent.layout;
    let count = layout.patch[1] * LANES;
    for y in layout.rows(partition) {
        // SAFETY: the caller vouches for the rows.
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
/// Both values must lie in the arena of `base` and have the channel; `to` must have one pixel for each image. Nobody else may write
/// the channel of `from`, or read or write that of `to`.
unsafe fn mean(isa: Isa, base: Base, [from, to]: [&Placed; 2], table: &[Gather], channel: usize) {
    let size = from.extent.size[0] * from.extent.size[1];
    // SAFETY: the caller vouches for the channels.
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

/// The sum of each lane's pixels, of a channel from its first vector on.
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

/// Calls `work` with the first vectors of each row of a row partition in both values, and the row's length.
fn for_rows(partition: usize, from: &Extent, to: &Extent, work: impl Fn(usize, usize, usize)) {
    for y in to.layout.rows(partition) {
        work(from.vector_of(partition, y as isize, 0), to.vector_of(partition, y as isize, 0), to.layout.patch[1]);
    }
}

per_isa!(fn pool(source: &[f32], target: &mut [f32], taps: &[usize], step: usize, kind: Pool) = pool_body);
per_isa!(fn lane_sums(table: &[Gather], source: &[f32]) -> [f64; LANES] = lane_sums_body);
per_isa!(fn affine(source: &[f32], target: &mut [f32], scale: f32, shift: f32, activation: Activation) = affine_body);
per_isa!(fn add(left: &[f32], right: &[f32], target: &mut [f32], activation: Activation) = add_body);

/// A row of vectors; the taps are those of its first one.
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
                    // NaN is propagated.
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
