//! A plan: the graph's computations for one input shape, with shapes folded and weights packed.

use super::Slots;
use super::step::{Operand, Step, operands};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::ops::{BinaryOp, Compute};
use crate::tensor::Tensor;
use resprout_kernels::Isa;
use std::collections::HashSet;
use std::ops::Range;

/// The graph's computations for one input shape, as a list of steps. Each step writes a value to a *slot*, by number.
#[doc(hidden)]
pub struct Plan {
    /// In the order in which they run.
    pub steps: Vec<Step>,
    /// Shape of the input, batch included.
    pub input_shape: Vec<usize>,
    /// Shapes of the outputs and then of the [taps](super::PlanOptions::taps).
    pub result_shapes: Vec<Vec<usize>>,
    /// The ONNX name of the operation that writes each output, such as `Softmax`.
    pub output_ops: Vec<String>,
    /// Whether steps of the model come before these.
    pub(crate) continues: bool,
    /// The first layer that mixes the images of a batch, if an output or a tap depends on it.
    pub(crate) mixer: Option<usize>,
    pub(super) results: Vec<Operand>,
    pub(super) slot_count: usize,
}

impl Plan {
    /// Empty slots with the input in place.
    pub fn start(&self, slots: &mut Slots, input: Tensor) {
        slots.start(self.slot_count, input);
    }

    /// The outputs and then the taps, once every step has run.
    pub fn results(&self, slots: &mut Slots) -> Vec<Tensor> {
        let results = operands(&self.results, slots).into_iter().cloned().collect();
        (0..self.slot_count).for_each(|slot| slots.release(slot));
        results
    }

    /// Steps at which the plan can be cut in two, with the shape of the value there. It is the only value alive, and a
    /// convolution, a sum or a mean computed it from the images.
    pub(crate) fn cut_points(&self) -> Vec<(usize, &[usize])> {
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

    /// The steps from one [cut point](Self::cut_points) (or the first step) to another (or the end) as a plan of their own.
    pub(crate) fn part(mut self, range: Range<usize>) -> Plan {
        let first_read = |steps: &[Step], at: usize| steps[at..].iter().flat_map(Step::input_slots).next().unwrap_or(0);
        if range.end < self.steps.len() {
            let out = first_read(&self.steps, range.end);
            self.result_shapes = vec![self.slot_shape(out).to_vec()];
            self.results = vec![Operand::Slot(out)];
        }
        if range.start > 0 {
            let from = first_read(&self.steps, range.start);
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
    pub(crate) fn check_independent(&self, model: &Model, names: &[String]) -> Result<()> {
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
    pub fn run(&self, input: Tensor, slots: &mut Slots, isa: Isa, parallel: bool) -> Vec<Tensor> {
        self.start(slots, input);
        self.steps.iter().for_each(|step| step.run(&step.compute, slots, isa, parallel));
        self.results(slots)
    }
}
