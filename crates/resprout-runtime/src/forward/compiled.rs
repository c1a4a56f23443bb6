//! A plan that is compiled for one microbatch, and how it runs.

use super::batch::{copy_results, fixed_batch, workers};
use super::compiler::Compiler;
use super::segment::{Segment, programs, programs_mut, restrict, run_program};
use super::{Plan, Slots};
use crate::error::Result;
use crate::model::Model;
use crate::tensor::Tensor;
use resprout_kernels::Isa;
use resprout_kernels::engine::{Arena, Blocking, Paths, Program, ThreadPool};
use std::time::Duration;

/// A network that is compiled for one microbatch.
pub(crate) struct Compiled {
    pub plan: Plan,
    pub microbatch: usize,
    isa: Isa,
    /// Threads that share each operation.
    pub sharing: usize,
    /// Paths that its convolutions may take.
    paths: Paths,
    /// The layer of each step.
    names: Vec<String>,
    pub(super) segments: Vec<Segment>,
}

/// The same network with operations that are not divided among threads.
pub(crate) struct SingleThreaded {
    segments: Vec<Segment>,
    arenas: Vec<Arena>,
}

impl Compiled {
    /// Compiles `plan`, which is one of the model's or a part of one. `sharing` is the number of threads that share each
    /// operation.
    pub fn new(model: &Model, plan: Plan, isa: Isa, sharing: usize) -> Result<Compiled> {
        let microbatch = plan.input_shape.first().copied().unwrap_or(0);
        if plan.input_shape.first() != fixed_batch(model).as_ref() || microbatch > 1 || !plan.keeps_count() {
            plan.check_independent(model, &model.graph.outputs)?;
        }
        let names: Vec<String> = plan.steps.iter().map(|step| model.graph.layers[step.layer].name.clone()).collect();
        let segments = Compiler::new(&names, &plan, isa, microbatch, sharing).segments()?;
        Ok(Compiled { plan, microbatch, isa, sharing, paths: Paths::Any, names, segments })
    }

    /// Restricts its convolutions to these paths.
    pub fn restrict(&mut self, paths: Paths) {
        self.paths = paths;
        restrict(&mut self.segments, paths);
    }

    /// Compiles the same plan for one thread.
    pub fn single_threaded(&self) -> Result<SingleThreaded> {
        let mut segments = Compiler::new(&self.names, &self.plan, self.isa, self.microbatch, 1).segments()?;
        restrict(&mut segments, self.paths);
        let arenas = programs(&segments).map(Program::arena).collect();
        Ok(SingleThreaded { segments, arenas })
    }

    /// Whether the engine runs nearly all steps. Every other step copies its images out of vectors and back.
    pub fn is_worth_it(&self) -> bool {
        let convs: usize = self.programs().map(|program| program.blockings().len()).sum();
        let outside = |segment: &Segment| matches!(segment, Segment::Step(index) if self.plan.steps[*index].shape.len() == 4);
        convs > 0 && self.segments.iter().filter(|segment| outside(segment)).count() * 8 <= convs
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

    /// The number of arenas for so many images.
    pub fn workers(&self, images: usize, threads: usize) -> usize {
        workers(images, self.microbatch, threads)
    }

    /// Tries blockings of every convolution on batches of this size, within about `limit` for each convolution. Returns
    /// the fastest blockings of the dense path.
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

    /// Runs up to [`microbatch`](Self::microbatch) images, on the calling thread or with a pool. `outputs` have room for
    /// exactly these images.
    pub fn run(&self, images: &[f32], arenas: &mut [Arena], pool: Option<&mut ThreadPool>, outputs: &mut [&mut [f32]]) {
        self.run_segments(&self.segments, images, arenas, pool, outputs);
    }

    /// As [`run`](Self::run), on the calling thread.
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
        copy_results(outputs, &self.plan.results(&mut slots));
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

    /// Slots with the images in place. Zeros fill up a shorter microbatch.
    pub(super) fn start(&self, images: &[f32]) -> Slots {
        let mut slots = Slots::default();
        let mut input = slots.take(&self.plan.input_shape);
        input.data[..images.len()].copy_from_slice(images);
        self.plan.start(&mut slots, input);
        slots
    }

    pub(super) fn run_step(&self, index: usize, slots: &mut Slots) {
        let step = &self.plan.steps[index];
        step.run(&step.compute, slots, self.isa, false);
    }

    /// Hands the input and output buffers of a program to `work`.
    pub(super) fn with_buffers(
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::PlanOptions;
    use crate::testing::Net;

    #[test]
    fn an_input_of_a_program_outlives_a_step_beside_it() {
        let mut net = Net::default();
        // A padded pool of values that may be negative is a step of its own. It is the last to read the images.
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
        // A network that three threads share has the same bits on one thread.
        let shared = Compiled::new(&model, plan(), Isa::best(), 3).unwrap();
        let mut alone = vec![0.0; 8];
        shared.run_single_threaded(&mut shared.single_threaded().unwrap(), &images.data, &mut [&mut alone]);
        assert_eq!(alone, result);
        // The engine adds in another order than the steps.
        assert!(result.iter().zip(&expected.data).all(|(a, b)| (a - b).abs() < 1e-5), "{result:?} {expected:?}");
    }
}
