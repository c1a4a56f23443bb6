//! Activations and maxima held as they are at one point, so that a network is smooth around it.
//!
//! A rectifier's second derivative is zero but for a jump. Differences of gradients between two points see the
//! jumps that lie between them, and these do not vanish with the distance, because the shorter it is the
//! more each of them counts. Held gates leave the derivative that exists almost everywhere.

use super::{DeviceBatch, constant, unary, without_gradient};
use burn_core::tensor::ops::MaxPoolOptions;
use burn_core::tensor::{Int, Tensor, module};
use resprout::ops::UnaryOp;
use std::collections::HashMap;

/// What is done about activations and maxima in a pass.
pub(crate) enum Hold<'a> {
    /// They are computed.
    Free,
    /// They are computed, and noted.
    Note(&'a mut Gates),
    /// They are as they were noted.
    Keep(&'a Gates),
}

/// The gates of a pass, by the slot that is written.
#[derive(Default)]
pub(crate) struct Gates(HashMap<usize, Gate>);

enum Gate {
    Images(Line<4>),
    Rows(Line<2>),
    Maxima(Tensor<4, Int>),
}

/// What a piecewise linear function does at each element.
struct Line<const D: usize> {
    slope: Tensor<D>,
    offset: Tensor<D>,
}

impl Hold<'_> {
    pub(super) fn unary(&mut self, slot: usize, op: UnaryOp, x: DeviceBatch) -> DeviceBatch {
        match self {
            Hold::Free => x.unary(op),
            Hold::Note(gates) => {
                gates.0.extend(gate(op, x.clone()).map(|gate| (slot, gate)));
                x.unary(op)
            }
            Hold::Keep(gates) => match (gates.0.get(&slot), x) {
                (Some(Gate::Images(line)), DeviceBatch::Images(x)) => DeviceBatch::Images(line.at(x)),
                (Some(Gate::Rows(line)), DeviceBatch::Rows(x)) => DeviceBatch::Rows(line.at(x)),
                (_, x) => x.unary(op),
            },
        }
    }

    pub(super) fn max_pool(&mut self, slot: usize, x: Tensor<4>, options: &MaxPoolOptions<2>) -> Tensor<4> {
        match self {
            Hold::Free => module::max_pool2d(x, options.clone()),
            Hold::Note(gates) => {
                let (_, places) = module::max_pool2d_with_indices(without_gradient(x.clone()), options.clone());
                gates.0.insert(slot, Gate::Maxima(places));
                module::max_pool2d(x, options.clone())
            }
            Hold::Keep(gates) => match gates.0.get(&slot) {
                Some(Gate::Maxima(places)) => picked(x, places.clone()),
                _ => module::max_pool2d(x, options.clone()),
            },
        }
    }
}

impl<const D: usize> Line<D> {
    fn at(&self, x: Tensor<D>) -> Tensor<D> {
        let device = x.device();
        let (slope, offset) = (constant(&self.slope, &device), constant(&self.offset, &device));
        x * slope + offset
    }
}

fn gate(op: UnaryOp, x: DeviceBatch) -> Option<Gate> {
    match x {
        DeviceBatch::Images(x) => line(op, without_gradient(x)).map(Gate::Images),
        DeviceBatch::Rows(x) => line(op, without_gradient(x)).map(Gate::Rows),
    }
}

/// The function's line at each element; `None` for functions that are smooth, or curved between their bends.
fn line<const D: usize>(op: UnaryOp, x: Tensor<D>) -> Option<Line<D>> {
    let slope = match op {
        UnaryOp::Relu => x.clone().greater_elem(0.0).float(),
        UnaryOp::LeakyRelu { alpha } => x.clone().greater_elem(0.0).float() * (1.0 - alpha) + alpha,
        UnaryOp::Clamp { low, high } => x.clone().greater_elem(low).float() * x.clone().lower_elem(high).float(),
        UnaryOp::HardSigmoid { alpha, beta } => {
            let inside = x.clone() * alpha + beta;
            inside.clone().greater_elem(0.0).float() * inside.lower_elem(1.0).float() * alpha
        }
        UnaryOp::Sigmoid | UnaryOp::HardSwish | UnaryOp::Neg | UnaryOp::Sqrt | UnaryOp::Floor => return None,
    };
    let offset = unary(op, x.clone()) - x * slope.clone();
    Some(Line { slope, offset })
}

/// The elements of every channel at these places of its flat image.
fn picked(x: Tensor<4>, places: Tensor<4, Int>) -> Tensor<4> {
    let ([n, c, h, w], [_, _, oh, ow]) = (x.dims(), places.dims());
    let flat: Tensor<3> = x.reshape([n, c, h * w]);
    let picked = flat.gather(2, places.reshape([n, c, oh * ow]));
    picked.reshape([n, c, oh, ow])
}
