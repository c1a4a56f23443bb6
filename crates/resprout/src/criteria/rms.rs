//! `score = |w| / rms(layer)`: the magnitude of a weight relative to its layer.

use super::{Build, Criterion, ScoreInput};
use crate::table::Entry;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "rms",
    about: "the absolute value by the root mean square of its layer: layers of any scale can be compared",
    paper: "per-layer normalisation of magnitude; with the allocation global it undoes differences of scale",
    options: &[],
    build: |_, _| Ok(Box::new(Rms)),
};

/// The criterion `rms`: the absolute value divided by the root mean square of the layer's weights.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rms;

impl Criterion for Rms {
    fn score(&self, layer: &ScoreInput) -> Vec<f64> {
        let squares: f64 = layer.weights.iter().map(|&w| f64::from(w) * f64::from(w)).sum();
        let rms = (squares / layer.weights.len() as f64).sqrt();
        // All scores of an all-zero layer are 0.
        layer.weights.iter().map(|w| if rms > 0.0 { f64::from(w.abs()) / rms } else { 0.0 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::layer_of;
    use super::*;

    #[test]
    fn does_not_depend_on_the_layers_scale() {
        // Squares 1, 1, 1, 9: mean 3.
        let scores = Rms.score(&ScoreInput { weights: &[-1.0, 1.0, 1.0, 3.0], layer: &layer_of(4), index: 0 });
        assert_eq!(scores, [1.0, 1.0, 1.0, 3.0].map(|v| v / 3f64.sqrt()));
        assert_eq!(scores, Rms.score(&ScoreInput { weights: &[4.0, 4.0, -4.0, 12.0], layer: &layer_of(4), index: 5 }));
        assert_eq!(Rms.score(&ScoreInput { weights: &[0.0; 4], layer: &layer_of(4), index: 0 }), [0.0; 4]);
    }
}
