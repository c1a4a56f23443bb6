//! What a method of pruning at initialisation is: rounds and a score.

use resprout::Result;
use resprout::model::{Model, Prunable};
use resprout::table::{OptionSpec, Options};
use resprout::tensor::Tensor;
use std::collections::BTreeMap;

/// A batch of labelled, preprocessed images: `[N, C, H, W]` and one class each.
pub type LabelledImages = (Tensor, Vec<usize>);

/// The input of scores.
pub struct Input<'a> {
    /// Labelled images, at least [`Method::batches`] batches.
    pub batches: &'a [LabelledImages],
    /// Channels, height and width of an image.
    pub image: [usize; 3],
    /// A row of [`DEVICES`](crate::device::DEVICES).
    pub device: &'a str,
    /// Seed of random scores.
    pub seed: u64,
}

/// Scores by parameter name, finite. Higher scores are kept.
pub type Scores = BTreeMap<String, Vec<f64>>;

/// Scores the weights of a network.
pub trait Score {
    /// A score for each weight of `layers`. `model` is masked. `fresh` has the weights from before the pruning.
    ///
    /// Scores are by the parameter's name and finite. They may be negative: the loop then shifts them all.
    fn score(&self, model: &Model, fresh: &Model, layers: &[Prunable], input: &Input) -> Result<Scores>;

    /// Rescales the weights before a round; by default not.
    fn rescale(&self, _model: &mut Model) -> Result<()> {
        Ok(())
    }
}

/// A method that is ready to run.
pub struct Method {
    /// The sparsity after each round, rising to the final one.
    pub rounds: Vec<f64>,
    /// Whether weights that one round prunes may come back in the next.
    pub returns: bool,
    /// The number of batches that it reads.
    pub batches: usize,
    /// The score.
    pub score: Box<dyn Score>,
}

/// Builds a method for a sparsity.
pub type Build = fn(&Options, sparsity: f64) -> Result<Method>;

pub(super) const ROUNDS: OptionSpec = OptionSpec { name: "rounds", about: "how many times it scores and prunes", default: "10" };
pub(super) const BATCHES: OptionSpec =
    OptionSpec { name: "batches", about: "batches of labelled images to score by", default: "1" };
pub(super) const SCHEDULE: OptionSpec = OptionSpec {
    name: "schedule",
    about: "how the density falls over the rounds: exponential (by equal factors) or linear (by equal steps)",
    default: "exponential",
};

pub(super) fn positive(options: &Options, name: &str) -> Result<usize> {
    options.parse(name, "an integer from 1 on", |&value: &usize| value > 0)
}

/// The sparsity after each round.
pub(super) fn rounds(options: &Options, sparsity: f64) -> Result<Vec<f64>> {
    let count = positive(options, "rounds")?;
    let share = |round: usize| round as f64 / count as f64;
    let at: fn(f64, f64) -> f64 = match options.text("schedule") {
        "exponential" => |sparsity, share| 1.0 - (1.0 - sparsity).powf(share),
        "linear" => |sparsity, share| sparsity * share,
        _ => return Err(options.error("schedule", "exponential or linear")),
    };
    Ok((1..=count).map(|round| if round == count { sparsity } else { at(sparsity, share(round)) }).collect())
}
