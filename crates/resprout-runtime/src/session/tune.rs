//! Autotuning: times every stage at every microbatch, then benchmarks the candidate plans end to end. A more complex plan
//! must win by 1 % in the median.

use super::noise::Noise;
use super::run::Session;
use super::stage::{Stage, StageStart, dummy_input};
use super::stage_builder::StageBuilder;
use crate::error::{Error, Result};
use crate::forward::LayerTime;
use crate::linalg::median;
use resprout_kernels::engine::{Blocking, Paths, ThreadPool};
use std::time::{Duration, Instant};

/// Runs of each operation. The least time counts.
const RUNS: usize = 3;

/// A stage is tuned at a microbatch if it takes at most this many times as long as at the best one, with default blockings.
const MAX_SLOWDOWN: f64 = 1.3;

/// A path is benchmarked if it costs at most this many times as much as the cheapest one.
const TIE_MARGIN: f64 = 1.05;

/// The fewest times of each finalist.
const ROUNDS: usize = 15;

/// Each benchmark of finalists may take one part of the limit in this many.
const BENCHMARK_SHARE: u32 = 4;

/// Batches that a finalist runs in a row, as in use. The first one finds the caches of another finalist and does not count.
const ROW: usize = 4;

/// The fewest comparisons of blockings in their place in the network.
const VALIDATIONS: usize = 3;

/// A convolution is sparse if it takes less than this share of the dense path's time. A smaller gain is lost in the noise.
const MIN_GAIN: f64 = 0.97;

/// The same for whole batches compared with a simpler plan. Many batches are timed.
const MIN_GAIN_WHOLE: f64 = 0.99;

/// The cost of each stage at one microbatch.
struct MicrobatchCost {
    microbatch: usize,
    stages: Vec<StageCost>,
}

struct StageCost {
    seconds: Seconds,
    blockings: Blockings,
}

/// Seconds per image.
struct Seconds {
    /// Copies the input to vectors, if the stage before has another microbatch.
    enter: f64,
    inside: f64,
    /// Copies the output from vectors.
    leave: f64,
}

/// The blockings of each convolution.
#[derive(Clone, Default, PartialEq)]
struct Blockings {
    fastest: Vec<Blocking>,
    /// The fastest on the dense path.
    dense: Vec<Blocking>,
}

/// A plan that is benchmarked.
struct Finalist {
    /// With the fastest blockings.
    session: Session,
    dense: Vec<Blocking>,
    /// Of whole batches.
    seconds: Vec<f64>,
}

impl Finalist {
    fn new(session: Session, dense: Vec<Blocking>) -> Finalist {
        Finalist { session, dense, seconds: Vec::new() }
    }
}

/// The fastest session. On a busy machine, where times mean nothing, it is the default one with a note. The search for
/// blockings takes about `limit`; the benchmarks after it take some more batches.
pub(super) fn fastest(builder: &StageBuilder, limit: Duration) -> Result<Session> {
    let mut default = builder.build(&builder.default_stages())?;
    let before = Noise::of(&mut default)?;
    if let Some(complaint) = before.complaint() {
        return Ok(untuned(default, &complaint));
    }
    let session = search(builder, limit)?;
    let complaint = before.complaint_until(&Noise::of(&mut default)?);
    Ok(complaint.map_or(session, |complaint| untuned(default, &complaint)))
}

/// The default session with a note why it is not tuned.
fn untuned(mut default: Session, complaint: &str) -> Session {
    default.note = Some(format!(
        "the machine is too busy for tuning ({complaint}); the default plan is used: tune again when nothing else runs"
    ));
    default
}

/// The fastest session by its measured times.
fn search(builder: &StageBuilder, limit: Duration) -> Result<Session> {
    let starts: Vec<usize> = builder.starts().iter().map(|(step, _)| *step).collect();
    let whole = |microbatch| builder.build(&starts.iter().map(|&step| StageStart { step, microbatch }).collect::<Vec<_>>());
    let mut measured = Vec::new();
    for microbatch in builder.microbatches() {
        measured.push(MicrobatchCost::default(microbatch, &mut whole(microbatch)?));
    }
    let candidates = candidates(&measured);
    let each = limit / u32::try_from(convolutions(&measured, &candidates).max(1)).unwrap_or(u32::MAX);
    for (measured, candidates) in measured.iter_mut().zip(&candidates).filter(|(_, candidates)| candidates.contains(&true)) {
        measured.tune(&mut whole(measured.microbatch)?, candidates, each, builder.options.paths);
    }
    let limit = limit / BENCHMARK_SHARE;
    let Finalist { mut session, dense, .. } = best_finalist(builder, &starts, &measured, limit)?;
    let conservative = session.validate(&dense, builder.options.paths, limit);
    if conservative == session.blockings() {
        return Ok(session);
    }
    // Each blocking was the fastest for a moment. All together must be the fastest too.
    let mut default = builder.build(&session.chosen().stages)?;
    default.apply(&conservative);
    let finalists = [default, session].map(|session| Finalist::new(session, Vec::new()));
    Ok(best_of(builder, finalists.into(), limit)?.session)
}

/// For each microbatch and stage, whether it is worth tuning.
fn candidates(measured: &[MicrobatchCost]) -> Vec<Vec<bool>> {
    let least = |stage: usize| measured.iter().map(|of| of.seconds(stage).inside).fold(f64::INFINITY, f64::min);
    let is_candidate = |(stage, cost): (usize, &StageCost)| cost.seconds.inside <= MAX_SLOWDOWN * least(stage);
    measured.iter().map(|of| of.stages.iter().enumerate().map(is_candidate).collect()).collect()
}

/// The number of convolutions in the candidates.
fn convolutions(measured: &[MicrobatchCost], candidates: &[Vec<bool>]) -> usize {
    let stages = measured.iter().flat_map(|of| &of.stages).zip(candidates.iter().flatten());
    stages.filter(|(_, is_candidate)| **is_candidate).map(|(stage, _)| stage.blockings.fastest.len()).sum()
}

impl MicrobatchCost {
    /// The cost with the default blockings.
    fn default(microbatch: usize, session: &mut Session) -> MicrobatchCost {
        let Session { stages, pool, batch, .. } = session;
        let measured = |stage: &mut Stage| {
            let dense = stage.default_blockings(Paths::Dense).collect();
            StageCost::of(stage, pool, *batch, dense)
        };
        MicrobatchCost { microbatch, stages: stages.iter_mut().map(measured).collect() }
    }

    /// Tunes the blockings of the candidate stages.
    fn tune(&mut self, session: &mut Session, candidates: &[bool], each: Duration, paths: Paths) {
        let Session { stages, pool, batch, .. } = session;
        let stages = stages.iter_mut().zip(&mut self.stages).zip(candidates).filter(|(_, is_candidate)| **is_candidate);
        for ((stage, cost), _) in stages {
            let dense = stage.compiled.tune(pool, *batch, each, paths);
            *cost = StageCost::of(stage, pool, *batch, dense);
        }
    }

    fn seconds(&self, stage: usize) -> &Seconds {
        &self.stages[stage].seconds
    }

    /// The cost of the whole network at this microbatch.
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
    /// Times a stage on whole batches, as it will run.
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
            stage.run(&images.data, images.shape[0], pool);
            least = least.min(start.elapsed().as_secs_f64());
        }
        stage.arenas.clear();
        // In a small stage, the copies alone can take longer than the whole run.
        Seconds { enter, inside: (least / batch as f64 - enter - leave).max(0.0), leave }
    }
}

/// The fastest of the candidate plans: the best microbatch for the whole network, the default stages, and the cheapest paths.
/// A later plan must be faster by a margin. The first is the simplest, and a path of the best parts owes some of them to noise.
///
/// A last stage of single pixels always has its own best microbatch: in the time of the whole network it is too small to be
/// seen.
fn best_finalist(builder: &StageBuilder, starts: &[usize], measured: &[MicrobatchCost], limit: Duration) -> Result<Finalist> {
    let ends_in_pixels = builder.starts().last().is_some_and(|(_, size)| *size == [1, 1]);
    let whole = measured.iter().min_by(|a, b| a.total().total_cmp(&b.total()));
    let whole = whole.map_or(Vec::new(), |best| vec![best; starts.len()]);
    let default = builder.default_stages();
    let default = starts.iter().filter_map(|start| {
        let stage = default.iter().rfind(|stage| stage.step <= *start)?;
        measured.iter().find(|of| of.microbatch == stage.microbatch)
    });
    let mut plans: Vec<(Vec<StageStart>, Blockings)> = Vec::new();
    for mut path in [whole, default.collect()].into_iter().chain(cheap_paths(measured)) {
        if let ([.., before, last], true) = (&mut path[..], ends_in_pixels) {
            *last = cheapest_end(measured, before);
        }
        let of_all = |of: fn(&Blockings) -> &Vec<Blocking>| {
            path.iter().enumerate().flat_map(|(stage, measured)| of(&measured.stages[stage].blockings).clone()).collect()
        };
        let blockings =
            Blockings { fastest: of_all(|blockings| &blockings.fastest), dense: of_all(|blockings| &blockings.dense) };
        let plan = (merged(starts, &path), blockings);
        if !plans.contains(&plan) {
            plans.push(plan);
        }
    }
    let mut finalists = Vec::new();
    for (stages, blockings) in plans {
        let mut session = builder.build(&stages)?;
        session.apply(&blockings.fastest);
        finalists.push(Finalist::new(session, blockings.dense));
    }
    best_of(builder, finalists, limit)
}

/// The fastest finalist. They take turns, and each runs several batches in a row. Each must beat the best one before it by a
/// margin.
fn best_of(builder: &StageBuilder, mut finalists: Vec<Finalist>, limit: Duration) -> Result<Finalist> {
    let images = dummy_input(builder.options.batch, builder.image);
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
    // The least time is the best case; the median is what a user can expect.
    let is_worth = |other: &Finalist, best: &Finalist| median(&other.seconds) < MIN_GAIN_WHOLE * median(&best.seconds);
    let best = finalists.into_iter().reduce(|best, other| if is_worth(&other, &best) { other } else { best });
    best.ok_or_else(|| Error::data("no number of images to run together"))
}

impl Session {
    /// Compares every blocking in its place in the network with the default one and with the fastest dense one: a short
    /// disturbance can have spoiled an earlier time. Returns the conservative blockings: the default ones, or the dense ones
    /// where these are faster.
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

/// The microbatch at which the last stage costs the least, behind a stage with the microbatch of `before`.
fn cheapest_end<'a>(measured: &'a [MicrobatchCost], before: &'a MicrobatchCost) -> &'a MicrobatchCost {
    let last = before.stages.len() - 1;
    let cost = |of: &MicrobatchCost| change_cost(before, of, last) + of.seconds(last).inside;
    measured.iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(before)
}

/// The cost of copies between a stage and the one before it, if their microbatches differ.
fn change_cost(before: &MicrobatchCost, of: &MicrobatchCost, stage: usize) -> f64 {
    if of.microbatch == before.microbatch { 0.0 } else { before.seconds(stage - 1).leave + of.seconds(stage).enter }
}

/// The cheapest path for each microbatch of the first stage, cheapest first, without those that cost clearly more.
fn cheap_paths(measured: &[MicrobatchCost]) -> Vec<Vec<&MicrobatchCost>> {
    let mut paths: Vec<(f64, Vec<&MicrobatchCost>)> =
        measured.iter().filter_map(|first| cheapest_path(measured, first)).collect();
    paths.sort_by(|a, b| a.0.total_cmp(&b.0));
    let least = paths.first().map_or(0.0, |(cost, _)| *cost);
    paths.into_iter().filter(|(cost, _)| *cost <= TIE_MARGIN * least).map(|(_, path)| path).collect()
}

/// The cheapest path that begins with `first`, which is a microbatch for each stage, and its cost.
fn cheapest_path<'a>(measured: &'a [MicrobatchCost], first: &'a MicrobatchCost) -> Option<(f64, Vec<&'a MicrobatchCost>)> {
    let mut best = vec![(first.seconds(0).enter + first.seconds(0).inside, vec![first])];
    for stage in 1..first.stages.len() {
        let extended = measured.iter().filter_map(|of| {
            let cost = |(cost, path): &(f64, Vec<&MicrobatchCost>)| {
                cost + path.last().map_or(0.0, |last| change_cost(last, of, stage)) + of.seconds(stage).inside
            };
            let (cost, path) = best.iter().map(|path| (cost(path), &path.1)).min_by(|a, b| a.0.total_cmp(&b.0))?;
            Some((cost, [&path[..], &[of]].concat()))
        });
        best = extended.collect();
    }
    best.into_iter().min_by(|a, b| a.0.total_cmp(&b.0))
}

/// Merges neighbouring stages with the same microbatch.
fn merged(starts: &[usize], path: &[&MicrobatchCost]) -> Vec<StageStart> {
    let mut stages: Vec<StageStart> =
        starts.iter().zip(path).map(|(&step, of)| StageStart { step, microbatch: of.microbatch }).collect();
    stages.dedup_by_key(|stage| stage.microbatch);
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `stages`: seconds to enter, inside and to leave.
    fn measured(microbatch: usize, stages: &[[f64; 3]]) -> MicrobatchCost {
        let stage = |&[enter, inside, leave]: &[f64; 3]| StageCost {
            seconds: Seconds { enter, inside, leave },
            blockings: Blockings::default(),
        };
        MicrobatchCost { microbatch, stages: stages.iter().map(stage).collect() }
    }

    #[test]
    fn a_change_of_the_microbatch_must_pay_for_the_copies() {
        let path = |change: f64| {
            let one = measured(1, &[[1.0, 4.0, 1.0], [1.0, 6.0, change], [1.0, 5.0, 1.0]]);
            let eight = measured(8, &[[1.0, 8.0, 1.0], [1.0, 7.5, 1.0], [change, 2.0, 1.0]]);
            cheap_paths(&[one, eight])[0].iter().map(|of| of.microbatch).collect::<Vec<_>>()
        };
        assert_eq!(path(1.0), [1, 1, 8]);
        assert_eq!(path(1.6), [1, 1, 1]);
    }

    #[test]
    fn the_last_stage_has_its_own_best_microbatch() {
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
    fn slow_stages_are_not_tuned() {
        let one = measured(1, &[[0.0, 4.0, 0.0], [0.0, 6.0, 0.0]]);
        let two = measured(2, &[[0.0, 5.0, 0.0], [0.0, 2.0, 0.0]]);
        assert_eq!(candidates(&[one, two]), [[true, false], [true, true]]);
    }

    #[test]
    fn neighbours_with_the_same_microbatch_become_one_stage() {
        let [one, two] = [1, 2].map(|microbatch| measured(microbatch, &[[0.0; 3]; 3]));
        let stages = merged(&[0, 4, 9], &[&two, &one, &one]);
        assert_eq!(stages, [StageStart { step: 0, microbatch: 2 }, StageStart { step: 4, microbatch: 1 }]);
    }
}
