//! A program: operations on values in one arena.

use super::arena::Arena;
use super::blocking::{Blocking, Paths};
use super::op::Op;
use super::place::{Base, Placed};
use super::pool::{ThreadPool, run_alone};
use super::run::ProgramRun;
use super::tiled_conv::TiledConv;
use crate::ConvShape;
use crate::isa::Isa;

/// Operations on values in one arena.
pub struct Program {
    pub(super) isa: Isa,
    pub(super) ops: Vec<Op<Placed>>,
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
    pub(super) fn sizes(&self) -> (&[usize], &[usize]) {
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
        // SAFETY: all sizes are checked, and arena and outputs are borrowed for the run.
        pool.run(&unsafe { ProgramRun::new(self.isa, &self.ops, Base::new(arena, pointers.as_ptr()), inputs) });
    }

    /// Runs on this thread alone.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_alone(&self, arena: &mut Arena, inputs: &[&[f32]], outputs: &mut [&mut [f32]]) {
        let pointers = self.check(arena, inputs, outputs);
        // SAFETY: all sizes are checked, and arena and outputs are borrowed for the run.
        run_alone(&unsafe { ProgramRun::new(self.isa, &self.ops, Base::new(arena, pointers.as_ptr()), inputs) }, 1);
    }

    /// Checks arena, inputs and outputs, and returns the addresses of the outputs.
    pub(super) fn check(&self, arena: &Arena, inputs: &[&[f32]], outputs: &mut [&mut [f32]]) -> Vec<*mut f32> {
        assert!(self.fits(arena), "an arena of another program");
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

    /// Whether an arena has the size of this program's.
    pub(super) fn fits(&self, arena: &Arena) -> bool {
        arena.fits(self.vectors, self.replicas)
    }

    pub(super) fn convs(&self) -> impl Iterator<Item = &TiledConv> {
        self.ops.iter().filter_map(|op| if let Op::Conv(conv) = op { Some(&**conv) } else { None })
    }

    /// The blocking of each convolution.
    pub fn blockings(&self) -> Vec<Blocking> {
        self.convs().map(|tiled| tiled.blocking).collect()
    }

    /// Multiply-accumulates of each convolution for the images of all lanes, and the share of its nonzero weights.
    pub fn work(&self) -> Vec<(u64, f64)> {
        let work = |tiled: &TiledConv| {
            let conv = &tiled.conv;
            let (height, width) = conv.shape.out_size();
            ((conv.nonzero * height * width * self.images) as u64, conv.density())
        };
        self.convs().map(work).collect()
    }

    /// Cuts the convolutions by other blockings. One that does not fit, from another machine for example, is replaced by the
    /// nearest that does.
    pub fn apply(&mut self, blockings: &[Blocking]) {
        let isa = self.isa;
        let convs = self.ops.iter_mut().filter_map(|op| if let Op::Conv(conv) = op { Some(conv) } else { None });
        convs
            .zip(blockings)
            .filter(|(conv, blocking)| conv.blocking != **blocking)
            .for_each(|(conv, &blocking)| conv.apply(isa, blocking));
    }

    /// The default blocking of each convolution on these paths.
    pub fn default_blockings(&self, paths: Paths) -> Vec<Blocking> {
        self.convs().map(|tiled| tiled.conv.default_blocking(self.isa, paths)).collect()
    }

    /// The shape of each convolution, for one image.
    pub fn shapes(&self) -> impl Iterator<Item = &ConvShape> {
        self.convs().map(|tiled| &tiled.conv.shape)
    }
}
