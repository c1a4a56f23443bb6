//! Gates: activations and maxima that are held at one point, so that the network is smooth around it.
//!
//! The second derivative of a rectifier is zero, except at its jump. A finite difference of gradients contains the jumps
//! between its two points. They do not vanish with the distance, because a shorter distance gives each more weight. Held
//! gates leave the derivative that exists almost everywhere.

use super::batch::{DeviceBatch, constant, unary, without_gradient};
use burn_core::tensor::ops::MaxPoolOptions;
use burn_core::tensor::{Int, Tensor, module};
use resprout::ops::UnaryOp;
use std::collections::HashMap;

/// How a pass treats activations and maxima.
pub(crate) enum Hold<'a> {
    /// It computes them.
    Free,
    /// It computes and notes them.
    Note(&'a mut Gates),
    /// It uses the noted ones.
    Keep(&'a Gates),
}

/// The gates of a pass, by output slot.
#[derive(Default)]
pub(crate) struct Gates(HashMap<usize, Gate>);

enum Gate {
    Images(Tangent<4>),
    Rows(Tangent<2>),
    Maxima(Tensor<4, Int>),
}

/// The tangent of a piecewise linear function at each element.
struct Tangent<const D: usize> {
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
                (Some(Gate::Images(tangent)), DeviceBatch::Images(x)) => DeviceBatch::Images(tangent.at(x)),
                (Some(Gate::Rows(tangent)), DeviceBatch::Rows(x)) => DeviceBatch::Rows(tangent.at(x)),
                (_, x) => x.unary(op),
            },
        }
    }

    pub(super) fn max_pool(&mut self, slot: usize, x: Tensor<4>, options: &MaxPoolOptions<2>) -> Tensor<4> {
        match self {
            Hold::Free => module::max_pool2d(x, options.clone()),
            Hold::Note(gates) => {
                let (_, indices) = module::max_pool2d_with_indices(without_gradient(x.clone()), options.clone());
                gates.0.insert(slot, Gate::Maxima(indices));
                module::max_pool2d(x, options.clone())
            }
            Hold::Keep(gates) => match gates.0.get(&slot) {
                Some(Gate::Maxima(indices)) => gathered(x, indices.clone()),
                _ => module::max_pool2d(x, options.clone()),
            },
        }
    }
}

impl<const D: usize> Tangent<D> {
    fn at(&self, x: Tensor<D>) -> Tensor<D> {
        let device = x.device();
        let (slope, offset) = (constant(&self.slope, &device), constant(&self.offset, &device));
        x * slope + offset
    }
}

fn gate(op: UnaryOp, x: DeviceBatch) -> Option<Gate> {
    match x {
        DeviceBatch::Images(x) => tangent(op, without_gradient(x)).map(Gate::Images),
        DeviceBatch::Rows(x) => tangent(op, without_gradient(x)).map(Gate::Rows),
    }
}

/// The tangent at each element; `None` for functions that are not piecewise linear or need no gate.
fn tangent<const D: usize>(op: UnaryOp, x: Tensor<D>) -> Option<Tangent<D>> {
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
    Some(Tangent { slope, offset })
}

/// The elements of every channel at these indices of its flat image.
fn gathered(x: Tensor<4>, indices: Tensor<4, Int>) -> Tensor<4> {
    let ([n, c, h, w], [_, _, oh, ow]) = (x.dims(), indices.dims());
    let flat: Tensor<3> = x.reshape([n, c, h * w]);
    let gathered = flat.gather(2, indices.reshape([n, c, oh * ow]));
    gathered.reshape([n, c, oh, ow])
}
