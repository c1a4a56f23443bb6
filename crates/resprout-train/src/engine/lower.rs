//! From a model's graph to instructions: every layer becomes one.

use super::layout::Layout;
use super::memory::Memory;
use super::ops::binary::Broadcast;
use super::ops::conv::Conv;
use super::ops::pool::Windows;
use super::ops::remap::Maps;
use super::ops::unary;
use super::{Instruction, Operand, Step, TrainProgram};
use crate::error::{data, unsupported};
use crate::parameters::Parameters;
use resprout::forward::check_operations;
use resprout::model::{Layer, Model};
use resprout::ops::remap::Remap;
use resprout::ops::{BinaryOp, Compute, Fact, Fused, Op, PoolAttributes, UnaryOp, fold, resolve};
use resprout::tensor::Value;
use resprout::{Error, Result};
use resprout_kernels::{ConvShape, Isa};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Translates the graph for batches `[count, C, H, W]`. Fails on the first layer that cannot be trained, by name.
/// `taps` are values that can be read after a forward pass.
pub(super) fn lower(
    model: &Model,
    parameters: &Parameters,
    shape: &[usize],
    layout: Layout,
    taps: &[String],
) -> Result<TrainProgram> {
    let mut lowering = Lowering::new(model, parameters, shape, layout)?;
    for index in 0..model.graph.layers.len() {
        let layer = &model.graph.layers[index];
        if lowering.needed(layer) && !lowering.done.contains(&index) {
            lowering.layer(layer).map_err(|e| e.at(format!("layer {:?} ({})", layer.name, layer.op.name())))?;
        }
    }
    lowering.finish(taps)
}

/// Translates one layer after the other.
struct Lowering<'a> {
    model: &'a Model,
    parameters: &'a Parameters,
    layout: Layout,
    facts: HashMap<&'a str, Fact>,
    slots: HashMap<&'a str, usize>,
    shapes: Vec<Vec<usize>>,
    needed: HashSet<&'a str>,
    readers: HashMap<&'a str, usize>,
    done: HashSet<usize>,
    output: &'a str,
    convs: Vec<Conv>,
    steps: Vec<Step>,
}

/// Whether there may be an instruction for an operation that depends on the images.
fn can_be_trained(op: &Op) -> bool {
    let windows = matches!(op, Op::Conv(_) | Op::MaxPool(_) | Op::AveragePool(_) | Op::GlobalAveragePool | Op::ReduceMean { .. });
    let products = matches!(op, Op::Gemm { .. } | Op::MatMul | Op::BatchNorm { .. });
    let elements = matches!(op, Op::Unary(_) | Op::Clip { .. } | Op::Cast { to: 1 })
        || matches!(op, Op::Binary(BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div));
    let moves = matches!(op, Op::Concat { .. } | Op::Slice { .. } | Op::Pad { .. } | Op::Flatten { .. } | Op::Reshape { .. });
    let axes = matches!(op, Op::Squeeze { .. } | Op::Unsqueeze { .. } | Op::Identity | Op::Shape { .. });
    windows || products || elements || moves || axes
}

/// Values that depend on the images' content.
fn dependents<'a>(model: &'a Model, input: &'a str) -> HashSet<&'a str> {
    let mut depends = HashSet::from([input]);
    for layer in model.graph.layers.iter().filter(|layer| !matches!(layer.op, Op::Shape { .. })) {
        if layer.inputs.iter().any(|name| depends.contains(name.as_str())) {
            depends.extend(layer.outputs.iter().map(String::as_str));
        }
    }
    depends
}

impl<'a> Lowering<'a> {
    fn new(model: &'a Model, parameters: &'a Parameters, shape: &[usize], layout: Layout) -> Result<Lowering<'a>> {
        let [input] = &model.graph.inputs[..] else {
            return Err(unsupported(format!("the model has {} inputs; one can be trained with", model.graph.inputs.len())));
        };
        let output = logits(model)?;
        let mut facts: HashMap<&str, Fact> = HashMap::new();
        facts.extend(model.params.iter().filter_map(|(name, param)| Some((name, Fact::constant(param.value()?.clone())))));
        facts.insert(&input.name, Fact::of_shape(shape.to_vec()));
        let mut needed = HashSet::from([output]);
        for layer in model.graph.layers.iter().rev() {
            if layer.outputs.iter().any(|name| needed.contains(name.as_str())) {
                needed.extend(layer.inputs.iter().map(String::as_str));
            }
        }
        model.check_input_type()?;
        let depends = dependents(model, &input.name);
        let missing = |layer: &Layer| {
            let reads = layer.inputs.iter().any(|name| depends.contains(name.as_str()));
            reads && layer.outputs.iter().any(|name| needed.contains(name.as_str())) && !can_be_trained(&layer.op)
        };
        check_operations(model, missing, "cannot be trained")?;
        Ok(Lowering {
            model,
            parameters,
            layout,
            facts,
            slots: HashMap::from([(input.name.as_str(), 0)]),
            shapes: vec![shape[1..].to_vec()],
            needed,
            readers: model.graph.reader_counts(),
            done: HashSet::new(),
            output,
            convs: Vec::new(),
            steps: Vec::new(),
        })
    }

    fn needed(&self, layer: &Layer) -> bool {
        layer.outputs.iter().any(|name| self.needed.contains(name.as_str()))
    }

    fn layer(&mut self, layer: &'a Layer) -> Result<()> {
        let facts: Vec<Option<Fact>> = layer.inputs.iter().map(|name| self.facts.get(name.as_str()).cloned()).collect();
        if let Some(missing) = layer.inputs.iter().find(|name| !name.is_empty() && !self.facts.contains_key(name.as_str())) {
            return Err(unsupported(format!("reads {missing:?}, which is not computed")));
        }
        let output = layer.outputs.first().map(String::as_str).unwrap_or_default();
        let trained = layer.inputs.iter().any(|name| self.parameters.index(name).is_some());
        if !trained && let Some(value) = fold(&layer.op, &facts, Isa::best())? {
            self.facts.insert(output, Fact::constant(Arc::new(value)));
            return Ok(());
        }
        let resolved = resolve(&layer.op, &facts, &Fused::NONE)?;
        if !matches!(resolved.shape.len(), 2 | 4) {
            return Err(unsupported(format!("a value of shape {:?}: two or four axes can be trained with", resolved.shape)));
        }
        if resolved.shape[0] != self.layout.images {
            return Err(unsupported(format!("a value of shape {:?} from {} images", resolved.shape, self.layout.images)));
        }
        let (instruction, operands) = self.instruction(layer, &facts, &resolved.compute, &resolved.shape)?;
        let inputs = operands.iter().map(|name| self.operand(name)).collect::<Result<Vec<Operand>>>()?;
        let (instruction, output) = self.fuse_relu(instruction, output);
        let slot = self.slots.len();
        self.slots.insert(output, slot);
        self.shapes.push(resolved.shape[1..].to_vec());
        self.facts.insert(output, Fact::of_shape(resolved.shape));
        let (release, release_backward) = (Vec::new(), Vec::new());
        self.steps.push(Step { layer: layer.name.clone(), instruction, inputs, output: slot, release, release_backward });
        Ok(())
    }

    /// The instruction and the names of the values that it reads.
    fn instruction(
        &mut self,
        layer: &'a Layer,
        facts: &[Option<Fact>],
        compute: &Compute,
        shape: &[usize],
    ) -> Result<(Instruction, Vec<&'a str>)> {
        let first = layer.input(0).unwrap_or_default();
        let input_shape = facts[0].as_ref().map(|fact| fact.shape.clone()).unwrap_or_default();
        let one = |instruction| Ok((instruction, vec![first]));
        let all = || layer.inputs.iter().map(String::as_str).collect();
        match &layer.op {
            Op::Conv(a) if input_shape.len() == 4 => {
                let weight = self.trained(layer, 1)?;
                let kernel = &self.parameters.trained[weight].shape;
                let &[out_channels, _, height, width] = &kernel[..] else {
                    return Err(unsupported(format!("a weight of shape {kernel:?}")));
                };
                let (image, kernel) = ([input_shape[2], input_shape[3]], [height, width]);
                let shape = ConvShape {
                    in_channels: input_shape[1],
                    in_h: image[0],
                    in_w: image[1],
                    out_channels,
                    kernel,
                    stride: a.stride,
                    dilation: a.dilation,
                    pads: a.padding.resolve(image, kernel, a.stride, a.dilation),
                    groups: a.groups,
                };
                let conv = Conv::new(shape, weight, self.optional(layer, 2)?, false);
                one(self.conv(conv))
            }
            Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b } => {
                let (weight, bias) = (self.trained(layer, 1)?, self.optional(layer, 2)?);
                self.linear(first, &input_shape, shape, weight, bias, !trans_b)
            }
            Op::MatMul if input_shape.len() == 2 => {
                let weight = self.trained(layer, 1)?;
                self.linear(first, &input_shape, shape, weight, None, true)
            }
            Op::BatchNorm { epsilon } => {
                let names = [3, 4].map(|index| layer.input(index).unwrap_or_default());
                let statistics = self.parameters.statistics.iter().position(|s| s.names == names);
                let statistics = statistics.ok_or_else(|| unsupported("statistics that are computed, not constants"))?;
                let (gamma, beta) = (self.trained(layer, 1)?, self.trained(layer, 2)?);
                one(Instruction::Normalise { gamma, beta, statistics, epsilon: f64::from(*epsilon), relu: false })
            }
            Op::Unary(op) => one(Instruction::Unary(*op)),
            Op::Clip { .. } => match compute {
                Compute::Unary(op) => one(Instruction::Unary(*op)),
                _ => Err(unsupported("limits that are computed")),
            },
            Op::Binary(op @ (BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div)) => {
                let broadcasts = layer.inputs.iter().zip(facts).map(|(name, fact)| self.broadcast(name, fact, shape));
                Ok((Instruction::Binary(*op, broadcasts.collect::<Result<_>>()?), all()))
            }
            Op::Concat { axis } if shape.len() == 4 => {
                let axis = if *axis < 0 { *axis + 4 } else { *axis } as usize;
                if axis == 0 || layer.inputs.iter().any(|name| !self.slots.contains_key(name.as_str())) {
                    return Err(unsupported("a concatenation of images, or of constants"));
                }
                Ok((Instruction::Concat(axis - 1), all()))
            }
            Op::Slice { .. } | Op::Pad { .. } if shape.len() == 4 => match compute {
                Compute::Remap(remap, fill) => one(Instruction::Remap(maps(remap, *fill, &input_shape)?)),
                _ => Err(unsupported("limits that are computed")),
            },
            Op::MaxPool(a) => one(Instruction::MaxPool(windows(a, &input_shape, shape)?)),
            Op::AveragePool(a) => one(Instruction::AveragePool(windows(a, &input_shape, shape)?)),
            Op::GlobalAveragePool if input_shape.len() == 4 => one(Instruction::Mean),
            Op::ReduceMean { .. } if input_shape.len() == 4 && matches!(compute, Compute::Mean(axes) if axes[..] == [2, 3]) => {
                one(Instruction::Mean)
            }
            Op::Flatten { .. } | Op::Reshape { .. } | Op::Squeeze { .. } | Op::Unsqueeze { .. } => one(Instruction::Same),
            Op::Identity | Op::Cast { to: 1 } => one(Instruction::Same),
            other => Err(unsupported(format!("{} cannot be trained", other.name()))),
        }
    }

    fn conv(&mut self, conv: Conv) -> Instruction {
        self.convs.push(conv);
        Instruction::Conv(self.convs.len() - 1)
    }

    fn linear(
        &mut self,
        input: &'a str,
        input_shape: &[usize],
        shape: &[usize],
        weight: usize,
        bias: Option<usize>,
        transposed: bool,
    ) -> Result<(Instruction, Vec<&'a str>)> {
        let (&[_, features], &[_, rows]) = (input_shape, shape) else {
            return Err(unsupported(format!("a matrix product of shape {input_shape:?}")));
        };
        if let Some(bias) = bias.filter(|&bias| self.parameters.trained[bias].shape.iter().product::<usize>() != rows) {
            return Err(unsupported(format!("a bias of shape {:?}", self.parameters.trained[bias].shape)));
        }
        let conv = Conv::new(ConvShape::pointwise(features, [1, 1], rows), weight, bias, transposed);
        Ok((self.conv(conv), vec![input]))
    }

    /// How an operand lies under a result.
    fn broadcast(&self, name: &str, fact: &Option<Fact>, shape: &[usize]) -> Result<Broadcast> {
        let own = fact.as_ref().map(|fact| fact.shape.clone()).unwrap_or_default();
        let batched = self.slots.contains_key(name);
        let found = if batched { Broadcast::new(&own[1..], true, &shape[1..]) } else { Broadcast::new(&own, false, &shape[1..]) };
        found.ok_or_else(|| unsupported(format!("an operand of shape {own:?} for {shape:?}")))
    }

    fn trained(&self, layer: &Layer, index: usize) -> Result<usize> {
        let name = layer.input(index).unwrap_or_default();
        self.parameters.index(name).ok_or_else(|| unsupported(format!("{name:?} is computed, not a constant: cannot be trained")))
    }

    fn optional(&self, layer: &Layer, index: usize) -> Result<Option<usize>> {
        layer.input(index).map(|_| self.trained(layer, index)).transpose()
    }

    fn operand(&self, name: &str) -> Result<Operand> {
        if let Some(&slot) = self.slots.get(name) {
            return Ok(Operand::Slot(slot));
        }
        if let Some(index) = self.parameters.index(name) {
            return Ok(Operand::Parameter(index));
        }
        match self.facts.get(name).and_then(|fact| fact.value.as_deref()) {
            Some(Value::F32(tensor)) => Ok(Operand::Constant(tensor.data.clone())),
            _ => Err(unsupported(format!("operand {name:?} is not a tensor of numbers"))),
        }
    }

    /// A ReLU that alone reads a normalisation is done by it.
    fn fuse_relu(&mut self, instruction: Instruction, output: &'a str) -> (Instruction, &'a str) {
        let Instruction::Normalise { gamma, beta, statistics, epsilon, .. } = instruction else { return (instruction, output) };
        let reader = self.model.graph.layers.iter().position(|layer| layer.input(0) == Some(output));
        if let (Some(1), Some(index), true) = (self.readers.get(output), reader, output != self.output)
            && matches!(self.model.graph.layers[index].op, Op::Unary(UnaryOp::Relu))
        {
            self.done.insert(index);
            return (
                Instruction::Normalise { gamma, beta, statistics, epsilon, relu: true },
                &self.model.graph.layers[index].outputs[0],
            );
        }
        (Instruction::Normalise { gamma, beta, statistics, epsilon, relu: false }, output)
    }

    fn finish(self, taps: &[String]) -> Result<TrainProgram> {
        let output = *self.slots.get(self.output).ok_or_else(|| unsupported("the output does not depend on the images"))?;
        let classes: usize = self.shapes[output].iter().product();
        let tap = |name: &String| {
            let slot = self.slots.get(name.as_str()).copied();
            slot.ok_or_else(|| unsupported(format!("the value {name:?} is not computed on its own")))
        };
        let mut program = TrainProgram {
            layout: self.layout,
            wanted: vec![false; self.shapes.len()],
            kept: vec![false; self.shapes.len()],
            taps: taps.iter().map(tap).collect::<Result<_>>()?,
            end: self.steps.len(),
            shapes: self.shapes,
            steps: self.steps,
            convs: self.convs,
            output,
            classes,
            memory: Memory::default(),
            times: None,
        };
        program.find_wanted(0);
        program.find_lifetimes();
        Ok(program)
    }
}

impl TrainProgram {
    /// Gradients reach back to the first trained parameter of the steps from `first` on.
    pub(super) fn find_wanted(&mut self, first: usize) {
        self.wanted.fill(false);
        for step in self.steps.iter().skip(first) {
            let own = matches!(step.instruction, Instruction::Conv(_) | Instruction::Normalise { .. });
            let from = |input: &Operand| match input {
                Operand::Slot(slot) => self.wanted[*slot],
                Operand::Parameter(_) => true,
                Operand::Constant(_) => false,
            };
            self.wanted[step.output] = own || step.inputs.iter().any(from);
        }
    }

    /// What is kept for the backward pass, and after which step a value is not read any more.
    fn find_lifetimes(&mut self) {
        self.taps.iter().for_each(|&slot| self.kept[slot] = true);
        let mut first_user = HashMap::new();
        for (index, step) in self.steps.iter().enumerate() {
            for slot in read_backward(step) {
                self.kept[slot] = true;
                first_user.entry(slot).or_insert(index);
            }
        }
        for (slot, index) in first_user {
            self.steps[index].release_backward.push(slot);
        }
        let mut seen = HashSet::from([self.output]);
        for step in self.steps.iter_mut().rev() {
            for input in &step.inputs {
                if let Operand::Slot(slot) = input
                    && seen.insert(*slot)
                    && !self.kept[*slot]
                {
                    step.release.push(*slot);
                }
            }
        }
    }
}

/// Slots whose values a step's backward pass reads.
fn read_backward(step: &Step) -> Vec<usize> {
    let inputs = step.inputs.iter().filter_map(|input| if let Operand::Slot(slot) = input { Some(*slot) } else { None });
    match &step.instruction {
        Instruction::Conv(_) | Instruction::Normalise { .. } | Instruction::Binary(BinaryOp::Mul | BinaryOp::Div, _) => {
            inputs.collect()
        }
        Instruction::Unary(op) => match unary::reads(*op) {
            (true, _) => vec![step.output],
            (_, true) => inputs.collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn maps(remap: &Remap, fill: f32, input: &[usize]) -> Result<Maps> {
    let mut axes = remap.sources().into_iter();
    let images = axes.next().unwrap_or_default();
    if !images.iter().copied().eq((0..input[0]).map(Some)) {
        return Err(unsupported("slices or pads of the batch"));
    }
    let axes: Vec<Vec<Option<usize>>> = axes.collect();
    let axes = axes.try_into().map_err(|_| unsupported("slices or pads of other than four axes"))?;
    Ok(Maps { axes, input: [input[1], input[2], input[3]], fill })
}

fn windows(a: &PoolAttributes, input: &[usize], output: &[usize]) -> Result<Windows> {
    let (&[_, _, h, w], &[_, _, out_h, out_w]) = (input, output) else { return Err(data(format!("pooling of shape {input:?}"))) };
    if a.kernel[0] * a.kernel[1] > usize::from(u16::MAX) {
        return Err(unsupported(format!("windows of {:?}", a.kernel)));
    }
    Ok(Windows {
        input: [h, w],
        output: [out_h, out_w],
        kernel: a.kernel,
        stride: a.stride,
        dilation: a.dilation,
        pads: a.padding.resolve([h, w], a.kernel, a.stride, a.dilation),
        count_border: a.count_include_pad,
    })
}

/// The value that the loss reads: the output, or what a final softmax reads.
fn logits(model: &Model) -> Result<&str> {
    let [output] = &model.graph.outputs[..] else {
        return Err(unsupported(format!("the model has {} outputs; one can be trained", model.graph.outputs.len())));
    };
    let writer = model.graph.layers.iter().find(|layer| layer.outputs.contains(output));
    match writer {
        Some(layer) if matches!(layer.op, Op::Softmax { .. }) => {
            layer.input(0).ok_or_else(|| Error::new(resprout::ErrorKind::Data, "a softmax of nothing"))
        }
        _ => Ok(output),
    }
}
