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
            grads.add(self.output, first);
        }
        for TapGradient { slot, gradient } in taps {
            if self.wanted[slot] {
                grads.add(slot, gradient);
            } else {
                grads.memory.give(gradient);
            }
        }
        let mut times = self.times.take();
        for (index, step) in self.steps.iter().take(self.end).enumerate().rev() {
            let start = Instant::now();
            let Some((left, scales)) = saved.pop() else { continue };
            if let Some(mut grad) = grads.of[step.output].take() {
                scale(&mut grad, scales.as_ref().map_or(1.0, |scales| scales.out));
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
        of.into_iter().flatten().for_each(|grad| memory.give(grad));
        self.memory = memory;
        self.times = times;
        parameters
    }
}

/// Gradients so far.
struct Grads<'m> {
    of: Vec<Option<Buffer>>,
    parameters: Vec<Option<Vec<f32>>>,
    memory: &'m mut Memory,
}

impl Grads<'_> {
    fn add(&mut self, slot: usize, grad: Buffer) {
        match &mut self.of[slot] {
            Some(sum) => {
                add(sum, &grad);
                self.memory.give(grad);
            }
            none => *none = Some(grad),
        }
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
    fn run(&self, saved: Saved, mut grad: Buffer, grads: &mut Grads) {
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
                        self.hand_on(index, dx, grads);
                    }
                    first += own[*axis];
                }
                grads.memory.give(grad);
            }
            (Instruction::Unary(_), Saved::Line(line)) => {
                unary::backward_line(&line, &mut grad);
                self.hand_on(0, grad, grads);
            }
            (Instruction::Unary(_), Saved::Unary(op)) => {
                let (value, argument) = unary::reads(op);
                let seen = match (value, argument) {
                    (true, _) => self.values[self.step.output].as_deref(),
                    (_, true) => self.value(0),
                    _ => None,
                };
                unary::backward(op, seen.map(|seen| &seen[..]), &mut grad);
                self.hand_on(0, grad, grads);
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
                    self.hand_on(0, dx, grads);
                }
                grads.memory.give(grad);
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
    fn hand_on(&self, index: usize, mut grad: Buffer, grads: &mut Grads) {
        match self.step.inputs[index] {
            Operand::Slot(slot) if self.program.wanted[slot] => {
                scale(&mut grad, self.factors.map_or(1.0, |factors| factors[index]));
                grads.add(slot, grad);
            }
            _ => grads.memory.give(grad),
        }
    }

    fn conv(&self, index: usize, grad: Buffer, grads: &mut Grads) {
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
            self.hand_on(0, dx, grads);
        }
        grads.memory.give(grad);
    }

    fn normalise(&self, saved: Saved, mut grad: Buffer, grads: &mut Grads) {
        let Instruction::Normalise { gamma, beta, .. } = self.step.instruction else { return };
        let (channels, free) = match saved {
            Saved::Norm(channels) => (channels, true),
            Saved::NormLine(channels, line) => {
                unary::backward_line(&line, &mut grad);
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
        self.hand_on(0, dx, grads);
        grads.memory.give(grad);
    }

    fn binary(&self, op: BinaryOp, broadcasts: &[binary::Broadcast], grad: Buffer, grads: &mut Grads) {
        let operands = || self.step.inputs.iter().map(|input| numbers(input, self.parameters, self.values)).collect::<Vec<_>>();
        let last = self.step.inputs.len() - 1;
        match op {
            BinaryOp::Add | BinaryOp::Sub => {
                let sign = |index: usize| if op == BinaryOp::Sub && index > 0 { -1.0 } else { 1.0 };
                let mut grad = Some(grad);
                for index in 0..=last {
                    let own = if index == last { grad.take() } else { None };
                    self.operand(index, &broadcasts[index], grad.as_deref(), own, &|_| sign(index), grads);
                }
            }
            _ => {
                let operands = operands();
                let [a, b] = [0, 1].map(|index| self.spread(&broadcasts[index], &operands[index], grads));
                let factor_a = |at: usize| if op == BinaryOp::Mul { b[at] } else { 1.0 / b[at] };
                let factor_b = |at: usize| if op == BinaryOp::Mul { a[at] } else { -a[at] / (b[at] * b[at]) };
                self.operand(0, &broadcasts[0], Some(&grad), None, &factor_a, grads);
                self.operand(1, &broadcasts[1], Some(&grad), None, &factor_b, grads);
                [a, b, grad].into_iter().for_each(|buffer| grads.memory.give(buffer));
            }
        }
    }

    fn spread(&self, broadcast: &binary::Broadcast, numbers: &Numbers, grads: &mut Grads) -> Buffer {
        let mut out = grads.memory.take(self.program.len(self.step.output));
        binary::spread(self.program.layout, &self.program.shapes[self.step.output], broadcast, numbers, &mut out);
        out
    }

    /// One operand's gradient: the result's times a factor, summed where the operand has one element for many.
    /// The result's gradient comes to be looked at, or to be used up.
    fn operand(
        &self,
        index: usize,
        broadcast: &binary::Broadcast,
        seen: Option<&[f32]>,
        own: Option<Buffer>,
        factor: &(dyn Fn(usize) -> f32 + Sync),
        grads: &mut Grads,
    ) {
        let (layout, shape) = (self.program.layout, &self.program.shapes[self.step.output]);
        let Some(grad) = seen.or(own.as_deref()) else { return };
        match self.step.inputs[index] {
            Operand::Slot(slot) if self.program.wanted[slot] => {
                let same = broadcast.is_plain() && matches!(self.step.instruction, Instruction::Binary(BinaryOp::Add, _));
                let dx = match own {
                    Some(own) if same => own,
                    own => {
                        let grad = seen.or(own.as_deref()).unwrap_or_default();
                        let mut dx = grads.memory.take(self.program.len(slot));
                        if same {
                            dx.copy_from_slice(grad);
                        } else {
                            binary::reduce(layout, shape, broadcast, grad, factor, &mut dx);
                        }
                        own.into_iter().for_each(|own| grads.memory.give(own));
                        dx
                    }
                };
                return self.hand_on(index, dx, grads);
            }
            Operand::Parameter(parameter) => {
                let mut sum = vec![0.0; broadcast.len(layout)];
                binary::reduce(layout, shape, broadcast, grad, factor, &mut sum);
                scale(&mut sum, self.factors.map_or(1.0, |factors| factors[index]));
                grads.add_parameter(parameter, sum);
            }
            _ => {}
        }
        own.into_iter().for_each(|own| grads.memory.give(own));
    }
}
