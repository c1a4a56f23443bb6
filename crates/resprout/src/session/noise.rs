//! Whether the machine is quiet enough for times to be compared.

use super::{Session, grey};
use crate::error::Result;
use crate::linalg::median;
use std::time::{Duration, Instant};

/// Batches that are timed at the least.
const BATCHES: usize = 15;

/// For so long they are timed at the least: a scheduler that serves several programs goes round more often.
const TIME: Duration = Duration::from_millis(100);

/// Times the lower decile that the upper one may be. On a quiet machine it is 1.1 or less.
const SPREAD: f64 = 1.5;

/// Times the median may change from one look to the next, up or down.
const DRIFT: f64 = 1.25;

/// The times of one batch, again and again.
pub(super) struct Noise {
    sorted: Vec<f64>,
}

impl Noise {
    /// Times the session on a batch.
    pub fn of(session: &mut Session) -> Result<Noise> {
        let images = grey(session.batch, &session.image.clone());
        // The first finds caches cold and threads asleep.
        session.run(&images)?;
        let (start, mut times) = (Instant::now(), Vec::new());
        while times.len() < BATCHES || start.elapsed() < TIME {
            let start = Instant::now();
            session.run(&images)?;
            times.push(start.elapsed().as_secs_f64());
        }
        Ok(Noise::new(times))
    }

    fn new(mut times: Vec<f64>) -> Noise {
        times.sort_by(f64::total_cmp);
        Noise { sorted: times }
    }

    /// Its times' lower and upper decile.
    fn deciles(&self) -> [f64; 2] {
        let last = self.sorted.len() - 1;
        [self.sorted[last / 10], self.sorted[last - last / 10]]
    }

    /// What makes these times useless, if something does.
    pub fn complaint(&self) -> Option<String> {
        let [low, high] = self.deciles();
        let ms = |seconds: f64| format!("{:.3}", 1e3 * seconds);
        (high > SPREAD * low).then(|| format!("the same batch takes {} to {} ms", ms(low), ms(high)))
    }

    /// The same for what was measured between two looks, of which this is the earlier one.
    pub fn complaint_until(&self, later: &Noise) -> Option<String> {
        let [before, after] = [self, later].map(|noise| median(&noise.sorted));
        let drifts = after > DRIFT * before || before > DRIFT * after;
        let ms = |seconds: f64| format!("{:.3}", 1e3 * seconds);
        let drift = || format!("the same batch took {} ms before and {} ms afterwards", ms(before), ms(after));
        later.complaint().or_else(|| drifts.then(drift))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_or_drifts_is_noise() {
        let steady = |scale: f64| Noise::new((0..20).map(|i| scale * (1.0 + 0.01 * f64::from(i))).collect());
        assert!(steady(1.0).complaint().is_none());
        assert!(steady(1.0).complaint_until(&steady(1.1)).is_none());
        assert!(steady(1.0).complaint_until(&steady(1.4)).unwrap().contains("afterwards"));
        assert!(steady(1.4).complaint_until(&steady(1.0)).is_some());
        // One that is late happens everywhere; a fifth of all do not.
        let late = |count: usize| Noise::new((0..20).map(|i| if i < count { 8e-3 } else { 1e-3 }).collect());
        assert!(late(1).complaint().is_none());
        assert_eq!(late(4).complaint().unwrap(), "the same batch takes 1.000 to 8.000 ms");
    }
}
