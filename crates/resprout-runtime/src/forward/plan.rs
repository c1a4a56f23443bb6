//! A plan: the graph's computations for one input shape, shapes folded, weights packed.

use super::apart::{Images, Part, images};
use super::support::{check_supported, needed_values};
use crate::error::{Error, Result};
use crate::model::{Dim, Layer, Layout, Model};
use crate::ops::{BinaryOp, Compute, Fact, Fused, Op, Resolved, batch_norm_affine, fold, resolve};
use crate::tensor::{Tensor, Value, value_count};
use resprout_kernels::{Activation, Isa};
use std::collections::{HashMap, HashSet};
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
    inputs: Vec<Operand>,
    output: usize,
    /// Slots that nobody reads after this step.
    release: Vec<usize>,
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

enum Operand {
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
    /// [`release`](Self::release) must follow.
    pub fn run_keeping(&self, compute: &Compute, slots: &mut Slots, isa: Isa, spread: bool) {
        slots.release(self.output);
        let mut tensor = slots.take(&self.shape);
        compute.run(&operands(&self.inputs, &slots.values), &mut tensor, isa, spread);
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
    pub fn run(&self, compute: &Compute, slots: &mut Slots, isa: Isa, spread: bool) {
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
                compute.run(&operands(&self.inputs, &slots.values), &mut tensor, isa, spread);
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
    results: Vec<Operand>,
    slot_count: usize,
}

impl Plan {
    /// Plans `model` for an input of `input_shape`. Fails on the first layer that cannot be computed, by name.
    pub fn new(model: &Model, input_shape: &[usize], options: &PlanOptions) -> Result<Plan> {
        let mut builder = PlanBuilder::new(model, input_shape, options)?;
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

    /// The steps from one [cut_point](Self::cut_points) (or the first step) to another (or the end) as a plan of their own.
    pub(crate) fn part(mut self, range: Range<usize>) -> Plan {
        let cut_point = |steps: &[Step], at: usize| steps[at..].iter().flat_map(Step::input_slots).next().unwrap_or(0);
        if range.end < self.steps.len() {
            let out = cut_point(&self.steps, range.end);
            self.result_shapes = vec![self.slot_shape(out).to_vec()];
            self.results = vec![Operand::Slot(out)];
        }
        if range.start > 0 {
            let from = cut_point(&self.steps, range.start);
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
    pub fn run(&self, input: Tensor, slots: &mut Slots, isa: Isa, spread: bool) -> Vec<Tensor> {
        self.start(slots, input);
        self.steps.iter().for_each(|step| step.run(&step.compute, slots, isa, spread));
        self.results(slots)
    }
}

struct PlanBuilder<'a> {
    model: &'a Model,
    options: &'a PlanOptions,
    readers: HashMap<&'a str, usize>,
    needed: HashSet<&'a str>,
    facts: HashMap<&'a str, Fact>,
    slots: HashMap<&'a str, usize>,
    done: HashSet<usize>,
    steps: Vec<Step>,
    /// By slot, where the images are.
    images: Vec<Option<Images>>,
    mixer: Option<usize>,
}

impl<'a> PlanBuilder<'a> {
    fn new(model: &'a Model, input_shape: &[usize], options: &'a PlanOptions) -> Result<PlanBuilder<'a>> {
        check_supported(model)?;
        let input = &model.graph.inputs[0];
        check_input(&input.shape, input_shape, model.graph.image_layout())?;
        value_count(input_shape)?;
        let known = |tap: &&String| model.graph.layers.iter().any(|layer| layer.outputs.contains(tap));
        if let Some(tap) = options.taps.iter().find(|tap| !known(tap)) {
            return Err(Error::option(format!("tap {tap:?}: no layer writes such a value")));
        }
        let mut readers = model.graph.reader_counts();
        options.taps.iter().for_each(|tap| *readers.entry(tap).or_insert(0) += 1);
        let mut facts: HashMap<&str, Fact> = HashMap::new();
        let constants = model.params.iter().filter_map(|(name, param)| Some((name, Fact::constant(param.value()?.clone()))));
        facts.extend(constants);
        facts.insert(&input.name, Fact::of_shape(input_shape.to_vec()));
        let slots = HashMap::from([(input.name.as_str(), 0)]);
        let needed = needed_values(model, &options.taps);
        let images = vec![Some(Images { axis: 0, each: 1 })];
        let (done, steps, mixer) = (HashSet::new(), Vec::new(), None);
        Ok(PlanBuilder { model, options, readers, needed, facts, slots, done, steps, images, mixer })
    }

    fn layer(&mut self, index: usize) -> Result<()> {
        let layer = &self.model.graph.layers[index];
        if self.done.contains(&index) || !layer.outputs.iter().any(|output| self.needed.contains(output.as_str())) {
            return Ok(());
        }
        self.step(index, layer).map_err(|e| e.at(format!("layer {:?} ({})", layer.name, layer.op.name())))
    }

    fn step(&mut self, index: usize, layer: &'a Layer) -> Result<()> {
        let inputs = self.input_facts(&layer.inputs)?;
        let output = layer.outputs.first().map(String::as_str).unwrap_or_default();
        if let Some(value) = fold(&layer.op, &inputs, Isa::best())? {
            self.facts.insert(output, Fact::constant(Arc::new(value)));
            return Ok(());
        }
        let (fused, output) = self.fuse(layer, output)?;
        let resolved = resolve(&layer.op, &inputs, &fused)?;
        value_count(&resolved.shape)?;
        let operands = self.operands(layer, resolved.compute.operand_count(layer.inputs.len()))?;
        let slot = self.slots.len();
        let images = self.images(&resolved, &operands);
        if images.is_none() && self.mixer.is_none() {
            self.mixer = Some(index);
        }
        self.images.push(images);
        self.slots.insert(output, slot);
        self.facts.insert(output, Fact::of_shape(resolved.shape.clone()));
        self.steps.push(Step {
            layer: index,
            batch_norm: batch_norm_step(layer, fused.activation),
            compute: resolved.compute,
            shape: resolved.shape,
            macs: resolved.macs,
            inputs: operands,
            output: slot,
            release: Vec::new(),
        });
        Ok(())
    }

    fn input_facts(&self, names: &[String]) -> Result<Vec<Option<Fact>>> {
        let fact = |name: &String| match name.as_str() {
            "" => Ok(None),
            name => match self.facts.get(name) {
                Some(fact) => Ok(Some(fact.clone())),
                None if self.model.params.get(name).is_some() => {
                    Err(Error::unsupported(format!("parameter {name:?} has a type that cannot be computed with")))
                }
                None => Err(Error::unsupported(format!("reads {name:?}, a secondary output that is not computed"))),
            },
        };
        names.iter().map(fact).collect()
    }

    fn operands(&self, layer: &Layer, count: usize) -> Result<Vec<Operand>> {
        let names = layer.inputs.iter().take(count).filter(|name| !name.is_empty());
        names
            .map(|name| {
                match (self.slots.get(name.as_str()), self.facts.get(name.as_str()).and_then(|fact| fact.value.clone())) {
                    (Some(&slot), _) => Ok(Operand::Slot(slot)),
                    (None, Some(value)) if value.as_f32().is_some() => Ok(Operand::Constant(value)),
                    _ => Err(Error::unsupported(format!("operand {name:?} is not a tensor of numbers"))),
                }
            })
            .collect()
    }

    /// Where the images are in a result.
    fn images(&self, resolved: &Resolved, operands: &[Operand]) -> Option<Images> {
        let shape = |slot: usize| match slot {
            0 => self.facts[self.model.graph.inputs[0].name.as_str()].shape.as_slice(),
            slot => self.steps[slot - 1].shape.as_slice(),
        };
        let parts = operands.iter().map(|operand| match operand {
            Operand::Slot(slot) => Some(Part::Computed(shape(*slot), self.images[*slot])),
            Operand::Constant(value) => value.as_f32().map(Part::Constant),
        });
        let parts: Vec<Part> = parts.collect::<Option<_>>()?;
        let count = shape(0).first().copied().unwrap_or(1);
        images(&resolved.compute, &parts, &resolved.shape, count)
    }

    /// What the only readers behind a layer can hand to it: a BatchNormalization, then an activation.
    /// Returns it with the name of the value that comes out in the end.
    fn fuse(&mut self, layer: &'a Layer, mut output: &'a str) -> Result<(Fused, &'a str)> {
        let mut fused = Fused::NONE;
        let foldable = matches!(layer.op, Op::Conv(_)) && self.options.fold_batch_norm;
        let can_activate = self.options.fuse_activation && matches!(layer.op, Op::Conv(_) | Op::BatchNorm { .. } | Op::Binary(_));
        while let Some((index, next)) = self.only_reader(output) {
            match &next.op {
                Op::BatchNorm { epsilon } if foldable && fused.affine.is_none() => {
                    // Its parameters may be computed only after this layer; then it stays a step of its own.
                    let Ok(inputs) = self.input_facts_but_first(next) else { break };
                    let channels = inputs.get(1).and_then(Option::as_ref).map_or(0, |fact| fact.shape.iter().product());
                    let Ok(affine) = batch_norm_affine(&inputs, *epsilon, channels) else { break };
                    if self.out_channels(layer) != Some(channels) {
                        break;
                    }
                    fused.affine = Some(affine);
                }
                Op::Unary(_) | Op::Clip { .. } if can_activate => {
                    let Some(activation) = self.activation(next)? else { break };
                    fused.activation = activation;
                    self.done.insert(index);
                    return Ok((fused, &next.outputs[0]));
                }
                _ => break,
            }
            self.done.insert(index);
            output = &next.outputs[0];
        }
        Ok((fused, output))
    }

    fn out_channels(&self, layer: &Layer) -> Option<usize> {
        self.facts.get(layer.input(1)?).and_then(|weight| weight.shape.first().copied())
    }

    /// The layer that reads `value` as its first input, if nothing else does.
    fn only_reader(&self, value: &str) -> Option<(usize, &'a Layer)> {
        if self.readers.get(value) != Some(&1) || self.model.graph.outputs.iter().any(|output| output == value) {
            return None;
        }
        let position =
            self.model.graph.layers.iter().position(|layer| layer.inputs.first().is_some_and(|input| input == value))?;
        Some((position, &self.model.graph.layers[position]))
    }

    fn input_facts_but_first(&self, layer: &Layer) -> Result<Vec<Option<Fact>>> {
        Ok(std::iter::once(None).chain(self.input_facts(&layer.inputs[1..])?).collect())
    }

    /// The layer as an activation that a kernel applies, if it is one with constant bounds.
    fn activation(&self, layer: &Layer) -> Result<Option<Activation>> {
        match layer.op {
            Op::Unary(op) => Ok(op.as_activation()),
            _ => {
                let Ok(mut inputs) = self.input_facts_but_first(layer) else { return Ok(None) };
                inputs[0] = Some(Fact::of_shape(vec![]));
                match resolve(&layer.op, &inputs, &Fused::NONE).map(|resolved| resolved.compute) {
                    Ok(Compute::Unary(op)) => Ok(op.as_activation()),
                    _ => Ok(None),
                }
            }
        }
    }

    fn finish(mut self, input_shape: &[usize]) -> Result<Plan> {
        let mut results = Vec::new();
        let mut result_shapes = Vec::new();
        for name in self.model.graph.outputs.iter().chain(&self.options.taps) {
            let fact =
                self.facts.get(name.as_str()).ok_or_else(|| Error::unsupported(format!("output {name:?} is not computed")))?;
            result_shapes.push(fact.shape.clone());
            results.push(match (self.slots.get(name.as_str()), &fact.value) {
                (Some(&slot), _) => Operand::Slot(slot),
                (None, Some(value)) if value.as_f32().is_some() => Operand::Constant(value.clone()),
                _ => return Err(Error::unsupported(format!("output {name:?} is not a tensor of numbers"))),
            });
        }
        let kept =
            results.iter().filter_map(|result| if let Operand::Slot(slot) = result { Some(*slot) } else { None }).collect();
        let first = Some(Images { axis: 0, each: 1 });
        let apart = results.iter().all(|result| matches!(result, Operand::Slot(slot) if self.images[*slot] == first));
        let slot_count = self.slots.len();
        release_dead(&mut self.steps, slot_count, &kept);
        let writer = |name: &String| self.model.graph.layers.iter().find(|layer| layer.outputs.contains(name));
        let output_ops =
            self.model.graph.outputs.iter().map(|name| writer(name).map_or(String::new(), |layer| layer.op.name().into()));
        Ok(Plan {
            output_ops: output_ops.collect(),
            steps: self.steps,
            input_shape: input_shape.to_vec(),
            result_shapes,
            continues: false,
            mixer: (!apart).then(|| self.mixer.unwrap_or(self.model.graph.layers.len() - 1)),
            results,
            slot_count,
        })
    }
}

/// Notes with each step which values nobody reads afterwards, and lets sums reuse such a value.
fn release_dead(steps: &mut [Step], slot_count: usize, kept: &HashSet<usize>) {
    let mut seen = vec![false; slot_count];
    for step in steps.iter_mut().rev() {
        // A result that nobody reads dies at once.
        if !seen[step.output] && !kept.contains(&step.output) {
            step.release.push(step.output);
        }
        for input in &step.inputs {
            if let Operand::Slot(slot) = *input
                && !std::mem::replace(&mut seen[slot], true)
                && !kept.contains(&slot)
            {
                step.release.push(slot);
            }
        }
        let commutes = matches!(step.compute, Compute::Binary { op: BinaryOp::Add | BinaryOp::Mul, .. });
        if let (true, &[Operand::Slot(first), Operand::Slot(second)]) = (commutes, &step.inputs[..])
            && !step.release.contains(&first)
            && step.release.contains(&second)
        {
            step.inputs.swap(0, 1);
        }
    }
}

fn batch_norm_step(layer: &Layer, activation: Activation) -> Option<BatchNormStep> {
    let Op::BatchNorm { epsilon } = layer.op else { return None };
    let name = |index: usize| layer.input(index).unwrap_or_default().to_string();
    Some(BatchNormStep { params: [name(1), name(2), name(3), name(4)], epsilon, activation })
}

fn check_input(expected: &[Dim], given: &[usize], layout: Layout) -> Result<()> {
    let fits =
        expected.len() == given.len() && expected.iter().zip(given).all(|(e, g)| !matches!(e, Dim::Fixed(dim) if dim != g));
    if fits || expected.is_empty() {
        return Ok(());
    }
    let text = |dim: &Dim| match dim {
        Dim::Fixed(dim) => dim.to_string(),
        Dim::Free(_) => "any".to_string(),
    };
    let expected: Vec<String> = expected.iter().map(text).collect();
    let axes = match layout {
        Layout::ChannelsFirst => "batch, channels, height, width",
        Layout::ChannelsLast => "batch, height, width, channels",
    };
    Err(Error::data(format!("the model takes images of shape [{}], these have {given:?} ({axes})", expected.join(", "))))
}
