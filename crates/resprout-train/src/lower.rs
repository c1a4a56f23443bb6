//! A model's graph as a program for the engine: every layer becomes one instruction.

mod flow;
mod gates;

pub(crate) use gates::{Gates, Hold};

use crate::error::{data, unsupported};
use crate::ops::{batch_norm, conv2d};
use crate::parameters::Parameters;
use burn_core::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions, PadMode as Border};
use burn_core::tensor::{Device, Gradients, Tensor, TensorData, activation, module};
use resprout::forward::check_operations;
use resprout::model::{Layer, Model};
use resprout::ops::{BinaryOp, Compute, Fact, Fused, Op, PadMode, PoolAttributes, UnaryOp, fold, resolve};
use resprout::tensor::Value;
use resprout::{Error, Result};
use resprout_kernels::Isa;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// torch's default: the share of a batch's statistics in the running ones.
const STATISTICS_MOMENTUM: f64 = 0.1;

/// A value on the device: a batch of images or a batch of rows.
#[derive(Clone)]
enum DeviceBatch {
    Images(Tensor<4>),
    Rows(Tensor<2>),
}

/// Where an operand comes from.
#[derive(Clone)]
enum TrainOperand {
    /// A value computed before.
    Slot(usize),
    /// A trained parameter.
    Parameter(usize),
    /// Numbers that do not change.
    Constant(Vec<f32>, Vec<usize>),
}

enum Instruction {
    Conv { weight: usize, bias: Option<usize>, options: ConvOptions<2> },
    Linear { weight: usize, bias: Option<usize>, transposed: bool },
    Normalise { gamma: usize, beta: usize, statistics: usize, epsilon: f64, relu: bool },
    Unary(UnaryOp),
    Binary(BinaryOp),
    Concat(usize),
    Slice(Vec<(usize, usize, usize)>),
    Pad { pads: Vec<(usize, usize)>, mode: Border },
    MaxPool(MaxPoolOptions<2>),
    AveragePool(AvgPoolOptions<2>),
    Mean,
    MeanRows,
    Reshape(Vec<usize>),
    Same,
}

struct TrainStep {
    layer: String,
    instruction: Instruction,
    inputs: Vec<TrainOperand>,
    output: usize,
    /// Slots that nobody reads afterwards.
    release: Vec<usize>,
}

/// A program for batches of one size of images.
pub struct TrainProgram {
    steps: Vec<TrainStep>,
    slots: usize,
    output: usize,
    classes: usize,
}

/// How batch normalisations are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By the batch's statistics, which go into the running ones.
    Training,
    /// By the running statistics.
    Evaluation,
}

/// What a forward pass gives.
pub struct Forward {
    /// One row of scores per image, without softmax.
    pub logits: Tensor<2>,
    leaves: Vec<Tensor<1>>,
    /// New running statistics, by index.
    statistics: Vec<(usize, [Tensor<1>; 2])>,
}

impl TrainProgram {
    /// Translates the graph for batches `[count, C, H, W]`. Fails on the first layer that cannot be trained, by name.
    pub fn new(model: &Model, parameters: &Parameters, shape: &[usize]) -> Result<TrainProgram> {
        let mut lowering = Lowering::new(model, parameters, shape)?;
        for index in 0..model.graph.layers.len() {
            let layer = &model.graph.layers[index];
            if lowering.needed(layer) && !lowering.done.contains(&index) {
                lowering.layer(layer).map_err(|e| e.at(format!("layer {:?} ({})", layer.name, layer.op.name())))?;
            }
        }
        lowering.finish()
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Computes the logits of `images`; with gradients if the device is one of automatic differentiation.
    pub fn forward(&self, parameters: &Parameters, images: Tensor<4>, mode: Mode) -> Forward {
        self.forward_held(parameters, images, mode, Hold::Free)
    }

    /// The same with activations and maxima noted, or held as they were noted.
    pub(crate) fn forward_held(&self, parameters: &Parameters, images: Tensor<4>, mode: Mode, hold: Hold) -> Forward {
        let device = images.device();
        let leaf = |value: &Tensor<1>| match device.is_autodiff() {
            true => Tensor::from_inner(value.clone()).require_grad(),
            false => value.clone(),
        };
        let leaves: Vec<Tensor<1>> = parameters.trained.iter().map(|parameter| leaf(&parameter.value)).collect();
        let mut machine = Machine { parameters, leaves, mode, device, hold, statistics: Vec::new() };
        let mut slots: Vec<Option<DeviceBatch>> = (0..self.slots).map(|_| None).collect();
        slots[0] = Some(DeviceBatch::Images(images));
        for step in &self.steps {
            let result = machine.run(step, &slots);
            slots[step.output] = Some(result);
            step.release.iter().for_each(|&slot| slots[slot] = None);
        }
        let logits = match slots[self.output].take() {
            Some(DeviceBatch::Rows(rows)) => rows,
            Some(DeviceBatch::Images(images)) => images.flatten(1, 3),
            None => unreachable!("the last step writes the output"),
        };
        Forward { logits, leaves: machine.leaves, statistics: machine.statistics }
    }

    /// The layer whose result first holds a NaN or an infinity, if one does.
    pub fn first_broken_layer(&self, parameters: &Parameters, images: Tensor<4>) -> Option<&str> {
        let device = images.device();
        let leaves = parameters.trained.iter().map(|parameter| parameter.value.clone()).collect();
        let mut machine = Machine { parameters, leaves, mode: Mode::Training, device, hold: Hold::Free, statistics: Vec::new() };
        let mut slots: Vec<Option<DeviceBatch>> = (0..self.slots).map(|_| None).collect();
        slots[0] = Some(DeviceBatch::Images(images));
        for step in &self.steps {
            let result = machine.run(step, &slots);
            let values: Vec<f32> = match result.clone() {
                DeviceBatch::Images(images) => images.into_data().try_into_vec().unwrap_or_default(),
                DeviceBatch::Rows(rows) => rows.into_data().try_into_vec().unwrap_or_default(),
            };
            if values.iter().any(|value| !value.is_finite()) {
                return Some(&step.layer);
            }
            slots[step.output] = Some(result);
        }
        None
    }
}

impl Forward {
    /// The gradient of each trained parameter, in order, from those of a loss that was computed from the logits.
    pub fn gradients(&self, gradients: &mut Gradients) -> Vec<Option<Tensor<1>>> {
        self.leaves.iter().map(|leaf| leaf.grad_remove(gradients)).collect()
    }

    /// Lets the batch's statistics flow into the running ones.
    pub fn update_statistics(&self, parameters: &mut Parameters) {
        for (index, batch) in &self.statistics {
            for (running, batch) in parameters.statistics[*index].values.iter_mut().zip(batch) {
                *running = running.clone() * (1.0 - STATISTICS_MOMENTUM) + batch.clone() * STATISTICS_MOMENTUM;
            }
        }
    }
}

/// Runs instructions.
struct Machine<'a> {
    parameters: &'a Parameters,
    leaves: Vec<Tensor<1>>,
    mode: Mode,
    device: Device,
    hold: Hold<'a>,
    statistics: Vec<(usize, [Tensor<1>; 2])>,
}

impl Machine<'_> {
    fn shaped<const D: usize>(&self, parameter: usize) -> Tensor<D> {
        shaped(self.parameters, &self.leaves, parameter)
    }

    fn operand(&self, operand: &TrainOperand, slots: &[Option<DeviceBatch>]) -> DeviceBatch {
        let (tensor, shape) = match operand {
            TrainOperand::Slot(slot) => return slots[*slot].clone().expect("a program reads a value only while it is alive"),
            TrainOperand::Parameter(index) => (self.leaves[*index].clone(), &self.parameters.trained[*index].shape),
            TrainOperand::Constant(values, shape) => {
                (Tensor::<1>::from_data(TensorData::new(values.clone(), [values.len()]), &self.device), shape)
            }
        };
        DeviceBatch::of(tensor, shape)
    }

    fn run(&mut self, step: &TrainStep, slots: &[Option<DeviceBatch>]) -> DeviceBatch {
        let mut inputs = step.inputs.iter().map(|operand| self.operand(operand, slots));
        let first = inputs.next().expect("every instruction has an operand");
        let rest: Vec<DeviceBatch> = inputs.collect();
        match &step.instruction {
            Instruction::Conv { weight, bias, options } => {
                let out = conv2d(first.images(), self.shaped(*weight), options.clone());
                DeviceBatch::Images(match bias {
                    Some(bias) => {
                        let [_, channels, ..] = out.dims();
                        out + self.leaves[*bias].clone().reshape([1, channels, 1, 1])
                    }
                    None => out,
                })
            }
            Instruction::Linear { weight, bias, transposed } => {
                let weight: Tensor<2> = self.shaped(*weight);
                let out = first.rows().matmul(if *transposed { weight.transpose() } else { weight });
                DeviceBatch::Rows(match bias {
                    Some(bias) => out + self.leaves[*bias].clone().unsqueeze::<2>(),
                    None => out,
                })
            }
            Instruction::Normalise { gamma, beta, statistics, epsilon, relu } => {
                // Where gates are held, the activation behind is one of them.
                let free = matches!(self.hold, Hold::Free);
                let out = self.normalise(first, [*gamma, *beta], *statistics, *epsilon, *relu && free);
                if *relu && !free { self.hold.unary(step.output, UnaryOp::Relu, out) } else { out }
            }
            Instruction::Unary(op) => self.hold.unary(step.output, *op, first),
            Instruction::Binary(op) => rest.into_iter().fold(first, |a, b| DeviceBatch::binary(*op, a, b)),
            Instruction::Concat(axis) => {
                let all = std::iter::once(first).chain(rest);
                DeviceBatch::Images(Tensor::cat(all.map(DeviceBatch::images).collect(), *axis))
            }
            Instruction::Slice(ranges) => DeviceBatch::Images(slice(first.images(), ranges)),
            Instruction::Pad { pads, mode } => DeviceBatch::Images(pad(first.images(), pads, mode, &self.device)),
            Instruction::MaxPool(options) => DeviceBatch::Images(self.hold.max_pool(step.output, first.images(), options)),
            Instruction::AveragePool(options) => DeviceBatch::Images(module::avg_pool2d(first.images(), options.clone())),
            Instruction::Mean => DeviceBatch::Images(first.images().mean_dim(3).mean_dim(2)),
            Instruction::MeanRows => DeviceBatch::Rows(first.images().mean_dim(3).mean_dim(2).flatten(1, 3)),
            Instruction::Reshape(shape) => first.reshaped(shape),
            Instruction::Same => first,
        }
    }

    fn normalise(
        &mut self,
        x: DeviceBatch,
        [gamma, beta]: [usize; 2],
        statistics: usize,
        epsilon: f64,
        relu: bool,
    ) -> DeviceBatch {
        let (x, rows) = match x {
            DeviceBatch::Images(x) => (x, None),
            DeviceBatch::Rows(x) => {
                let dims = x.dims();
                (x.reshape([dims[0], dims[1], 1, 1]), Some(dims))
            }
        };
        let (gamma, beta) = (self.leaves[gamma].clone(), self.leaves[beta].clone());
        let out = match self.mode {
            Mode::Training => {
                let [n, _, h, w] = x.dims();
                let out = batch_norm(x, gamma, beta, epsilon, relu);
                // torch keeps the variance with divisor n - 1.
                let count = (n * h * w) as f64;
                let variance = without_gradient(out.variance) * (count / (count - 1.0).max(1.0));
                self.statistics.push((statistics, [without_gradient(out.mean), variance]));
                out.output
            }
            Mode::Evaluation => {
                let [mean, variance] = &self.parameters.statistics[statistics].values;
                let out =
                    module::batch_norm(x, gamma, beta, constant(mean, &self.device), constant(variance, &self.device), epsilon);
                if relu { activation::relu(out) } else { out }
            }
        };
        match rows {
            Some(dims) => DeviceBatch::Rows(out.reshape(dims)),
            None => DeviceBatch::Images(out),
        }
    }
}

/// The numbers alone, whether or not the tensor knows where they come from.
fn without_gradient<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.device().is_autodiff() { x.inner() } else { x }
}

/// A tensor without gradient as an operand beside those of `device`.
fn constant<const D: usize>(x: &Tensor<D>, device: &Device) -> Tensor<D> {
    if device.is_autodiff() { Tensor::from_inner(x.clone()) } else { x.clone() }
}

/// A trained parameter in its shape.
fn shaped<const D: usize>(parameters: &Parameters, leaves: &[Tensor<1>], index: usize) -> Tensor<D> {
    let shape = &parameters.trained[index].shape;
    leaves[index].clone().reshape::<D, _>(std::array::from_fn::<usize, D, _>(|axis| shape[axis]))
}

fn slice(mut x: Tensor<4>, ranges: &[(usize, usize, usize)]) -> Tensor<4> {
    for (axis, &(start, end, step)) in ranges.iter().enumerate() {
        if (start, step) != (0, 1) || end != x.dims()[axis] {
            let slice = burn_core::tensor::Slice::new(start as isize, Some(end as isize), step as isize);
            x = x.slice_dim(axis, slice);
        }
    }
    x
}

fn pad(mut x: Tensor<4>, pads: &[(usize, usize)], mode: &Border, device: &Device) -> Tensor<4> {
    for (axis, &(before, after)) in pads.iter().enumerate() {
        x = pad_axis(x, axis, before, after, mode, device);
    }
    x
}

fn pad_axis(x: Tensor<4>, axis: usize, before: usize, after: usize, mode: &Border, device: &Device) -> Tensor<4> {
    if before == 0 && after == 0 {
        return x;
    }
    if axis >= 2 {
        let pads = if axis == 2 { (0, 0, before, after) } else { (before, after, 0, 0) };
        return x.pad(pads, *mode);
    }
    let Border::Constant(value) = *mode else { unreachable!("refused when the program is made") };
    let constant = |count: usize| {
        let mut dims = x.dims();
        dims[axis] = count;
        Tensor::<4>::full(dims, value, device)
    };
    let parts = [(before > 0).then(|| constant(before)), Some(x.clone()), (after > 0).then(|| constant(after))];
    Tensor::cat(parts.into_iter().flatten().collect(), axis)
}

impl DeviceBatch {
    fn unary(self, op: UnaryOp) -> DeviceBatch {
        match self {
            DeviceBatch::Images(x) => DeviceBatch::Images(unary(op, x)),
            DeviceBatch::Rows(x) => DeviceBatch::Rows(unary(op, x)),
        }
    }

    fn binary(op: BinaryOp, a: DeviceBatch, b: DeviceBatch) -> DeviceBatch {
        match (a, b) {
            (DeviceBatch::Rows(a), DeviceBatch::Rows(b)) => DeviceBatch::Rows(binary(op, a, b)),
            (a, b) => DeviceBatch::Images(binary(op, a.images(), b.images())),
        }
    }

    /// A tensor of these axes; by numpy's rule missing ones are in front, of length 1.
    fn of(tensor: Tensor<1>, shape: &[usize]) -> DeviceBatch {
        let axis = |i: usize, rank: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
        match shape.len() {
            3 | 4 => DeviceBatch::Images(tensor.reshape(std::array::from_fn::<usize, 4, _>(|i| axis(i, 4)))),
            _ => DeviceBatch::Rows(tensor.reshape(std::array::from_fn::<usize, 2, _>(|i| axis(i, 2)))),
        }
    }

    fn reshaped(self, shape: &[usize]) -> DeviceBatch {
        match (self, shape) {
            (DeviceBatch::Images(x), &[a, b]) => DeviceBatch::Rows(x.reshape([a, b])),
            (DeviceBatch::Rows(x), &[a, b]) => DeviceBatch::Rows(x.reshape([a, b])),
            (DeviceBatch::Images(x), &[a, b, c, d]) => DeviceBatch::Images(x.reshape([a, b, c, d])),
            (DeviceBatch::Rows(x), &[a, b, c, d]) => DeviceBatch::Images(x.reshape([a, b, c, d])),
            _ => unreachable!("shapes of other ranks are refused when the program is made"),
        }
    }

    fn images(self) -> Tensor<4> {
        match self {
            DeviceBatch::Images(images) => images,
            DeviceBatch::Rows(rows) => {
                let [a, b] = rows.dims();
                // A row beside images is broadcast like any array of fewer axes.
                rows.reshape([1, 1, a, b])
            }
        }
    }

    fn rows(self) -> Tensor<2> {
        match self {
            DeviceBatch::Rows(rows) => rows,
            DeviceBatch::Images(images) => images.flatten(1, 3),
        }
    }
}

fn unary<const D: usize>(op: UnaryOp, x: Tensor<D>) -> Tensor<D> {
    match op {
        UnaryOp::Relu => activation::relu(x),
        UnaryOp::LeakyRelu { alpha } => activation::leaky_relu(x, f64::from(alpha)),
        UnaryOp::Sigmoid => activation::sigmoid(x),
        UnaryOp::HardSigmoid { alpha, beta } => (x * alpha + beta).clamp(0.0, 1.0),
        UnaryOp::HardSwish => x.clone() * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        UnaryOp::Neg => x.neg(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Floor => x.floor(),
        UnaryOp::Clamp { low, high } => match (low.is_finite(), high.is_finite()) {
            (true, true) => x.clamp(low, high),
            (true, false) => x.clamp_min(low),
            (false, true) => x.clamp_max(high),
            (false, false) => x,
        },
    }
}

fn binary<const D: usize>(op: BinaryOp, a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Max | BinaryOp::Min => unreachable!("refused when the program is made"),
    }
}

/// Translates one layer after the other.
struct Lowering<'a> {
    model: &'a Model,
    parameters: &'a Parameters,
    facts: HashMap<&'a str, Fact>,
    slots: HashMap<&'a str, usize>,
    needed: HashSet<&'a str>,
    readers: HashMap<&'a str, usize>,
    done: HashSet<usize>,
    output: &'a str,
    steps: Vec<TrainStep>,
}

/// Whether there may be an instruction for an operation that depends on the images.
fn can_be_trained(op: &Op) -> bool {
    !matches!(
        op,
        Op::Unknown(_)
            | Op::OpaqueConstant
            | Op::ConvTranspose(_)
            | Op::Resize(_)
            | Op::Softmax { .. }
            | Op::Transpose { .. }
            | Op::Gather { .. }
            | Op::ConstantOfShape { .. }
    )
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
    fn new(model: &'a Model, parameters: &'a Parameters, shape: &[usize]) -> Result<Lowering<'a>> {
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
            facts,
            slots: HashMap::from([(input.name.as_str(), 0)]),
            needed,
            readers: model.graph.reader_counts(),
            done: HashSet::new(),
            output,
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
        let (instruction, operands) = self.instruction(layer, &facts, &resolved.compute, &resolved.shape)?;
        if !matches!(resolved.shape.len(), 2 | 4) {
            return Err(unsupported(format!("a value of shape {:?}: two or four axes can be trained with", resolved.shape)));
        }
        let inputs = operands.iter().map(|name| self.operand(name)).collect::<Result<Vec<TrainOperand>>>()?;
        let (instruction, output) = self.fuse_relu(instruction, output);
        let slot = self.slots.len();
        self.slots.insert(output, slot);
        self.facts.insert(output, Fact::of_shape(resolved.shape));
        self.steps.push(TrainStep { layer: layer.name.clone(), instruction, inputs, output: slot, release: Vec::new() });
        Ok(())
    }

    /// The instruction and the names of the values that it reads.
    fn instruction(
        &self,
        layer: &'a Layer,
        facts: &[Option<Fact>],
        compute: &Compute,
        shape: &[usize],
    ) -> Result<(Instruction, Vec<&'a str>)> {
        let first = layer.input(0).unwrap_or_default();
        let input_shape = facts[0].as_ref().map(|fact| fact.shape.clone()).unwrap_or_default();
        let one = |instruction| Ok((instruction, vec![first]));
        match &layer.op {
            Op::Conv(a) if input_shape.len() == 4 => {
                let weight = self.trained(layer, 1)?;
                let kernel = &self.parameters.trained[weight].shape;
                let image = [input_shape[2], input_shape[3]];
                let [top, left, bottom, right] = a.padding.resolve(image, [kernel[2], kernel[3]], a.stride, a.dilation);
                let options = ConvOptions {
                    stride: a.stride,
                    padding: [(top, bottom), (left, right)],
                    dilation: a.dilation,
                    groups: a.groups,
                };
                one(Instruction::Conv { weight, bias: self.optional(layer, 2)?, options })
            }
            Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b } => {
                one(Instruction::Linear { weight: self.trained(layer, 1)?, bias: self.optional(layer, 2)?, transposed: *trans_b })
            }
            Op::MatMul if input_shape.len() == 2 => {
                one(Instruction::Linear { weight: self.trained(layer, 1)?, bias: None, transposed: false })
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
                Ok((Instruction::Binary(*op), layer.inputs.iter().map(String::as_str).collect()))
            }
            Op::Concat { axis } if shape.len() == 4 => {
                let axis = if *axis < 0 { *axis + 4 } else { *axis } as usize;
                Ok((Instruction::Concat(axis), layer.inputs.iter().map(String::as_str).collect()))
            }
            Op::Slice { .. } if shape.len() == 4 => match compute {
                Compute::Remap(remap, _) => one(Instruction::Slice(
                    remap.ranges().ok_or_else(|| unsupported("a slice with a negative step or of nothing"))?,
                )),
                _ => Err(unsupported("a slice that is computed")),
            },
            Op::Pad { mode, .. } if shape.len() == 4 => match compute {
                Compute::Remap(remap, fill) => {
                    let pads = remap.widths(&input_shape).ok_or_else(|| unsupported("pads that cut off"))?;
                    if *mode != PadMode::Constant && pads[..2].iter().any(|pad| *pad != (0, 0)) {
                        return Err(unsupported("pads of batch or channels in another mode than constant"));
                    }
                    let mode = match mode {
                        PadMode::Constant => Border::Constant(*fill),
                        PadMode::Edge => Border::Edge,
                        PadMode::Reflect => Border::Reflect,
                        PadMode::Wrap => return Err(unsupported("pads of mode wrap")),
                    };
                    one(Instruction::Pad { pads, mode })
                }
                _ => Err(unsupported("pads that are computed")),
            },
            Op::MaxPool(a) => {
                let [top, left, bottom, right] = self.pool_pads(a, &input_shape)?;
                let options = MaxPoolOptions::new(a.kernel)
                    .with_stride(a.stride)
                    .with_dilation(a.dilation)
                    .with_padding_pairs([(top, bottom), (left, right)])
                    .with_ceil_mode(a.ceil_mode);
                one(Instruction::MaxPool(options))
            }
            Op::AveragePool(a) if a.dilation == [1, 1] => {
                let [top, left, bottom, right] = self.pool_pads(a, &input_shape)?;
                let options = AvgPoolOptions::new(a.kernel)
                    .with_stride(a.stride)
                    .with_padding_pairs([(top, bottom), (left, right)])
                    .with_count_include_pad(a.count_include_pad)
                    .with_ceil_mode(a.ceil_mode);
                one(Instruction::AveragePool(options))
            }
            Op::GlobalAveragePool if input_shape.len() == 4 => one(Instruction::Mean),
            Op::ReduceMean { .. } if input_shape.len() == 4 && matches!(compute, Compute::Mean(axes) if axes[..] == [2, 3]) => {
                one(if shape.len() == 4 { Instruction::Mean } else { Instruction::MeanRows })
            }
            Op::Flatten { .. } | Op::Reshape { .. } | Op::Squeeze { .. } | Op::Unsqueeze { .. } => {
                one(Instruction::Reshape(shape.to_vec()))
            }
            Op::Identity | Op::Cast { to: 1 } => one(Instruction::Same),
            other => Err(unsupported(format!("{} cannot be trained", other.name()))),
        }
    }

    fn pool_pads(&self, a: &PoolAttributes, input: &[usize]) -> Result<[usize; 4]> {
        let &[_, _, h, w] = input else { return Err(data(format!("pooling of shape {input:?}"))) };
        Ok(a.padding.resolve([h, w], a.kernel, a.stride, a.dilation))
    }

    fn trained(&self, layer: &Layer, index: usize) -> Result<usize> {
        let name = layer.input(index).unwrap_or_default();
        self.parameters.index(name).ok_or_else(|| unsupported(format!("{name:?} is computed, not a constant: cannot be trained")))
    }

    fn optional(&self, layer: &Layer, index: usize) -> Result<Option<usize>> {
        layer.input(index).map(|_| self.trained(layer, index)).transpose()
    }

    fn operand(&self, name: &str) -> Result<TrainOperand> {
        if let Some(&slot) = self.slots.get(name) {
            return Ok(TrainOperand::Slot(slot));
        }
        if let Some(index) = self.parameters.index(name) {
            return Ok(TrainOperand::Parameter(index));
        }
        match self.facts.get(name).and_then(|fact| fact.value.as_deref()) {
            Some(Value::F32(tensor)) => Ok(TrainOperand::Constant(tensor.data.clone(), tensor.shape.clone())),
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

    fn finish(mut self) -> Result<TrainProgram> {
        let output = *self.slots.get(self.output).ok_or_else(|| unsupported("the output does not depend on the images"))?;
        let shape = &self.facts[self.output].shape;
        let classes: usize = shape[1..].iter().product();
        let mut seen = HashSet::from([output]);
        for step in self.steps.iter_mut().rev() {
            for input in &step.inputs {
                if let TrainOperand::Slot(slot) = input
                    && seen.insert(*slot)
                {
                    step.release.push(*slot);
                }
            }
        }
        Ok(TrainProgram { slots: self.slots.len(), steps: self.steps, output, classes })
    }
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
