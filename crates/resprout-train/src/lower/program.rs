//! Programs: steps of instructions on slots and parameters.

use crate::parameters::Parameters;
use burn_core::tensor::Tensor;
use burn_core::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions, PadMode as EnginePadMode};
use resprout::ops::{BinaryOp, UnaryOp};

/// The source of an operand.
#[derive(Clone)]
pub(super) enum TrainOperand {
    /// A computed value.
    Slot(usize),
    /// A trained parameter.
    Parameter(usize),
    /// Constant values and their shape.
    Constant(Vec<f32>, Vec<usize>),
}

/// An operation of the engine. Numbers are indices of parameters.
pub(super) enum Instruction {
    Conv { weight: usize, bias: Option<usize>, options: ConvOptions<2> },
    Linear { weight: usize, bias: Option<usize>, transposed: bool },
    Normalise { gamma: usize, beta: usize, statistics: usize, epsilon: f64, relu: bool },
    Unary(UnaryOp),
    Binary(BinaryOp),
    Concat(usize),
    Slice(Vec<(usize, usize, usize)>),
    Pad { pads: Vec<(usize, usize)>, mode: EnginePadMode },
    MaxPool(MaxPoolOptions<2>),
    AveragePool(AvgPoolOptions<2>),
    Mean,
    MeanRows,
    Reshape(Vec<usize>),
    Identity,
}

/// One instruction with its operands.
pub(super) struct TrainStep {
    pub layer: String,
    pub instruction: Instruction,
    pub inputs: Vec<TrainOperand>,
    pub output: usize,
    /// Slots that no later step reads.
    pub release: Vec<usize>,
}

/// A program for batches of one size.
pub struct TrainProgram {
    pub(super) steps: Vec<TrainStep>,
    pub(super) slots: usize,
    pub(super) output: usize,
    pub(super) classes: usize,
}

impl TrainProgram {
    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }
}

/// A trained parameter in its shape.
pub(super) fn shaped<const D: usize>(parameters: &Parameters, leaves: &[Tensor<1>], index: usize) -> Tensor<D> {
    let shape = &parameters.trained[index].shape;
    leaves[index].clone().reshape::<D, _>(std::array::from_fn::<usize, D, _>(|axis| shape[axis]))
}
