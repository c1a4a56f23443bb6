//! Translates a graph to a program.

use super::program::{Instruction, TrainOperand, TrainProgram, TrainStep};
use crate::error::{data, unsupported};
use crate::parameters::Parameters;
use burn_core::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions, PadMode as EnginePadMode};
use resprout::forward::check_operations;
use resprout::model::{Layer, Model};
use resprout::ops::{BinaryOp, Compute, ConvAttributes, Fact, Fused, Op, PadMode, PoolAttributes, UnaryOp, fold, resolve};
use resprout::tensor::Value;
use resprout::{Error, Result};
use resprout_kernels::Isa;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

impl TrainProgram {
    /// Translates a graph for batches `[count, C, H, W]`. Fails on the first layer that cannot be trained, with its name.
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
}

/// Translates layer by layer.
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

/// Whether an operation that depends on the images may have an instruction.
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

/// The values that depend on the content of the images.
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

    /// The instruction of a layer, and the names of its operands.
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
            Op::Conv(a) if input_shape.len() == 4 => one(self.conv(layer, a, &input_shape)?),
            Op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b } => {
                one(Instruction::Linear { weight: self.trained(layer, 1)?, bias: self.optional(layer, 2)?, transposed: *trans_b })
            }
            Op::MatMul if input_shape.len() == 2 => {
                one(Instruction::Linear { weight: self.trained(layer, 1)?, bias: None, transposed: false })
            }
            Op::BatchNorm { epsilon } => one(self.normalise(layer, f64::from(*epsilon))?),
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
                Compute::Remap(remap, fill) => one(pad_instruction(mode, *fill, remap.widths(&input_shape))?),
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
            Op::Identity | Op::Cast { to: 1 } => one(Instruction::Identity),
            other => Err(unsupported(format!("{} cannot be trained", other.name()))),
        }
    }

    fn conv(&self, layer: &Layer, a: &ConvAttributes, input_shape: &[usize]) -> Result<Instruction> {
        let weight = self.trained(layer, 1)?;
        let kernel = &self.parameters.trained[weight].shape;
        let image = [input_shape[2], input_shape[3]];
        let [top, left, bottom, right] = a.padding.resolve(image, [kernel[2], kernel[3]], a.stride, a.dilation);
        let options =
            ConvOptions { stride: a.stride, padding: [(top, bottom), (left, right)], dilation: a.dilation, groups: a.groups };
        Ok(Instruction::Conv { weight, bias: self.optional(layer, 2)?, options })
    }

    fn normalise(&self, layer: &Layer, epsilon: f64) -> Result<Instruction> {
        let names = [3, 4].map(|index| layer.input(index).unwrap_or_default());
        let statistics = self.parameters.statistics.iter().position(|s| s.names == names);
        let statistics = statistics.ok_or_else(|| unsupported("statistics that are computed, not constants"))?;
        let (gamma, beta) = (self.trained(layer, 1)?, self.trained(layer, 2)?);
        Ok(Instruction::Normalise { gamma, beta, statistics, epsilon, relu: false })
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

    /// Fuses a normalisation and the ReLU that alone reads it.
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

/// `pads` are those before and after on each axis, or `None` if they cut off.
fn pad_instruction(mode: &PadMode, fill: f32, pads: Option<Vec<(usize, usize)>>) -> Result<Instruction> {
    let pads = pads.ok_or_else(|| unsupported("pads that cut off"))?;
    if *mode != PadMode::Constant && pads[..2].iter().any(|pad| *pad != (0, 0)) {
        return Err(unsupported("pads of batch or channels in another mode than constant"));
    }
    let mode = match mode {
        PadMode::Constant => EnginePadMode::Constant(fill),
        PadMode::Edge => EnginePadMode::Edge,
        PadMode::Reflect => EnginePadMode::Reflect,
        PadMode::Wrap => return Err(unsupported("pads of mode wrap")),
    };
    Ok(Instruction::Pad { pads, mode })
}

/// The value that the loss reads: the output, or the input of a final softmax.
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
