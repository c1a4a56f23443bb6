//! One computation of a plan.

use super::Slots;
use crate::ops::Compute;
use crate::tensor::{Tensor, Value};
use resprout_kernels::{Activation, Isa};
use std::collections::HashSet;
use std::sync::Arc;

/// One computation of a plan.
#[doc(hidden)]
pub struct Step {
    /// Index of the layer in the graph: of the first one, if the step does several.
    pub layer: usize,
    /// How the result is computed.
    pub compute: Compute,
    /// Shape of the result.
    pub shape: Vec<usize>,
    /// Multiply-accumulate operations.
    pub macs: u64,
    /// Filled in where the step is a BatchNormalization of its own.
    pub batch_norm: Option<BatchNormStep>,
    pub(super) inputs: Vec<Operand>,
    pub(super) output: usize,
    /// Slots that no later step reads.
    pub(super) release: Vec<usize>,
}

/// The parameters of a BatchNormalization that is a step of its own.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct BatchNormStep {
    /// Names of scale, bias, mean and variance.
    pub params: [String; 4],
    /// Added to the variance.
    pub epsilon: f32,
    /// Applied last, in the same step.
    pub activation: Activation,
}

/// An input of a step.
pub(super) enum Operand {
    Slot(usize),
    Constant(Arc<Value>),
}

/// The tensors of some operands.
pub(super) fn operands<'a>(inputs: &'a [Operand], slots: &'a Slots) -> Vec<&'a Tensor> {
    let tensor = |input: &'a Operand| match input {
        Operand::Slot(slot) => slots.get(*slot),
        Operand::Constant(value) => value.as_f32().expect("the plan admits only floats as operands"),
    };
    inputs.iter().map(tensor).collect()
}

impl Step {
    /// The slot of the first operand.
    pub fn first_input(&self) -> Option<usize> {
        match self.inputs.first() {
            Some(Operand::Slot(slot)) => Some(*slot),
            _ => None,
        }
    }

    /// The slots of all operands that are not constants.
    pub fn input_slots(&self) -> impl Iterator<Item = usize> {
        self.inputs.iter().filter_map(|input| match input {
            Operand::Slot(slot) => Some(*slot),
            Operand::Constant(_) => None,
        })
    }

    /// The slots of the operands, where there are two and neither is a constant.
    pub fn two_slots(&self) -> Option<[usize; 2]> {
        match self.inputs[..] {
            [Operand::Slot(a), Operand::Slot(b)] => Some([a, b]),
            _ => None,
        }
    }

    /// The slot of the result.
    pub fn output(&self) -> usize {
        self.output
    }

    /// Computes the result and keeps the operands, so that it can be computed again in another way.
    /// A call of [`release`](Self::release) must follow.
    pub fn run_keeping(&self, compute: &Compute, slots: &mut Slots, isa: Isa, parallel: bool) {
        slots.release(self.output);
        let mut tensor = slots.take(&self.shape);
        compute.run(&operands(&self.inputs, slots), &mut tensor, isa, parallel);
        slots.put(self.output, tensor);
    }

    /// Releases the operands that no later step reads.
    pub fn release(&self, slots: &mut Slots) {
        self.release_but(&HashSet::new(), slots);
    }

    /// As [`release`](Self::release), without the slots in `kept`.
    pub fn release_but(&self, kept: &HashSet<usize>, slots: &mut Slots) {
        self.release.iter().filter(|slot| !kept.contains(slot)).for_each(|&slot| slots.release(slot));
    }

    /// Runs `compute` (the step's own, or a substitute for it) on the values in `slots`.
    pub fn run(&self, compute: &Compute, slots: &mut Slots, isa: Isa, parallel: bool) {
        let dying = self.first_input().filter(|slot| self.release.contains(slot) && self.reads(*slot) == 1);
        let dying = dying.filter(|&slot| compute.in_place(&slots.get(slot).shape, &self.shape));
        let out = match dying {
            Some(slot) => {
                let mut tensor = slots.remove(slot);
                let others = operands(&self.inputs[1..], slots);
                compute.run_in_place(&mut tensor, &others);
                tensor.shape.clone_from(&self.shape);
                tensor
            }
            None => {
                let mut tensor = slots.take(&self.shape);
                compute.run(&operands(&self.inputs, slots), &mut tensor, isa, parallel);
                tensor
            }
        };
        slots.put(self.output, out);
        self.release(slots);
    }

    fn reads(&self, slot: usize) -> usize {
        self.inputs.iter().filter(|input| matches!(input, Operand::Slot(s) if *s == slot)).count()
    }
}
