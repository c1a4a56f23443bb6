//! How long a worker spins before it sleeps.

use std::time::{Duration, Instant};

/// The most time to spin by default: four times what it takes to wake a worker. Loops of a network follow each other sooner, unless
/// a worker has no CPU. Then a spinning worker would only take the CPU from others.
const MOST: Duration = Duration::from_micros(200);

/// The shortest time to spin is this fraction of the longest.
const LEAST: u32 = 16;

/// Checks between two readings of the clock.
const CHECKS: usize = 16;

/// An environment variable: the most microseconds that a worker spins. With 0 it sleeps at once.
const VARIABLE: &str = "RESPROUT_SPIN";

/// The time for which a worker spins. It is halved whenever the event came late, and grows whenever the event came soon, before or
/// after the worker slept.
pub(super) struct Spin {
    limit: Duration,
    most: Duration,
}

/// The most time that workers of this process spin.
///
/// # Errors
/// If the environment variable is not a number.
pub(super) fn most() -> std::io::Result<Duration> {
    let Some(text) = std::env::var_os(VARIABLE) else { return Ok(MOST) };
    let number = text.to_str().and_then(|text| text.trim().parse().ok());
    let invalid = || format!("{VARIABLE}={}: a number of microseconds from 0 on is needed", text.display());
    number.map(Duration::from_micros).ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidInput, invalid()))
}

impl Spin {
    pub fn new(most: Duration) -> Spin {
        Spin { limit: most, most }
    }

    /// Spins until the condition holds. If it does not within the time, returns when the worker began to spin.
    pub fn until(&mut self, condition: impl Fn() -> bool) -> Result<(), Instant> {
        if condition() {
            return Ok(());
        }
        let start = Instant::now();
        while start.elapsed() < self.limit {
            for _ in 0..CHECKS {
                std::hint::spin_loop();
                if condition() {
                    self.limit = self.most.min(self.limit + self.limit / 8);
                    return Ok(());
                }
            }
        }
        Err(start)
    }

    /// Notes that the condition held after this time, most of which the worker has slept.
    pub fn learn(&mut self, waited: Duration) {
        let limit = if waited < self.most { 2 * waited.max(self.limit) } else { self.limit / 2 };
        self.limit = limit.clamp(self.most / LEAST, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_events_shorten_spinning_and_early_ones_lengthen_it() {
        let most = Duration::from_micros(160);
        let mut spin = Spin::new(most);
        assert!(spin.until(|| false).is_err());
        spin.learn(2 * most);
        assert_eq!(spin.limit, most / 2);
        (0..10).for_each(|_| spin.learn(most));
        assert_eq!(spin.limit, most / LEAST);
        spin.learn(most / 4);
        assert_eq!(spin.limit, most / 2);
        let checks = std::cell::Cell::new(0);
        let second = || checks.replace(checks.get() + 1) % 2 == 1;
        (0..100).for_each(|_| assert!(spin.until(second).is_ok()));
        assert_eq!(spin.limit, most);
        // Without any time the condition is checked once.
        checks.set(0);
        let mut never = Spin::new(Duration::ZERO);
        never.learn(Duration::ZERO);
        assert!(never.until(second).is_err());
        assert_eq!(checks.get(), 1);
    }
}
