//! The label-free choice among repairs, by images that none of them has seen.

use crate::error::Result;
use crate::eval::{Evaluation, OutputKind, compare, output_kind_of};
use crate::forward::{Network, PlanOptions};
use crate::model::Model;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// `auto`: the choice by [`Judge`], in place of a repair.
#[doc(hidden)]
pub const AUTO: &str = "auto";

/// A chain of repairs that was tried, and the repaired network's distance from the dense one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The chain of repairs.
    pub repair: String,
    /// The evaluation on held-out images; `None` if it failed.
    pub evaluation: Option<Evaluation>,
    /// Why it failed.
    pub error: Option<String>,
    /// Whether it was chosen.
    pub chosen: bool,
}

/// Judges networks by their distance from the dense one on held-out images, without labels.
///
/// [`sparsify`](crate::sparsify::sparsify()) uses it for the repair [`AUTO`].
pub struct Judge {
    dense: Tensor,
    held_out: Tensor,
    output: OutputKind,
}

impl Judge {
    /// The chains that [`AUTO`] tries, the cheapest first.
    pub const CANDIDATES: [&'static str; 6] = ["none", "bias", "bn", "asr,bn", "bn,stats", "least-squares"];

    /// Splits the images into those for repairs and those held out, in this order. Every fourth is held out.
    ///
    /// # Panics
    /// If the tensor is a scalar.
    pub fn split(images: &Tensor) -> (Tensor, Tensor) {
        images.hold_out(4)
    }

    /// A judge with these held-out images, `[N, C, H, W]`. It runs the dense network on them.
    ///
    /// # Errors
    /// As [`Network::new`].
    ///
    /// # Panics
    /// If the tensor is a scalar.
    pub fn new(dense: &Model, held_out: Tensor) -> Result<Judge> {
        let network = Network::new(dense, &held_out.shape[1..], &PlanOptions::default())?;
        let output = output_kind_of(network.plan());
        Ok(Judge { dense: network.run(&held_out)?.swap_remove(0), held_out, output })
    }

    /// Compares `model` with the dense network on the held-out images.
    ///
    /// # Errors
    /// As [`Network::new`], and of kind `Data` for other outputs than the dense network's.
    pub fn judge(&self, model: &Model) -> Result<Evaluation> {
        let network = Network::new(model, &self.held_out.shape[1..], &PlanOptions::default())?;
        compare(&network.run(&self.held_out)?[0], &self.dense, None, self.output)
    }

    /// The index of the best candidate: the lowest KL divergence, or relative error where outputs are no classes.
    ///
    /// The first candidate is no repair. Others must agree with the dense network at least as often, and break on no image. Of
    /// equals the first wins.
    pub fn choose(candidates: &[Candidate]) -> usize {
        let mut best = 0;
        let evaluation = |i: usize| candidates.get(i).and_then(|candidate| candidate.evaluation.as_ref());
        for i in 1..candidates.len() {
            let Some(new) = evaluation(i) else { continue };
            let harmless = evaluation(0).is_none_or(|first| Judge::is_harmless(first, new));
            if harmless && Judge::distance(new) < evaluation(best).map_or(f64::INFINITY, Judge::distance) {
                best = i;
            }
        }
        best
    }

    /// Whether `new` agrees with the dense network at least as often as `first`.
    pub fn is_harmless(first: &Evaluation, new: &Evaluation) -> bool {
        let agreement = |e: &Evaluation| e.agreement.map_or(0.0, |estimate| estimate.value);
        agreement(new) >= agreement(first)
    }

    /// The KL divergence, or the relative error where outputs are no classes; infinite if it breaks on an image.
    pub fn distance(e: &Evaluation) -> f64 {
        match (e.broken_images, e.kl.or(e.relative_error)) {
            (0, Some(estimate)) if estimate.value.is_finite() => estimate.value,
            _ => f64::INFINITY,
        }
    }
}
