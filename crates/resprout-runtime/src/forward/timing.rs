//! The time of every operation of a compiled network.

use super::compiled::Compiled;
use super::segment::Segment;
use resprout_kernels::engine::{Arena, ThreadPool};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// The time of one operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerTime {
    /// The layer's name.
    pub name: String,
    /// Images that were computed in that time: those of all threads, where each runs its own.
    pub images: usize,
    /// Seconds: the least of several runs.
    pub seconds: f64,
    /// Multiply-accumulates with nonzero weights; `None` where the operation is no convolution or linear layer.
    pub macs: Option<u64>,
    /// Share of the weights that are not zero; `None` as for `macs`.
    pub density: Option<f64>,
}

impl Compiled {
    /// The least time of every operation in batches of this size.
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
