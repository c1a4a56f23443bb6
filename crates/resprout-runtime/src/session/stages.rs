//! Stages: parts of a network that run different numbers of images together. Large images fill lanes and caches alone; where a
//! network has become small, several are needed to fill the lanes, and they share what is read of the weights.

use super::{Session, SessionOptions, Stage, find_isa};
use crate::error::{Error, ErrorKind, Result};
use crate::forward::{Compiled, Plan, PlanOptions, default_microbatch, fixed_batch, workers};
use crate::model::Model;
use resprout_kernels::Isa;
use resprout_kernels::engine::{LANES, PoolOptions, ThreadPool, wasted};
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;

/// Where a stage begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageStart {
    /// The first step of the network's plan.
    pub step: usize,
    /// Images that run together.
    pub microbatch: usize,
}

/// Lanes that may stay empty where nothing is measured.
const WASTE: f64 = 0.1;

/// All that sessions of a network are made of.
pub(super) struct Parts<'a> {
    model: &'a Model,
    pub image: &'a [usize],
    pub options: &'a SessionOptions,
    isa: Isa,
    /// The number of images that the model insists on.
    fixed: Option<usize>,
    /// As [`Parts::starts`] has found them.
    starts: OnceCell<Vec<(usize, [usize; 2])>>,
}

impl<'a> Parts<'a> {
    pub fn new(model: &'a Model, image: &'a [usize], options: &'a SessionOptions) -> Result<Parts<'a>> {
        let positive = |value: usize, name: &str| match value {
            0 => Err(Error::option(format!("{name} 0: a number from 1 on is needed"))),
            value => Ok(value),
        };
        positive(options.threads, "--threads")?;
        positive(options.batch, "--batch")?;
        let fixed = match fixed_batch(model) {
            Some(batch) if !batch.is_power_of_two() || batch > LANES => Err(Error::unsupported(format!(
                "the model is for batches of {batch} images only; 1, 2, 4, 8, 16 or any number can be run"
            ))),
            fixed => Ok(fixed),
        }?;
        Ok(Parts { model, image, options, isa: find_isa(options.isa.as_deref())?, fixed, starts: OnceCell::new() })
    }

    fn plan(&self, microbatch: usize) -> Result<Plan> {
        Plan::new(self.model, &[&[microbatch], self.image].concat(), &PlanOptions::default())
    }

    /// Numbers of images that may run together.
    pub fn counts(&self) -> Vec<usize> {
        match self.fixed {
            Some(batch) => vec![batch],
            None => (0..=self.most().ilog2()).map(|shift| 1 << shift).collect(),
        }
    }

    /// The most images that may run together.
    fn most(&self) -> usize {
        (1 << self.options.batch.ilog2()).min(LANES)
    }

    /// Steps at which stages may begin, and height and width there: of each size of the images on their way, the first step
    /// before which the fewest numbers are alive.
    pub fn starts(&self) -> &[(usize, [usize; 2])] {
        self.starts.get_or_init(|| self.find_starts())
    }

    fn find_starts(&self) -> Vec<(usize, [usize; 2])> {
        let mut starts = vec![(0, self.image.last_chunk().copied().unwrap_or([1, 1]))];
        if self.fixed.is_some() || self.most() == 1 {
            return starts;
        }
        // Of two images, to see that they stay apart.
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

    /// Stages without measuring.
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
            let counts = || std::iter::successors(Some(last), |count| Some(2 * count)).take_while(|count| *count <= self.most());
            let microbatch = counts().find(|count| wasted(*count, size) <= WASTE).unwrap_or(self.most());
            if stages.is_empty() || microbatch > last {
                stages.push(StageStart { step, microbatch });
            }
        }
        stages
    }

    /// Stages of an earlier session (or of a file that says so), as far as they are possible.
    pub fn possible(&self, stages: &[StageStart]) -> Vec<StageStart> {
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

    /// A session with these stages.
    pub fn session(&self, stages: &[StageStart]) -> Result<Session> {
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
            Ok(Stage { start, compiled, arenas: Vec::new(), single_threaded: None, paces: None, outputs: Vec::new() })
        };
        let stages: Result<Vec<Stage>> = stages.iter().zip(ends).map(stage).collect();
        Ok(Session { stages: stages?, pool, image: self.image.to_vec(), batch, note: None })
    }
}
