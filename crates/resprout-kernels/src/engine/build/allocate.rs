//! Gives every value its place in the arena.

use super::draft::Draft;
use crate::engine::layout::{Extent, PAGE};
use crate::engine::op::{Op, Value};

/// Where values lie.
pub(super) struct Allocation {
    /// The first vector of each value.
    pub starts: Vec<usize>,
    /// Vectors of the arena.
    pub vectors: usize,
}

impl Allocation {
    /// Places all values. Those of which each thread has its own part lie in as many parts of the same size, whose size is noted in
    /// the extents; the others follow.
    pub fn new(draft: &mut Draft) -> Allocation {
        let mut last_use = vec![0; draft.extents.len()];
        for (index, (_, op)) in draft.ops.iter().enumerate() {
            op.reads().into_iter().chain(op.writes()).for_each(|value| last_use[value.0] = index);
        }
        let mut starts = vec![usize::MAX; draft.extents.len()];
        let part = place(draft, &mut starts, &last_use, Extent::is_parted).next_multiple_of(PAGE);
        let shared = place(draft, &mut starts, &last_use, |extent| !extent.is_parted());
        for (extent, start) in draft.extents.iter_mut().zip(&mut starts) {
            match extent.is_parted() {
                true => extent.partition = part,
                false => *start += draft.threads * part,
            }
        }
        Allocation { starts, vectors: draft.threads * part + shared }
    }
}

/// Places the values of a kind, and returns how many vectors they take. Values that are never alive at the same time share
/// vectors. `last_use` has the last operation that uses each value.
fn place(draft: &Draft, starts: &mut [usize], last_use: &[usize], of_kind: impl Fn(&Extent) -> bool) -> usize {
    // First vector, past the last vector, last use.
    let mut taken: Vec<(usize, usize, usize)> = Vec::new();
    let mut vectors = 0;
    for (index, (_, op)) in draft.ops.iter().enumerate() {
        let new = |value: &Value| starts[value.0] == usize::MAX && of_kind(draft.extent(*value));
        let Some(value) = op.writes().filter(new) else { continue };
        taken.retain(|(_, _, until)| *until >= index);
        if let Some(added) = overwritten_summand(draft, op, last_use, index) {
            starts[value.0] = starts[added.0];
            let own = taken.iter_mut().find(|(start, ..)| *start == starts[added.0]);
            own.into_iter().for_each(|(_, _, until)| *until = last_use[value.0]);
            continue;
        }
        taken.sort_unstable();
        let size = draft.extent(value).total();
        let mut start = 0;
        for (from, to, _) in &taken {
            if start + size <= *from {
                break;
            }
            start = start.max(*to);
        }
        starts[value.0] = start;
        vectors = vectors.max(start + size);
        taken.push((start, start + size, last_use[value.0]));
    }
    vectors
}

/// The summand of a convolution that the result can overwrite: nothing reads it later, and every tile reads and writes the same
/// vectors of both. This saves memory traffic, because large values do not stay in the caches.
fn overwritten_summand(draft: &Draft, op: &Op<Value>, last_use: &[usize], index: usize) -> Option<Value> {
    let Op::Conv(conv) = op else { return None };
    let added = conv.added?;
    let fits = added != conv.from && last_use[added.0] == index && draft.extent(added) == draft.extent(conv.to);
    fits.then_some(added)
}
