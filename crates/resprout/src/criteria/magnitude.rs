//! `score = |w|`.

use super::{Build, Criterion, ScoreInput};
use crate::table::Entry;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "magnitude",
    about: "the weight's absolute value",
    paper: "Han et al., Learning both weights and connections, NeurIPS 2015",
    options: &[],
    build: |_, _| Ok(Box::new(Magnitude)),
};

/// The criterion `magnitude`: the weight's absolute value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Magnitude;

impl Criterion for Magnitude {
    fn score(&self, layer: &ScoreInput) -> Vec<f64> {
        layer.weights.iter().map(|w| f64::from(w.abs())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::layer_of;
    use super::*;

    #[test]
    fn is_the_absolute_value() {
        let scores = Magnitude.score(&ScoreInput { weights: &[-2.0, 0.5, 0.0, 1.0], layer: &layer_of(4), index: 0 });
        assert_eq!(scores, [2.0, 0.5, 0.0, 1.0]);
    }
}
