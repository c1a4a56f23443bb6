//! Whether several threads or the calling one alone do the next run: whichever is faster now.
//!
//! Small networks do not pay for handing their work to and fro, and on a busy machine the other threads wait for a CPU. Both
//! are found out while the session works. No choice changes a bit of the result.

use std::time::Duration;

/// Times that are compared of each way. The first run after a change finds caches cold and threads asleep, and does not count.
const TIMES: usize = 7;

/// Runs that take longer pay for handing work to and fro: they are compared only where other threads are late.
const SHORT: Duration = Duration::from_micros(500);

/// How long a choice stays at the least, and at the most. Each time it turns out right again, it stays twice as long.
const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_millis(3200);

/// Runs for which a choice stays at the least.
const RUNS: u32 = 4;

/// Of this part of the time in which the calling thread has slept on, others were late: they had no CPU.
const SUSPICIOUS: u32 = 8;

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
    /// Since the choice: time, runs and the time that the calling thread has slept.
    spent: Duration,
    runs: u32,
    slept: Duration,
    /// How long each way stays once it is chosen.
    stays: [Duration; 2],
}

impl Pace {
    /// The way of the next run.
    pub fn way(&self) -> Way {
        if self.is_trying { self.chosen.other() } else { self.chosen }
    }

    /// What the run has taken, and how long the calling thread has slept meanwhile until an item of another was done.
    pub fn note(&mut self, elapsed: Duration, slept: Duration, threads: usize) {
        let way = self.way();
        if way == self.last {
            let times = &mut self.times[way as usize];
            times.truncate(TIMES - 1);
            times.insert(0, elapsed);
        }
        self.last = way;
        // Alone it would take as many times as long as it has not slept, at the most.
        let threads = u32::try_from(threads).unwrap_or(u32::MAX);
        let is_late = way == Way::Shared && slept.saturating_mul(threads) > elapsed.saturating_mul(threads - 1);
        self.spent += elapsed;
        self.slept += slept;
        self.runs += 1;
        if is_late {
            self.give_up();
        } else if self.is_trying {
            self.compare();
        } else if self.is_due() {
            self.is_trying = true;
            self.times[way.other() as usize].clear();
        }
    }

    /// Whether the other way is to be tried.
    fn is_due(&self) -> bool {
        let times = &self.times[self.chosen as usize];
        let has_stayed = self.runs >= RUNS && self.spent >= self.stays[self.chosen as usize].max(SOON) && times.len() == TIMES;
        let is_doubtful = match self.chosen {
            Way::Alone => true,
            Way::Shared => times.iter().min() < Some(&SHORT) || self.slept * SUSPICIOUS > self.spent,
        };
        has_stayed && is_doubtful
    }

    /// Takes the faster way, once there are enough times.
    fn compare(&mut self) {
        if self.times.iter().any(|times| times.len() < TIMES) {
            return;
        }
        let [shared, alone] = self.times.each_ref().map(|times| {
            let mut sorted = times.clone();
            sorted.sort_unstable();
            sorted[TIMES / 2]
        });
        let faster = if shared < alone { Way::Shared } else { Way::Alone };
        self.choose(faster, faster == self.chosen);
    }

    /// The others are late: the calling thread goes on alone, for longer where that is nothing new.
    fn give_up(&mut self) {
        let again = self.chosen == Way::Alone || self.spent < 4 * self.stays[Way::Alone as usize];
        self.choose(Way::Alone, again);
    }

    fn choose(&mut self, way: Way, again: bool) {
        let mut stays = self.stays;
        stays[way as usize] = if again { (2 * stays[way as usize]).clamp(SOON, LATE) } else { SOON };
        let times = std::mem::take(&mut self.times);
        *self = Pace { chosen: way, last: self.last, times, stays, ..Pace::default() };
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
            match pace.way() {
                Way::Shared => pace.note(us(shared), us(slept), 2),
                Way::Alone => pace.note(us(alone), Duration::ZERO, 2),
            }
            count += usize::from(pace.way() == Way::Alone);
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
    fn who_is_held_up_goes_on_alone_for_longer_each_time() {
        let mut pace = Pace::default();
        let mut alone = |slept: u64| {
            while pace.way() == Way::Alone {
                run(&mut pace, 1, [8_000, 9_000], 0);
            }
            run(&mut pace, 1, [8_000, 9_000], slept);
            let mut copy = 0;
            while pace.way() == Way::Alone {
                run(&mut pace, 1, [8_000, 9_000], 0);
                copy += 1;
            }
            copy
        };
        // Alone it would have taken 8 ms at the most. The first time, seven times are taken behind one that does not count.
        assert_eq!(alone(4_000), 0);
        assert_eq!([alone(4_100), alone(5_000), alone(8_000), alone(5_000)], [8, 5, 9, 18]);
        assert!((0..10).map(|_| alone(5_000)).max() == Some(356));
    }
}
