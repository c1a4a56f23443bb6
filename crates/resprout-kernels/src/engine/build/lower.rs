//! Makes the operations of a program from those of a draft: values get places, and operations their tables.

use super::allocate::Allocation;
use super::draft::Draft;
use crate::engine::op::{Op, Value};
use crate::engine::place::Placed;
use crate::engine::tiled_conv::TiledConv;
use crate::isa::Isa;

/// Names and operations.
pub(super) fn lower(isa: Isa, mut draft: Draft, allocation: &Allocation) -> (Vec<String>, Vec<Op<Placed>>) {
    let with_halo: Vec<bool> = (0..draft.extents.len()).map(|value| draft.has_halo(Value(value))).collect();
    let ops = std::mem::take(&mut draft.ops);
    let lowering = Lowering { isa, draft: &draft, allocation, with_halo };
    ops.into_iter().map(|(name, op)| (name, lowering.op(op))).unzip()
}

struct Lowering<'a> {
    isa: Isa,
    draft: &'a Draft,
    allocation: &'a Allocation,
    /// Which values' halos are read.
    with_halo: Vec<bool>,
}

impl Lowering<'_> {
    fn place(&self, value: Value) -> Placed {
        let (extent, start) = (*self.draft.extent(value), self.allocation.starts[value.0]);
        Placed { extent, start, first_replica: value.0 * self.draft.threads }
    }

    fn op(&self, op: Op<Value>) -> Op<Placed> {
        match op {
            Op::Input { index, to, .. } => {
                let to = self.place(to);
                Op::Input { index, to, gathers: to.extent.gathers(to.extent.plain()).into_iter().flatten().collect() }
            }
            Op::Conv(conv) => {
                let with_halo = self.with_halo[conv.to.0];
                let conv = conv.map(|value| self.place(value));
                let halo_copies = if with_halo { conv.to.extent.halo_copies().concat() } else { Vec::new() };
                Op::Conv(Box::new(TiledConv::new(self.isa, conv, halo_copies, self.draft.threads)))
            }
            Op::FillHalo { from, to, .. } => {
                let in_place = from == to;
                let (from, to) = (self.place(from), self.place(to));
                let copies = if in_place { to.extent.halo_copies() } else { to.extent.vectors_from(&from.extent) };
                Op::FillHalo { from, to, copies }
            }
            Op::Replicate { from, to, .. } => {
                let (from, to) = (self.place(from), self.place(to));
                Op::Replicate { from, to, copies: to.extent.vectors_from(&from.extent).concat() }
            }
            Op::Move { from, to, .. } => {
                let (from, to) = (self.place(from), self.place(to));
                Op::Move { from, to, gathers: to.extent.gathers(|image, pixel| from.extent.float(image, pixel)) }
            }
            Op::Copy { from, to, first } => Op::Copy { from: self.place(from), to: self.place(to), first },
            Op::Pool { from, to, taps, step, kind, reads_halo } => {
                let (from, to) = (self.place(from), self.place(to));
                let taps = taps.into_iter().map(|[y, x]| from.extent.vector_of(0, y, x)).collect();
                Op::Pool { from, to, taps, step, kind, reads_halo }
            }
            Op::Affine { from, to, scale, shift, activation } => {
                Op::Affine { from: self.place(from), to: self.place(to), scale, shift, activation }
            }
            Op::Add { a, b, to, activation } => Op::Add { a: self.place(a), b: self.place(b), to: self.place(to), activation },
            Op::Mean { from, to, .. } => {
                let (from, to) = (self.place(from), self.place(to));
                Op::Mean { from, to, gathers: from.extent.inner_gathers(|image, _| image) }
            }
            Op::Output { from, index, .. } => {
                let from = self.place(from);
                Op::Output { from, index, gathers: from.extent.inner_gathers(from.extent.plain()) }
            }
        }
    }
}
