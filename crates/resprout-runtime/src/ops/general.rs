//! Operations that run as a function of their operands, and how each treats the images of a batch.

use super::resolve::Resolved;
use crate::tensor::Tensor;
use resprout_kernels::Isa;

/// The images of a batch in an operation's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Images {
    /// All operands are broadcast, and elements stay at their index but along some axes of the result.
    Aligned(Vec<usize>),
    /// Result and operands have their images along the first axis, but for the operands listed here.
    First(Vec<usize>),
    /// Where each axis of each operand lies in the result; `None` where its elements are mixed.
    Matched(Vec<Vec<Option<usize>>>),
    /// Where each axis of the first operand lies in the result; `None` where its elements are mixed.
    Axes(Vec<Option<usize>>),
}

impl Images {
    /// All of `rank` axes stay, and the elements along some are mixed.
    pub(super) fn beside(rank: usize, mixed: &[usize]) -> Images {
        Images::Axes((0..rank).map(|axis| (!mixed.contains(&axis)).then_some(axis)).collect())
    }
}

type Run = dyn Fn(&[&Tensor], &mut Tensor, Isa) + Send + Sync;

/// An operation without a variant of its own in [`Compute`](super::Compute).
pub struct General {
    /// How many inputs are read when it runs; those that are left out do not count.
    pub(super) operands: usize,
    pub(crate) images: Images,
    run: Box<Run>,
}

impl General {
    /// An operation of these operands.
    pub(super) fn new(
        operands: usize,
        images: Images,
        run: impl Fn(&[&Tensor], &mut Tensor, Isa) + Send + Sync + 'static,
    ) -> General {
        General { operands, images, run: Box::new(run) }
    }

    /// An operation on the first input alone.
    pub(super) fn of_one(images: Images, run: impl Fn(&Tensor, &mut Tensor) + Send + Sync + 'static) -> General {
        General::new(1, images, move |inputs, out, _| run(inputs[0], out))
    }

    /// With the output's shape.
    pub(super) fn shaped(self, shape: Vec<usize>) -> Resolved {
        Resolved { shape, compute: super::Compute::General(self), macs: 0 }
    }

    pub(super) fn run(&self, inputs: &[&Tensor], out: &mut Tensor, isa: Isa) {
        (self.run)(inputs, out, isa);
    }
}
