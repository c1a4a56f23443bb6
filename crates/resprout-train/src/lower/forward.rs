//! The forward pass of a program.

use super::batch::{DeviceBatch, constant, pad, slice, without_gradient};
use super::gates::Hold;
use super::program::{Instruction, TrainOperand, TrainProgram, TrainStep, shaped};
use crate::ops::{batch_norm, conv2d};
use crate::parameters::Parameters;
use burn_core::tensor::{Device, Gradients, Tensor, TensorData, activation, module};
use resprout::ops::UnaryOp;

/// torch's default: the share of a batch's statistics in the running ones.
const STATISTICS_MOMENTUM: f64 = 0.1;

/// How batch normalisations are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By the batch's statistics, which update the running ones.
    Training,
    /// By the running statistics.
    Evaluation,
}

/// The result of a forward pass.
pub struct Forward {
    /// One row of logits per image.
    pub logits: Tensor<2>,
    leaves: Vec<Tensor<1>>,
    /// New running statistics, by index.
    statistics: Vec<(usize, [Tensor<1>; 2])>,
}

impl TrainProgram {
    /// Computes the logits of `images`. On an autodiff device they have gradients.
    pub fn forward(&self, parameters: &Parameters, images: Tensor<4>, mode: Mode) -> Forward {
        self.forward_held(parameters, images, mode, Hold::Free)
    }

    /// As [`forward`](Self::forward), with activations and maxima noted or held.
    pub(crate) fn forward_held(&self, parameters: &Parameters, images: Tensor<4>, mode: Mode, hold: Hold) -> Forward {
        let device = images.device();
        let leaf = |value: &Tensor<1>| match device.is_autodiff() {
            true => Tensor::from_inner(value.clone()).require_grad(),
            false => value.clone(),
        };
        let leaves: Vec<Tensor<1>> = parameters.trained.iter().map(|parameter| leaf(&parameter.value)).collect();
        let mut interpreter = Interpreter { parameters, leaves, mode, device, hold, statistics: Vec::new() };
        let mut slots: Vec<Option<DeviceBatch>> = (0..self.slots).map(|_| None).collect();
        slots[0] = Some(DeviceBatch::Images(images));
        for step in &self.steps {
            let result = interpreter.run(step, &slots);
            slots[step.output] = Some(result);
            step.release.iter().for_each(|&slot| slots[slot] = None);
        }
        let logits = match slots[self.output].take() {
            Some(DeviceBatch::Rows(rows)) => rows,
            Some(DeviceBatch::Images(images)) => images.flatten(1, 3),
            None => unreachable!("the last step writes the output"),
        };
        Forward { logits, leaves: interpreter.leaves, statistics: interpreter.statistics }
    }

    /// The first layer whose result has a NaN or an infinity, if any.
    pub fn first_broken_layer(&self, parameters: &Parameters, images: Tensor<4>) -> Option<&str> {
        let device = images.device();
        let leaves = parameters.trained.iter().map(|parameter| parameter.value.clone()).collect();
        let mut interpreter =
            Interpreter { parameters, leaves, mode: Mode::Training, device, hold: Hold::Free, statistics: Vec::new() };
        let mut slots: Vec<Option<DeviceBatch>> = (0..self.slots).map(|_| None).collect();
        slots[0] = Some(DeviceBatch::Images(images));
        for step in &self.steps {
            let result = interpreter.run(step, &slots);
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
    /// The gradient of each trained parameter, in order. `gradients` are those of a loss of the logits.
    pub fn gradients(&self, gradients: &mut Gradients) -> Vec<Option<Tensor<1>>> {
        self.leaves.iter().map(|leaf| leaf.grad_remove(gradients)).collect()
    }

    /// Updates the running statistics by those of the batch.
    pub fn update_statistics(&self, parameters: &mut Parameters) {
        for (index, batch) in &self.statistics {
            for (running, batch) in parameters.statistics[*index].values.iter_mut().zip(batch) {
                *running = running.clone() * (1.0 - STATISTICS_MOMENTUM) + batch.clone() * STATISTICS_MOMENTUM;
            }
        }
    }
}

/// Runs the instructions of a forward pass.
struct Interpreter<'a> {
    parameters: &'a Parameters,
    leaves: Vec<Tensor<1>>,
    mode: Mode,
    device: Device,
    hold: Hold<'a>,
    statistics: Vec<(usize, [Tensor<1>; 2])>,
}

impl Interpreter<'_> {
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
                // The fused activation is one of the gates.
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
            Instruction::Identity => first,
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
                // torch stores the variance with divisor n - 1.
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
