//! A plan: the graph's computations for one input shape, shapes folded, weights packed.

use super::build::Builder;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::ops::{BinaryOp, Compute};
use crate::tensor::{Tensor, Value};
use resprout_kernels::{Activation, Kernel};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// How a plan is made.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// Whether a BatchNormalization is multiplied into the convolution before it, where nothing else reads between.
    pub fold_batch_norm: bool,
    /// Whether an activation is applied by the step before it, where nothing else reads between.
    pub fuse_activation: bool,
    /// Values to return besides the outputs.
    pub taps: Vec<String>,
}

impl Default for PlanOptions {
    fn default() -> PlanOptions {
        PlanOptions { fold_batch_norm: true, fuse_activation: true, taps: Vec::new() }
    }
}

/// One computation of a plan.
pub struct Step {
    /// Index of the layer in the graph (of the first, if several are done at once).
    pub layer: usize,
    /// How.
    pub compute: Compute,
    /// Shape of the result.
    pub shape: Vec<usize>,
    /// Multiply-accumulate operations.
    pub macs: u64,
    /// Filled in where the step is a BatchNormalization of its own.
    pub batch_norm: Option<BatchNormStep>,
    pub(super) inputs: Vec<Operand>,
    pub(super) output: usize,
    /// Slots that nobody reads after this step.
    pub(super) release: Vec<usize>,
}

/// The parameters of a BatchNormalization that is a step of its own.
#[derive(Clone, Debug)]
pub struct BatchNormStep {
    /// Names of scale, bias, mean and variance.
    pub params: [String; 4],
    /// Added to the variance.
    pub epsilon: f32,
    /// What follows in the same step.
    pub activation: Activation,
}

pub(super) enum Operand {
    Slot(usize),
    Constant(Arc<Value>),
}

/// Values on their way through a plan.
#[derive(Default)]
pub struct Slots {
    batch: usize,
    values: Vec<Option<Tensor>>,
    /// Buffers of dead values, to be used again.
    spare: Vec<Vec<f32>>,
}

impl Slots {
    /// A tensor of the given shape with unspecified contents.
    pub fn take(&mut self, shape: &[usize]) -> Tensor {
        let len = shape.iter().product();
        let fit = (0..self.spare.len()).filter(|&i| self.spare[i].capacity() >= len).min_by_key(|&i| self.spare[i].capacity());
        let mut data = fit.map_or_else(|| Vec::with_capacity(len), |i| self.spare.swap_remove(i));
        data.resize(len, 0.0);
        Tensor { shape: shape.to_vec(), data }
    }

    /// The value in a slot.
    ///
    /// # Panics
    /// If the slot is empty: the plan's order guarantees that it is not.
    pub fn get(&self, slot: usize) -> &Tensor {
        self.values[slot].as_ref().expect("a plan reads a value only while it is alive")
    }

    /// Puts a value that was computed elsewhere into its slot.
    pub(crate) fn put(&mut self, slot: usize, tensor: Tensor) {
        self.values[slot] = Some(tensor);
    }

    /// Images that run together.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Gives the buffers of dead values back.
    pub fn free_spare(&mut self) {
        self.spare.clear();
    }

    fn release(&mut self, slot: usize) {
        if let Some(tensor) = self.values[slot].take() {
            self.spare.push(tensor.data);
        }
    }
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
    pub(crate) fn two_slots(&self) -> Option<[usize; 2]> {
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
    /// [`release`](Self::release) must follow.
    pub fn run_keeping(&self, compute: &Compute, slots: &mut Slots, kernel: Kernel, spread: bool) {
        slots.release(self.output);
        let mut tensor = slots.take(&self.shape);
        compute.run(&operands(&self.inputs, &slots.values), &mut tensor, kernel, spread);
        slots.values[self.output] = Some(tensor);
    }

    /// Gives the operands up that nobody reads after this step.
    pub fn release(&self, slots: &mut Slots) {
        self.release_but(&HashSet::new(), slots);
    }

    /// The same without those in `kept`.
    pub fn release_but(&self, kept: &HashSet<usize>, slots: &mut Slots) {
        self.release.iter().filter(|slot| !kept.contains(slot)).for_each(|&slot| slots.release(slot));
    }

    /// Runs `compute` (the step's own, or one that stands in for it) on the values in `slots`.
    pub fn run(&self, compute: &Compute, slots: &mut Slots, kernel: Kernel, spread: bool) {
        let dying = self.first_input().filter(|slot| self.release.contains(slot) && self.reads(*slot) == 1);
        let dying = dying.filter(|&slot| compute.in_place(&slots.get(slot).shape, &self.shape));
        let out = match dying {
            Some(slot) => {
                let mut tensor = slots.values[slot].take().expect("checked above");
                let others = operands(&self.inputs[1..], &slots.values);
                compute.run_in_place(&mut tensor, &others);
                tensor.shape.clone_from(&self.shape);
                tensor
            }
            None => {
                let mut tensor = slots.take(&self.shape);
                compute.run(&operands(&self.inputs, &slots.values), &mut tensor, kernel, spread);
                tensor
            }
        };
        slots.values[self.output] = Some(out);
        self.release(slots);
    }

    fn reads(&self, slot: usize) -> usize {
        self.inputs.iter().filter(|input| matches!(input, Operand::Slot(s) if *s == slot)).count()
    }
}

fn operands<'a>(inputs: &'a [Operand], values: &'a [Option<Tensor>]) -> Vec<&'a Tensor> {
    let tensor = |input: &'a Operand| match input {
        Operand::Slot(slot) => values[*slot].as_ref().expect("a plan reads a value only while it is alive"),
        Operand::Constant(value) => value.as_f32().expect("the plan admits only numbers as operands"),
    };
    inputs.iter().map(tensor).collect()
}

/// The graph's computations for one input shape.
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// Shape of the input, batch included.
    pub input_shape: Vec<usize>,
    /// Shapes of the outputs and then of the taps.
    pub result_shapes: Vec<Vec<usize>>,
    /// How each output's numbers came about: the layer's operation, for softmax detection.
    pub output_ops: Vec<String>,
    /// Whether steps of the model come before these.
    pub(crate) continues: bool,
    /// The first layer that mixes the images of a batch, if an output or a tap depends on it.
    pub(crate) mixer: Option<usize>,
    pub(super) results: Vec<Operand>,
    pub(super) slot_count: usize,
}

impl Plan {
    /// Plans `model` for an input of `input_shape`. Fails on the first layer that cannot be computed, by name.
    pub fn new(model: &Model, input_shape: &[usize], options: &PlanOptions) -> Result<Plan> {
        let mut builder = Builder::new(model, input_shape, options)?;
        for index in 0..model.graph.layers.len() {
            builder.layer(index)?;
        }
        builder.finish(input_shape)
    }

    /// Empty slots with the input in place.
    pub fn start(&self, slots: &mut Slots, input: Tensor) {
        slots.values.resize_with(self.slot_count, || None);
        slots.batch = input.shape.first().copied().unwrap_or(1);
        slots.values[0] = Some(input);
    }

    /// The outputs and then the taps, once every step has run.
    pub fn results(&self, slots: &mut Slots) -> Vec<Tensor> {
        let results = operands(&self.results, &slots.values).into_iter().cloned().collect();
        (0..self.slot_count).for_each(|slot| slots.release(slot));
        results
    }

    /// Steps before which a single value is alive, one that a convolution, a sum or a mean has computed of the images, and its
    /// shape: there the plan can be cut in two.
    pub(crate) fn waists(&self) -> Vec<(usize, &[usize])> {
        let mut found = Vec::new();
        let mut alive = HashSet::from([0]);
        for (index, pair) in self.steps.windows(2).enumerate() {
            let step = &pair[0];
            alive.insert(step.output);
            alive.retain(|slot| !step.release.contains(slot));
            let computed =
                matches!(step.compute, Compute::Conv(_) | Compute::Mean(_) | Compute::Binary { op: BinaryOp::Add, .. });
            if computed && step.shape.len() == 4 && alive.len() == 1 && alive.contains(&step.output) {
                found.push((index + 1, &step.shape[..]));
            }
        }
        found
    }

    /// The steps from one [waist](Self::waists) (or the first step) to another (or the end) as a plan of their own.
    pub(crate) fn part(mut self, range: Range<usize>) -> Plan {
        let waist = |steps: &[Step], at: usize| steps[at..].iter().flat_map(Step::input_slots).next().unwrap_or(0);
        if range.end < self.steps.len() {
            let out = waist(&self.steps, range.end);
            self.result_shapes = vec![self.slot_shape(out).to_vec()];
            self.results = vec![Operand::Slot(out)];
        }
        if range.start > 0 {
            let from = waist(&self.steps, range.start);
            self.input_shape = self.slot_shape(from).to_vec();
            self.continues = true;
            let rename = |slot: &mut usize| *slot = if *slot == from { 0 } else { *slot };
            for step in &mut self.steps[range.clone()] {
                step.inputs.iter_mut().for_each(|input| {
                    if let Operand::Slot(slot) = input {
                        rename(slot)
                    }
                });
                step.release.iter_mut().for_each(rename);
            }
        }
        self.steps.truncate(range.end);
        self.steps.drain(..range.start);
        self
    }

    fn slot_shape(&self, slot: usize) -> &[usize] {
        self.steps.iter().find(|step| step.output == slot).map_or(&self.input_shape, |step| &step.shape)
    }

    /// Whether every output and tap has the images along its first axis, mixed or not.
    pub(crate) fn keeps_count(&self) -> bool {
        self.result_shapes.iter().all(|shape| shape.first() == self.input_shape.first())
    }

    /// Fails if the images of a batch cannot be run a few at a time.
    pub(crate) fn check_apart(&self, model: &Model, names: &[String]) -> Result<()> {
        let count = self.input_shape.first();
        if let Some((name, shape)) = names.iter().zip(&self.result_shapes).find(|(_, shape)| shape.first() != count) {
            return Err(Error::unsupported(format!(
                "output {name:?} of shape {shape:?} does not keep the images apart along its first axis"
            )));
        }
        let Some(mixer) = self.mixer else { return Ok(()) };
        let layer = &model.graph.layers[mixer];
        let (name, op) = (&layer.name, layer.op.name());
        Err(Error::unsupported(format!("layer {name:?} ({op}) mixes the images of a batch; fix the batch size in the model")))
    }

    /// Whether a slot holds an output or a tap.
    pub fn is_result(&self, slot: usize) -> bool {
        self.results.iter().any(|result| matches!(result, Operand::Slot(s) if *s == slot))
    }

    /// The most bytes that all values of one chunk take at any step.
    pub fn peak_bytes(&self) -> usize {
        let bytes = |shape: &[usize]| shape.iter().product::<usize>() * size_of::<f32>();
        let mut sizes = vec![0; self.slot_count];
        sizes[0] = bytes(&self.input_shape);
        let (mut alive, mut peak) = (sizes[0], sizes[0]);
        for step in &self.steps {
            sizes[step.output] = bytes(&step.shape);
            alive += sizes[step.output];
            peak = peak.max(alive);
            alive -= step.release.iter().map(|&slot| sizes[slot]).sum::<usize>();
        }
        peak
    }

    /// The bytes of a slot's value in one chunk.
    pub fn slot_bytes(&self, slot: usize) -> usize {
        self.slot_shape(slot).iter().product::<usize>() * size_of::<f32>()
    }

    /// Runs every step on one input.
    pub fn run(&self, input: Tensor, slots: &mut Slots, kernel: Kernel, spread: bool) -> Vec<Tensor> {
        self.start(slots, input);
        self.steps.iter().for_each(|step| step.run(&step.compute, slots, kernel, spread));
        self.results(slots)
    }
}
