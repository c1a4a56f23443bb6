//! The operations of a program, while it is built and when it runs.

use super::conv::Conv;
use crate::Activation;
use std::convert::Infallible;

/// A value of a program that is being built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value(pub(super) usize);

/// How operations name a value. Tables depend on where values lie, so they exist only once values have places.
pub(super) trait Operand: Sized {
    type Conv;
    /// An element of a table of gathers.
    type Gather;
    /// An element of a table of halo copies.
    type HaloCopy;
    /// A tap of a pooling window.
    type Tap;
}

impl Operand for Value {
    type Conv = Conv<Value>;
    type Gather = Infallible;
    type HaloCopy = Infallible;
    /// Row and column, from the window's position.
    type Tap = [isize; 2];
}

/// An operation on values of type `V`.
pub(super) enum Op<V: Operand> {
    /// `[images, C, H, W]` comes in.
    Input {
        index: usize,
        to: V,
        gathers: Vec<V::Gather>,
    },
    Conv(Box<V::Conv>),
    /// The halo of `to` is filled, where no other operation does it. `from` is the same value, or one without halo that is
    /// copied. A table for each row partition.
    FillHalo {
        from: V,
        to: V,
        copies: Vec<Vec<V::HaloCopy>>,
    },
    /// Each thread makes a replica of its own, with a halo.
    Replicate {
        from: V,
        to: V,
        copies: Vec<V::HaloCopy>,
    },
    /// The same pixels in another layout. A table for each row partition.
    Move {
        from: V,
        to: V,
        gathers: Vec<Vec<V::Gather>>,
    },
    /// All channels, to channels of another value from `first` on.
    Copy {
        from: V,
        to: V,
        first: usize,
    },
    Pool {
        from: V,
        to: V,
        taps: Vec<V::Tap>,
        step: [usize; 2],
        kind: Pool,
        reads_halo: bool,
    },
    /// `scale[c] * x + shift[c]`
    Affine {
        from: V,
        to: V,
        scale: Vec<f32>,
        shift: Vec<f32>,
        activation: Activation,
    },
    Add {
        a: V,
        b: V,
        to: V,
        activation: Activation,
    },
    /// The mean over pixels. The table says which lanes hold any.
    Mean {
        from: V,
        to: V,
        gathers: Vec<V::Gather>,
    },
    /// `[images, C, H, W]` goes out.
    Output {
        from: V,
        index: usize,
        gathers: Vec<V::Gather>,
    },
}

#[derive(Clone, Copy)]
pub(super) enum Pool {
    Max,
    /// The sum is multiplied by this.
    Mean(f32),
}

impl Op<Value> {
    pub fn reads(&self) -> Vec<Value> {
        match self {
            Op::Input { .. } => vec![],
            Op::Conv(conv) => [Some(conv.from), conv.added].into_iter().flatten().collect(),
            Op::Add { a, b, .. } => vec![*a, *b],
            Op::FillHalo { from, .. }
            | Op::Replicate { from, .. }
            | Op::Move { from, .. }
            | Op::Copy { from, .. }
            | Op::Pool { from, .. }
            | Op::Affine { from, .. }
            | Op::Mean { from, .. }
            | Op::Output { from, .. } => vec![*from],
        }
    }

    /// The value whose halo it reads.
    pub fn halo_of(&self) -> Option<Value> {
        match self {
            Op::Conv(conv) if conv.reads_halo => Some(conv.from),
            Op::Pool { from, reads_halo: true, .. } => Some(*from),
            _ => None,
        }
    }

    pub fn writes(&self) -> Option<Value> {
        match self {
            Op::Conv(conv) => Some(conv.to),
            Op::Input { to, .. }
            | Op::FillHalo { to, .. }
            | Op::Replicate { to, .. }
            | Op::Move { to, .. }
            | Op::Copy { to, .. }
            | Op::Pool { to, .. }
            | Op::Affine { to, .. }
            | Op::Add { to, .. }
            | Op::Mean { to, .. } => Some(*to),
            Op::Output { .. } => None,
        }
    }
}
