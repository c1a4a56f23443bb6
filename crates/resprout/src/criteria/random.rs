//! `score ~ U[0, 1)`: the baseline of all criteria.

use super::{Build, Criterion, ScoreInput};
use crate::random::SplitMix64;
use crate::table::Entry;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "random",
    about: "a random number, from the seed",
    paper: "baseline",
    options: &[],
    build: |_, seed| Ok(Box::new(Random { seed })),
};

struct Random {
    seed: u64,
}

impl Criterion for Random {
    fn score(&self, layer: &ScoreInput) -> Vec<f64> {
        let mut random = SplitMix64::new(self.seed, layer.index as u64);
        layer.weights.iter().map(|_| random.next_f64()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::layer_of;
    use super::*;

    #[test]
    fn depends_on_seed_and_layer_only() {
        let scores =
            |seed, index| Random { seed }.score(&ScoreInput { weights: &[1.0, 2.0, 3.0, 4.0], layer: &layer_of(4), index });
        assert_eq!(scores(7, 0), scores(7, 0));
        assert_ne!(scores(7, 0), scores(8, 0));
        assert_ne!(scores(7, 0), scores(7, 1));
        assert!(scores(7, 0).iter().all(|s| (0.0..1.0).contains(s)));
    }
}
