//! Chooses whether several threads or the calling one alone do the next run: whichever is faster now.
//!
//! A small network does not pay for the synchronisation of threads, and on a busy machine the other threads wait for a CPU.
//! The session measures both while it works. No choice changes a bit of the result.

use std::time::Duration;

/// The fewest and the most times that a comparison takes of each choice. The first run after a change finds caches cold
/// and threads asleep, and does not count.
const TIMES: [usize; 2] = [2, 7];

/// The time that a comparison aims for, within these numbers.
const COMPARISON: Duration = Duration::from_millis(30);

/// A comparison is given up once it takes this many times as long as the current choice would.
const MAX_SLOWDOWN: u32 = 2;

/// The longest run that synchronisation can dominate. Longer ones are compared only where other threads are late.
const SHORT: Duration = Duration::from_micros(500);

/// The shortest and the longest time between comparisons. It doubles each time that a choice is confirmed.
const MIN_HOLD: Duration = Duration::from_millis(20);
const MAX_HOLD: Duration = Duration::from_millis(3200);

/// A choice holds for at least this many times the cost of the comparison.
const COST_FACTOR: u32 = 100;

/// A run on one thread may take longer by one part in this many: it leaves the other CPUs free and nobody is late.
const SINGLE_BONUS: u32 = 50;

/// Other threads count as late if the calling one has slept for one part of the time in this many.
const SLEEP_SHARE: u32 = 8;

/// The time that late threads may cost before the calling one goes on alone; or one run, if that takes longer.
const MAX_LOSS: Duration = Duration::from_millis(4);

/// The threads of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Threading {
    /// All threads.
    #[default]
    Multi,
    /// The calling thread.
    Single,
}

impl Threading {
    fn other(self) -> Threading {
        match self {
            Threading::Multi => Threading::Single,
            Threading::Single => Threading::Multi,
        }
    }
}

/// Chooses the threads of each run by the times of earlier ones.
#[derive(Default)]
pub(super) struct AdaptiveThreading {
    chosen: Threading,
    /// Whether the other choice is being tried.
    is_trying: bool,
    /// That of the last run.
    last: Threading,
    /// The latest comparable times of each choice.
    times: [Vec<Duration>; 2],
    /// The time since the last choice, and how much of it the calling thread has slept.
    spent: Duration,
    slept: Duration,
    /// What late threads have cost lately.
    loss: Duration,
    /// How long each choice holds.
    holds: [Duration; 2],
}

/// The middle one, the shorter of two.
fn median(times: &[Duration]) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// The number of times to compare for runs of this length.
fn enough(time: Duration) -> usize {
    let [least, most] = TIMES;
    let count = COMPARISON.as_nanos() / time.as_nanos().max(1);
    usize::try_from(count).unwrap_or(most).clamp(least, most)
}

impl AdaptiveThreading {
    /// The threads of the next run.
    pub fn next(&self) -> Threading {
        if self.is_trying { self.chosen.other() } else { self.chosen }
    }

    /// Records the time of a run, and how long the calling thread has slept in it until another's item was done.
    pub fn note(&mut self, elapsed: Duration, slept: Duration, threads: usize) {
        let threading = self.next();
        let counts = threading == self.last;
        self.last = threading;
        if counts {
            let times = &mut self.times[threading as usize];
            times.truncate(TIMES[1] - 1);
            times.insert(0, elapsed);
        }
        if self.is_trying {
            return self.compare();
        }
        self.spent += elapsed;
        self.slept += slept;
        if threading == Threading::Multi && self.is_late(elapsed, slept, threads) {
            let again = self.spent < 4 * self.holds[Threading::Single as usize];
            self.choose(Threading::Single, again, Duration::ZERO);
        } else if self.is_due() {
            self.is_trying = true;
            self.times[threading.other() as usize].clear();
        }
    }

    /// Whether late threads have cost so much that the calling one goes on alone.
    fn is_late(&mut self, elapsed: Duration, slept: Duration, threads: usize) -> bool {
        // An upper bound of a run on one thread: as if the others had worked whenever this one did.
        let single = elapsed.saturating_sub(slept) * u32::try_from(threads).unwrap_or(u32::MAX);
        self.loss = (self.loss + elapsed.saturating_sub(single)).saturating_sub(single.saturating_sub(elapsed) / 2);
        self.loss > median(&self.times[Threading::Multi as usize]).unwrap_or(elapsed).max(MAX_LOSS)
    }

    /// Whether it is time to try the other choice.
    fn is_due(&self) -> bool {
        let times = &self.times[self.chosen as usize];
        let has_held = self.spent >= self.holds[self.chosen as usize].max(MIN_HOLD);
        let is_known = median(times).is_some_and(|time| times.len() >= enough(time));
        let is_doubtful = match self.chosen {
            Threading::Single => true,
            Threading::Multi => times.iter().min() < Some(&SHORT) || self.slept * SLEEP_SHARE > self.spent,
        };
        has_held && is_known && is_doubtful
    }

    /// Takes the faster choice once there are enough times, or the current one if the other is far slower.
    fn compare(&mut self) {
        let [multi, single] = self.times.each_ref().map(|times| median(times).unwrap_or_default());
        let current = if self.chosen == Threading::Multi { multi } else { single };
        let (count, tried) = (enough(current), &self.times[self.chosen.other() as usize]);
        let (spent, most): (Duration, Duration) = (tried.iter().sum(), current * count as u32 * MAX_SLOWDOWN);
        if spent > most || tried.len() >= count {
            let faster = if single <= multi + multi / SINGLE_BONUS { Threading::Single } else { Threading::Multi };
            let chosen = if spent > most { self.chosen } else { faster };
            let cost = spent.min(most).saturating_sub(current * tried.len() as u32);
            self.choose(chosen, chosen == self.chosen, cost);
        }
    }

    /// Sets the choice. `again`: whether it is confirmed; `cost`: what trying the other one has cost.
    fn choose(&mut self, chosen: Threading, again: bool, cost: Duration) {
        let mut holds = self.holds;
        let twice = (2 * holds[chosen as usize]).clamp(MIN_HOLD, MAX_HOLD);
        holds[chosen as usize] = if again { twice.max(cost * COST_FACTOR) } else { MIN_HOLD };
        let times = std::mem::take(&mut self.times);
        *self = AdaptiveThreading { chosen, last: self.last, times, holds, ..AdaptiveThreading::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Microseconds of a run with all threads and with one, and those that the calling thread sleeps of the former. Returns
    /// how often the next run is on one thread.
    fn run(choice: &mut AdaptiveThreading, runs: usize, [multi, single]: [u64; 2], slept: u64) -> usize {
        let us = Duration::from_micros;
        let mut count = 0;
        for _ in 0..runs {
            match choice.next() {
                Threading::Multi => choice.note(us(multi), us(slept), 2),
                Threading::Single => choice.note(us(single), Duration::ZERO, 2),
            }
            count += usize::from(choice.next() == Threading::Single);
        }
        count
    }

    #[test]
    fn a_small_network_takes_the_faster_choice_and_tries_the_other_ever_less() {
        let mut choice = AdaptiveThreading::default();
        // 20 ms of the first choice, then 6 runs of the other.
        assert_eq!(run(&mut choice, 99, [200, 100], 0), 0);
        run(&mut choice, 20, [200, 100], 0);
        assert_eq!(choice.chosen, Threading::Single);
        let single = run(&mut choice, 100_000, [200, 100], 0);
        assert!(99_900 < single && single < 99_990, "{single}");
        // Now all threads are faster.
        run(&mut choice, 32_100, [50, 100], 0);
        let multi = 100_000 - run(&mut choice, 100_000, [50, 100], 0);
        assert!(99_900 < multi && multi < 99_990, "{multi}");
    }

    #[test]
    fn a_large_network_uses_all_threads_as_long_as_none_is_late() {
        let mut choice = AdaptiveThreading::default();
        assert_eq!(run(&mut choice, 10_000, [20_000, 40_000], 2_000), 0);
        // All threads are slower, and the calling one sleeps for a quarter of the time.
        run(&mut choice, 3_000, [50_000, 40_000], 12_000);
        assert!(run(&mut choice, 1_000, [50_000, 40_000], 12_000) > 900);
        // They are faster although it sleeps.
        run(&mut choice, 200, [30_000, 40_000], 7_000);
        assert!(run(&mut choice, 10_000, [30_000, 40_000], 7_000) < 1_000);
    }

    #[test]
    fn a_comparison_of_long_runs_costs_little() {
        let mut choice = AdaptiveThreading::default();
        // The calling thread sleeps so long that one thread might be faster. It is not.
        let single = run(&mut choice, 2_000, [190_000, 380_000], 40_000);
        assert!((3..40).contains(&single), "{single}");
        // On one thread each run takes five times as long. Two are tried, and the first does not count.
        let mut choice = AdaptiveThreading::default();
        assert_eq!(run(&mut choice, 20, [190_000, 950_000], 40_000), 2);
    }

    #[test]
    fn a_thread_that_waits_for_others_goes_on_alone_for_longer_each_time() {
        let mut choice = AdaptiveThreading::default();
        // One thread would take 8 ms at most: only comparisons run on it.
        assert!(run(&mut choice, 100, [8_000, 9_000], 4_000) < 20);
        // One thread would take 2 ms. A single late run changes nothing.
        assert_eq!(run(&mut choice, 1, [8_000, 9_000], 7_000), 0);
        run(&mut choice, 50, [8_000, 9_000], 1_000);
        let mut single = || {
            while choice.next() == Threading::Multi {
                run(&mut choice, 1, [8_000, 9_000], 7_000);
            }
            (0..).take_while(|_| run(&mut choice, 1, [8_000, 9_000], 7_000) == 1).count()
        };
        assert!(single() < 5);
        // 3.2 s, and the runs of a comparison.
        let longest = (0..50).map(|_| single()).max();
        assert!((350..370).contains(&longest.unwrap_or(0)), "{longest:?}");
    }
}
