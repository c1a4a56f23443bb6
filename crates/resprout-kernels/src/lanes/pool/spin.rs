//! How long a worker looks out for work before it sleeps.

use std::time::{Duration, Instant};

/// The most time to look out: waking a worker takes about as long, and the loops of a network follow each other sooner.
const MOST: Duration = Duration::from_micros(50);

/// The shortest time is this part of the longest.
const LEAST: u32 = 16;

/// Looks between two readings of the clock.
const LOOKS: usize = 16;

/// An environment variable: microseconds that a worker waits awake at the most. 0 puts it to sleep at once.
const VARIABLE: &str = "RESPROUT_SPIN";

/// The time for which a worker waits awake: half as long each time that it was in vain, longer again where it was not.
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

    /// Whether it was so within the time.
    pub fn until(&mut self, is_so: impl Fn() -> bool) -> bool {
        if is_so() {
            return true;
        }
        if self.most.is_zero() {
            return false;
        }
        let start = Instant::now();
        while start.elapsed() < self.limit {
            for _ in 0..LOOKS {
                std::hint::spin_loop();
                if is_so() {
                    self.limit = self.most.min(self.limit + self.limit / 8);
                    return true;
                }
            }
        }
        self.limit = (self.limit / 2).max(self.most / LEAST);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_in_vain_becomes_shorter_and_success_makes_it_longer() {
        let most = Duration::from_micros(160);
        let mut spin = Spin::new(most);
        assert!(!spin.until(|| false));
        assert_eq!(spin.limit, most / 2);
        (0..10).for_each(|_| assert!(!spin.until(|| false)));
        assert_eq!(spin.limit, most / LEAST);
        let looks = std::cell::Cell::new(0);
        let second = || looks.replace(looks.get() + 1) % 2 == 1;
        (0..100).for_each(|_| assert!(spin.until(second)));
        assert_eq!(spin.limit, most);
        // Without any time nobody looks twice.
        looks.set(0);
        assert!(!Spin::new(Duration::ZERO).until(second));
        assert_eq!(looks.get(), 1);
    }
}
