//! Turns of batches, and what their times come to.

use crate::reports::bench::Times;
use resprout::session::Session;
use resprout::tensor::Tensor;
use std::time::{Duration, Instant};

/// Batches of a turn that count.
pub const TURN: usize = 3;

/// A pause before each turn of ours: the baseline's threads wait by spinning, which takes CPUs from us.
pub const PAUSE: Duration = Duration::from_millis(50);

/// How long batches of a turn do not count: they find caches, threads and clocks cold.
const WARM: Duration = PAUSE;

/// The time of one batch.
pub fn seconds(session: &mut Session, images: &Tensor) -> anyhow::Result<f64> {
    let start = Instant::now();
    session.run(images)?;
    Ok(start.elapsed().as_secs_f64())
}

/// The times of a few batches, once warm.
pub fn turn(mut batch: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<Vec<f64>> {
    let start = Instant::now();
    batch()?;
    while start.elapsed() < WARM {
        batch()?;
    }
    (0..TURN).map(|_| batch()).collect()
}

/// Percentiles, mean and throughput.
pub fn times(all: &[f64], batch: usize) -> Times {
    let p50 = percentile(all, 0.5);
    let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
    Times { p50, p90: percentile(all, 0.9), mean, images_per_second: batch as f64 / p50 }
}

/// The value below which the share lies. Of an even number of values the median is the lower one.
pub fn percentile(all: &[f64], share: f64) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (share * (sorted.len().max(1) - 1) as f64).floor() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
