//! What operations take, and which way to cut a convolution takes the least.

use super::arena::Arena;
use super::layout::Lanes;
use super::program::{Base, Choice, Conv, Op, Paths, Program};
use super::team::{Member, Team};
use super::tile::GROUPS;
use crate::table::Kernel;
use crate::{Activation, ConvShape};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Times the better of two paths may be faster, at the first look, for the other to be looked at in full.
const HOPELESS: f64 = 2.0;

/// Times a choice may be slower at its first runs for them not to be the last.
const UNLIKELY: f64 = 1.3;

impl Program {
    /// Seconds of every operation: the least of `runs` runs. In one arena all threads share each operation; with an arena for
    /// each, every thread runs images of its own, and the time is that of all.
    ///
    /// # Panics
    /// As [`run`](Self::run), or if there are several arenas and not as many as threads.
    pub fn time(
        &self,
        arenas: &mut [Arena],
        team: &mut Team,
        inputs: &[&[f32]],
        outputs: &mut [&mut [f32]],
        runs: usize,
    ) -> Vec<f64> {
        let mut places = Places::new(arenas, self.lines, team);
        let (pointers, _) = self.check(&mut arenas[0], inputs, outputs);
        places.0[0].outputs = pointers.as_ptr();
        let watches: Vec<Stopwatch> = self.ops.iter().map(|_| Stopwatch::default()).collect();
        team.run(&|member| {
            let (base, worker) = places.of(member);
            for _ in 0..runs {
                for (op, watch) in self.ops.iter().zip(&watches) {
                    watch.time(member, || self.run_op(op, base, inputs, &worker));
                }
            }
        });
        watches.iter().map(Stopwatch::least).collect()
    }

    /// Tries ways to cut each convolution, within about `limit`, and keeps the fastest of those that are on these paths.
    /// Arenas as for [`time`](Self::time). Returns of each convolution the fastest that was found on the dense path.
    ///
    /// # Panics
    /// As [`time`](Self::time).
    pub fn tune(&mut self, arenas: &mut [Arena], team: &mut Team, limit: Duration, paths: Paths) -> Vec<Choice> {
        let start = Instant::now();
        let places = Places::new(arenas, self.lines, team);
        let mut known: Vec<(Signature, Fastest)> = Vec::new();
        let mut left = self.convs().count();
        let kernel = self.kernel;
        let mut dense = Vec::new();
        for op in &mut self.ops {
            let Op::Conv(conv) = op else { continue };
            let signature = conv.signature();
            let found = known.iter().find(|(known, _)| *known == signature).map(|(_, fastest)| *fastest);
            let fastest = found.unwrap_or_else(|| {
                let share = limit.saturating_sub(start.elapsed()) / u32::try_from(left).unwrap_or(1);
                conv.fastest(kernel, &places, team, share, paths)
            });
            if conv.choice != fastest.of_all {
                conv.choose(kernel, fastest.of_all);
            }
            dense.push(fastest.dense);
            known.push((signature, fastest));
            left -= 1;
        }
        dense
    }
}

/// Where each thread of a team works: all in one arena, sharing what is done, or each alone in its own.
struct Places(Vec<Base>);

impl Places {
    fn new(arenas: &mut [Arena], lines: usize, team: &Team) -> Places {
        assert!(arenas.iter().all(|arena| arena.len() == lines), "an arena of another program");
        assert!(arenas.len() == 1 || arenas.len() == team.threads(), "one arena, or one for each thread");
        Places(arenas.iter_mut().map(|arena| Base { arena: arena.pointer(), outputs: std::ptr::null() }).collect())
    }

    /// How many threads share an operation.
    fn sharing(&self, team: &Team) -> usize {
        if self.0.len() == 1 { team.threads() } else { 1 }
    }

    fn of<'a>(&self, member: &Member<'a>) -> (Base, Member<'a>) {
        if self.0.len() == 1 { (self.0[0], *member) } else { (self.0[member.index], Member::alone()) }
    }
}

/// What decides which choice is the fastest.
#[derive(PartialEq)]
struct Signature {
    shape: ConvShape,
    lanes: Lanes,
    added: bool,
    /// In sixteenths of a doubling.
    nonzero: i32,
}

/// The fastest choices of a convolution.
#[derive(Clone, Copy)]
struct Fastest {
    of_all: Choice,
    dense: Choice,
}

impl Conv {
    fn signature(&self) -> Signature {
        Signature {
            shape: self.shape.clone(),
            lanes: self.to.extent.lanes,
            added: self.added.is_some(),
            nonzero: ((self.work() as f64).log2() * 16.0).round() as i32,
        }
    }

    /// Measures candidates, each a few times, as long as there is time.
    fn fastest(&mut self, kernel: Kernel, places: &Places, team: &mut Team, limit: Duration, paths: Paths) -> Fastest {
        let start = Instant::now();
        let likely = self.usual(kernel, paths);
        let others = [Paths::Sparse, Paths::Dense].map(|paths| self.usual(kernel, paths));
        let mut tried: Vec<(f64, Choice)> = Vec::new();
        for choice in [likely].into_iter().chain(others.into_iter().filter(|_| paths == Paths::Any)) {
            if tried.iter().all(|(_, known)| *known != choice) {
                self.choose(kernel, choice);
                tried.push((self.measure(places, team, f64::INFINITY), choice));
            }
        }
        let best = |tried: &[(f64, Choice)], of: &dyn Fn(&Choice) -> bool| {
            tried.iter().filter(|(_, choice)| of(choice)).copied().min_by(|a, b| a.0.total_cmp(&b.0))
        };
        let mut least = best(&tried, &|_| true).map_or(f64::INFINITY, |(seconds, _)| seconds);
        let largest = self.largest_group(kernel);
        let hopeful = |group: usize| tried.iter().any(|(seconds, choice)| choice.group == group && *seconds < HOPELESS * least);
        // What is between both ends has hope where both have.
        let groups: Vec<usize> = GROUPS
            .into_iter()
            .filter(|&group| self.groups_by(kernel, group) && if group == 1 { hopeful(1) } else { hopeful(largest) })
            .filter(|&group| paths != Paths::Dense || group == largest)
            .collect();
        let mut candidates = self.candidates(kernel, places.sharing(team), &groups);
        // The likely ones come first, all tiles of a block together: its stream is laid out once.
        candidates.sort_by_key(|choice| {
            let far = choice.block.max(1).ilog2().abs_diff(likely.block.max(1).ilog2());
            (far, choice.group != likely.group && choice.group != largest, choice.group, choice.block)
        });
        for choice in candidates {
            if start.elapsed() > limit {
                break;
            }
            self.choose(kernel, choice);
            let seconds = self.measure(places, team, least);
            least = least.min(seconds);
            tried.push((seconds, choice));
        }
        let of_all = best(&tried, &|_| true).map_or(likely, |(_, choice)| choice);
        let dense = best(&tried, &|choice| choice.group == largest).map_or(others[1], |(_, choice)| choice);
        Fastest { of_all, dense }
    }

    /// The least time of a few runs; of fewer where the first say that it will not come near `best`.
    fn measure(&self, places: &Places, team: &mut Team, best: f64) -> f64 {
        let watch = Stopwatch::default();
        let mut run = || {
            team.run(&|member| {
                let (base, worker) = places.of(member);
                for _ in 0..2 {
                    // SAFETY: as in `Program::run_op`; threads that do not share have arenas of their own.
                    watch.time(member, || unsafe { self.run(base, &worker) });
                }
            });
            watch.least()
        };
        if run() > UNLIKELY * best { watch.least() } else { run() }
    }
}

/// The least time that a team has taken for some work.
#[derive(Default)]
struct Stopwatch(Mutex<Option<Duration>>);

impl Stopwatch {
    /// Does this thread's part of the work; the first thread takes the time from one meeting to the next. It begins before the
    /// first: held up behind it, this thread could find all the work done by the others, and no time gone.
    fn time(&self, member: &Member, work: impl FnOnce()) {
        let start = Instant::now();
        member.meet();
        work();
        member.meet();
        if member.index == 0 {
            let elapsed = start.elapsed();
            let mut least = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *least = Some(least.map_or(elapsed, |least| least.min(elapsed)));
        }
    }

    /// In seconds; infinite if nothing was timed.
    fn least(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map_or(f64::INFINITY, |least| least.as_secs_f64())
    }
}

/// Multiply-accumulates per second that `threads` threads can do on this machine at the most: a dense convolution all of
/// whose numbers lie in the first-level cache.
pub fn limit(threads: usize) -> std::io::Result<f64> {
    const CHANNELS: [usize; 2] = [32, 16];
    const SIZE: [usize; 2] = [4, 12];
    const WEIGHTS: usize = CHANNELS[0] * CHANNELS[1];
    let shape = ConvShape::pointwise(CHANNELS[0], SIZE, CHANNELS[1]);
    let weight = [0.5; WEIGHTS];
    let mut builder = super::Builder::new(Kernel::best(), 1, 1);
    let input = builder.input(CHANNELS[0], SIZE);
    let convolution = super::Convolution { shape, weight: &weight, bias: &[], activation: Activation::None, added: None };
    let output = builder.conv("limit", input, convolution);
    builder.output(output);
    let Some(program) = builder.finish() else { return Ok(f64::NAN) };
    let conv = program.convs().next();
    let watch = Stopwatch::default();
    const RUNS: usize = 2000;
    let mut team = Team::new(threads)?;
    let mut arenas: Vec<Arena> = (0..team.threads()).map(|_| program.arena()).collect();
    let places = Places::new(&mut arenas, program.lines, &team);
    team.run(&|member| {
        let (base, worker) = places.of(member);
        for _ in 0..5 {
            watch.time(member, || {
                for _ in 0..RUNS {
                    // SAFETY: as in `run_op`; each thread has an arena of its own.
                    conv.into_iter().for_each(|conv| unsafe { conv.run(base, &worker) });
                }
            });
        }
    });
    Ok((threads * RUNS * WEIGHTS * SIZE[0] * SIZE[1]) as f64 / watch.least())
}
