//! How much worse a network is than the dense one, on images that no repair has seen.

use crate::error::{Error, Result};
use crate::eval::Evaluation;
use crate::model::Model;
use crate::repair::Judge;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// The loss of a network against the dense one.
///
/// In points of accuracy where labels are at hand. Without labels it is the share of images with another highest class, in
/// points; where outputs are no classes, the mean relative error times 100.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// The loss in points.
    pub points: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// What ranks networks of equal loss: the KL divergence in nats, or the relative error.
    pub distance: f64,
    /// Images whose output is not finite.
    pub broken_images: usize,
}

impl Loss {
    /// From measurements of the dense network and of the other one.
    pub fn of(dense: &Evaluation, other: &Evaluation) -> Result<Loss> {
        let broken_images = other.broken_images;
        let distance = other.kl.or(other.relative_error).map_or(f64::INFINITY, |estimate| estimate.value);
        let [points, low, high] = match (dense.top1, other.top1, other.agreement, other.relative_error) {
            (Some(dense), Some(other), _, _) => [dense.value - other.value, dense.value - other.high, dense.value - other.low],
            (_, _, Some(agreement), _) => [1.0 - agreement.value, 1.0 - agreement.high, 1.0 - agreement.low],
            (_, _, _, Some(error)) => [error.value, error.low, error.high],
            _ => return Err(Error::data("no output is finite, so nothing can be compared")),
        };
        Ok(Loss { points: 100.0 * points, low: 100.0 * low, high: 100.0 * high, distance, broken_images })
    }

    /// The order of networks: the better one first.
    pub fn rank(&self) -> (usize, f64) {
        (self.broken_images, self.distance)
    }
}

/// The images of a search: two of three repair, the others are held out.
pub struct Split {
    /// For repairs.
    pub repair: Tensor,
    /// For choosing among networks.
    pub choose: Tensor,
    /// For the final measurement, which nothing is chosen by.
    pub check: Tensor,
}

/// Every third image is held out.
#[doc(hidden)]
pub const HOLD_OUT: usize = 3;

impl Split {
    /// Splits images, `[N, C, H, W]`, by their number.
    ///
    /// # Errors
    /// Of kind `Data` for too few images.
    pub fn new(images: &Tensor) -> Result<Split> {
        let count = images.shape.first().copied().unwrap_or(0);
        if count < 4 * HOLD_OUT {
            return Err(Error::data(format!(
                "{count} calibration images; at least {} are needed: every third is held out to judge by",
                4 * HOLD_OUT
            )));
        }
        let (repair, held) = images.hold_out(HOLD_OUT);
        let (choose, check) = held.hold_out(2);
        Ok(Split { repair, choose, check })
    }
}

/// Measures the loss on fixed images, without labels.
#[doc(hidden)]
pub struct Examiner(Judge);

impl Examiner {
    /// An examiner with these images, `[N, C, H, W]`.
    pub fn new(dense: &Model, images: Tensor) -> Result<Examiner> {
        Judge::new(dense, images).map(Examiner)
    }

    /// The loss of a network.
    pub fn examine(&self, model: &Model) -> Result<Loss> {
        let evaluation = self.0.judge(model)?;
        Loss::of(&evaluation, &evaluation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Estimate;

    fn evaluation(top1: Option<usize>, agreement: Option<usize>) -> Evaluation {
        let share = |hits| Estimate::share(hits, 100);
        Evaluation {
            top1: top1.map(share),
            top5: None,
            agreement: agreement.map(share),
            kl: None,
            relative_error: Some(Estimate { value: 0.25, low: 0.2, high: 0.3 }),
            broken_images: 0,
        }
    }

    #[test]
    fn labels_come_before_agreement_and_agreement_before_errors() {
        let loss = Loss::of(&evaluation(Some(90), None), &evaluation(Some(88), Some(95))).unwrap();
        assert!((loss.points - 2.0).abs() < 1e-9 && loss.low < 2.0 && loss.high > 2.0);
        let agreement = evaluation(None, Some(95));
        assert!((Loss::of(&agreement, &agreement).unwrap().points - 5.0).abs() < 1e-9);
        let map = evaluation(None, None);
        assert_eq!(Loss::of(&map, &map).unwrap().points, 25.0);
    }

    #[test]
    fn no_image_is_in_two_parts() {
        let images = Tensor::new(vec![13, 1], (0..13).map(|i| i as f32).collect());
        let split = Split::new(&images).unwrap();
        assert_eq!(split.repair.data, [0.0, 1.0, 3.0, 4.0, 6.0, 7.0, 9.0, 10.0, 12.0]);
        assert_eq!((split.choose.data, split.check.data), (vec![2.0, 8.0], vec![5.0, 11.0]));
        assert!(Split::new(&images.first(11)).is_err());
    }
}
