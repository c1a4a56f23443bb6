//! How long a worker looks out for work before it sleeps.

use std::time::{Duration, Instant};

/// The most time to look out. Waking a worker takes a quarter of it; loops of a network follow each other sooner, unless a worker
/// has no CPU: then one that looks out would only take it from those that could work.
const MOST: Duration = Duration::from_micros(200);

/// The shortest time is this part of the longest.
const LEAST: u32 = 16;

/// Looks between two readings of the clock.
const LOOKS: usize = 16;

/// An environment variable: microseconds that a worker waits awake at the most. 0 puts it to sleep at once.
const VARIABLE: &str = "RESPROUT_SPIN";

/// The time for which a worker waits awake: half as long each time that what it waited for was far off, longer again where that
/// came soon, before it slept or behind.
pub struct Spin {
    limit: Duration,
    most: Duration,
}

/// The most time that workers of this process wait awake.
///
/// # Errors
/// If the environment says something else than a number.
pub fn most() -> std::io::Result<Duration> {
    let Some(text) = std::env::var_os(VARIABLE) else { return Ok(MOST) };
    let number = text.to_str().and_then(|text| text.trim().parse().ok());
    let invalid = || format!("{VARIABLE}={}: a number of microseconds from 0 on is needed", text.display());
    number.map(Duration::from_micros).ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidInput, invalid()))
}

impl Spin {
    pub fn new(most: Duration) -> Spin {
        Spin { limit: most, most }
    }

    /// Whether it was so within the time, or else when the worker has begun to look out.
    pub fn until(&mut self, is_so: impl Fn() -> bool) -> Result<(), Instant> {
        if is_so() {
            return Ok(());
        }
        let start = Instant::now();
        while start.elapsed() < self.limit {
            for _ in 0..LOOKS {
                std::hint::spin_loop();
                if is_so() {
                    self.limit = self.most.min(self.limit + self.limit / 8);
                    return Ok(());
                }
            }
        }
        Err(start)
    }

    /// It was so after this time, most of which the worker has slept.
    pub fn learn(&mut self, waited: Duration) {
        let limit = if waited < self.most { 2 * waited.max(self.limit) } else { self.limit / 2 };
        self.limit = limit.clamp(self.most / LEAST, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_far_off_makes_waiting_shorter_and_what_is_near_longer() {
        let most = Duration::from_micros(160);
        let mut spin = Spin::new(most);
        assert!(spin.until(|| false).is_err());
        spin.learn(2 * most);
        assert_eq!(spin.limit, most / 2);
        (0..10).for_each(|_| spin.learn(most));
        assert_eq!(spin.limit, most / LEAST);
        spin.learn(most / 4);
        assert_eq!(spin.limit, most / 2);
        let looks = std::cell::Cell::new(0);
        let second = || looks.replace(looks.get() + 1) % 2 == 1;
        (0..100).for_each(|_| assert!(spin.until(second).is_ok()));
        assert_eq!(spin.limit, most);
        // Without any time nobody looks twice.
        looks.set(0);
        let mut never = Spin::new(Duration::ZERO);
        never.learn(Duration::ZERO);
        assert!(never.until(second).is_err());
        assert_eq!(looks.get(), 1);
    }
}
