//! When the calling thread works alone, because the others hold it up.

use std::time::Duration;

/// Runs that it does alone at the most before it tries the others again.
const MOST: u32 = 32;

/// How many runs the calling thread does alone: twice as many each time that it would have been faster alone, half as many each
/// time that it would not.
#[derive(Default)]
pub struct Pace {
    /// Runs that are left of those.
    left: u32,
    /// Of the next time.
    next: u32,
}

impl Pace {
    /// Whether the next run is one of those.
    pub fn is_alone(&mut self) -> bool {
        let alone = self.left > 0;
        self.left = self.left.saturating_sub(1);
        alone
    }

    /// What so many threads have taken for a run, of which the calling one has slept so long until an item of another was done.
    /// Alone it would take as many times as long as it has not slept, at the most.
    pub fn note(&mut self, elapsed: Duration, slept: Duration, threads: u32) {
        let is_late = slept * threads > elapsed * (threads - 1);
        self.next = if is_late { (2 * self.next).clamp(1, MOST) } else { self.next / 2 };
        self.left = if is_late { self.next } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_workers_are_left_out_for_more_and_more_runs() {
        let mut pace = Pace::default();
        let ms = Duration::from_millis;
        let mut alone = |elapsed: u64, slept: u64, threads: u32| {
            pace.note(ms(elapsed), ms(slept), threads);
            (0..).take_while(|_| pace.is_alone()).count()
        };
        // Without the others it would have taken 8 ms at the most.
        assert_eq!(alone(8, 4, 2), 0);
        assert_eq!([alone(8, 5, 2), alone(8, 5, 2), alone(8, 8, 2), alone(9, 5, 2)], [1, 2, 4, 8]);
        assert_eq!([alone(8, 0, 2), alone(8, 5, 2)], [0, 8]);
        assert_eq!((0..10).map(|_| alone(8, 7, 2)).max(), Some(32));
        // Of four threads, three are worth waiting for longer.
        assert_eq!([alone(8, 6, 4), alone(8, 7, 4)], [0, 32]);
        (0..9).for_each(|_| assert_eq!(alone(8, 0, 2), 0));
        assert_eq!(alone(8, 5, 2), 1);
    }
}
