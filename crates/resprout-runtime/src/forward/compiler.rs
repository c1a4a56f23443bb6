//! Compiles a plan to segments: programs of the sparse engine, and single steps for what the engine cannot run.

use super::segment::Segment;
use super::{Plan, Step};
use crate::error::{Error, Result};
use crate::ops::conv::Conv;
use crate::ops::remap::Remap;
use crate::ops::{BinaryOp, Compute, Pool, UnaryOp};
use resprout_kernels::engine::{Builder, Convolution, Value};
use resprout_kernels::{Activation, ConvShape, Isa, PackedLinear};
use std::collections::HashMap;

/// A linear layer whose input is not in vectors yet joins a program if fewer than one weight in this many is nonzero.
const SPARSE_LINEAR: usize = 4;

/// A value inside an open program.
#[derive(Clone, Copy)]
struct EngineValue {
    value: Value,
    /// Whether no element is negative.
    not_negative: bool,
}

/// A program under construction.
struct OpenProgram {
    builder: Builder,
    /// Slots that the program reads.
    inputs: Vec<usize>,
    /// Values of the program, by slot.
    values: HashMap<usize, EngineValue>,
}

/// A sum that the convolution of one of its summands computes.
struct FusedSum {
    /// The sum's step.
    step: usize,
    /// The slot of the other summand.
    other: usize,
}

/// The weights of a convolution, wherever they come from.
struct ConvParts<'w> {
    shape: ConvShape,
    weight: &'w [f32],
    bias: &'w [f32],
    activation: Activation,
}

pub(super) struct Compiler<'a> {
    names: &'a [String],
    plan: &'a Plan,
    isa: Isa,
    microbatch: usize,
    /// Threads that share each operation.
    sharing: usize,
    segments: Vec<Segment>,
    open: Option<OpenProgram>,
    /// The step that is being compiled.
    current: usize,
    /// By the convolution's step.
    fused_sums: HashMap<usize, FusedSum>,
    /// For each slot, the last step that reads it; results are read after all steps.
    last_read: HashMap<usize, usize>,
    shapes: HashMap<usize, Vec<usize>>,
}

impl<'a> Compiler<'a> {
    /// `names` are the layers of the steps. `sharing` is the number of threads that share each operation.
    pub fn new(names: &'a [String], plan: &'a Plan, isa: Isa, microbatch: usize, sharing: usize) -> Compiler<'a> {
        let mut last_read = HashMap::new();
        let mut shapes = HashMap::from([(0, plan.input_shape.clone())]);
        for (index, step) in plan.steps.iter().enumerate() {
            last_read.extend(step.input_slots().map(|slot| (slot, index)));
            shapes.insert(step.output(), step.shape.clone());
        }
        last_read.extend(shapes.keys().filter(|slot| plan.is_result(**slot)).map(|slot| (*slot, usize::MAX)));
        Compiler {
            names,
            plan,
            isa,
            microbatch,
            sharing,
            segments: Vec::new(),
            open: None,
            current: 0,
            fused_sums: fused_sums(plan),
            last_read,
            shapes,
        }
    }

    /// Compiles the plan.
    pub fn segments(mut self) -> Result<Vec<Segment>> {
        if self.plan.continues {
            // The steps before left this value in vectors; an uncut plan would continue there.
            self.value_of(0);
        }
        for index in 0..self.plan.steps.len() {
            self.step(index)?;
        }
        self.current = self.plan.steps.len();
        self.close()?;
        Ok(self.segments)
    }

    fn step(&mut self, index: usize) -> Result<()> {
        self.current = index;
        let step = &self.plan.steps[index];
        let is_fused = self.fused_sums.values().any(|sum| sum.step == index);
        if is_fused || self.add_to_program(index, step).is_some() {
            return Ok(());
        }
        // A step outside needs what the open program computes. It also releases the slots that it reads last.
        let must_close = |slot: usize, open: &OpenProgram| {
            open.values.contains_key(&slot) && (!open.inputs.contains(&slot) || self.last_read.get(&slot) == Some(&index))
        };
        if self.open.as_ref().is_some_and(|open| step.input_slots().any(|slot| must_close(slot, open))) {
            self.close()?;
        }
        self.segments.push(Segment::Step(index));
        Ok(())
    }

    /// Ends the open program. Its outputs are the values that are read later.
    fn close(&mut self) -> Result<()> {
        let Some(OpenProgram { mut builder, inputs, values }) = self.open.take() else { return Ok(()) };
        if values.len() == inputs.len() {
            return Ok(());
        }
        let done = |slot: &usize| self.is_written(*slot) || inputs.contains(slot);
        let mut needed: Vec<usize> = values.keys().copied().filter(|slot| !done(slot) && self.is_needed(*slot)).collect();
        needed.sort_unstable();
        let outputs = needed.into_iter().map(|slot| {
            builder.output(values[&slot].value);
            (slot, self.shapes[&slot].clone())
        });
        let outputs: Vec<_> = outputs.collect();
        let program = builder.finish().ok_or_else(|| Error::unsupported("a value is too large for the fast kernels"))?;
        self.segments.push(Segment::Program { program: Box::new(program), inputs, outputs });
        Ok(())
    }

    /// Whether a closed program or a single step writes the slot.
    fn is_written(&self, slot: usize) -> bool {
        self.segments.iter().any(|segment| match segment {
            Segment::Program { outputs, .. } => outputs.iter().any(|(out, _)| *out == slot),
            Segment::Step(index) => self.plan.steps[*index].output() == slot,
        })
    }

    /// Whether the current step or a later one reads the slot, or it is a result.
    fn is_needed(&self, slot: usize) -> bool {
        self.last_read.get(&slot).is_some_and(|last| *last >= self.current)
    }

    /// The value of a slot if the open program has it.
    fn computed(&self, slot: usize) -> Option<EngineValue> {
        self.open.as_ref()?.values.get(&slot).copied()
    }

    /// The value of a slot in the open program, which reads it from outside if it has not computed it.
    fn value_of(&mut self, slot: usize) -> Option<EngineValue> {
        let shape = self.shapes.get(&slot)?;
        let (channels, size) = match shape[..] {
            [_, channels, height, width] => (channels, [height, width]),
            [_, features] => (features, [1, 1]),
            _ => return None,
        };
        if shape[0] != self.microbatch || shape.contains(&0) {
            return None;
        }
        let (isa, microbatch, sharing) = (self.isa, self.microbatch, self.sharing);
        let open = self.open.get_or_insert_with(|| OpenProgram {
            builder: Builder::new(isa, microbatch, sharing),
            inputs: Vec::new(),
            values: HashMap::new(),
        });
        if let Some(value) = open.values.get(&slot) {
            return Some(*value);
        }
        let value = EngineValue { value: open.builder.input(channels, size), not_negative: false };
        open.inputs.push(slot);
        open.values.insert(slot, value);
        Some(value)
    }

    fn set(&mut self, slot: usize, value: Value, not_negative: bool) {
        if let Some(open) = &mut self.open {
            open.values.insert(slot, EngineValue { value, not_negative });
        }
    }

    /// Adds a step to the open program; `None` if the engine cannot run it.
    fn add_to_program(&mut self, index: usize, step: &Step) -> Option<()> {
        let name = self.names[index].as_str();
        match &step.compute {
            Compute::Conv(conv) => self.conv(index, step, conv),
            Compute::Linear { packed, trans_a: None } => self.linear(index, step, packed),
            Compute::Affine { scale, shift, activation } if step.shape.len() == 4 => {
                let from = self.value_of(step.first_input()?)?;
                let value = self.open.as_mut()?.builder.affine(name, from.value, scale, shift, *activation);
                self.set(step.output(), value, is_not_negative(*activation));
                Some(())
            }
            Compute::Unary(op) if step.shape.len() == 4 => self.unary(name, step, *op),
            Compute::Binary { op: BinaryOp::Add, activation } => self.add(name, step, *activation),
            Compute::Concat(1) if step.shape.len() == 4 => self.concat(name, step),
            Compute::Pool(pool) => self.pool(name, step, pool),
            Compute::Mean(axes) if axes[..] == [2, 3] => {
                let from = self.computed(step.first_input()?)?;
                let value = self.open.as_mut()?.builder.mean(name, from.value);
                self.set(step.output(), value, from.not_negative);
                Some(())
            }
            Compute::Remap(remap, fill) => {
                let slot = step.first_input()?;
                // Outside of a program, a copy of the tensor is faster.
                self.computed(slot)?;
                let (shape, weight) = as_conv(remap, *fill, &self.shapes[&slot], &step.shape)?;
                self.convolution(index, step, ConvParts { shape, weight: &weight, bias: &[], activation: Activation::None })
            }
            // One pixel for each channel has the same vectors.
            Compute::Reshape => {
                let slot = step.first_input()?;
                let from = self.computed(slot)?;
                let pixel = matches!(self.shapes[&slot][..], [_, _, 1, 1]) || self.shapes[&slot].len() == 2;
                let same = pixel && step.shape.len() == 2 && step.shape[1] == self.shapes[&slot][1];
                same.then(|| self.set(step.output(), from.value, from.not_negative))
            }
            _ => None,
        }
    }

    fn conv(&mut self, index: usize, step: &Step, conv: &Conv) -> Option<()> {
        if !Builder::knows(conv.shape()) || step.shape[0] != self.microbatch {
            return None;
        }
        let (weight, bias, activation) = (conv.weight(), conv.bias(), conv.activation());
        self.convolution(index, step, ConvParts { shape: conv.shape().clone(), weight, bias, activation })
    }

    /// A linear layer as a convolution of single pixels.
    fn linear(&mut self, index: usize, step: &Step, packed: &PackedLinear) -> Option<()> {
        if step.shape.len() != 2 || step.shape[0] != self.microbatch {
            return None;
        }
        let [inputs, outputs] = packed.size();
        let slot = step.first_input()?;
        let weight = packed.weight();
        let nonzero = weight.iter().filter(|w| **w != 0.0).count();
        let pays = self.computed(slot).is_some() || nonzero * SPARSE_LINEAR < weight.len();
        if self.shapes[&slot].iter().skip(1).product::<usize>() != inputs || !pays {
            return None;
        }
        let shape = ConvShape::pointwise(inputs, [1, 1], outputs);
        self.convolution(index, step, ConvParts { shape, weight: &weight, bias: packed.bias(), activation: packed.activation() })
    }

    /// A convolution, with the sum behind it if the two are fused.
    fn convolution(&mut self, index: usize, step: &Step, parts: ConvParts) -> Option<()> {
        let ConvParts { shape, weight, bias, mut activation } = parts;
        let from = self.value_of(step.first_input()?)?;
        let mut output = step.output();
        let mut added = None;
        if let Some(&FusedSum { step: sum, other }) = self.fused_sums.get(&index) {
            added = Some(self.value_of(other)?.value);
            let sum = &self.plan.steps[sum];
            output = sum.output();
            if let Compute::Binary { activation: behind, .. } = &sum.compute {
                activation = *behind;
            }
        }
        let convolution = Convolution { shape, weight, bias, activation, added };
        let value = self.open.as_mut()?.builder.conv(&self.names[index], from.value, convolution);
        self.set(output, value, is_not_negative(activation));
        Some(())
    }

    fn unary(&mut self, name: &str, step: &Step, op: UnaryOp) -> Option<()> {
        let activation = op.as_activation()?;
        let from = self.value_of(step.first_input()?)?;
        let builder = &mut self.open.as_mut()?.builder;
        let ones = vec![1.0; builder.shape(from.value)[0]];
        let value = builder.affine(name, from.value, &ones, &vec![0.0; ones.len()], activation);
        self.set(step.output(), value, is_not_negative(activation));
        Some(())
    }

    fn add(&mut self, name: &str, step: &Step, activation: Activation) -> Option<()> {
        let [a, b] = step.two_slots()?;
        if self.shapes[&a] != self.shapes[&b] || self.shapes[&a].len() != 4 {
            return None;
        }
        let (a, b) = (self.value_of(a)?, self.value_of(b)?);
        let value = self.open.as_mut()?.builder.add(name, a.value, b.value, activation);
        self.set(step.output(), value, is_not_negative(activation) || (a.not_negative && b.not_negative));
        Some(())
    }

    fn concat(&mut self, name: &str, step: &Step) -> Option<()> {
        let slots: Vec<usize> = step.input_slots().collect();
        let channels: usize = slots.iter().map(|slot| self.shapes[slot][1]).sum();
        if channels != step.shape[1] {
            return None;
        }
        let parts: Vec<EngineValue> = slots.into_iter().map(|slot| self.value_of(slot)).collect::<Option<_>>()?;
        let values: Vec<Value> = parts.iter().map(|part| part.value).collect();
        let value = self.open.as_mut()?.builder.concat(name, &values);
        self.set(step.output(), value, parts.iter().all(|part| part.not_negative));
        Some(())
    }

    fn pool(&mut self, name: &str, step: &Step, pool: &Pool) -> Option<()> {
        let slot = step.first_input()?;
        let window = pool.plain(self.computed(slot).is_some_and(|value| value.not_negative))?;
        let from = self.value_of(slot)?;
        let builder = &mut self.open.as_mut()?.builder;
        let value = builder.pool(name, from.value, window.kernel, window.stride, window.pads, window.output, window.mean);
        self.set(step.output(), value, from.not_negative);
        Some(())
    }
}

/// A slice of channels or of every n-th pixel, or padding with zeros, as a convolution that copies.
fn as_conv(remap: &Remap, fill: f32, from: &[usize], to: &[usize]) -> Option<(ConvShape, Vec<f32>)> {
    let (&[_, channels, height, width], &[_, outputs, out_h, out_w]) = (from, to) else { return None };
    let shape = ConvShape::pointwise(channels, [height, width], outputs);
    let (shape, first) = if let Some(ranges) = remap.ranges() {
        let &[(0, images, 1), (first, _, channel_step), (0, _, down), (0, _, across)] = &ranges[..] else { return None };
        let whole = images == from[0] && channel_step == 1 && out_h == height.div_ceil(down) && out_w == width.div_ceil(across);
        (whole.then_some(ConvShape { stride: [down, across], ..shape })?, first as isize)
    } else {
        let pads = remap.fill_pads(from).filter(|_| fill == 0.0)?;
        let &[(0, 0), (before, _), (top, bottom), (left, right)] = &pads[..] else { return None };
        (ConvShape { pads: [top, left, bottom, right], ..shape }, -(before as isize))
    };
    let mut weight = vec![0.0; outputs * channels];
    for output in 0..outputs {
        let channel = usize::try_from(output as isize + first).ok().filter(|&channel| channel < channels);
        channel.into_iter().for_each(|channel| weight[output * channels + channel] = 1.0);
    }
    (shape.out_size() == (out_h, out_w) && Builder::knows(&shape)).then_some((shape, weight))
}

fn is_not_negative(activation: Activation) -> bool {
    matches!(activation, Activation::Clamp { low, .. } if low >= 0.0)
}

/// Sums that a convolution can compute. One summand is the convolution, which nothing else reads and which runs after the
/// other summand.
fn fused_sums(plan: &Plan) -> HashMap<usize, FusedSum> {
    let writer: HashMap<usize, usize> = plan.steps.iter().enumerate().map(|(index, step)| (step.output(), index)).collect();
    let mut readers: HashMap<usize, usize> = HashMap::new();
    plan.steps.iter().flat_map(Step::input_slots).for_each(|slot| *readers.entry(slot).or_insert(0) += 1);
    let mut found: HashMap<usize, FusedSum> = HashMap::new();
    for (index, step) in plan.steps.iter().enumerate() {
        let (Compute::Binary { op: BinaryOp::Add, .. }, Some([a, b])) = (&step.compute, step.two_slots()) else { continue };
        let shape = |slot: usize| writer.get(&slot).map_or(&plan.input_shape, |&index| &plan.steps[index].shape);
        if a == b || shape(a) != shape(b) || shape(a).len() != 4 {
            continue;
        }
        let position = |slot: usize| writer.get(&slot).copied();
        let (conv, other) = if position(a) > position(b) { (a, b) } else { (b, a) };
        let Some(at) = position(conv) else { continue };
        // The engine runs no convolution of another number of images.
        let microbatch = plan.steps[at].shape[0] == plan.input_shape[0];
        let plain = microbatch
            && matches!(&plan.steps[at].compute, Compute::Conv(conv)
                if conv.activation() == Activation::None && Builder::knows(conv.shape()));
        // A convolution can compute one sum only.
        if plain && readers[&conv] == 1 && !plan.is_result(conv) && !found.contains_key(&at) {
            found.insert(at, FusedSum { step: index, other });
        }
    }
    found
}
