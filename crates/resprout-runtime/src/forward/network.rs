//! Any number of images through a plan for a small chunk of them.

use super::compiled::{Compiled, default_microbatch};
use super::{Plan, PlanOptions, Slots};
use crate::error::{Error, Result};
use crate::model::{Dim, Model};
use crate::tensor::Tensor;
use rayon::prelude::*;
use resprout_kernels::Isa;
use resprout_kernels::engine::{Arena, LANES};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The largest value of a chunk should fit the second-level cache beside another one.
const CHUNK_BYTES: usize = 512 * 1024;
/// More images than this at once bring nothing.
const LARGEST_CHUNK: usize = 16;

/// A model ready to run on images of one size. Results do not depend on the number of threads: the
/// chunk is chosen from the model and the image size alone.
pub struct Network {
    engine: Engine,
    isa: Isa,
}

enum Engine {
    /// Compiled to programs on lines, with zero weights left out.
    Compiled { compiled: Box<Compiled>, arenas: Mutex<Vec<Vec<Arena>>> },
    /// Step by step.
    Steps { plan: Box<Plan>, spaces: Mutex<Vec<Slots>> },
}

impl Network {
    /// Prepares `model` for images of shape `[C, H, W]`.
    pub fn new(model: &Model, image: &[usize], options: &PlanOptions) -> Result<Network> {
        let isa = Isa::best();
        if let Some(compiled) = compile(model, image, isa, options) {
            let engine = Engine::Compiled { compiled: Box::new(compiled), arenas: Mutex::default() };
            return Ok(Network { engine, isa });
        }
        let plan = plan_chunk(model, image, options)?;
        let names = [&model.graph.outputs[..], &options.taps].concat();
        match plan.check_apart(model, &names) {
            // A batch that the model fixes may be mixed.
            Err(_) if plan.mixer.is_some() && fixed_batch(model).is_some() && plan.keeps_count() => {}
            result => result?,
        }
        Ok(Network { engine: Engine::Steps { plan: Box::new(plan), spaces: Mutex::default() }, isa })
    }

    /// The plan for one chunk.
    pub fn plan(&self) -> &Plan {
        match &self.engine {
            Engine::Compiled { compiled, .. } => &compiled.plan,
            Engine::Steps { plan, .. } => plan,
        }
    }

    /// Runs `images: [N, C, H, W]` on the threads of the current rayon pool; returns the outputs and
    /// then the taps, each with `N` as its first axis.
    pub fn run(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let plan = self.plan();
        if images.shape.get(1..) != plan.input_shape.get(1..) {
            return Err(Error::data(format!("images of shape {:?}, prepared for {:?}", images.shape, plan.input_shape)));
        }
        let count = images.shape[0];
        if plan.mixer.is_some() && !count.is_multiple_of(plan.input_shape[0]) {
            let batch = plan.input_shape[0];
            return Err(Error::data(format!(
                "{count} images, but the model mixes those of a batch: a multiple of {batch} is needed"
            )));
        }
        let image_len: usize = images.shape[1..].iter().product();
        let mut outputs = room(&plan.result_shapes, count);
        let microbatch = plan.input_shape[0];
        let chunks = images.data.par_chunks((microbatch * image_len).max(1));
        let spread = chunks.len() < rayon::current_num_threads();
        chunks.zip(parts(&mut outputs, microbatch)).for_each(|(images, part)| self.run_chunk(images, spread, part));
        Ok(outputs)
    }

    fn run_chunk(&self, images: &[f32], spread: bool, mut outputs: Vec<&mut [f32]>) {
        match &self.engine {
            Engine::Steps { plan, spaces } => fill(&mut outputs, &self.run_steps(plan, spaces, images, spread)),
            Engine::Compiled { compiled, arenas } => {
                let mut own = lock(arenas).pop().unwrap_or_else(|| compiled.arenas());
                compiled.run(images, &mut own, None, &mut outputs);
                lock(arenas).push(own);
            }
        }
    }

    /// A last, shorter chunk is filled up with zeros.
    fn run_steps(&self, plan: &Plan, spaces: &Mutex<Vec<Slots>>, images: &[f32], spread: bool) -> Vec<Tensor> {
        let mut slots = lock(spaces).pop().unwrap_or_default();
        let mut input = slots.take(&plan.input_shape);
        input.data[..images.len()].copy_from_slice(images);
        input.data[images.len()..].fill(0.0);
        let results = plan.run(input, &mut slots, self.isa, spread);
        lock(spaces).push(slots);
        results
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The network on lines, if nearly all of it can be.
fn compile(model: &Model, image: &[usize], isa: Isa, options: &PlanOptions) -> Option<Compiled> {
    let microbatch = match fixed_batch(model) {
        Some(1) => 1,
        Some(_) => return None,
        None => default_microbatch(image, LANES),
    };
    let plan = Plan::new(model, &[&[microbatch], image].concat(), options).ok()?;
    Compiled::new(model, plan, isa, 1).ok().filter(Compiled::is_worth_it)
}

/// ElementBudget for what comes out of so many images.
pub(crate) fn room(shapes: &[Vec<usize>], count: usize) -> Vec<Tensor> {
    let one = |shape: &Vec<usize>| {
        let shape = [&[count], &shape[1..]].concat();
        let data = vec![0.0; shape.iter().product()];
        Tensor::new(shape, data)
    };
    shapes.iter().map(one).collect()
}

/// Copies what came out of a chunk to where it belongs, without what a last, shorter one was filled up with.
pub(super) fn fill(outputs: &mut [&mut [f32]], results: &[Tensor]) {
    outputs.iter_mut().zip(results).for_each(|(output, result)| output.copy_from_slice(&result.data[..output.len()]));
}

/// For chunks of so many images, the part of every output that each has to fill; the last can be shorter.
pub(crate) fn parts(outputs: &mut [Tensor], microbatch: usize) -> Vec<Vec<&mut [f32]>> {
    let count = outputs.first().map_or(0, |output| output.shape[0]);
    let mut parts: Vec<Vec<&mut [f32]>> = (0..count.div_ceil(microbatch)).map(|_| Vec::new()).collect();
    for output in outputs {
        let each = microbatch * output.shape[1..].iter().product::<usize>();
        let mut rest = output.data.as_mut_slice();
        for part in &mut parts {
            let (first, others) = rest.split_at_mut(each.min(rest.len()));
            part.push(first);
            rest = others;
        }
    }
    parts
}

/// Plans `model` for as many images of shape `[C, H, W]` as are best run together.
pub fn plan_chunk(model: &Model, image: &[usize], options: &PlanOptions) -> Result<Plan> {
    let plan = Plan::new(model, &with_batch(model, image), options)?;
    let chunk = chunk_size(model, &plan);
    if chunk == plan.input_shape[0] { Ok(plan) } else { Plan::new(model, &[&[chunk], image].concat(), options) }
}

/// One image, or the batch that the model insists on.
pub fn with_batch(model: &Model, image: &[usize]) -> Vec<usize> {
    [&[fixed_batch(model).unwrap_or(1)], image].concat()
}

/// The batch size that the model insists on.
pub fn fixed_batch(model: &Model) -> Option<usize> {
    match model.graph.inputs.first().and_then(|input| input.shape.first()) {
        Some(Dim::Fixed(batch)) => Some(*batch),
        _ => None,
    }
}

fn chunk_size(model: &Model, plan: &Plan) -> usize {
    if let Some(batch) = fixed_batch(model) {
        return batch;
    }
    let largest = plan.steps.iter().map(|step| step.shape.iter().product::<usize>() * 4).max().unwrap_or(1);
    (CHUNK_BYTES / largest.max(1)).clamp(1, LARGEST_CHUNK)
}
