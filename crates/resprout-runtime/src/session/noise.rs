//! Checks that the machine is quiet enough to compare times.

use super::run::Session;
use super::stage::dummy_input;
use crate::error::Result;
use crate::linalg::median;
use std::time::{Duration, Instant};

/// The fewest times that are taken.
const TIMES: usize = 15;

/// The least time to take them for: a scheduler serves every program several times in it.
const TIME: Duration = Duration::from_millis(100);

/// Shorter batches are timed together. About this long a program runs before the scheduler serves another one.
const SLICE: Duration = Duration::from_millis(1);

/// Steps of a computation that takes about as long. A batch that takes much longer always waits for about as many slices.
const STEPS: u64 = 400_000;

/// The largest ratio of upper to lower decile. On a quiet machine it is 1.1 or less.
const SPREAD: f64 = 1.5;

/// The largest ratio of two medians of the same machine, up or down.
const DRIFT: f64 = 1.25;

/// Repeated times of one batch and of one computation.
pub(super) struct Noise {
    batches: Times,
    steps: Times,
}

/// Seconds in ascending order.
struct Times(Vec<f64>);

impl Times {
    /// Repeats `work`, which returns the seconds of one run.
    fn of(mut work: impl FnMut() -> Result<f64>) -> Result<Times> {
        let (start, mut times) = (Instant::now(), Vec::new());
        while times.len() < TIMES || start.elapsed() < TIME {
            times.push(work()?);
        }
        times.sort_by(f64::total_cmp);
        Ok(Times(times))
    }

    /// Lower and upper decile as text, if they are far apart.
    fn spread(&self) -> Option<String> {
        let last = self.0.len() - 1;
        let (low, high) = (self.0[last / 10], self.0[last - last / 10]);
        (high > SPREAD * low).then(|| format!("{:.3} to {:.3} ms", 1e3 * low, 1e3 * high))
    }
}

impl Noise {
    /// Times the session on a batch.
    pub fn of(session: &mut Session) -> Result<Noise> {
        let images = dummy_input(session.batch, &session.image.clone());
        // The first run finds caches cold and threads asleep.
        session.run(&images)?;
        let batch = || {
            let (start, mut count) = (Instant::now(), 0);
            while count == 0 || start.elapsed() < SLICE {
                session.run(&images)?;
                count += 1;
            }
            Ok(start.elapsed().as_secs_f64() / f64::from(count))
        };
        let (batches, steps) = (Times::of(batch)?, Times::of(|| Ok(compute()))?);
        Ok(Noise { batches, steps })
    }

    /// Why these times are useless, if they are.
    pub fn complaint(&self) -> Option<String> {
        let batches = self.batches.spread().map(|spread| format!("the same batch takes {spread}"));
        batches.or_else(|| self.steps.spread().map(|spread| format!("the same computation takes {spread}")))
    }

    /// The same for what was measured between this moment and a later one.
    pub fn complaint_until(&self, later: &Noise) -> Option<String> {
        let [before, after] = [self, later].map(|noise| median(&noise.batches.0));
        let drifts = after > DRIFT * before || before > DRIFT * after;
        let drift = || format!("the same batch took {:.3} ms before and {:.3} ms afterwards", 1e3 * before, 1e3 * after);
        later.complaint().or_else(|| drifts.then(drift))
    }
}

/// Seconds of a computation on this thread alone.
fn compute() -> f64 {
    let start = Instant::now();
    let mut state = 1u64;
    (0..STEPS).for_each(|step| state = std::hint::black_box(state.wrapping_mul(step | 1)));
    start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_vary_or_drift_are_noise() {
        let steady = |scale: f64| Times((0..20).map(|i| scale * (1.0 + 0.01 * f64::from(i))).collect());
        // `count` of twenty times are late.
        let late = |count: usize| Times((0..20).map(|i| if i < 20 - count { 1e-3 } else { 8e-3 }).collect());
        let noise = |batches: Times, steps: Times| Noise { batches, steps };
        let quiet = |scale: f64| noise(steady(scale), steady(1.0));
        assert!(quiet(1.0).complaint().is_none());
        assert!(quiet(1.0).complaint_until(&quiet(1.1)).is_none());
        assert!(quiet(1.0).complaint_until(&quiet(1.4)).unwrap().contains("afterwards"));
        assert!(quiet(1.4).complaint_until(&quiet(1.0)).is_some());
        // One late time is normal, a fifth of all is not.
        assert!(noise(late(1), late(1)).complaint().is_none());
        assert_eq!(noise(late(4), late(0)).complaint().unwrap(), "the same batch takes 1.000 to 8.000 ms");
        assert!(noise(steady(1.0), late(4)).complaint().unwrap().contains("computation"));
        assert!(quiet(1.0).complaint_until(&noise(steady(1.0), late(4))).is_some());
    }
}
