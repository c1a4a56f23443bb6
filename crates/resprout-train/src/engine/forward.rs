//! The forward pass, and what it leaves for the backward pass.

use super::flow::{Exponents, Scales};
use super::gates::{Gate, Hold, Line};
use super::layout::Layout;
use super::memory::Memory;
use super::ops::norm::{Channel, Norm};
use super::ops::{binary, pool, remap, scale, unary};
use super::{Instruction, Mode, Operand, Step, TrainProgram};
use crate::parameters::Parameters;
use resprout::Result;
use resprout::ops::{BinaryOp, UnaryOp};
use resprout_kernels::batched::Buffer;
use std::sync::Arc;
use std::time::Instant;

/// torch's default: the share of a batch's statistics in the running ones.
const STATISTICS_MOMENTUM: f32 = 0.1;

/// What a forward pass gives.
pub(crate) struct Forward {
    /// One row of scores per image, without softmax: `[N, classes]`.
    pub logits: Vec<f32>,
    pub(super) values: Vec<Option<Arc<Buffer>>>,
    pub(super) saved: Vec<(Saved, Option<Scales>)>,
    /// New running statistics, by index.
    statistics: Vec<(usize, [Vec<f32>; 2])>,
}

/// What a step's backward pass reads beside values.
pub(super) enum Saved {
    Nothing,
    Norm(Vec<Channel>),
    /// A normalisation, and the line that its activation was held at.
    NormLine(Vec<Channel>, Arc<Line>),
    Places(Arc<Vec<u16>>),
    Line(Arc<Line>),
    /// The function that took the step's place.
    Unary(UnaryOp),
}

impl TrainProgram {
    /// Computes the logits of `images: [N, C, H, W]`.
    pub(crate) fn forward(&mut self, parameters: &Parameters, images: &[f32], mode: Mode) -> Forward {
        self.forward_held(parameters, images, mode, Hold::Free)
    }

    /// The same with activations and maxima noted, or held as they were noted.
    pub(crate) fn forward_held(&mut self, parameters: &Parameters, images: &[f32], mode: Mode, hold: Hold) -> Forward {
        let mut pass = Pass { parameters, mode, hold, statistics: Vec::new(), exponents: None };
        let done = self.run(&mut pass, images, |_, _| false);
        done.unwrap_or_else(|e| unreachable!("only a flow can fail: {e}"))
    }

    /// The layer whose result first holds a NaN or an infinity, if one does.
    pub(crate) fn first_broken_layer(&mut self, parameters: &Parameters, images: &[f32], mode: Mode) -> Option<String> {
        let mut pass = Pass { parameters, mode, hold: Hold::Free, statistics: Vec::new(), exponents: None };
        let mut broken = None;
        let is_broken = |layer: &str, value: &[f32]| {
            let found = value.iter().any(|value| !value.is_finite());
            broken = found.then(|| layer.to_string());
            found
        };
        self.run(&mut pass, images, is_broken).ok()?;
        broken
    }

    /// Runs all steps, or until `stop` says so of a layer and its value.
    pub(super) fn run(&mut self, pass: &mut Pass, images: &[f32], mut stop: impl FnMut(&str, &[f32]) -> bool) -> Result<Forward> {
        let TrainProgram { layout, steps, shapes, kept, convs, memory, times, end, .. } = self;
        convs.iter_mut().for_each(|conv| conv.load(*layout, pass.parameters));
        let mut values: Vec<Option<Arc<Buffer>>> = shapes.iter().map(|_| None).collect();
        let mut input = memory.take(layout.len(&shapes[0]));
        layout.pack(images, shapes[0].iter().product(), &mut input);
        values[0] = Some(Arc::new(input));
        let mut saved = Vec::with_capacity(steps.len());
        for (index, step) in steps.iter().take(*end).enumerate() {
            let start = Instant::now();
            let scales = pass.exponents.as_ref().map(|exponents| exponents.before(step));
            let mut machine = Machine { layout: *layout, shapes, kept, convs, memory, step, scales: scales.as_ref() };
            let (mut out, left) = machine.compute(pass, &mut values);
            let scales = match (&mut pass.exponents, scales) {
                (Some(exponents), Some(scales)) => {
                    Some(exponents.after(step, scales, &mut out).map_err(|e| e.at(format!("layer {:?}", step.layer)))?)
                }
                _ => None,
            };
            saved.push((left, scales));
            if let Some(times) = times {
                times[index][0] += start.elapsed().as_secs_f64();
            }
            let done = stop(&step.layer, &out);
            values[step.output] = Some(out);
            for &slot in &step.release {
                values[slot].take().into_iter().for_each(|value| memory.give_shared(value));
            }
            if done {
                break;
            }
        }
        let logits = match &values[self.output] {
            Some(logits) => self.layout.unpack(logits, self.classes),
            None => Vec::new(),
        };
        Ok(Forward { logits, values, saved, statistics: std::mem::take(&mut pass.statistics) })
    }
}

impl Forward {
    /// Lets the batch's statistics flow into the running ones.
    pub(crate) fn update_statistics(&self, parameters: &mut Parameters) {
        for (index, batch) in &self.statistics {
            for (running, batch) in parameters.statistics[*index].values.iter_mut().zip(batch) {
                running.iter_mut().zip(batch).for_each(|(running, batch)| {
                    *running = *running * (1.0 - STATISTICS_MOMENTUM) + batch * STATISTICS_MOMENTUM;
                });
            }
        }
    }
}

/// How a pass is made.
pub(super) struct Pass<'a> {
    pub parameters: &'a Parameters,
    pub mode: Mode,
    pub hold: Hold<'a>,
    pub statistics: Vec<(usize, [Vec<f32>; 2])>,
    /// Of a flow.
    pub exponents: Option<Exponents>,
}

/// Runs one step.
struct Machine<'a> {
    layout: Layout,
    shapes: &'a [Vec<usize>],
    kept: &'a [bool],
    convs: &'a [super::Conv],
    memory: &'a mut Memory,
    step: &'a Step,
    scales: Option<&'a Scales>,
}

/// An operand's numbers.
pub(super) enum Numbers<'a> {
    Value(Arc<Buffer>),
    Plain(&'a [f32]),
    Scaled(Buffer),
}

impl std::ops::Deref for Numbers<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Numbers::Value(buffer) => buffer,
            Numbers::Plain(slice) => slice,
            Numbers::Scaled(buffer) => buffer,
        }
    }
}

/// Channels of a value of one image, and pixels of each.
pub(super) fn planes(shape: &[usize]) -> (usize, usize) {
    (shape[0], shape[1..].iter().product())
}

/// The numbers of an operand.
pub(super) fn numbers<'a>(operand: &'a Operand, parameters: &'a Parameters, values: &[Option<Arc<Buffer>>]) -> Numbers<'a> {
    match operand {
        Operand::Slot(slot) => Numbers::Value(values[*slot].clone().expect("a program reads a value only while it is alive")),
        Operand::Parameter(index) => Numbers::Plain(&parameters.trained[*index].value),
        Operand::Constant(numbers) => Numbers::Plain(numbers),
    }
}

impl Machine<'_> {
    fn shape(&self) -> &[usize] {
        &self.shapes[self.step.output]
    }

    fn room(&mut self) -> Buffer {
        let len = self.layout.len(&self.shapes[self.step.output]);
        self.memory.take(len)
    }

    /// The numbers of an operand, times its factor in a flow.
    fn numbers<'p>(&mut self, index: usize, pass: &'p Pass, values: &[Option<Arc<Buffer>>]) -> Numbers<'p>
    where
        Self: 'p,
    {
        let found = numbers(&self.step.inputs[index], pass.parameters, values);
        let Some(scales) = self.scales else { return found };
        let mut scaled = Buffer::zeros(found.len());
        scaled.copy_from_slice(&found);
        if matches!(self.step.inputs[index], Operand::Constant(_)) {
            scaled.iter_mut().for_each(|value| *value = value.abs());
        }
        scale(&mut scaled, scales.inputs[index]);
        Numbers::Scaled(scaled)
    }

    /// The first operand, if nobody else will ever read it.
    fn taken(&self, values: &mut [Option<Arc<Buffer>>]) -> Option<Buffer> {
        let Operand::Slot(slot) = self.step.inputs[0] else { return None };
        let free = self.step.release.contains(&slot) && !self.kept[slot] && self.scales.is_none();
        let twice = self.step.inputs[1..].iter().any(|other| matches!(other, Operand::Slot(other) if *other == slot));
        if !free || twice || Arc::strong_count(values[slot].as_ref()?) > 1 {
            return None;
        }
        Arc::try_unwrap(values[slot].take()?).ok()
    }

    fn compute(&mut self, pass: &mut Pass, values: &mut [Option<Arc<Buffer>>]) -> (Arc<Buffer>, Saved) {
        let layout = self.layout;
        match &self.step.instruction {
            Instruction::Same => {
                let x = numbers(&self.step.inputs[0], pass.parameters, values);
                let Numbers::Value(x) = x else { unreachable!("nothing else is handed on") };
                (x, Saved::Nothing)
            }
            Instruction::Unary(op) => self.unary(*op, pass, values),
            Instruction::Binary(op, broadcasts) => {
                let shape = self.shapes[self.step.output].clone();
                let both_plain = broadcasts.len() == 2 && broadcasts.iter().all(binary::Broadcast::is_plain);
                let mut out = match self.taken(values).filter(|_| broadcasts[0].is_plain()) {
                    Some(out) => out,
                    None if *op == BinaryOp::Add && both_plain => {
                        let (a, b) = (self.numbers(0, pass, values), self.numbers(1, pass, values));
                        let mut out = self.room();
                        binary::sum_of_two(&a, &b, &mut out);
                        return (Arc::new(out), Saved::Nothing);
                    }
                    None => {
                        let x = self.numbers(0, pass, values);
                        let mut out = self.room();
                        binary::spread(layout, &shape, &broadcasts[0], &x, &mut out);
                        out
                    }
                };
                for (index, broadcast) in broadcasts.iter().enumerate().skip(1) {
                    let operand = self.numbers(index, pass, values);
                    binary::fold(*op, layout, &shape, broadcast, &operand, &mut out);
                }
                (Arc::new(out), Saved::Nothing)
            }
            Instruction::Concat(axis) => {
                let mut out = self.room();
                let mut first = 0;
                for (index, input) in self.step.inputs.iter().enumerate() {
                    let Operand::Slot(slot) = input else { continue };
                    let x = self.numbers(index, pass, values);
                    remap::put(layout, &self.shapes[*slot], self.shape(), *axis, first, &x, &mut out);
                    first += self.shapes[*slot][*axis];
                }
                (Arc::new(out), Saved::Nothing)
            }
            Instruction::Normalise { .. } => self.normalise(pass, values),
            _ => self.whole(pass, values),
        }
    }

    /// Instructions that read one value and write another of their own.
    fn whole(&mut self, pass: &mut Pass, values: &mut [Option<Arc<Buffer>>]) -> (Arc<Buffer>, Saved) {
        let layout = self.layout;
        let x = numbers(&self.step.inputs[0], pass.parameters, values);
        let mut out = self.room();
        let mut saved = Saved::Nothing;
        match &self.step.instruction {
            Instruction::Conv(index) => {
                let factor = self.scales.map_or(1.0, |scales| scales.shift);
                self.convs[*index].forward(layout, pass.parameters, &x, factor, &mut out);
            }
            Instruction::Remap(maps) => maps.forward(layout, &x, &mut out),
            Instruction::MaxPool(windows) => {
                let places = match pass.hold.kept(self.step.output) {
                    Some(Gate::Maxima(places)) => {
                        windows.picked(layout, &x, &mut out, places);
                        places.clone()
                    }
                    _ => {
                        let mut places = vec![0; out.len()];
                        windows.max(layout, &x, &mut out, &mut places);
                        Arc::new(places)
                    }
                };
                pass.hold.note(self.step.output, || Some(Gate::Maxima(places.clone())));
                saved = Saved::Places(places);
            }
            Instruction::AveragePool(windows) => windows.mean(layout, &x, &mut out),
            Instruction::Mean => {
                let Operand::Slot(slot) = self.step.inputs[0] else { unreachable!("a mean reads a value") };
                pool::image_mean(layout, planes(&self.shapes[slot]).1, &x, &mut out);
            }
            _ => unreachable!("the others are computed elsewhere"),
        }
        (Arc::new(out), saved)
    }

    fn unary(&mut self, op: UnaryOp, pass: &mut Pass, values: &mut [Option<Arc<Buffer>>]) -> (Arc<Buffer>, Saved) {
        // A factor passes through rectifiers, and what bounds them from above is left out of a flow.
        let op = match (self.scales, op) {
            (Some(_), UnaryOp::Clamp { .. }) => UnaryOp::Relu,
            _ => op,
        };
        if pass.hold.is_free()
            && let Some(mut out) = self.taken(values)
        {
            unary::forward_in_place(op, &mut out);
            return (Arc::new(out), Saved::Unary(op));
        }
        let x = numbers(&self.step.inputs[0], pass.parameters, values);
        let mut out = self.room();
        if let Some(Gate::Line(line)) = pass.hold.kept(self.step.output) {
            unary::forward_line(line, &x, &mut out);
            return (Arc::new(out), Saved::Line(line.clone()));
        }
        unary::forward(op, &x, &mut out);
        pass.hold.note(self.step.output, || Line::of(op, &x).map(|line| Gate::Line(Arc::new(line))));
        (Arc::new(out), Saved::Unary(op))
    }

    fn normalise(&mut self, pass: &mut Pass, values: &[Option<Arc<Buffer>>]) -> (Arc<Buffer>, Saved) {
        let Instruction::Normalise { statistics, relu, .. } = self.step.instruction else { unreachable!("only of these") };
        let x = numbers(&self.step.inputs[0], pass.parameters, values);
        let mut out = self.room();
        let free = pass.hold.is_free();
        let shift = self.scales.map_or(1.0, |scales| scales.shift);
        let norm = norm(self.step, self.shape(), self.layout, pass.parameters, pass.mode, shift, free);
        let channels = norm.forward(&x, &mut out);
        if pass.mode == Mode::Training {
            // torch keeps the variance with divisor n - 1.
            let count = (self.layout.images * norm.pixels) as f64;
            let unbiased = count / (count - 1.0).max(1.0);
            let of = |value: &dyn Fn(&Channel) -> f64| channels.iter().map(|channel| value(channel) as f32).collect();
            let batch = [of(&|channel| channel.mean), of(&|channel| channel.variance * unbiased)];
            pass.statistics.push((statistics, batch));
        }
        if !relu || free {
            return (Arc::new(out), Saved::Norm(channels));
        }
        // Where gates are held, the activation behind is one of them.
        let line = match pass.hold.kept(self.step.output) {
            Some(Gate::Line(line)) => line.clone(),
            _ => Arc::new(Line::of(UnaryOp::Relu, &out).expect("a rectifier is piecewise linear")),
        };
        let mut held = self.room();
        unary::forward_line(&line, &out, &mut held);
        self.memory.give(out);
        pass.hold.note(self.step.output, || Some(Gate::Line(line.clone())));
        (Arc::new(held), Saved::NormLine(channels, line))
    }
}

/// The normalisation of a step whose value has this shape.
pub(super) fn norm<'p>(
    step: &Step,
    shape: &[usize],
    layout: Layout,
    parameters: &'p Parameters,
    mode: Mode,
    shift: f32,
    with_relu: bool,
) -> Norm<'p> {
    let Instruction::Normalise { gamma, beta, statistics, epsilon, relu } = step.instruction else {
        unreachable!("only of these")
    };
    let (channels, pixels) = planes(shape);
    let [mean, variance] = &parameters.statistics[statistics].values;
    Norm {
        layout,
        channels,
        pixels,
        gamma: &parameters.trained[gamma].value,
        beta: &parameters.trained[beta].value,
        running: (mode == Mode::Evaluation).then_some([&mean[..], &variance[..]]),
        epsilon,
        relu: relu && with_relu,
        shift,
    }
}
