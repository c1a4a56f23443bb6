//! Runs any number of images through a plan for a small chunk of them.

use super::batch::{chunk_outputs, copy_results, default_microbatch, fixed_batch, output_tensors, with_batch};
use super::compiled::Compiled;
use super::{Plan, PlanOptions, Slots};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::tensor::Tensor;
use rayon::prelude::*;
use resprout_kernels::Isa;
use resprout_kernels::engine::{Arena, LANES};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Two values of this size fit the second-level cache: the largest one of a chunk, and another one.
const CHUNK_BYTES: usize = 512 * 1024;
/// Larger chunks are no faster.
const LARGEST_CHUNK: usize = 16;

/// A model ready to run on images of one size. Results do not depend on the number of threads: the model and the image
/// size alone determine the chunk, which is the images that run together.
pub struct Network {
    engine: Engine,
    isa: Isa,
}

enum Engine {
    /// Programs of the sparse engine, which leave zero weights out.
    Compiled { compiled: Box<Compiled>, arenas: Mutex<Vec<Vec<Arena>>> },
    /// The steps of a plan, one after another.
    Steps { plan: Box<Plan>, spaces: Mutex<Vec<Slots>> },
}

impl Network {
    /// Prepares `model` for images of shape `[C, H, W]`.
    ///
    /// # Errors
    /// As [`Plan::new`], and of kind `Unsupported` for a network that mixes the images of a batch without fixing its size.
    pub fn new(model: &Model, image: &[usize], options: &PlanOptions) -> Result<Network> {
        let isa = Isa::best();
        if let Some(compiled) = compile(model, image, isa, options) {
            let engine = Engine::Compiled { compiled: Box::new(compiled), arenas: Mutex::default() };
            return Ok(Network { engine, isa });
        }
        let plan = plan_chunk(model, image, options)?;
        let names = [&model.graph.outputs[..], &options.taps].concat();
        match plan.check_independent(model, &names) {
            // A model may mix the images of a batch whose size it fixes.
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

    /// Runs `images: [N, C, H, W]` on the threads of the current rayon pool. Returns the outputs and then the values of
    /// [`PlanOptions::taps`], each with `N` as its first axis.
    ///
    /// # Errors
    /// Of kind `Data` for images of another shape.
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
        let mut outputs = output_tensors(&plan.result_shapes, count);
        let microbatch = plan.input_shape[0];
        let chunks = images.data.par_chunks((microbatch * image_len).max(1));
        let parallel = chunks.len() < rayon::current_num_threads();
        chunks.zip(chunk_outputs(&mut outputs, microbatch)).for_each(|(images, part)| self.run_chunk(images, parallel, part));
        Ok(outputs)
    }

    /// `parallel`: whether the threads share each operation of a chunk.
    fn run_chunk(&self, images: &[f32], parallel: bool, mut outputs: Vec<&mut [f32]>) {
        match &self.engine {
            Engine::Steps { plan, spaces } => copy_results(&mut outputs, &self.run_steps(plan, spaces, images, parallel)),
            Engine::Compiled { compiled, arenas } => {
                let mut own = lock(arenas).pop().unwrap_or_else(|| compiled.arenas());
                compiled.run(images, &mut own, None, &mut outputs);
                lock(arenas).push(own);
            }
        }
    }

    /// Runs a chunk step by step. Zeros fill up a last, shorter one.
    fn run_steps(&self, plan: &Plan, spaces: &Mutex<Vec<Slots>>, images: &[f32], parallel: bool) -> Vec<Tensor> {
        let mut slots = lock(spaces).pop().unwrap_or_default();
        let mut input = slots.take(&plan.input_shape);
        input.data[..images.len()].copy_from_slice(images);
        input.data[images.len()..].fill(0.0);
        let results = plan.run(input, &mut slots, self.isa, parallel);
        lock(spaces).push(slots);
        results
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The compiled network, if the engine can run nearly all of it.
fn compile(model: &Model, image: &[usize], isa: Isa, options: &PlanOptions) -> Option<Compiled> {
    let microbatch = match fixed_batch(model) {
        Some(1) => 1,
        Some(_) => return None,
        None => default_microbatch(image, LANES),
    };
    let plan = Plan::new(model, &[&[microbatch], image].concat(), options).ok()?;
    Compiled::new(model, plan, isa, 1).ok().filter(Compiled::is_worth_it)
}

/// Plans `model` for the number of images of shape `[C, H, W]` that fits the caches, up to 16, or that the model fixes.
///
/// # Errors
/// As [`Plan::new`].
#[doc(hidden)]
pub fn plan_chunk(model: &Model, image: &[usize], options: &PlanOptions) -> Result<Plan> {
    let plan = Plan::new(model, &with_batch(model, image), options)?;
    let chunk = chunk_size(model, &plan);
    if chunk == plan.input_shape[0] { Ok(plan) } else { Plan::new(model, &[&[chunk], image].concat(), options) }
}

fn chunk_size(model: &Model, plan: &Plan) -> usize {
    if let Some(batch) = fixed_batch(model) {
        return batch;
    }
    let largest = plan.steps.iter().map(|step| step.shape.iter().product::<usize>() * 4).max().unwrap_or(1);
    (CHUNK_BYTES / largest.max(1)).clamp(1, LARGEST_CHUNK)
}
