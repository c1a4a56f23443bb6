//! The flow of a network of absolute values, for the scores of SynFlow.
//!
//! Its values exceed the range of `f32` in deep networks (about 1e70 for ResNet-50). So every value is stored as `x * 2^e`
//! with `x` near one. Powers of two change no digit, so only sums whose terms differ by more than 2^126 differ from the
//! plain computation.

use super::batch::{DeviceBatch, constant, pad, slice};
use super::program::{Instruction, TrainOperand, TrainProgram, TrainStep, shaped};
use crate::error::{data, unsupported};
use crate::ops::conv2d;
use crate::parameters::Parameters;
use burn_core::tensor::ops::PadMode as EnginePadMode;
use burn_core::tensor::{Device, Tensor, TensorData, module};
use resprout::Result;
use resprout::ops::{BinaryOp, UnaryOp};

/// A value and the exponent of its power of two.
#[derive(Clone)]
struct Scaled {
    value: DeviceBatch,
    exponent: i32,
}

/// Values within `2^±RANGE` are not rescaled.
const RANGE: i32 = 16;

impl TrainProgram {
    /// The gradients of the sum of outputs for an image of ones, with respect to every trained parameter, times one power of two.
    ///
    /// Parameters must be absolute values. Batch normalisations use their running statistics. Activations apply without
    /// their upper bounds.
    pub fn flow(&self, parameters: &Parameters, image: [usize; 3], device: &Device) -> Result<Vec<Option<Tensor<1>>>> {
        let device = device.clone().autodiff();
        let leaf = |value: &Tensor<1>| Tensor::from_inner(value.clone()).require_grad();
        let leaves: Vec<Tensor<1>> = parameters.trained.iter().map(|parameter| leaf(&parameter.value)).collect();
        let interpreter = Flow { parameters, leaves: &leaves, device: &device };
        let [c, h, w] = image;
        let ones = DeviceBatch::Images(Tensor::ones([1, c, h, w], &device));
        let mut slots: Vec<Option<Scaled>> = (0..self.slots).map(|_| None).collect();
        slots[0] = Some(Scaled { value: ones, exponent: 0 });
        for step in &self.steps {
            let result = interpreter.run(step, &slots).map_err(|e| e.at(format!("layer {:?}", step.layer)))?;
            slots[step.output] = Some(result);
            step.release.iter().for_each(|&slot| slots[slot] = None);
        }
        let output = slots[self.output].take().ok_or_else(|| data("the network has no output"))?;
        let mut gradients = output.value.rows().sum().backward();
        Ok(leaves.iter().map(|leaf| leaf.grad_remove(&mut gradients)).collect())
    }
}

struct Flow<'a> {
    parameters: &'a Parameters,
    leaves: &'a [Tensor<1>],
    device: &'a Device,
}

impl Flow<'_> {
    fn shaped<const D: usize>(&self, parameter: usize) -> Tensor<D> {
        shaped(self.parameters, self.leaves, parameter)
    }

    /// A vector of one value per channel, as an operand for a batch like `like`.
    fn per_channel(&self, vector: Tensor<1>, like: &DeviceBatch) -> Scaled {
        let [channels] = vector.dims();
        let value = match like {
            DeviceBatch::Images(_) => DeviceBatch::Images(vector.reshape([1, channels, 1, 1])),
            DeviceBatch::Rows(_) => DeviceBatch::Rows(vector.reshape([1, channels])),
        };
        Scaled { value, exponent: 0 }
    }

    fn operand(&self, operand: &TrainOperand, slots: &[Option<Scaled>]) -> Result<Scaled> {
        match operand {
            TrainOperand::Slot(slot) => slots[*slot].clone().ok_or_else(|| data("reads a value that is not computed")),
            TrainOperand::Parameter(index) => {
                let shape = &self.parameters.trained[*index].shape;
                Ok(Scaled { value: DeviceBatch::of(self.leaves[*index].clone(), shape), exponent: 0 })
            }
            TrainOperand::Constant(values, shape) => {
                let values: Vec<f32> = values.iter().map(|value| value.abs()).collect();
                let count = values.len();
                let tensor = Tensor::<1>::from_data(TensorData::new(values, [count]), self.device);
                Ok(Scaled { value: DeviceBatch::of(tensor, shape), exponent: 0 })
            }
        }
    }

    fn run(&self, step: &TrainStep, slots: &[Option<Scaled>]) -> Result<Scaled> {
        let inputs: Result<Vec<Scaled>> = step.inputs.iter().map(|operand| self.operand(operand, slots)).collect();
        let mut inputs = inputs?.into_iter();
        let first = inputs.next().ok_or_else(|| data("has no operand"))?;
        let exponent = first.exponent;
        let images = |value: Tensor<4>| Ok(Scaled { value: DeviceBatch::Images(value), exponent });
        match &step.instruction {
            Instruction::Conv { weight, bias, options } => {
                let out = conv2d(first.value.images(), self.shaped(*weight), options.clone());
                self.biased(Scaled { value: DeviceBatch::Images(out), exponent }, *bias)
            }
            Instruction::Linear { weight, bias, transposed } => {
                let weight: Tensor<2> = self.shaped(*weight);
                let out = first.value.rows().matmul(if *transposed { weight.transpose() } else { weight });
                self.biased(Scaled { value: DeviceBatch::Rows(out), exponent }, *bias)
            }
            Instruction::Normalise { gamma, beta, statistics, epsilon, relu } => {
                let [mean, variance] = &self.parameters.statistics[*statistics].values;
                let factor = self.leaves[*gamma].clone() / (constant(variance, self.device) + *epsilon).sqrt();
                let shift = self.leaves[*beta].clone() - constant(mean, self.device) * factor.clone();
                let factor = self.per_channel(factor, &first.value);
                let shift = self.per_channel(shift, &first.value);
                let scaled = combine(BinaryOp::Mul, first, factor);
                let out = combine(BinaryOp::Add, scaled, shift);
                normalised(if *relu { activated(UnaryOp::Relu, out) } else { out })
            }
            // A power of two passes through these activations. Upper bounds are left out.
            Instruction::Unary(op @ (UnaryOp::Relu | UnaryOp::LeakyRelu { .. })) => Ok(activated(*op, first)),
            Instruction::Unary(UnaryOp::Clamp { low, .. }) if *low == 0.0 => Ok(activated(UnaryOp::Relu, first)),
            Instruction::Unary(op) => Err(unsupported(format!("{op:?}: SynFlow has no meaning through it"))),
            Instruction::Binary(op) => normalised(inputs.fold(first, |a, b| combine(*op, a, b))),
            Instruction::Concat(axis) => {
                let all: Vec<Scaled> = std::iter::once(first).chain(inputs).collect();
                let exponent = all.iter().map(|scaled| scaled.exponent).max().unwrap_or(0);
                let parts = all.into_iter().map(|scaled| scaled.at(exponent).images()).collect();
                Ok(Scaled { value: DeviceBatch::Images(Tensor::cat(parts, *axis)), exponent })
            }
            Instruction::Slice(ranges) => images(slice(first.value.images(), ranges)),
            Instruction::Pad { mode, .. } if *mode != EnginePadMode::Constant(0.0) => {
                Err(unsupported("pads with other numbers than zero: SynFlow has no meaning through it"))
            }
            Instruction::Pad { pads, mode } => images(pad(first.value.images(), pads, mode, self.device)),
            Instruction::MaxPool(options) => images(module::max_pool2d(first.value.images(), options.clone())),
            Instruction::AveragePool(options) => images(module::avg_pool2d(first.value.images(), options.clone())),
            Instruction::Mean => images(first.value.images().mean_dim(3).mean_dim(2)),
            Instruction::MeanRows => {
                Ok(Scaled { value: DeviceBatch::Rows(first.value.images().mean_dim(3).mean_dim(2).flatten(1, 3)), exponent })
            }
            Instruction::Reshape(shape) => Ok(Scaled { value: first.value.reshaped(shape), exponent }),
            Instruction::Identity => Ok(first),
        }
    }

    fn biased(&self, out: Scaled, bias: Option<usize>) -> Result<Scaled> {
        let out = match bias {
            Some(bias) => {
                let bias = self.per_channel(self.leaves[bias].clone(), &out.value);
                combine(BinaryOp::Add, out, bias)
            }
            None => out,
        };
        normalised(out)
    }
}

impl Scaled {
    /// The value at another exponent.
    fn at(self, exponent: i32) -> DeviceBatch {
        times_power(self.value, self.exponent - exponent)
    }
}

fn activated(op: UnaryOp, x: Scaled) -> Scaled {
    Scaled { value: x.value.unary(op), exponent: x.exponent }
}

fn times_power(value: DeviceBatch, power: i32) -> DeviceBatch {
    if power == 0 {
        return value;
    }
    // Below the range of f32 the factor is zero.
    let factor = 2f64.powi(power) as f32;
    match value {
        DeviceBatch::Images(x) => DeviceBatch::Images(x * factor),
        DeviceBatch::Rows(x) => DeviceBatch::Rows(x * factor),
    }
}

fn combine(op: BinaryOp, a: Scaled, b: Scaled) -> Scaled {
    let exponent = match op {
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Max | BinaryOp::Min => a.exponent.max(b.exponent),
        BinaryOp::Mul => a.exponent + b.exponent,
        BinaryOp::Div => a.exponent - b.exponent,
    };
    let (a, b) = match op {
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Max | BinaryOp::Min => (a.at(exponent), b.at(exponent)),
        BinaryOp::Mul | BinaryOp::Div => (a.value, b.value),
    };
    Scaled { value: DeviceBatch::binary(op, a, b), exponent }
}

/// The value rescaled so that its largest element is near one.
fn normalised(scaled: Scaled) -> Result<Scaled> {
    let largest = match &scaled.value {
        DeviceBatch::Images(x) => x.clone().inner().abs().max().into_scalar::<f32>(),
        DeviceBatch::Rows(x) => x.clone().inner().abs().max().into_scalar::<f32>(),
    };
    if !largest.is_finite() {
        return Err(data(format!("its flow is {largest}")));
    }
    let power = if largest > 0.0 { largest.log2().floor() as i32 } else { 0 };
    if power.abs() < RANGE {
        return Ok(scaled);
    }
    Ok(Scaled { value: times_power(scaled.value, -power), exponent: scaled.exponent + power })
}
