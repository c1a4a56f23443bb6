//! A recommended operating point under constraints.

use super::curves::{Configuration, Curve, Point};
use serde::{Deserialize, Serialize};

/// The constraints of an operating point. Without any there is no recommendation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Constraints {
    /// The largest loss of the metric against the dense network, as a share of the images.
    pub at_most_loss: Option<f64>,
    /// The largest sparse file, in bytes.
    pub at_most_bytes: Option<u64>,
    /// The least theoretical speed-up.
    pub at_least_speedup: Option<f64>,
}

/// A recommended operating point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// The configuration of pruning and repair.
    pub configuration: Configuration,
    /// The point of its curve.
    pub point: Point,
}

impl Constraints {
    /// Whether any is set.
    pub fn any(&self) -> bool {
        *self != Constraints::default()
    }

    fn allow(&self, point: &Point, dense: f64) -> bool {
        // A loss that rounding lifts above the limit is at the limit.
        self.at_most_loss.is_none_or(|most| dense - point.value <= most + 1e-12)
            && self.at_most_bytes.is_none_or(|most| point.sparse_bytes <= most)
            && self.at_least_speedup.is_none_or(|least| point.theoretical_speedup.is_some_and(|speedup| speedup >= least))
    }

    /// With a limit on the loss, the smallest allowed point; else the best allowed point.
    pub fn recommend(&self, curves: &[Curve], dense: f64) -> Option<Recommendation> {
        let points = curves.iter().flat_map(|curve| curve.points.iter().map(|point| (&curve.configuration, point)));
        let allowed = points.filter(|(_, point)| self.any() && self.allow(point, dense));
        let smaller = |a: &Point, b: &Point| b.sparse_bytes.cmp(&a.sparse_bytes);
        let better = |a: &Point, b: &Point| a.value.total_cmp(&b.value);
        let best = allowed.reduce(|best, next| {
            let order = match self.at_most_loss {
                Some(_) => smaller(next.1, best.1).then(better(next.1, best.1)),
                None => better(next.1, best.1).then(smaller(next.1, best.1)),
            };
            if order.is_gt() { next } else { best }
        });
        best.map(|(configuration, point)| Recommendation { configuration: configuration.clone(), point: point.clone() })
    }
}
