//! Whether several threads or the calling one alone do the next run: whichever is faster now.
//!
//! Small networks do not pay for handing their work to and fro, and on a busy machine the other threads wait for a CPU. Both
//! are found out while the session works. No blocking changes a bit of the result.

use std::time::Duration;

/// Times that are compared of each way, at the most and at the least: fewer of runs that take long. The first run after a
/// change finds caches cold and threads asleep, and does not count.
const TIMES: [usize; 2] = [2, 7];

/// About as long a comparison takes, as far as that many times allow.
const COMPARISON: Duration = Duration::from_millis(30);

/// A comparison that takes this many times as long as the chosen way would is given up.
const MAX_SLOWDOWN: u32 = 2;

/// Runs that take longer pay for handing work to and fro: they are compared only where other threads are late.
const SHORT: Duration = Duration::from_micros(500);

/// How long a blocking stays at the least, and at the most. Each time it turns out right again, it stays twice as long.
const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_millis(3200);

/// It stays for so many times what it has cost to try the other one.
const COST: u32 = 100;

/// Alone a run may take longer by this part: it leaves the other CPUs to others, and nobody can be late.
const FAVOUR: u32 = 50;

/// Of this part of the time in which the calling thread has slept on, others were late: they had no CPU.
const SUSPICIOUS: u32 = 8;

/// What late threads may cost until the calling one goes on alone; or a run, if that takes longer.
const REGRET: Duration = Duration::from_millis(4);

/// Who does a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Way {
    /// All threads.
    #[default]
    Shared,
    /// The calling thread.
    Alone,
}

impl Way {
    fn other(self) -> Way {
        match self {
            Way::Shared => Way::Alone,
            Way::Alone => Way::Shared,
        }
    }
}

/// Chooses the way of each run by the times of those before.
#[derive(Default)]
pub(super) struct Pace {
    chosen: Way,
    /// Whether the other way is being tried.
    is_trying: bool,
    /// The way of the last run.
    last: Way,
    /// The latest of each way, which are comparable.
    times: [Vec<Duration>; 2],
    /// Since the blocking: time, and the time that the calling thread has slept.
    spent: Duration,
    slept: Duration,
    /// What other threads have cost lately because they were late.
    regret: Duration,
    /// How long each way stays once it is chosen.
    stays: [Duration; 2],
}

/// The middle one, the shorter of two.
fn median(times: &[Duration]) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// How many times are compared of runs that take about as long.
fn enough(time: Duration) -> usize {
    let [least, most] = TIMES;
    let count = COMPARISON.as_nanos() / time.as_nanos().max(1);
    usize::try_from(count).unwrap_or(most).clamp(least, most)
}

impl Pace {
    /// The way of the next run.
    pub fn path(&self) -> Way {
        if self.is_trying { self.chosen.other() } else { self.chosen }
    }

    /// What the run has taken, and how long the calling thread has slept meanwhile until an item of another was done.
    pub fn note(&mut self, elapsed: Duration, slept: Duration, threads: usize) {
        let path = self.path();
        let counts = path == self.last;
        self.last = path;
        if counts {
            let times = &mut self.times[path as usize];
            times.truncate(TIMES[1] - 1);
            times.insert(0, elapsed);
        }
        if self.is_trying {
            return self.compare();
        }
        self.spent += elapsed;
        self.slept += slept;
        if path == Way::Shared && self.is_late(elapsed, slept, threads) {
            let again = self.spent < 4 * self.stays[Way::Alone as usize];
            self.choose(Way::Alone, again, Duration::ZERO);
        } else if self.is_due() {
            self.is_trying = true;
            self.times[path.other() as usize].clear();
        }
    }

    /// Whether late threads have cost so much that the calling one had better work alone.
    fn is_late(&mut self, elapsed: Duration, slept: Duration, threads: usize) -> bool {
        // What a run alone takes, at the most: as if the others had worked whenever this one did.
        let alone = elapsed.saturating_sub(slept) * u32::try_from(threads).unwrap_or(u32::MAX);
        self.regret = (self.regret + elapsed.saturating_sub(alone)).saturating_sub(alone.saturating_sub(elapsed) / 2);
        self.regret > median(&self.times[Way::Shared as usize]).unwrap_or(elapsed).max(REGRET)
    }

    /// Whether the other way is to be tried.
    fn is_due(&self) -> bool {
        let times = &self.times[self.chosen as usize];
        let has_stayed = self.spent >= self.stays[self.chosen as usize].max(SOON);
        let is_known = median(times).is_some_and(|time| times.len() >= enough(time));
        let is_doubtful = match self.chosen {
            Way::Alone => true,
            Way::Shared => times.iter().min() < Some(&SHORT) || self.slept * SUSPICIOUS > self.spent,
        };
        has_stayed && is_known && is_doubtful
    }

    /// Takes the faster way, once there are enough times, or the chosen one where the other is hopeless.
    fn compare(&mut self) {
        let [shared, alone] = self.times.each_ref().map(|times| median(times).unwrap_or_default());
        let default = if self.chosen == Way::Shared { shared } else { alone };
        let (count, tried) = (enough(default), &self.times[self.chosen.other() as usize]);
        let (spent, most): (Duration, Duration) = (tried.iter().sum(), default * count as u32 * MAX_SLOWDOWN);
        if spent > most || tried.len() >= count {
            let faster = if alone <= shared + shared / FAVOUR { Way::Alone } else { Way::Shared };
            let path = if spent > most { self.chosen } else { faster };
            let cost = spent.min(most).saturating_sub(default * tried.len() as u32);
            self.choose(path, path == self.chosen, cost);
        }
    }

    /// The way from now on: `again` if it was before, and what it has cost to try the other one.
    fn choose(&mut self, path: Way, again: bool, cost: Duration) {
        let mut stays = self.stays;
        let twice = (2 * stays[path as usize]).clamp(SOON, LATE);
        stays[path as usize] = if again { twice.max(cost * COST) } else { SOON };
        let times = std::mem::take(&mut self.times);
        *self = Pace { chosen: path, last: self.last, times, stays, ..Pace::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Microseconds of a run of each way, and those that are slept of a shared one.
    fn run(pace: &mut Pace, runs: usize, [shared, alone]: [u64; 2], slept: u64) -> usize {
        let us = Duration::from_micros;
        let mut count = 0;
        for _ in 0..runs {
            match pace.path() {
                Way::Shared => pace.note(us(shared), us(slept), 2),
                Way::Alone => pace.note(us(alone), Duration::ZERO, 2),
            }
            count += usize::from(pace.path() == Way::Alone);
        }
        count
    }

    #[test]
    fn a_small_network_runs_the_faster_way_and_tries_the_other_less_and_less() {
        let mut pace = Pace::default();
        // 20 ms of the one, 6 runs of the other.
        assert_eq!(run(&mut pace, 99, [200, 100], 0), 0);
        run(&mut pace, 20, [200, 100], 0);
        assert_eq!(pace.chosen, Way::Alone);
        let alone = run(&mut pace, 100_000, [200, 100], 0);
        assert!(99_900 < alone && alone < 99_990, "{alone}");
        // The machine has changed.
        run(&mut pace, 32_100, [50, 100], 0);
        let shared = 100_000 - run(&mut pace, 100_000, [50, 100], 0);
        assert!(99_900 < shared && shared < 99_990, "{shared}");
    }

    #[test]
    fn a_large_network_is_shared_as_long_as_nobody_is_late() {
        let mut pace = Pace::default();
        assert_eq!(run(&mut pace, 10_000, [20_000, 40_000], 2_000), 0);
        // Sharing is slower, and others are asleep for a quarter of the time.
        run(&mut pace, 3_000, [50_000, 40_000], 12_000);
        assert!(run(&mut pace, 1_000, [50_000, 40_000], 12_000) > 900);
        // It is faster though they are.
        run(&mut pace, 200, [30_000, 40_000], 7_000);
        assert!(run(&mut pace, 10_000, [30_000, 40_000], 7_000) < 1_000);
    }

    #[test]
    fn a_comparison_of_long_runs_costs_little() {
        let mut pace = Pace::default();
        // Others are asleep for so long that alone might be faster. It is not.
        let alone = run(&mut pace, 2_000, [190_000, 380_000], 40_000);
        assert!((3..40).contains(&alone), "{alone}");
        // Alone each run takes five times as long: two are tried, of which the first does not count.
        let mut pace = Pace::default();
        assert_eq!(run(&mut pace, 20, [190_000, 950_000], 40_000), 2);
    }

    #[test]
    fn who_is_held_up_goes_on_alone_for_longer_each_time() {
        let mut pace = Pace::default();
        // Alone a run would have taken 8 ms at the most.
        // Comparisons.
        assert!(run(&mut pace, 100, [8_000, 9_000], 4_000) < 20);
        // Alone it would have taken 2 ms: once happens everywhere.
        assert_eq!(run(&mut pace, 1, [8_000, 9_000], 7_000), 0);
        run(&mut pace, 50, [8_000, 9_000], 1_000);
        let mut alone = || {
            while pace.path() == Way::Shared {
                run(&mut pace, 1, [8_000, 9_000], 7_000);
            }
            (0..).take_while(|_| run(&mut pace, 1, [8_000, 9_000], 7_000) == 1).count()
        };
        assert!(alone() < 5);
        // 3.2 s, and those of a comparison.
        let longest = (0..50).map(|_| alone()).max();
        assert!((350..370).contains(&longest.unwrap_or(0)), "{longest:?}");
    }
}
