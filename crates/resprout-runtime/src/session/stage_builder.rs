//! Builds sessions of a network from stages, which run different microbatches.
//!
//! A large image fills vectors and caches alone. Where the values of a network have become small, several images fill a
//! vector and share what is read of the weights.

use super::options::SessionOptions;
use super::run::Session;
use super::stage::{Stage, StageStart};
use crate::error::{Error, ErrorKind, Result};
use crate::forward::{Compiled, Plan, PlanOptions, default_microbatch, fixed_batch, workers};
use crate::model::Model;
use resprout_kernels::Isa;
use resprout_kernels::engine::{LANES, PoolOptions, ThreadPool, wasted};
use std::cell::OnceCell;

/// The largest share of empty lanes in default stages.
const MAX_WASTE: f64 = 0.1;

/// Builds sessions of one network.
pub(super) struct StageBuilder<'a> {
    model: &'a Model,
    pub image: &'a [usize],
    pub options: &'a SessionOptions,
    isa: Isa,
    /// The batch size that the model fixes.
    fixed: Option<usize>,
    /// As [`starts`](Self::starts) has found them.
    starts: OnceCell<Vec<(usize, [usize; 2])>>,
}

impl<'a> StageBuilder<'a> {
    pub fn new(model: &'a Model, image: &'a [usize], options: &'a SessionOptions) -> Result<StageBuilder<'a>> {
        options.check()?;
        let fixed = match fixed_batch(model) {
            Some(batch) if !batch.is_power_of_two() || batch > LANES => Err(Error::unsupported(format!(
                "the model is for batches of {batch} images only; 1, 2, 4, 8, 16 or any number can be run"
            ))),
            fixed => Ok(fixed),
        }?;
        Ok(StageBuilder { model, image, options, isa: options.find_isa()?, fixed, starts: OnceCell::new() })
    }

    fn plan(&self, microbatch: usize) -> Result<Plan> {
        Plan::new(self.model, &[&[microbatch], self.image].concat(), &PlanOptions::default())
    }

    /// The possible microbatches.
    pub fn microbatches(&self) -> Vec<usize> {
        match self.fixed {
            Some(batch) => vec![batch],
            None => (0..=self.most().ilog2()).map(|shift| 1 << shift).collect(),
        }
    }

    /// The largest possible microbatch.
    fn most(&self) -> usize {
        (1 << self.options.batch.ilog2()).min(LANES)
    }

    /// Steps at which stages may begin, and height and width there. Of all cut points with one height and width, it is the
    /// one with the fewest elements.
    pub fn starts(&self) -> &[(usize, [usize; 2])] {
        self.starts.get_or_init(|| self.find_starts())
    }

    fn find_starts(&self) -> Vec<(usize, [usize; 2])> {
        let mut starts = vec![(0, self.image.last_chunk().copied().unwrap_or([1, 1]))];
        if self.fixed.is_some() || self.most() == 1 {
            return starts;
        }
        // Two images show whether they stay independent.
        let Ok(plan) = self.plan(2) else { return starts };
        let mut fewest = 0;
        for (step, shape) in plan.cut_points() {
            let &[2, _, height, width] = shape else { continue };
            let size = [height, width];
            let numbers: usize = shape.iter().product();
            let first = starts.len() == 1;
            match starts.last_mut() {
                Some((_, last)) if *last == size && (first || numbers >= fewest) => continue,
                Some((start, last)) if *last == size => *start = step,
                _ => starts.push((step, size)),
            }
            fewest = numbers;
        }
        starts
    }

    /// The stages that are chosen without measuring.
    pub fn default_stages(&self) -> Vec<StageStart> {
        let whole = |microbatch| vec![StageStart { step: 0, microbatch }];
        if let Some(batch) = self.fixed {
            return whole(batch);
        }
        let least = default_microbatch(self.image, self.most());
        if least == self.most() {
            return whole(least);
        }
        let mut stages: Vec<StageStart> = Vec::new();
        for &(step, size) in self.starts() {
            let last = stages.last().map_or(least, |stage| stage.microbatch);
            let mut larger = std::iter::successors(Some(last), |count| Some(2 * count)).take_while(|count| *count <= self.most());
            let microbatch = larger.find(|count| wasted(*count, size) <= MAX_WASTE).unwrap_or(self.most());
            if stages.is_empty() || microbatch > last {
                stages.push(StageStart { step, microbatch });
            }
        }
        stages
    }

    /// The stages of another session, or of a file, as far as they are possible.
    pub fn possible_stages(&self, stages: &[StageStart]) -> Vec<StageStart> {
        let fits = |microbatch: usize| self.fixed.unwrap_or(microbatch.clamp(1, LANES).next_power_of_two());
        let mut possible = vec![StageStart { step: 0, microbatch: fits(stages.first().map_or(1, |stage| stage.microbatch)) }];
        for stage in stages {
            let later = possible.last().is_some_and(|last| last.step < stage.step);
            if later && self.starts().iter().any(|(step, _)| *step == stage.step) {
                possible.push(StageStart { step: stage.step, microbatch: fits(stage.microbatch) });
            }
        }
        possible
    }

    /// Builds a session with these stages.
    pub fn build(&self, stages: &[StageStart]) -> Result<Session> {
        let io = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::InvalidInput => Error::option(e.to_string()),
            _ => Error::new(ErrorKind::Io, format!("cannot start threads: {e}")),
        };
        let SessionOptions { batch, pin, paths, .. } = *self.options;
        let threads = self.options.started_threads();
        let pool = ThreadPool::with_options(&PoolOptions { threads, pin, spin: None }).map_err(io)?;
        let ends = stages.iter().skip(1).map(|next| next.step).chain([usize::MAX]);
        let stage = |(&start, end): (&StageStart, usize)| {
            let plan = self.plan(start.microbatch)?;
            let end = end.min(plan.steps.len());
            let sharing = if workers(batch, start.microbatch, threads) == 1 { threads } else { 1 };
            let mut compiled = Compiled::new(self.model, plan.part(start.step..end), self.isa, sharing)?;
            compiled.restrict(paths);
            Ok(Stage::new(start, compiled))
        };
        let stages: Result<Vec<Stage>> = stages.iter().zip(ends).map(stage).collect();
        Ok(Session { stages: stages?, pool, image: self.image.to_vec(), batch, note: None })
    }
}
