//! The training engine: a network as a list of instructions, run forward and backward.
//!
//! Values are `[N / lanes][C][H][W][lanes]`: with sixteen lanes every tap of a convolution is a whole vector, and pruned weights
//! cost nothing in any direction (see [`resprout_kernels::batched`]). A few images have one lane, which is `[N, C, H, W]`.
//! Values stay in this layout from the images to the loss. What the backward pass does not read is given up at once.
//!
//! Every sum is in one order, whatever the number of threads.

mod backward;
mod flow;
mod forward;
mod gates;
mod layout;
mod lower;
mod memory;
mod ops;
mod taps;
#[cfg(test)]
mod tests;

pub(crate) use gates::{Gates, Hold};
pub(crate) use taps::TapGradient;

use crate::parameters::Parameters;
use layout::Layout;
use memory::Memory;
use ops::binary::Broadcast;
use ops::conv::Conv;
use ops::pool::Windows;
use ops::remap::Maps;
use resprout::Result;
use resprout::model::Model;
use resprout::ops::{BinaryOp, UnaryOp};
use serde::Serialize;

/// Where an operand comes from.
#[derive(Clone)]
enum Operand {
    /// A value computed before.
    Slot(usize),
    /// A trained parameter.
    Parameter(usize),
    /// Numbers that do not change.
    Constant(Vec<f32>),
}

/// What a step computes.
enum Instruction {
    /// A convolution or, of one pixel, a linear layer: by its number.
    Conv(usize),
    Normalise {
        gamma: usize,
        beta: usize,
        statistics: usize,
        epsilon: f64,
        relu: bool,
    },
    Unary(UnaryOp),
    /// All operands, from the left.
    Binary(BinaryOp, Vec<Broadcast>),
    /// Along an axis of one image.
    Concat(usize),
    Remap(Maps),
    MaxPool(Windows),
    AveragePool(Windows),
    /// The mean of each channel's pixels.
    Mean,
    /// The same numbers under another shape, or the same shape.
    Same,
}

struct Step {
    layer: String,
    instruction: Instruction,
    inputs: Vec<Operand>,
    output: usize,
    /// Slots that nobody reads afterwards, forward or backward.
    release: Vec<usize>,
    /// Slots that are kept for the backward pass, and that none of its later steps reads.
    release_backward: Vec<usize>,
}

/// A program for batches of one number of images.
pub struct TrainProgram {
    layout: Layout,
    steps: Vec<Step>,
    /// Shape of each slot's value for one image.
    shapes: Vec<Vec<usize>>,
    /// Whether gradients of a slot's value are needed.
    wanted: Vec<bool>,
    /// Whether the backward pass reads a slot's value.
    kept: Vec<bool>,
    convs: Vec<Conv>,
    output: usize,
    classes: usize,
    /// Slots whose values are kept until the loss has read them.
    taps: Vec<usize>,
    /// The number of steps that run.
    end: usize,
    memory: Memory,
    /// Seconds of each step, forward and backward, while they are measured.
    times: Option<Vec<[f64; 2]>>,
}

/// The time of a layer in one step.
#[derive(Clone, Debug, Serialize)]
pub struct LayerTimes {
    /// Its name; a layer of several operations has several rows.
    pub layer: String,
    /// Forward and backward.
    pub seconds: [f64; 2],
    /// Multiply-accumulates with the weights that are computed, forward and backward, if the layer has any.
    pub macs: Option<[u64; 2]>,
}

/// How BatchNormalizations are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By the batch's statistics, which go into the running ones.
    Training,
    /// By the running statistics.
    Evaluation,
}

impl TrainProgram {
    /// Translates the graph for batches `[count, C, H, W]`. Fails on the first layer that cannot be trained, by name.
    pub fn new(model: &Model, parameters: &Parameters, shape: &[usize]) -> Result<TrainProgram> {
        let count = shape.first().copied().unwrap_or(0);
        lower::lower(model, parameters, shape, Layout::of(count), &[])
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Measures every step from now on, or no more. Returns what was measured.
    pub(crate) fn measure(&mut self, on: bool) -> Vec<LayerTimes> {
        let found = std::mem::replace(&mut self.times, on.then(|| vec![[0.0; 2]; self.steps.len()]));
        let rows = self.steps.iter().zip(found.into_iter().flatten());
        rows.map(|(step, seconds)| LayerTimes { layer: step.layer.clone(), seconds, macs: self.macs(step) }).collect()
    }

    /// Multiply-accumulates of a convolution, forward and backward. Backward there are twice as many, but for the first layer,
    /// of whose input nobody needs the gradient.
    fn macs(&self, step: &Step) -> Option<[u64; 2]> {
        let Instruction::Conv(index) = step.instruction else { return None };
        let wanted = matches!(step.inputs[..], [Operand::Slot(slot), ..] if self.wanted[slot]);
        let forward = self.convs[index].macs(self.layout.images);
        Some([forward, forward * (1 + u64::from(wanted))])
    }

    /// Elements of a slot's value.
    fn len(&self, slot: usize) -> usize {
        self.layout.len(&self.shapes[slot])
    }
}
