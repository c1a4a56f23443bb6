//! The backward pass.

use super::forward::{Forward, Numbers, Saved, norm, numbers, planes};
use super::memory::Memory;
use super::ops::{add, binary, pool, remap, scale, unary};
use super::{Instruction, Mode, Operand, Step, TapGradient, TrainProgram};
use crate::parameters::Parameters;
use resprout::ops::BinaryOp;
use resprout_kernels::batched::Buffer;
use std::sync::Arc;
use std::time::Instant;

impl TrainProgram {
    /// The gradient of each trained parameter, in order, from the logits' `[N, classes]`.
    /// `None` is one that the logits do not depend on.
    pub(crate) fn backward(
        &mut self,
        parameters: &Parameters,
        forward: Forward,
        mode: Mode,
        logits: &[f32],
    ) -> Vec<Option<Vec<f32>>> {
        self.backward_from(parameters, forward, mode, logits, Vec::new())
    }

    /// As [`backward`](Self::backward), from the gradients of tapped values too. Empty `logits` have none.
    pub(crate) fn backward_from(
        &mut self,
        parameters: &Parameters,
        forward: Forward,
        mode: Mode,
        logits: &[f32],
        taps: Vec<TapGradient>,
    ) -> Vec<Option<Vec<f32>>> {
        let Forward { mut values, mut saved, .. } = forward;
        let mut memory = std::mem::take(&mut self.memory);
        let mut grads = Grads {
            of: self.shapes.iter().map(|_| None).collect(),
            parameters: parameters.trained.iter().map(|_| None).collect(),
            memory: &mut memory,
        };
        if !logits.is_empty() {
            let mut first = grads.memory.take(self.len(self.output));
            self.layout.pack_gradient(logits, self.classes, &mut first);
            grads.add(self.output, Arc::new(first));
        }
        for TapGradient { slot, gradient } in taps {
            if self.wanted[slot] {
                grads.add(slot, Arc::new(gradient));
            } else {
                grads.memory.give(gradient);
            }
        }
        let mut times = self.times.take();
        for (index, step) in self.steps.iter().take(self.end).enumerate().rev() {
            let start = Instant::now();
            let Some((left, scales)) = saved.pop() else { continue };
            if let Some(grad) = grads.of[step.output].take() {
                let grad = grads.scaled(grad, scales.as_ref().map_or(1.0, |scales| scales.out));
                let factors = scales.as_ref().map(|scales| &scales.inputs[..]);
                let shift = scales.as_ref().map_or(1.0, |scales| scales.shift);
                let of = StepBack { program: self, parameters, step, mode, values: &values, factors, shift };
                of.run(left, grad, &mut grads);
            }
            if let Some(times) = &mut times {
                times[index][1] += start.elapsed().as_secs_f64();
            }
            for &slot in &step.release_backward {
                values[slot].take().into_iter().for_each(|value| grads.memory.give_shared(value));
            }
        }
        values.into_iter().flatten().for_each(|value| grads.memory.give_shared(value));
        let Grads { of, parameters, .. } = grads;
        of.into_iter().flatten().for_each(|grad| memory.give_shared(grad));
        self.memory = memory;
        self.times = times;
        parameters
    }
}

/// Gradients so far.
struct Grads<'m> {
    /// Of each slot. The two sides of a sum share one.
    of: Vec<Option<Arc<Buffer>>>,
    parameters: Vec<Option<Vec<f32>>>,
    memory: &'m mut Memory,
}

impl Grads<'_> {
    fn add(&mut self, slot: usize, grad: Arc<Buffer>) {
        self.of[slot] = match self.of[slot].take() {
            Some(sum) => {
                // Into the one that nobody else reads, if one is.
                let (into, other) = if Arc::strong_count(&sum) > 1 { (grad, sum) } else { (sum, grad) };
                let mut into = self.memory.own(into);
                add(&mut into, &other);
                self.memory.give_shared(other);
                Some(Arc::new(into))
            }
            None => Some(grad),
        };
    }

    /// The gradient times a factor.
    fn scaled(&mut self, grad: Arc<Buffer>, factor: f32) -> Arc<Buffer> {
        if factor == 1.0 {
            return grad;
        }
        let mut own = self.memory.own(grad);
        scale(&mut own, factor);
        Arc::new(own)
    }

    fn add_parameter(&mut self, index: usize, grad: Vec<f32>) {
        match &mut self.parameters[index] {
            Some(sum) => add(sum, &grad),
            none => *none = Some(grad),
        }
    }
}

/// One step's backward pass.
struct StepBack<'a> {
    program: &'a TrainProgram,
    parameters: &'a Parameters,
    step: &'a Step,
    mode: Mode,
    values: &'a [Option<Arc<Buffer>>],
    /// Of the operands, in a flow.
    factors: Option<&'a [f32]>,
    /// Of what is added, in a flow.
    shift: f32,
}

impl StepBack<'_> {
    fn run(&self, saved: Saved, grad: Arc<Buffer>, grads: &mut Grads) {
        let layout = self.program.layout;
        let shape = &self.program.shapes[self.step.output];
        match (&self.step.instruction, saved) {
            (Instruction::Binary(op, broadcasts), _) => self.binary(*op, broadcasts, grad, grads),
            (Instruction::Concat(axis), _) => {
                let mut first = 0;
                for (index, input) in self.step.inputs.iter().enumerate() {
                    let Operand::Slot(slot) = *input else { continue };
                    let own = &self.program.shapes[slot];
                    if self.program.wanted[slot] {
                        let mut dx = grads.memory.take(self.program.len(slot));
                        remap::pick(layout, own, shape, *axis, first, &grad, &mut dx);
                        self.hand_on(index, Arc::new(dx), grads);
                    }
                    first += own[*axis];
                }
                grads.memory.give_shared(grad);
            }
            (Instruction::Unary(_), Saved::Line(line)) => {
                let mut grad = grads.memory.own(grad);
                unary::backward_line(&line, &mut grad);
                self.hand_on(0, Arc::new(grad), grads);
            }
            (Instruction::Unary(_), Saved::Unary(op)) => {
                let (value, argument) = unary::reads(op);
                let seen = match (value, argument) {
                    (true, _) => self.values[self.step.output].as_deref(),
                    (_, true) => self.value(0),
                    _ => None,
                };
                let mut grad = grads.memory.own(grad);
                unary::backward(op, seen.map(|seen| &seen[..]), &mut grad);
                self.hand_on(0, Arc::new(grad), grads);
            }
            (Instruction::Same, _) => self.hand_on(0, grad, grads),
            (Instruction::Conv(index), _) => self.conv(*index, grad, grads),
            (Instruction::Normalise { .. }, saved) => self.normalise(saved, grad, grads),
            (instruction, saved) => {
                let Operand::Slot(slot) = self.step.inputs[0] else { return };
                if self.program.wanted[slot] {
                    let mut dx = grads.memory.take(self.program.len(slot));
                    match (instruction, saved) {
                        (Instruction::Remap(maps), _) => maps.backward(layout, &grad, &mut dx),
                        (Instruction::MaxPool(windows), Saved::Places(places)) => {
                            windows.max_backward(layout, &grad, &places, &mut dx);
                        }
                        (Instruction::AveragePool(windows), _) => windows.mean_backward(layout, &grad, &mut dx),
                        _ => pool::image_mean_backward(layout, planes(&self.program.shapes[slot]).1, &grad, &mut dx),
                    }
                    self.hand_on(0, Arc::new(dx), grads);
                }
                grads.memory.give_shared(grad);
            }
        }
    }

    /// A value that was kept.
    fn value(&self, index: usize) -> Option<&Buffer> {
        match self.step.inputs[index] {
            Operand::Slot(slot) => self.values[slot].as_deref(),
            _ => None,
        }
    }

    /// Adds an operand's gradient to those of its slot.
    fn hand_on(&self, index: usize, grad: Arc<Buffer>, grads: &mut Grads) {
        match self.step.inputs[index] {
            Operand::Slot(slot) if self.program.wanted[slot] => {
                let grad = grads.scaled(grad, self.factors.map_or(1.0, |factors| factors[index]));
                grads.add(slot, grad);
            }
            _ => grads.memory.give_shared(grad),
        }
    }

    fn conv(&self, index: usize, grad: Arc<Buffer>, grads: &mut Grads) {
        let (conv, layout) = (&self.program.convs[index], self.program.layout);
        if let Some(x) = self.value(0) {
            grads.add_parameter(conv.weight, conv.weight_gradient(layout, x, &grad));
        }
        if let Some(bias) = conv.bias {
            let mut gradient = conv.bias_gradient(layout, &grad);
            scale(&mut gradient, self.shift);
            grads.add_parameter(bias, gradient);
        }
        if let Operand::Slot(slot) = self.step.inputs[0]
            && self.program.wanted[slot]
        {
            let mut dx = grads.memory.take(self.program.len(slot));
            conv.input_gradient(layout, self.parameters, &grad, &mut dx);
            self.hand_on(0, Arc::new(dx), grads);
        }
        grads.memory.give_shared(grad);
    }

    fn normalise(&self, saved: Saved, mut grad: Arc<Buffer>, grads: &mut Grads) {
        let Instruction::Normalise { gamma, beta, .. } = self.step.instruction else { return };
        let (channels, free) = match saved {
            Saved::Norm(channels) => (channels, true),
            Saved::NormLine(channels, line) => {
                let mut own = grads.memory.own(grad);
                unary::backward_line(&line, &mut own);
                grad = Arc::new(own);
                (channels, false)
            }
            _ => return,
        };
        let (Some(x), Operand::Slot(slot)) = (self.value(0), self.step.inputs[0].clone()) else { return };
        let shape = &self.program.shapes[self.step.output];
        let norm = norm(self.step, shape, self.program.layout, self.parameters, self.mode, self.shift, free);
        let mut dx = grads.memory.take(self.program.len(slot));
        let [dgamma, dbeta] = norm.backward(&channels, x, &grad, &mut dx);
        grads.add_parameter(gamma, dgamma);
        grads.add_parameter(beta, dbeta);
        self.hand_on(0, Arc::new(dx), grads);
        grads.memory.give_shared(grad);
    }

    fn binary(&self, op: BinaryOp, broadcasts: &[binary::Broadcast], grad: Arc<Buffer>, grads: &mut Grads) {
        let operands = || self.step.inputs.iter().map(|input| numbers(input, self.parameters, self.values)).collect::<Vec<_>>();
        let last = self.step.inputs.len() - 1;
        match op {
            BinaryOp::Add | BinaryOp::Sub => {
                let sign = |index: usize| if op == BinaryOp::Sub && index > 0 { -1.0 } else { 1.0 };
                for index in 0..=last {
                    self.operand(index, &broadcasts[index], &grad, &|_| sign(index), grads);
                }
                grads.memory.give_shared(grad);
            }
            _ => {
                let operands = operands();
                let [a, b] = [0, 1].map(|index| self.spread(&broadcasts[index], &operands[index], grads));
                let factor_a = |at: usize| if op == BinaryOp::Mul { b[at] } else { 1.0 / b[at] };
                let factor_b = |at: usize| if op == BinaryOp::Mul { a[at] } else { -a[at] / (b[at] * b[at]) };
                self.operand(0, &broadcasts[0], &grad, &factor_a, grads);
                self.operand(1, &broadcasts[1], &grad, &factor_b, grads);
                [a, b].into_iter().for_each(|buffer| grads.memory.give(buffer));
                grads.memory.give_shared(grad);
            }
        }
    }

    fn spread(&self, broadcast: &binary::Broadcast, numbers: &Numbers, grads: &mut Grads) -> Buffer {
        let mut out = grads.memory.take(self.program.len(self.step.output));
        binary::spread(self.program.layout, &self.program.shapes[self.step.output], broadcast, numbers, &mut out);
        out
    }

    /// One operand's gradient: the result's times a factor, summed where the operand has one element for many.
    fn operand(
        &self,
        index: usize,
        broadcast: &binary::Broadcast,
        grad: &Arc<Buffer>,
        factor: &(dyn Fn(usize) -> f32 + Sync),
        grads: &mut Grads,
    ) {
        let (layout, shape) = (self.program.layout, &self.program.shapes[self.step.output]);
        match self.step.inputs[index] {
            Operand::Slot(slot) if self.program.wanted[slot] => {
                let same = broadcast.is_plain() && matches!(self.step.instruction, Instruction::Binary(BinaryOp::Add, _));
                let dx = if same {
                    grad.clone()
                } else {
                    let mut dx = grads.memory.take(self.program.len(slot));
                    binary::reduce(layout, shape, broadcast, grad, factor, &mut dx);
                    Arc::new(dx)
                };
                self.hand_on(index, dx, grads);
            }
            Operand::Parameter(parameter) => {
                let mut sum = vec![0.0; broadcast.len(layout)];
                binary::reduce(layout, shape, broadcast, grad, factor, &mut sum);
                scale(&mut sum, self.factors.map_or(1.0, |factors| factors[index]));
                grads.add_parameter(parameter, sum);
            }
            _ => {}
        }
    }
}
