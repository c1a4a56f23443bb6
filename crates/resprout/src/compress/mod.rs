//! From a wish to a network: which channels and weights go, so that a network is fast or small enough and loses least.
//!
//! [`Search`] does it: a [`Wish`] says what is wanted, a [`Split`] which images repair, choose and check.
//!
//! A candidate is pruned first without a repair, and what it costs is measured: latency on this machine, bytes, operations,
//! parameters. In each family of candidates a bisection finds the first that is cheap enough. Those are repaired with few
//! images and in one step, and judged on images that no repair has seen. The best few are repaired with all images, in steps.

mod candidate;
mod cost;
mod loss;
mod rows;
mod search;

pub use candidate::{Candidate, Effort, Family, SingleWeights};
pub use cost::{Cost, Meter};
pub use loss::{Examiner, HOLD_OUT, Loss, Split};
pub use rows::{Row, Rows, Stage};
pub use search::{Found, Search, SearchOptions};

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// What a network is to be. At least one of them is given; `None` is no wish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wish {
    /// The least ratio of the dense network's latency to its own, such as 2 for twice as fast.
    pub faster: Option<f64>,
    /// The most bytes of its file as sparse safetensors.
    pub bytes: Option<u64>,
    /// The largest share of the dense network's multiply-accumulates, in `(0, 1]`.
    pub macs: Option<f64>,
    /// The largest share of the dense network's parameters that are not zero, in `(0, 1]`.
    pub parameters: Option<f64>,
    /// The most that it may lose, in points: see [`Loss`].
    pub max_loss: Option<f64>,
}

impl Wish {
    /// Whether it says how cheap the network is to be.
    pub fn bounds_cost(&self) -> bool {
        self.faster.is_some() || self.bytes.is_some() || self.macs.is_some() || self.parameters.is_some()
    }

    /// Whether a network is cheap enough.
    pub fn keeps_cost(&self, cost: &Cost) -> bool {
        self.faster.is_none_or(|faster| cost.faster >= faster)
            && self.bytes.is_none_or(|bytes| cost.bytes <= bytes)
            && self.macs.is_none_or(|share| cost.macs <= share)
            && self.parameters.is_none_or(|share| cost.parameters <= share)
    }

    /// Whether a network is good enough.
    pub fn keeps_loss(&self, loss: &Loss) -> bool {
        self.max_loss.is_none_or(|most| loss.points <= most)
    }

    /// How far a network is from the wish: the sum over what is wished of how much it exceeds its limit, as a share of the
    /// limit. A loss below a point counts as a point there. 0 where everything is kept.
    pub fn miss(&self, cost: &Cost, loss: &Loss) -> f64 {
        let over = |limit: Option<f64>, value: f64, unit: fn(f64) -> f64| {
            limit.map_or(0.0, |limit| if value <= limit { 0.0 } else { (value - limit) / unit(limit) })
        };
        over(self.faster.map(f64::recip), cost.faster.recip(), |limit| limit)
            + over(self.bytes.map(|bytes| bytes as f64), cost.bytes as f64, |limit| limit)
            + over(self.macs, cost.macs, |limit| limit)
            + over(self.parameters, cost.parameters, |limit| limit)
            + over(self.max_loss, loss.points, |limit| limit.max(1.0))
    }

    /// Fails if a number makes no sense, or nothing is wished.
    ///
    /// # Errors
    /// Of kind `Option`.
    pub fn check(&self) -> Result<()> {
        if !self.bounds_cost() && self.max_loss.is_none() {
            return Err(Error::option("no wish: say how fast, how small or how good the network is to be"));
        }
        let share = |name: &str, value: Option<f64>| match value {
            Some(value) if !(value > 0.0 && value <= 1.0) => {
                Err(Error::option(format!("{name} {value}: a share above 0 and up to 1 is needed")))
            }
            _ => Ok(()),
        };
        share("macs", self.macs)?;
        share("parameters", self.parameters)?;
        match (self.faster, self.bytes, self.max_loss) {
            (Some(faster), _, _) if !(faster > 0.0 && faster.is_finite()) => {
                Err(Error::option(format!("faster {faster}: a factor above 0 is needed")))
            }
            (_, Some(0), _) => Err(Error::option("file size 0: a number of bytes above 0 is needed")),
            (_, _, Some(loss)) if !(0.0..=100.0).contains(&loss) => {
                Err(Error::option(format!("max-loss {loss}: points from 0 to 100 are needed")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_little_slow_is_closer_than_all_lost() {
        let cost = |faster| Cost { milliseconds: 1.0, faster, bytes: 1000, macs: 0.3, parameters: 0.2 };
        let loss = |points| Loss { points, low: points, high: points, distance: 1.0, broken_images: 0 };
        let wish = Wish { faster: Some(2.0), max_loss: Some(1.0), ..Wish::default() };
        assert_eq!(wish.miss(&cost(2.0), &loss(1.0)), 0.0);
        assert!((wish.miss(&cost(1.6), &loss(0.5)) - 0.25).abs() < 1e-12);
        assert!((wish.miss(&cost(1.6), &loss(3.0)) - 2.25).abs() < 1e-12);
        assert!(wish.miss(&cost(1.6), &loss(3.0)) < wish.miss(&cost(2.5), &loss(80.0)));
        // A limit of 0 points does not divide by it.
        assert_eq!(Wish { max_loss: Some(0.0), ..wish }.miss(&cost(4.0), &loss(2.0)), 2.0);
        assert!(wish.miss(&cost(2.0), &loss(f64::NAN)).is_nan());
    }

    #[test]
    fn wishes() {
        let cost = Cost { milliseconds: 1.0, faster: 2.0, bytes: 1000, macs: 0.3, parameters: 0.2 };
        let wish = Wish { faster: Some(2.0), bytes: Some(1000), macs: Some(0.3), parameters: Some(0.2), max_loss: None };
        assert!(wish.keeps_cost(&cost) && wish.check().is_ok());
        assert!(!Wish { faster: Some(2.1), ..wish }.keeps_cost(&cost));
        assert!(!Wish { bytes: Some(999), ..wish }.keeps_cost(&cost));
        assert!(!Wish { macs: Some(0.2), ..wish }.keeps_cost(&cost));
        assert!(!Wish { parameters: Some(0.1), ..wish }.keeps_cost(&cost));
        for wrong in [
            Wish::default(),
            Wish { faster: Some(f64::NAN), ..wish },
            Wish { faster: Some(-2.0), ..wish },
            Wish { bytes: Some(0), ..wish },
            Wish { macs: Some(1.5), ..wish },
            Wish { parameters: Some(0.0), ..wish },
            Wish { max_loss: Some(-1.0), ..wish },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
