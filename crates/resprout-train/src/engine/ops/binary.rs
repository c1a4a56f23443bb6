//! Sums, differences, products and quotients, with numpy's rule for operands of fewer elements.

use super::SHARE;
use crate::engine::layout::Layout;
use rayon::prelude::*;
use resprout::ops::BinaryOp;

/// How an operand lies under a result: elements from one index to the next along each axis of an image, zero where the operand
/// has one element for all.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::engine) struct Broadcast {
    /// Steps along the result's axes, at most three.
    steps: [usize; 3],
    /// Whether each image has its own.
    batched: bool,
    /// Elements of one image.
    len: usize,
    /// Whether it has the result's shape, and images of its own.
    plain: bool,
}

impl Broadcast {
    /// Of an operand of this shape (of one image, if it is `batched`) under a result of `shape` for one image. `None` if it does not fit.
    pub fn new(own: &[usize], batched: bool, shape: &[usize]) -> Option<Broadcast> {
        // Leading axes of one element are none.
        let skipped = own.iter().take_while(|&&dim| dim == 1).count().min(own.len().saturating_sub(shape.len()));
        let own = &own[skipped..];
        if own.len() > shape.len() || shape.len() > 3 || (batched && own.len() != shape.len()) {
            return None;
        }
        let (mut steps, mut step) = ([0; 3], 1);
        for (axis, &dim) in own.iter().enumerate().rev() {
            let at = shape.len() - own.len() + axis;
            if dim != 1 && dim != shape[at] {
                return None;
            }
            steps[3 - shape.len() + at] = if dim == 1 { 0 } else { step };
            step *= dim;
        }
        Some(Broadcast { steps, batched, len: step, plain: batched && own == shape })
    }
}

/// A result's axes: three of one image, with ones in front.
fn axes(shape: &[usize]) -> [usize; 3] {
    std::array::from_fn(|axis| (axis + shape.len()).checked_sub(3).map_or(1, |axis| shape[axis]))
}

/// Calls `work` with the place of each vector of an image in the result and in the operand.
fn places(shape: &[usize], broadcast: &Broadcast, mut work: impl FnMut(usize, usize)) {
    let [a, b, c] = axes(shape);
    let mut at = 0;
    for i in 0..a {
        for j in 0..b {
            for k in 0..c {
                work(at, i * broadcast.steps[0] + j * broadcast.steps[1] + k * broadcast.steps[2]);
                at += 1;
            }
        }
    }
}

fn apply(op: BinaryOp, a: f32, b: f32) -> f32 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        _ => unreachable!("refused when the program is made"),
    }
}

/// `out = out op operand`
pub(in crate::engine) fn fold(
    op: BinaryOp,
    layout: Layout,
    shape: &[usize],
    broadcast: &Broadcast,
    operand: &[f32],
    out: &mut [f32],
) {
    match op {
        BinaryOp::Add => walk(layout, shape, broadcast, operand, out, |a, b| a + b),
        BinaryOp::Mul => walk(layout, shape, broadcast, operand, out, |a, b| a * b),
        op => walk(layout, shape, broadcast, operand, out, |a, b| apply(op, a, b)),
    }
}

/// The sum of two operands of the result's shape.
pub(in crate::engine) fn sum_of_two(a: &[f32], b: &[f32], out: &mut [f32]) {
    let parts = out.par_chunks_mut(SHARE).zip(a.par_chunks(SHARE)).zip(b.par_chunks(SHARE));
    parts.for_each(|((out, a), b)| out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (a, b))| *out = a + b));
}

/// `out[i] = of(out[i], operand)`, with the operand's element for each of the result's.
fn walk(
    layout: Layout,
    shape: &[usize],
    broadcast: &Broadcast,
    operand: &[f32],
    out: &mut [f32],
    of: impl Fn(f32, f32) -> f32 + Sync,
) {
    if broadcast.plain {
        return super::combine(out, operand, of);
    }
    let (lanes, each) = (layout.lanes, shape.iter().product::<usize>() * layout.lanes);
    out.par_chunks_exact_mut(each).enumerate().for_each(|(chunk, out)| {
        let operand = part(layout, broadcast, operand, chunk);
        places(shape, broadcast, |to, from| {
            let out = &mut out[to * lanes..][..lanes];
            match broadcast.batched {
                true => out.iter_mut().zip(&operand[from * lanes..][..lanes]).for_each(|(out, b)| *out = of(*out, *b)),
                false => out.iter_mut().for_each(|out| *out = of(*out, operand[from])),
            }
        });
    });
}

/// The operand of one chunk.
fn part<'a>(layout: Layout, broadcast: &Broadcast, operand: &'a [f32], chunk: usize) -> &'a [f32] {
    let each = broadcast.len * layout.lanes;
    if broadcast.batched { &operand[chunk * each..][..each] } else { operand }
}

/// The gradient that reaches an operand from `grad`, the result's times `factor(index)`.
pub(in crate::engine) fn reduce(
    layout: Layout,
    shape: &[usize],
    broadcast: &Broadcast,
    grad: &[f32],
    factor: impl Fn(usize) -> f32 + Sync,
    out: &mut [f32],
) {
    let (lanes, each) = (layout.lanes, shape.iter().product::<usize>() * layout.lanes);
    let chunk_sums = |(chunk, grad): (usize, &[f32])| {
        let mut sums = vec![0.0f64; broadcast.len * if broadcast.batched { lanes } else { 1 }];
        places(shape, broadcast, |from, to| {
            for lane in 0..lanes {
                let at = from * lanes + lane;
                let to = if broadcast.batched { to * lanes + lane } else { to };
                sums[to] += f64::from(grad[at] * factor(chunk * each + at));
            }
        });
        sums
    };
    let sums: Vec<Vec<f64>> = grad.par_chunks_exact(each).enumerate().map(chunk_sums).collect();
    if broadcast.batched {
        out.chunks_exact_mut(broadcast.len * lanes).zip(&sums).for_each(|(out, sums)| {
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = *sum as f32);
        });
    } else {
        let total = |at: usize| sums.iter().map(|sums| sums[at]).sum::<f64>() as f32;
        out.iter_mut().enumerate().for_each(|(at, out)| *out = total(at));
    }
}

impl Broadcast {
    /// Whether the operand has the result's shape, and images of its own.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// Elements of the operand.
    pub fn len(&self, layout: Layout) -> usize {
        if self.batched { self.len * layout.lanes * layout.chunks() } else { self.len }
    }
}

/// Writes the operand in the result's shape.
pub(in crate::engine) fn spread(layout: Layout, shape: &[usize], broadcast: &Broadcast, operand: &[f32], out: &mut [f32]) {
    walk(layout, shape, broadcast, operand, out, |_, b| b);
}
