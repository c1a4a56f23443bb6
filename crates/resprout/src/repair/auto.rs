//! The label-free choice among repairs: each is judged on images that it has not seen.

use crate::error::Result;
use crate::eval::{Evaluation, OutputKind, compare, output_kind_of};
use crate::forward::{Network, PlanOptions};
use crate::model::Model;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// What [`Judge`] takes the place of, as the user types it.
pub const AUTO: &str = "auto";

/// One repair and how close to the dense network it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The chain of repairs.
    pub repair: String,
    /// On images that it has not seen; `None` if it failed.
    pub evaluation: Option<Evaluation>,
    /// Why it failed.
    pub error: Option<String>,
    /// Whether it was taken.
    pub chosen: bool,
}

/// Judges networks by how close they come to the dense one on held-out images.
pub struct Judge {
    dense: Tensor,
    held_out: Tensor,
    output: OutputKind,
}

impl Judge {
    /// Chains that are tried, the cheapest first: of equals the first is taken.
    pub const CANDIDATES: [&'static str; 6] = ["none", "bias", "bn", "asr,bn", "bn,stats", "least-squares"];

    /// Splits the images: every fourth is held out, the others are for repairs.
    pub fn split(images: &Tensor) -> (Tensor, Tensor) {
        let (held, seen): (Vec<usize>, Vec<usize>) = (0..images.shape[0]).partition(|i| i % 4 == 3);
        (images.pick(&seen), images.pick(&held))
    }

    /// A judge with these images.
    pub fn new(dense: &Model, held_out: Tensor) -> Result<Judge> {
        let network = Network::new(dense, &held_out.shape[1..], &PlanOptions::default())?;
        let output = output_kind_of(network.plan());
        Ok(Judge { dense: network.run(&held_out)?.swap_remove(0), held_out, output })
    }

    /// How close `model` comes.
    pub fn judge(&self, model: &Model) -> Result<Evaluation> {
        let network = Network::new(model, &self.held_out.shape[1..], &PlanOptions::default())?;
        compare(&network.run(&self.held_out)?[0], &self.dense, None, self.output)
    }

    /// The best of the candidates: the lowest KL (or relative error, where outputs are no classes)
    /// among those that agree with the dense network at least as often as the first, which is no
    /// repair at all, and break on no more images. Of equals the first.
    pub fn choose(candidates: &[Candidate]) -> usize {
        let first = candidates.first().and_then(|candidate| candidate.evaluation.as_ref());
        let distance = |e: &Evaluation| match (e.broken_images, e.kl.or(e.relative_error)) {
            (0, Some(estimate)) if estimate.value.is_finite() => estimate.value,
            _ => f64::INFINITY,
        };
        let agreement = |e: &Evaluation| e.agreement.map_or(0.0, |estimate| estimate.value);
        let mut best = (0, first.map_or(f64::INFINITY, distance));
        for (i, candidate) in candidates.iter().enumerate().skip(1) {
            let Some(evaluation) = &candidate.evaluation else { continue };
            let harmless = first.is_none_or(|first| agreement(evaluation) >= agreement(first));
            if harmless && distance(evaluation) < best.1 {
                best = (i, distance(evaluation));
            }
        }
        best.0
    }
}
