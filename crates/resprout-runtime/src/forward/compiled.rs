//! From a plan to programs on lines, with single steps between where lines cannot be used.

use super::network::{fill, fixed_batch};
use super::{Plan, Slots, Step};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::ops::remap::Remap;
use crate::ops::{BinaryOp, Compute};
use crate::tensor::Tensor;
use resprout_kernels::engine::{Arena, Blocking, Builder, Convolution, Paths, Program, ThreadPool, Value};
use resprout_kernels::{Activation, ConvShape, Isa};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How many arenas so many images are run in, of which some run together: one for each thread, where there are enough of them
/// for all, and otherwise one, in which all threads share each operation.
pub(crate) fn workers(images: usize, microbatch: usize, threads: usize) -> usize {
    if images.div_ceil(microbatch) >= threads { threads } else { 1 }
}

/// A network for a number of images that run together.
pub(crate) struct Compiled {
    pub plan: Plan,
    pub microbatch: usize,
    isa: Isa,
    /// Threads that operations are cut for, and the ways to compute convolutions that may be chosen.
    pub sharing: usize,
    paths: Paths,
    /// The layer of each step.
    names: Vec<String>,
    segments: Vec<Segment>,
}

/// The same network for the calling thread alone: where several share each operation, the work is cut for them.
pub(crate) struct SingleThreaded {
    segments: Vec<Segment>,
    arenas: Vec<Arena>,
}

enum Segment {
    Program {
        program: Box<Program>,
        inputs: Vec<usize>,
        outputs: Vec<(usize, Vec<usize>)>,
    },
    /// A step of the plan, by its number.
    Step(usize),
}

impl Compiled {
    /// `plan` is one of the model's, or a part of one; so many threads are to share each operation.
    pub fn new(model: &Model, plan: Plan, isa: Isa, sharing: usize) -> Result<Compiled> {
        let microbatch = plan.input_shape.first().copied().unwrap_or(0);
        if plan.input_shape.first() != fixed_batch(model).as_ref() || microbatch > 1 || !plan.keeps_count() {
            plan.check_apart(model, &model.graph.outputs)?;
        }
        let names: Vec<String> = plan.steps.iter().map(|step| model.graph.layers[step.layer].name.clone()).collect();
        let segments = Compiler::new(&names, &plan, isa, microbatch, sharing).segments()?;
        Ok(Compiled { plan, microbatch, isa, sharing, paths: Paths::Any, names, segments })
    }

    /// Keeps to these paths.
    pub fn restrict(&mut self, paths: Paths) {
        self.paths = paths;
        restrict(&mut self.segments, paths);
    }

    /// The same for one thread.
    pub fn single_threaded(&self) -> Result<SingleThreaded> {
        let mut segments = Compiler::new(&self.names, &self.plan, self.isa, self.microbatch, 1).segments()?;
        restrict(&mut segments, self.paths);
        let arenas = programs(&segments).map(Program::arena).collect();
        Ok(SingleThreaded { segments, arenas })
    }

    /// Whether nearly all images go through lines: each step between two programs costs a way out and in.
    pub fn is_worth_it(&self) -> bool {
        let convs: usize = self.programs().map(|program| program.blockings().len()).sum();
        let apart = |segment: &Segment| matches!(segment, Segment::Step(index) if self.plan.steps[*index].shape.len() == 4);
        convs > 0 && self.segments.iter().filter(|segment| apart(segment)).count() * 8 <= convs
    }

    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        programs(&self.segments)
    }

    pub fn programs_mut(&mut self) -> impl Iterator<Item = &mut Program> {
        programs_mut(&mut self.segments)
    }

    /// Memory for one run at a time: an arena for each program.
    pub fn arenas(&self) -> Vec<Arena> {
        self.programs().map(Program::arena).collect()
    }

    /// How many arenas so many images are run in.
    pub fn workers(&self, images: usize, threads: usize) -> usize {
        workers(images, self.microbatch, threads)
    }

    /// Tries ways to cut every convolution for batches of so many images, within about `limit` for each of them; returns of
    /// each the fastest that was found on the dense path.
    pub fn tune(&mut self, pool: &mut ThreadPool, batch: usize, limit: Duration, paths: Paths) -> Vec<Blocking> {
        let workers = self.workers(batch, pool.threads());
        let mut dense = Vec::new();
        for program in self.programs_mut() {
            let mut arenas: Vec<Arena> = (0..workers).map(|_| program.arena()).collect();
            let convs = u32::try_from(program.blockings().len()).unwrap_or(u32::MAX);
            dense.extend(program.tune(&mut arenas, pool, limit * convs, paths));
        }
        dense
    }

    /// Runs up to [`together`](Self::together) images, alone or with a pool; `outputs` have room for what comes out of so many.
    pub fn run(&self, images: &[f32], arenas: &mut [Arena], pool: Option<&mut ThreadPool>, outputs: &mut [&mut [f32]]) {
        self.run_segments(&self.segments, images, arenas, pool, outputs);
    }

    /// The same, alone.
    pub fn run_single_threaded(&self, single_threaded: &mut SingleThreaded, images: &[f32], outputs: &mut [&mut [f32]]) {
        self.run_segments(&single_threaded.segments, images, &mut single_threaded.arenas, None, outputs);
    }

    fn run_segments(
        &self,
        segments: &[Segment],
        images: &[f32],
        arenas: &mut [Arena],
        mut pool: Option<&mut ThreadPool>,
        outputs: &mut [&mut [f32]],
    ) {
        if images.len() == self.plan.input_shape.iter().product::<usize>()
            && let (Some(program), [arena]) = (self.only_program(segments), &mut *arenas)
        {
            return run_program(program, arena, pool, &[images], outputs);
        }
        let mut slots = self.start(images);
        let mut arenas = arenas.iter_mut();
        for segment in segments {
            match segment {
                Segment::Step(index) => self.run_step(*index, &mut slots),
                Segment::Program { program, inputs, outputs } => {
                    let Some(arena) = arenas.next() else { continue };
                    self.with_buffers(inputs, outputs, &mut slots, |inputs, outputs| {
                        run_program(program, arena, pool.as_deref_mut(), inputs, outputs);
                    });
                }
            }
        }
        fill(outputs, &self.plan.results(&mut slots));
    }

    /// The program that reads the images and writes the only output, if there is nothing else.
    fn only_program<'s>(&self, segments: &'s [Segment]) -> Option<&'s Program> {
        match segments {
            [Segment::Program { program, inputs, outputs }] => {
                (inputs[..] == [0] && outputs.len() == 1 && self.plan.result_shapes.len() == 1).then_some(program)
            }
            _ => None,
        }
    }

    /// A last, shorter chunk is filled up with zeros.
    fn start(&self, images: &[f32]) -> Slots {
        let mut slots = Slots::default();
        let mut input = slots.take(&self.plan.input_shape);
        input.data[..images.len()].copy_from_slice(images);
        self.plan.start(&mut slots, input);
        slots
    }

    fn run_step(&self, index: usize, slots: &mut Slots) {
        let step = &self.plan.steps[index];
        step.run(&step.compute, slots, self.isa, false);
    }

    fn with_buffers(
        &self,
        inputs: &[usize],
        outputs: &[(usize, Vec<usize>)],
        slots: &mut Slots,
        work: impl FnOnce(&[&[f32]], &mut [&mut [f32]]),
    ) {
        let mut results: Vec<Tensor> = outputs.iter().map(|(_, shape)| slots.take(shape)).collect();
        {
            let inputs: Vec<&[f32]> = inputs.iter().map(|&slot| slots.get(slot).data.as_slice()).collect();
            let mut views: Vec<&mut [f32]> = results.iter_mut().map(|result| result.data.as_mut_slice()).collect();
            work(&inputs, &mut views);
        }
        outputs.iter().zip(results).for_each(|((slot, _), tensor)| slots.put(*slot, tensor));
    }

    /// The least time of every operation in batches of so many images.
    pub fn time(&self, pool: &mut ThreadPool, batch: usize, runs: usize) -> Vec<LayerTime> {
        let workers = self.workers(batch, pool.threads());
        let images = vec![0.5; self.plan.input_shape.iter().product()];
        let mut slots = self.start(&images);
        let mut all = Vec::new();
        for segment in &self.segments {
            match segment {
                Segment::Step(index) => {
                    let start = Instant::now();
                    self.run_step(*index, &mut slots);
                    let name = format!("step {index}");
                    let (images, seconds) = (self.microbatch, start.elapsed().as_secs_f64());
                    all.push(LayerTime { name, images, seconds, macs: None, density: None });
                }
                Segment::Program { program, inputs, outputs } => {
                    let mut arenas: Vec<Arena> = (0..workers).map(|_| program.arena()).collect();
                    let mut seconds = Vec::new();
                    self.with_buffers(inputs, outputs, &mut slots, |inputs, outputs| {
                        seconds = program.time(&mut arenas, pool, inputs, outputs, runs.max(1));
                    });
                    let work = program.work();
                    all.extend(program.names().zip(seconds).map(|((name, conv), seconds)| LayerTime {
                        name: name.into(),
                        images: workers * self.microbatch,
                        seconds,
                        macs: conv.map(|conv| workers as u64 * work[conv].0),
                        density: conv.map(|conv| work[conv].1),
                    }));
                }
            }
        }
        self.plan.results(&mut slots);
        all
    }
}

fn programs(segments: &[Segment]) -> impl Iterator<Item = &Program> {
    segments.iter().filter_map(|segment| match segment {
        Segment::Program { program, .. } => Some(&**program),
        Segment::Step(_) => None,
    })
}

fn programs_mut(segments: &mut [Segment]) -> impl Iterator<Item = &mut Program> {
    segments.iter_mut().filter_map(|segment| match segment {
        Segment::Program { program, .. } => Some(&mut **program),
        Segment::Step(_) => None,
    })
}

fn restrict(segments: &mut [Segment], paths: Paths) {
    if paths != Paths::Any {
        programs_mut(segments).for_each(|program| program.apply(&program.default_blockings(paths)));
    }
}

fn run_program(
    program: &Program,
    arena: &mut Arena,
    pool: Option<&mut ThreadPool>,
    inputs: &[&[f32]],
    outputs: &mut [&mut [f32]],
) {
    match pool {
        Some(pool) => program.run(arena, pool, inputs, outputs),
        None => program.run_alone(arena, inputs, outputs),
    }
}

/// Images that run together have at most so many elements; a larger one fills lanes and caches alone.
const SMALL_IMAGE: usize = 16 * 1024;

/// How many images of shape `[C, H, W]` are best run together, up to `most`.
pub(crate) fn default_microbatch(image: &[usize], most: usize) -> usize {
    if image.iter().product::<usize>() <= SMALL_IMAGE { most } else { 1 }
}

/// A value that is in lines now.
#[derive(Clone, Copy)]
struct Known {
    value: Value,
    /// Whether all elements are 0 or more.
    not_negative: bool,
}

/// A program in the making.
struct Open {
    builder: Builder,
    inputs: Vec<usize>,
    /// By slot.
    known: HashMap<usize, Known>,
}

struct Compiler<'a> {
    names: &'a [String],
    plan: &'a Plan,
    isa: Isa,
    microbatch: usize,
    /// Threads that share each operation.
    sharing: usize,
    segments: Vec<Segment>,
    open: Option<Open>,
    /// The step that is looked at.
    current: usize,
    /// Sums that are computed by the convolution before them: number of the convolution's step, the other summand.
    absorbed: HashMap<usize, (usize, usize)>,
    /// For each slot, the last step that reads it; outputs are read at the very end.
    last_read: HashMap<usize, usize>,
    shapes: HashMap<usize, Vec<usize>>,
}

impl<'a> Compiler<'a> {
    fn new(names: &'a [String], plan: &'a Plan, isa: Isa, microbatch: usize, sharing: usize) -> Compiler<'a> {
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
            absorbed: absorbed(plan),
            last_read,
            shapes,
        }
    }

    /// Compiles the plan.
    fn segments(mut self) -> Result<Vec<Segment>> {
        if self.plan.continues {
            // What the steps before had in lines goes on in lines, as it would without a cut.
            self.known(0);
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
        if self.absorbed.values().any(|(sum, _)| *sum == index) {
            return Ok(());
        }
        if self.lines(index, step).is_some() {
            return Ok(());
        }
        // A step of its own needs what the open program computes, and gives up what nobody reads later.
        let waits = |slot: usize, open: &Open| {
            open.known.contains_key(&slot) && (!open.inputs.contains(&slot) || self.last_read.get(&slot) == Some(&index))
        };
        if self.open.as_ref().is_some_and(|open| step.input_slots().any(|slot| waits(slot, open))) {
            self.close()?;
        }
        self.segments.push(Segment::Step(index));
        Ok(())
    }

    /// Ends the open program: what is read later goes out.
    fn close(&mut self) -> Result<()> {
        let Some(Open { mut builder, inputs, known }) = self.open.take() else { return Ok(()) };
        if known.len() == inputs.len() {
            return Ok(());
        }
        let done = |slot: &usize| self.is_out(*slot) || inputs.contains(slot);
        let mut wanted: Vec<usize> = known.keys().copied().filter(|slot| !done(slot) && self.is_wanted(*slot)).collect();
        wanted.sort_unstable();
        let outputs = wanted.into_iter().map(|slot| {
            builder.output(known[&slot].value);
            (slot, self.shapes[&slot].clone())
        });
        let outputs: Vec<_> = outputs.collect();
        let program = builder.finish().ok_or_else(|| Error::unsupported("a value is too large for the fast kernels"))?;
        self.segments.push(Segment::Program { program: Box::new(program), inputs, outputs });
        Ok(())
    }

    /// Whether the slot is out already: by an earlier program or a step of its own.
    fn is_out(&self, slot: usize) -> bool {
        self.segments.iter().any(|segment| match segment {
            Segment::Program { outputs, .. } => outputs.iter().any(|(out, _)| *out == slot),
            Segment::Step(index) => self.plan.steps[*index].output() == slot,
        })
    }

    /// Whether a step that is still to come reads the slot, or it is a result.
    fn is_wanted(&self, slot: usize) -> bool {
        self.last_read.get(&slot).is_some_and(|last| *last >= self.current)
    }

    /// The value of a slot in the open program; it comes in from outside if need be.
    fn known(&mut self, slot: usize) -> Option<Known> {
        let shape = self.shapes.get(&slot)?;
        let (channels, size) = match shape[..] {
            [_, channels, height, width] => (channels, [height, width]),
            [_, features] => (features, [1, 1]),
            _ => return None,
        };
        if shape[0] != self.microbatch || shape.contains(&0) {
            return None;
        }
        let (kernel, microbatch, sharing) = (self.isa, self.microbatch, self.sharing);
        let open = self.open.get_or_insert_with(|| Open {
            builder: Builder::new(kernel, microbatch, sharing),
            inputs: Vec::new(),
            known: HashMap::new(),
        });
        if let Some(known) = open.known.get(&slot) {
            return Some(*known);
        }
        let known = Known { value: open.builder.input(channels, size), not_negative: false };
        open.inputs.push(slot);
        open.known.insert(slot, known);
        Some(known)
    }

    fn set(&mut self, slot: usize, value: Value, not_negative: bool) {
        if let Some(open) = &mut self.open {
            open.known.insert(slot, Known { value, not_negative });
        }
    }

    /// Adds the step to the open program; `None` if lines cannot do it.
    fn lines(&mut self, index: usize, step: &Step) -> Option<()> {
        let name = self.names[index].as_str();
        match &step.compute {
            Compute::Conv(conv) => {
                if !Builder::knows(conv.shape()) || step.shape[0] != self.microbatch {
                    return None;
                }
                self.conv(index, name, step, (conv.shape().clone(), conv.weight(), conv.bias(), conv.activation()))
            }
            Compute::Linear { packed, trans_a: None } if step.shape.len() == 2 && step.shape[0] == self.microbatch => {
                let [inputs, outputs] = packed.size();
                let slot = step.first_input()?;
                // Only where the lines are there already, or most weights are not.
                let weight = packed.weight();
                let nonzero = weight.iter().filter(|w| **w != 0.0).count();
                let in_lines = self.open.as_ref().is_some_and(|open| open.known.contains_key(&slot));
                if self.shapes[&slot].iter().skip(1).product::<usize>() != inputs || !(in_lines || nonzero * 4 < weight.len()) {
                    return None;
                }
                let shape = ConvShape::pointwise(inputs, [1, 1], outputs);
                self.conv(index, name, step, (shape, &weight, packed.bias(), packed.activation()))
            }
            Compute::Affine { scale, shift, activation } if step.shape.len() == 4 => {
                let from = self.known(step.first_input()?)?;
                let value = self.open.as_mut()?.builder.affine(name, from.value, scale, shift, *activation);
                self.set(step.output(), value, is_not_negative(*activation));
                Some(())
            }
            Compute::Unary(op) if step.shape.len() == 4 => {
                let activation = op.as_activation()?;
                let from = self.known(step.first_input()?)?;
                let builder = &mut self.open.as_mut()?.builder;
                let ones = vec![1.0; builder.shape(from.value)[0]];
                let value = builder.affine(name, from.value, &ones, &vec![0.0; ones.len()], activation);
                self.set(step.output(), value, is_not_negative(activation));
                Some(())
            }
            Compute::Binary { op: BinaryOp::Add, activation } => {
                let [a, b] = step.two_slots()?;
                if self.shapes[&a] != self.shapes[&b] || self.shapes[&a].len() != 4 {
                    return None;
                }
                let (a, b) = (self.known(a)?, self.known(b)?);
                let value = self.open.as_mut()?.builder.add(name, a.value, b.value, *activation);
                self.set(step.output(), value, is_not_negative(*activation) || (a.not_negative && b.not_negative));
                Some(())
            }
            Compute::Concat(1) if step.shape.len() == 4 => {
                let slots: Vec<usize> = step.input_slots().collect();
                let channels: usize = slots.iter().map(|slot| self.shapes[slot][1]).sum();
                if channels != step.shape[1] {
                    return None;
                }
                let parts: Option<Vec<Known>> = slots.into_iter().map(|slot| self.known(slot)).collect();
                let parts = parts?;
                let values: Vec<Value> = parts.iter().map(|part| part.value).collect();
                let value = self.open.as_mut()?.builder.concat(name, &values);
                self.set(step.output(), value, parts.iter().all(|part| part.not_negative));
                Some(())
            }
            Compute::Pool(pool) => {
                let slot = step.first_input()?;
                let not_negative =
                    self.open.as_ref().and_then(|open| open.known.get(&slot)).is_some_and(|known| known.not_negative);
                let window = pool.plain(not_negative)?;
                let from = self.known(slot)?;
                let builder = &mut self.open.as_mut()?.builder;
                let value = builder.pool(name, from.value, window.kernel, window.stride, window.pads, window.output, window.mean);
                self.set(step.output(), value, from.not_negative);
                Some(())
            }
            Compute::Mean(axes) if axes[..] == [2, 3] => {
                let slot = step.first_input()?;
                let from = self.open.as_ref()?.known.get(&slot).copied()?;
                let value = self.open.as_mut()?.builder.mean(name, from.value);
                self.set(step.output(), value, from.not_negative);
                Some(())
            }
            Compute::Remap(remap, fill) => {
                let slot = step.first_input()?;
                // Alone it is done faster where it is.
                self.open.as_ref()?.known.get(&slot)?;
                let (shape, weight) = as_conv(remap, *fill, &self.shapes[&slot], &step.shape)?;
                self.conv(index, name, step, (shape, &weight, &[], Activation::None))
            }
            // One pixel for each channel: the same lines.
            Compute::Reshape => {
                let slot = step.first_input()?;
                let known = *self.open.as_ref()?.known.get(&slot)?;
                let pixel = matches!(self.shapes[&slot][..], [_, _, 1, 1]) || self.shapes[&slot].len() == 2;
                let same = pixel && step.shape.len() == 2 && step.shape[1] == self.shapes[&slot][1];
                same.then(|| self.set(step.output(), known.value, known.not_negative))
            }
            _ => None,
        }
    }

    /// A convolution, with the sum behind it if it takes that in.
    fn conv(&mut self, index: usize, name: &str, step: &Step, parts: (ConvShape, &[f32], &[f32], Activation)) -> Option<()> {
        let (shape, weight, bias, mut activation) = parts;
        let from = self.known(step.first_input()?)?;
        let mut output = step.output();
        let mut added = None;
        if let Some(&(sum, other)) = self.absorbed.get(&index) {
            added = Some(self.known(other)?.value);
            let sum = &self.plan.steps[sum];
            output = sum.output();
            if let Compute::Binary { activation: behind, .. } = &sum.compute {
                activation = *behind;
            }
        }
        let convolution = Convolution { shape, weight, bias, activation, added };
        let value = self.open.as_mut()?.builder.conv(name, from.value, convolution);
        self.set(output, value, is_not_negative(activation));
        Some(())
    }
}

/// A slice of channels or of every second pixel, or a border of zeros, as a convolution that copies.
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

/// Sums of which one summand is a convolution that nothing else reads and that comes later than the other: by the number of
/// the convolution's step, the number of the sum's and the other summand's slot.
fn absorbed(plan: &Plan) -> HashMap<usize, (usize, usize)> {
    let writer: HashMap<usize, usize> = plan.steps.iter().enumerate().map(|(index, step)| (step.output(), index)).collect();
    let mut readers: HashMap<usize, usize> = HashMap::new();
    plan.steps.iter().flat_map(Step::input_slots).for_each(|slot| *readers.entry(slot).or_insert(0) += 1);
    let mut found = HashMap::new();
    for (index, step) in plan.steps.iter().enumerate() {
        let (Compute::Binary { op: BinaryOp::Add, .. }, Some([a, b])) = (&step.compute, step.two_slots()) else { continue };
        let shape = |slot: usize| writer.get(&slot).map_or(&plan.input_shape, |&index| &plan.steps[index].shape);
        if a == b || shape(a) != shape(b) || shape(a).len() != 4 {
            continue;
        }
        let place = |slot: usize| writer.get(&slot).copied();
        let (conv, other) = if place(a) > place(b) { (a, b) } else { (b, a) };
        let Some(at) = place(conv) else { continue };
        // Of another number of images, the convolution itself is not on lines.
        let microbatch = plan.steps[at].shape[0] == plan.input_shape[0];
        let plain = microbatch
            && matches!(&plan.steps[at].compute, Compute::Conv(conv)
                if conv.activation() == Activation::None && Builder::knows(conv.shape()));
        // A convolution that takes two sums in would lose one of them.
        if plain && readers[&conv] == 1 && !plan.is_result(conv) && !found.contains_key(&at) {
            found.insert(at, (index, other));
        }
    }
    found
}

/// The time of one operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerTime {
    /// The layer's name.
    pub name: String,
    /// Images that were computed in that time: those of all threads, where each runs its own.
    pub images: usize,
    /// The least of several runs.
    pub seconds: f64,
    /// Multiply-accumulates with weights that are not zero.
    pub macs: Option<u64>,
    /// Share of the weights that are not zero.
    pub density: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::PlanOptions;
    use crate::testing::Net;

    #[test]
    fn what_a_program_reads_outlives_a_step_beside_it() {
        let mut net = Net::default();
        // Of values that may be negative, a pool with a border is a step of its own; it is the last to read the images.
        let left = net.conv("input", "conv", [3, 3, 3, 3], 1, true);
        let right = net.max_pool("input", "pool");
        let sum = net.add(&left, &right, "sum");
        let model = net.classify(&sum, 3, [3, 16, 16], 4);
        let plan = || Plan::new(&model, &[2, 3, 16, 16], &PlanOptions::default()).unwrap();
        let images = Tensor::new(vec![2, 3, 16, 16], (0..1536).map(|i| (i as f32 * 0.37).sin() - 0.5).collect());
        let expected = plan().run(images.clone(), &mut Slots::default(), Isa::best(), false).swap_remove(0);
        let compiled = Compiled::new(&model, plan(), Isa::best(), 1).unwrap();
        let mut result = vec![0.0; 8];
        compiled.run(&images.data, &mut compiled.arenas(), None, &mut [&mut result]);
        assert_eq!(expected.shape, [2, 4]);
        // The twin of what is cut for three threads is the same.
        let shared = Compiled::new(&model, plan(), Isa::best(), 3).unwrap();
        let mut alone = vec![0.0; 8];
        shared.run_single_threaded(&mut shared.single_threaded().unwrap(), &images.data, &mut [&mut alone]);
        assert_eq!(alone, result);
        // The same sums in another order.
        assert!(result.iter().zip(&expected.data).all(|(a, b)| (a - b).abs() < 1e-5), "{result:?} {expected:?}");
    }
}
