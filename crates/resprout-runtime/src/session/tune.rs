//! Which stages, and which plan for each, are the fastest: measured.

use super::noise::Noise;
use super::stages::{Parts, StageStart};
use super::{Paths, Session, Stage, dummy_input};
use crate::error::{Error, Result};
use crate::forward::LayerTime;
use crate::linalg::median;
use resprout_kernels::engine::Blocking;
use resprout_kernels::engine::ThreadPool;
use std::time::{Duration, Instant};

/// Runs of which each operation's least time is taken.
const RUNS: usize = 3;

/// Times a stage may take of what it takes with the best number of images, both with usual cuts, for better cuts to be looked for.
const MAX_SLOWDOWN: f64 = 1.3;

/// Times the cheapest way's cost that another's may be for both to be compared.
const TIE_MARGIN: f64 = 1.05;

/// How many times of finalists are compared at the least.
const ROUNDS: usize = 15;

/// What may take longer than it has to takes this share of the limit.
const COMPARED: u32 = 4;

/// Batches that a finalist runs in a row: as many follow each other in use. The first finds the caches as another has left them
/// and does not count.
const ROW: usize = 4;

/// How often a convolution's cuts are compared in their place in the network at the least.
const VALIDATIONS: usize = 3;

/// The share of the dense path's time below which a convolution is worth being sparse: less is lost in the noise.
const MIN_GAIN: f64 = 0.97;

/// The same for whole batches beside those of a simpler plan. Many are measured.
const MIN_GAIN_WHOLE: f64 = 0.99;

/// What each stage costs with some number of images together.
struct MicrobatchCost {
    microbatch: usize,
    stages: Vec<StageCost>,
}

struct StageCost {
    seconds: Seconds,
    blockings: Blockings,
}

impl Finalist {
    fn new(session: Session, dense: Vec<Blocking>) -> Finalist {
        Finalist { session, dense, seconds: Vec::new() }
    }
}

/// Per image.
struct Seconds {
    /// Into lines, if the stage before is another program.
    enter: f64,
    inside: f64,
    leave: f64,
}

/// Of each convolution the cuts that were found.
#[derive(Clone, Default, PartialEq)]
struct Blockings {
    fastest: Vec<Blocking>,
    /// The fastest on the dense path.
    dense: Vec<Blocking>,
}

/// A way through the network that may be the fastest.
struct Finalist {
    /// With the fastest cuts.
    session: Session,
    dense: Vec<Blocking>,
    /// Of whole batches.
    seconds: Vec<f64>,
}

/// The fastest session, as far as times can be compared: on a busy machine the one that is chosen without measuring, with a
/// note. Cuts are looked for within about `limit`; comparing what was found takes some batches more.
pub(super) fn fastest(parts: &Parts, limit: Duration) -> Result<Session> {
    let mut default = parts.session(&parts.default_stages())?;
    let before = Noise::of(&mut default)?;
    if let Some(complaint) = before.complaint() {
        return Ok(untuned(default, &complaint));
    }
    let session = search(parts, limit)?;
    let complaint = before.complaint_until(&Noise::of(&mut default)?);
    Ok(complaint.map_or(session, |complaint| untuned(default, &complaint)))
}

/// With a note why.
fn untuned(mut default: Session, complaint: &str) -> Session {
    default.note = Some(format!(
        "the machine is too busy for tuning ({complaint}); the default plan is used: tune again when nothing else runs"
    ));
    default
}

/// The fastest session by what was measured.
fn search(parts: &Parts, limit: Duration) -> Result<Session> {
    let starts: Vec<usize> = parts.starts().iter().map(|(step, _)| *step).collect();
    let whole = |microbatch| parts.session(&starts.iter().map(|&step| StageStart { step, microbatch }).collect::<Vec<_>>());
    let mut measured = Vec::new();
    for microbatch in parts.counts() {
        measured.push(MicrobatchCost::default(microbatch, &mut whole(microbatch)?));
    }
    let candidates = candidates(&measured);
    let each = limit / u32::try_from(convolutions(&measured, &candidates).max(1)).unwrap_or(u32::MAX);
    for (measured, candidates) in measured.iter_mut().zip(&candidates).filter(|(_, candidates)| candidates.contains(&true)) {
        measured.improve(&mut whole(measured.microbatch)?, candidates, each, parts.options.paths);
    }
    let compared = limit / COMPARED;
    let Finalist { mut session, dense, .. } = best_finalist(parts, &starts, &measured, compared)?;
    let conservative = session.validate(&dense, parts.options.paths, compared);
    if conservative == session.blockings() {
        return Ok(session);
    }
    // Each of the cuts has been the fastest for a moment; all together must be.
    let mut default = parts.session(&session.chosen().stages)?;
    default.apply(&conservative);
    let finalists = [default, session].map(|session| Finalist::new(session, Vec::new()));
    Ok(best_of(parts, finalists.into(), compared)?.session)
}

/// Of each number of images and stage, whether better cuts are worth being looked for.
fn candidates(measured: &[MicrobatchCost]) -> Vec<Vec<bool>> {
    let least = |stage: usize| measured.iter().map(|of| of.seconds(stage).inside).fold(f64::INFINITY, f64::min);
    let is_candidate = |(stage, cost): (usize, &StageCost)| cost.seconds.inside <= MAX_SLOWDOWN * least(stage);
    measured.iter().map(|of| of.stages.iter().enumerate().map(is_candidate).collect()).collect()
}

fn convolutions(measured: &[MicrobatchCost], candidates: &[Vec<bool>]) -> usize {
    let stages = measured.iter().flat_map(|of| &of.stages).zip(candidates.iter().flatten());
    stages.filter(|(_, candidates)| **candidates).map(|(stage, _)| stage.blockings.fastest.len()).sum()
}

impl MicrobatchCost {
    /// With the cuts that are chosen without measuring.
    fn default(microbatch: usize, session: &mut Session) -> MicrobatchCost {
        let Session { stages, pool, batch, .. } = session;
        let measured = |stage: &mut Stage| {
            let dense = stage.default_blockings(Paths::Dense).collect();
            StageCost::of(stage, pool, *batch, dense)
        };
        MicrobatchCost { microbatch, stages: stages.iter_mut().map(measured).collect() }
    }

    /// Looks for better cuts in some stages.
    fn improve(&mut self, session: &mut Session, candidates: &[bool], each: Duration, paths: Paths) {
        let Session { stages, pool, batch, .. } = session;
        let stages = stages.iter_mut().zip(&mut self.stages).zip(candidates).filter(|(_, candidates)| **candidates);
        for ((stage, cost), _) in stages {
            let dense = stage.compiled.tune(pool, *batch, each, paths);
            *cost = StageCost::of(stage, pool, *batch, dense);
        }
    }

    fn seconds(&self, stage: usize) -> &Seconds {
        &self.stages[stage].seconds
    }

    /// With this number of images everywhere.
    fn total(&self) -> f64 {
        self.stages.iter().map(|stage| stage.seconds.inside).sum()
    }
}

impl StageCost {
    fn of(stage: &mut Stage, pool: &mut ThreadPool, batch: usize, dense: Vec<Blocking>) -> StageCost {
        StageCost {
            seconds: Seconds::of(stage, pool, batch),
            blockings: Blockings { fastest: stage.blockings().collect(), dense },
        }
    }
}

impl Seconds {
    /// As it will run: whole batches.
    fn of(stage: &mut Stage, pool: &mut ThreadPool, batch: usize) -> Seconds {
        let layers = stage.compiled.time(pool, batch, RUNS);
        let named = |layer: Option<&LayerTime>, name: &str| {
            layer.filter(|layer| layer.name == name).map_or(0.0, |layer| layer.seconds / layer.images as f64)
        };
        let (enter, leave) = (named(layers.first(), "input"), named(layers.last(), "output"));
        let images = dummy_input(batch, &stage.compiled.plan.input_shape[1..]);
        let mut least = f64::INFINITY;
        for _ in 0..RUNS {
            let start = Instant::now();
            stage.run(&images, pool);
            least = least.min(start.elapsed().as_secs_f64());
        }
        stage.arenas.clear();
        // Of a small stage, what was measured apart can be more than the whole.
        Seconds { enter, inside: (least / batch as f64 - enter - leave).max(0.0), leave }
    }
}

/// The best number of images for the whole network, the stages that are chosen without measuring and the cheapest ways through all
/// that was measured: which of them is the fastest. In this order each must be worth it: the first is the simplest, and what is put
/// together from parts has been lucky in some of them.
///
/// A last stage of single pixels runs as many images together as are best for it, whatever the others do: it is too small a part
/// of the whole to be seen there.
fn best_finalist(parts: &Parts, starts: &[usize], measured: &[MicrobatchCost], limit: Duration) -> Result<Finalist> {
    let ends_in_pixels = parts.starts().last().is_some_and(|(_, size)| *size == [1, 1]);
    let whole = measured.iter().min_by(|a, b| a.total().total_cmp(&b.total()));
    let whole = whole.map_or(Vec::new(), |best| vec![best; starts.len()]);
    let default = parts.default_stages();
    let default = starts.iter().filter_map(|start| {
        let stage = default.iter().rfind(|stage| stage.step <= *start)?;
        measured.iter().find(|of| of.microbatch == stage.microbatch)
    });
    let mut paths_found: Vec<(Vec<StageStart>, Blockings)> = Vec::new();
    for mut path in [whole, default.collect()].into_iter().chain(cheap(measured)) {
        if let ([.., before, last], true) = (&mut path[..], ends_in_pixels) {
            *last = cheapest_end(measured, before);
        }
        let of_all = |of: fn(&Blockings) -> &Vec<Blocking>| {
            path.iter().enumerate().flat_map(|(stage, measured)| of(&measured.stages[stage].blockings).clone()).collect()
        };
        let blockings =
            Blockings { fastest: of_all(|blockings| &blockings.fastest), dense: of_all(|blockings| &blockings.dense) };
        let path = (merged(starts, &path), blockings);
        if !paths_found.contains(&path) {
            paths_found.push(path);
        }
    }
    let mut finalists = Vec::new();
    for (stages, blockings) in paths_found {
        let mut session = parts.session(&stages)?;
        session.apply(&blockings.fastest);
        finalists.push(Finalist::new(session, blockings.dense));
    }
    best_of(parts, finalists, limit)
}

/// The fastest of these in several batches in a row each, in turns. In their order each must be worth it beside the best before
/// it.
fn best_of(parts: &Parts, mut finalists: Vec<Finalist>, limit: Duration) -> Result<Finalist> {
    let images = dummy_input(parts.options.batch, parts.image);
    let start = Instant::now();
    while finalists.len() > 1 && (finalists[0].seconds.len() < ROUNDS || start.elapsed() < limit) {
        for Finalist { session, seconds, .. } in &mut finalists {
            for run in 0..ROW {
                let start = Instant::now();
                session.run(&images)?;
                seconds.extend((run > 0).then(|| start.elapsed().as_secs_f64()));
            }
        }
    }
    // The least time would be what happens at best, the median is what can be expected.
    let is_worth = |other: &Finalist, best: &Finalist| median(&other.seconds) < MIN_GAIN_WHOLE * median(&best.seconds);
    let best = finalists.into_iter().reduce(|best, other| if is_worth(&other, &best) { other } else { best });
    best.ok_or_else(|| Error::data("no number of images to run together"))
}

impl Session {
    /// A machine that was busy for a moment can have spoiled a measurement: every convolution must prove itself in its place in
    /// the network, against what is chosen without measuring and against these cuts on the dense path. Returns what would be left
    /// without those that were found: the usual cuts, or the dense path where that is faster.
    fn validate(&mut self, dense: &[Blocking], paths: Paths, limit: Duration) -> Vec<Blocking> {
        let default: Vec<Blocking> = self.stages.iter().flat_map(|stage| stage.default_blockings(paths)).collect();
        let all = [&default, &self.blockings(), dense];
        let mut least = all.map(|blockings| vec![f64::INFINITY; blockings.len()]);
        // The dense path counts only where it is allowed.
        let compared = if paths == Paths::Any { 3 } else { 2 };
        let start = Instant::now();
        for _ in (0..).take_while(|validations| *validations < VALIDATIONS || start.elapsed() < limit) {
            for (blockings, least) in all.iter().zip(&mut least).take(compared) {
                self.apply(blockings);
                let layers = self.layers(RUNS).into_iter().filter(|layer| layer.density.is_some());
                least.iter_mut().zip(layers).for_each(|(least, layer)| *least = least.min(layer.seconds));
            }
        }
        let or_dense = |at: usize, of: usize| if least[of][at] < MIN_GAIN * least[2][at] { all[of][at] } else { all[2][at] };
        let places = 0..default.len();
        let conservative = places.clone().map(|at| or_dense(at, 0)).collect();
        let validated: Vec<Blocking> = places.map(|at| or_dense(at, usize::from(least[1][at] < least[0][at]))).collect();
        self.apply(&validated);
        conservative
    }
}

/// The number of images with which the last stage costs the least, behind others with the number of `before`.
fn cheapest_end<'a>(measured: &'a [MicrobatchCost], before: &'a MicrobatchCost) -> &'a MicrobatchCost {
    let last = before.stages.len() - 1;
    let cost = |of: &MicrobatchCost| change(before, of, last) + of.seconds(last).inside;
    measured.iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(before)
}

/// What the way into a stage costs, from the one before it.
fn change(before: &MicrobatchCost, of: &MicrobatchCost, stage: usize) -> f64 {
    if of.microbatch == before.microbatch { 0.0 } else { before.seconds(stage - 1).leave + of.seconds(stage).enter }
}

/// Ways that cost about as little as any: for each number of images that the first stage can have, the cheapest one; the cheapest
/// of all comes first.
fn cheap(measured: &[MicrobatchCost]) -> Vec<Vec<&MicrobatchCost>> {
    let mut paths_found: Vec<(f64, Vec<&MicrobatchCost>)> =
        measured.iter().filter_map(|first| cheapest(measured, first)).collect();
    paths_found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let least = paths_found.first().map_or(0.0, |(cost, _)| *cost);
    paths_found.into_iter().filter(|(cost, _)| *cost <= TIE_MARGIN * least).map(|(_, path)| path).collect()
}

/// Of each stage the number of images with which all together cost the least, and what they cost, if the first is `first`.
fn cheapest<'a>(measured: &'a [MicrobatchCost], first: &'a MicrobatchCost) -> Option<(f64, Vec<&'a MicrobatchCost>)> {
    let mut best = vec![(first.seconds(0).enter + first.seconds(0).inside, vec![first])];
    for stage in 1..first.stages.len() {
        let extended = measured.iter().filter_map(|of| {
            let cost = |(cost, path): &(f64, Vec<&MicrobatchCost>)| {
                cost + path.last().map_or(0.0, |last| change(last, of, stage)) + of.seconds(stage).inside
            };
            let (cost, path) = best.iter().map(|path| (cost(path), &path.1)).min_by(|a, b| a.0.total_cmp(&b.0))?;
            Some((cost, [&path[..], &[of]].concat()))
        });
        best = extended.collect();
    }
    best.into_iter().min_by(|a, b| a.0.total_cmp(&b.0))
}

/// Stages with the same number of images become one.
fn merged(starts: &[usize], path: &[&MicrobatchCost]) -> Vec<StageStart> {
    let mut stages: Vec<StageStart> =
        starts.iter().zip(path).map(|(&step, of)| StageStart { step, microbatch: of.microbatch }).collect();
    stages.dedup_by_key(|stage| stage.microbatch);
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enter, inside and leave of each stage.
    fn measured(microbatch: usize, stages: &[[f64; 3]]) -> MicrobatchCost {
        let stage = |&[enter, inside, leave]: &[f64; 3]| StageCost {
            seconds: Seconds { enter, inside, leave },
            blockings: Blockings::default(),
        };
        MicrobatchCost { microbatch, stages: stages.iter().map(stage).collect() }
    }

    #[test]
    fn a_change_of_the_number_of_images_must_pay_for_the_way_between() {
        let path = |change: f64| {
            let one = measured(1, &[[1.0, 4.0, 1.0], [1.0, 6.0, change], [1.0, 5.0, 1.0]]);
            let eight = measured(8, &[[1.0, 8.0, 1.0], [1.0, 7.5, 1.0], [change, 2.0, 1.0]]);
            cheap(&[one, eight])[0].iter().map(|of| of.microbatch).collect::<Vec<_>>()
        };
        assert_eq!(path(1.0), [1, 1, 8]);
        assert_eq!(path(1.6), [1, 1, 1]);
    }

    #[test]
    fn the_end_runs_as_many_images_as_are_best_for_it() {
        let end = |enter: f64| {
            let one = measured(1, &[[0.0, 90.0, 0.5], [0.0, 3.0, 0.0]]);
            let eight = measured(8, &[[0.0, 99.0, 0.5], [enter, 1.0, 0.0]]);
            let measured = [one, eight];
            cheapest_end(&measured, &measured[0]).microbatch
        };
        assert_eq!(end(1.0), 8);
        assert_eq!(end(1.6), 1);
    }

    #[test]
    fn stages_far_behind_are_not_looked_at_again() {
        let one = measured(1, &[[0.0, 4.0, 0.0], [0.0, 6.0, 0.0]]);
        let two = measured(2, &[[0.0, 5.0, 0.0], [0.0, 2.0, 0.0]]);
        assert_eq!(candidates(&[one, two]), [[true, false], [true, true]]);
    }

    #[test]
    fn neighbours_with_the_same_number_become_one_stage() {
        let [one, two] = [1, 2].map(|microbatch| measured(microbatch, &[[0.0; 3]; 3]));
        let stages = merged(&[0, 4, 9], &[&two, &one, &one]);
        assert_eq!(stages, [StageStart { step: 0, microbatch: 2 }, StageStart { step: 4, microbatch: 1 }]);
    }
}
