//! Stages: parts of a network that run different numbers of images together. Large images fill lanes and caches alone; where a
//! network has become small, several are needed to fill the lanes, and they share what is read of the weights.

use super::{Chosen, Cut, Session, SessionOptions, Stage, find_kernel, grey};
use crate::error::{Error, ErrorKind, Result};
use crate::forward::{Compiled, LayerTime, Plan, PlanOptions, fixed_batch, usual_together};
use crate::model::Model;
use resprout_kernels::Kernel;
use resprout_kernels::lanes::{LANES, Team, wasted};
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;
use std::time::{Duration, Instant};

/// Where a stage begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageStart {
    /// The first step of the network's plan.
    pub step: usize,
    /// Images that run together.
    pub together: usize,
}

/// Lanes that may stay empty where nothing is measured.
const WASTE: f64 = 0.1;

/// How often the finalists are compared.
const ROUNDS: usize = 9;

/// Runs of which each operation's least time is taken.
const RUNS: usize = 5;

/// All that sessions of a network are made of.
pub(super) struct Parts<'a> {
    model: &'a Model,
    image: &'a [usize],
    options: &'a SessionOptions,
    kernel: Kernel,
    /// The number of images that the model insists on.
    fixed: Option<usize>,
    /// As [`Parts::starts`] has found them.
    starts: OnceCell<Vec<(usize, [usize; 2])>>,
}

/// What each stage costs with some number of images together, in seconds per image.
struct Measured {
    together: usize,
    stages: Vec<Cost>,
    /// How the convolutions of each stage are cut.
    cuts: Vec<Vec<Cut>>,
}

struct Cost {
    /// Into lines, if the stage before is another program.
    enter: f64,
    inside: f64,
    leave: f64,
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
        Ok(Parts { model, image, options, kernel: find_kernel(options.kernel.as_deref())?, fixed, starts: OnceCell::new() })
    }

    fn plan(&self, together: usize) -> Result<Plan> {
        Plan::new(self.model, &[&[together], self.image].concat(), &PlanOptions::default())
    }

    /// The most images that may run together.
    fn most(&self) -> usize {
        (1 << self.options.batch.ilog2()).min(LANES)
    }

    /// Steps at which stages may begin, and height and width there: of each size of the images on their way, the first step
    /// before which the fewest numbers are alive.
    fn starts(&self) -> &[(usize, [usize; 2])] {
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
        for (step, shape) in plan.waists() {
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
    pub fn usual(&self) -> Vec<StageStart> {
        let whole = |together| vec![StageStart { step: 0, together }];
        if let Some(batch) = self.fixed {
            return whole(batch);
        }
        let least = usual_together(self.image, self.most());
        if least == self.most() {
            return whole(least);
        }
        let mut stages: Vec<StageStart> = Vec::new();
        for &(step, size) in self.starts() {
            let last = stages.last().map_or(least, |stage| stage.together);
            let counts = || std::iter::successors(Some(last), |count| Some(2 * count)).take_while(|count| *count <= self.most());
            let together = counts().find(|count| wasted(*count, size) <= WASTE).unwrap_or(self.most());
            if stages.is_empty() || together > last {
                stages.push(StageStart { step, together });
            }
        }
        stages
    }

    /// Stages of an earlier session (or of a file that says so), as far as they are possible.
    pub fn possible(&self, stages: &[StageStart]) -> Vec<StageStart> {
        let fits = |together: usize| self.fixed.unwrap_or(together.clamp(1, LANES).next_power_of_two());
        let mut possible = vec![StageStart { step: 0, together: fits(stages.first().map_or(1, |stage| stage.together)) }];
        for stage in stages {
            let later = possible.last().is_some_and(|last| last.step < stage.step);
            if later && self.starts().iter().any(|(step, _)| *step == stage.step) {
                possible.push(StageStart { step: stage.step, together: fits(stage.together) });
            }
        }
        possible
    }

    /// A session with these stages.
    pub fn session(&self, stages: &[StageStart]) -> Result<Session> {
        let io = |e| Error::new(ErrorKind::Io, format!("cannot start threads: {e}"));
        let team = Team::new(self.options.threads).map_err(io)?;
        let ends = stages.iter().skip(1).map(|next| next.step).chain([usize::MAX]);
        let stage = |(&start, end): (&StageStart, usize)| {
            let plan = self.plan(start.together)?;
            let end = end.min(plan.steps.len());
            let mut compiled = Compiled::new(self.model, plan.part(start.step..end), self.kernel)?;
            if self.options.paths != super::Paths::Any {
                compiled.programs_mut().for_each(|program| program.restrict(self.options.paths));
            }
            Ok(Stage { start, compiled, arenas: Vec::new() })
        };
        let stages: Result<Vec<Stage>> = stages.iter().zip(ends).map(stage).collect();
        Ok(Session { stages: stages?, team, image: self.image.to_vec() })
    }

    /// Measures which stages and which plan for each are the fastest.
    pub fn fastest(&self) -> Result<Session> {
        let counts: Vec<usize> = match self.fixed {
            Some(batch) => vec![batch],
            None => (0..=self.most().ilog2()).map(|shift| 1 << shift).collect(),
        };
        let limit = Duration::from_secs_f64(self.options.tune.clamp(0.0, 3600.0) / counts.len() as f64);
        let starts: Vec<usize> = self.starts().iter().map(|(step, _)| *step).collect();
        if counts.len() == 1 {
            let mut session = self.session(&[StageStart { step: 0, together: counts[0] }])?;
            session.tune(limit, self.options)?;
            return Ok(session);
        }
        let measured: Result<Vec<Measured>> = counts.iter().map(|&together| self.measure(&starts, together, limit)).collect();
        let measured = measured?;
        let whole = measured.iter().min_by(|a, b| a.total().total_cmp(&b.total()));
        let whole = whole.map_or(Vec::new(), |best| vec![best; starts.len()]);
        let usual = self.usual();
        let usual = starts.iter().filter_map(|start| {
            let stage = usual.iter().rfind(|stage| stage.step <= *start)?;
            measured.iter().find(|of| of.together == stage.together)
        });
        let mut finalists: Vec<Chosen> = Vec::new();
        for way in [whole, usual.collect(), cheapest(&measured)] {
            let cuts = way.iter().enumerate().flat_map(|(stage, of)| of.cuts[stage].clone()).collect();
            let chosen = Chosen { stages: merged(&starts, &way), cuts };
            if !finalists.contains(&chosen) {
                finalists.push(chosen);
            }
        }
        let mut sessions = Vec::new();
        for chosen in &finalists {
            let mut session = self.session(&chosen.stages)?;
            session.choose(&chosen.cuts);
            sessions.push((f64::INFINITY, session));
        }
        let images = grey(self.options.batch, self.image);
        for _ in 0..ROUNDS {
            for (least, session) in &mut sessions {
                let start = Instant::now();
                session.run(&images)?;
                *least = least.min(start.elapsed().as_secs_f64());
            }
        }
        let best = sessions.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
        best.map(|(_, session)| session).ok_or_else(|| Error::data("no number of images to run together"))
    }

    /// Tunes all stages for one number of images.
    fn measure(&self, starts: &[usize], together: usize, limit: Duration) -> Result<Measured> {
        let stages: Vec<StageStart> = starts.iter().map(|&step| StageStart { step, together }).collect();
        let mut session = self.session(&stages)?;
        session.tune(limit, self.options)?;
        let cuts = session.stages.iter().map(|stage| stage.cuts().collect()).collect();
        let Session { stages, team, .. } = &mut session;
        let stages = stages.iter_mut().map(|stage| Cost::of(stage, team, self.options.batch)).collect();
        Ok(Measured { together, stages, cuts })
    }
}

impl Cost {
    /// As it will run: whole batches, whose images may go to threads one by one.
    fn of(stage: &mut Stage, team: &mut Team, batch: usize) -> Cost {
        let layers = stage.compiled.time(team, RUNS);
        let named = |layer: Option<&LayerTime>, name: &str| {
            layer.filter(|layer| layer.name == name).map_or(0.0, |layer| layer.seconds / layer.images as f64)
        };
        let (enter, leave) = (named(layers.first(), "input"), named(layers.last(), "output"));
        let images = grey(batch, &stage.compiled.plan.input_shape[1..]);
        let mut least = f64::INFINITY;
        for _ in 0..RUNS {
            let start = Instant::now();
            stage.run(&images, team);
            least = least.min(start.elapsed().as_secs_f64());
        }
        Cost { enter, inside: least / batch as f64 - enter - leave, leave }
    }
}

impl Measured {
    /// With this number of images everywhere.
    fn total(&self) -> f64 {
        self.stages.iter().map(|cost| cost.inside).sum()
    }
}

/// Of each stage the number of images with which all together cost the least.
fn cheapest(measured: &[Measured]) -> Vec<&Measured> {
    let first = |of: &'_ Measured| of.stages.first().map_or(0.0, |cost| cost.enter + cost.inside);
    let mut best: Vec<(f64, Vec<&Measured>)> = measured.iter().map(|of| (first(of), vec![of])).collect();
    for stage in 1..measured.first().map_or(0, |of| of.stages.len()) {
        let extended = measured.iter().filter_map(|of| {
            let cost = |(cost, way): &(f64, Vec<&Measured>)| {
                let change = match way.last() {
                    Some(last) if last.together != of.together => last.stages[stage - 1].leave + of.stages[stage].enter,
                    _ => 0.0,
                };
                cost + change + of.stages[stage].inside
            };
            let (cost, way) = best.iter().map(|way| (cost(way), &way.1)).min_by(|a, b| a.0.total_cmp(&b.0))?;
            Some((cost, [&way[..], &[of]].concat()))
        });
        best = extended.collect();
    }
    let last = best.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    last.map_or(Vec::new(), |(_, way)| way)
}

/// Stages with the same number of images become one.
fn merged(starts: &[usize], way: &[&Measured]) -> Vec<StageStart> {
    let mut stages: Vec<StageStart> =
        starts.iter().zip(way).map(|(&step, of)| StageStart { step, together: of.together }).collect();
    stages.dedup_by_key(|stage| stage.together);
    stages
}
