//! Criteria of the weights alone: magnitude, and the random control.

use super::method::{Build, Input, Method, Score, Scores};
use resprout::Result;
use resprout::criteria::{CRITERIA, ScoreInput};
use resprout::model::{Model, Prunable};
use resprout::table::{self, Entry};

pub(super) const MAGNITUDE: Entry<Build> = Entry {
    name: "magnitude",
    about: "the weight's absolute value at initialisation",
    paper: "baseline",
    options: &[],
    build: |_, sparsity| Ok(method("magnitude", sparsity)),
};

pub(super) const RANDOM: Entry<Build> = Entry {
    name: "random",
    about: "a random number",
    paper: "the control that every method must beat",
    options: &[],
    build: |_, sparsity| Ok(method("random", sparsity)),
};

fn method(criterion: &'static str, sparsity: f64) -> Method {
    Method { rounds: vec![sparsity], returns: false, batches: 0, score: Box::new(ByCriterion(criterion)) }
}

/// A row of the pruning library's criteria.
struct ByCriterion(&'static str);

impl Score for ByCriterion {
    fn score(&self, model: &Model, _: &Model, layers: &[Prunable], input: &Input) -> Result<Scores> {
        let (entry, options) = table::find(CRITERIA, "criterion", self.0)?;
        let criterion = (entry.build)(&options, input.seed)?;
        let score = |(index, layer): (usize, &Prunable)| {
            let weights = &model.weight(&layer.param)?.data;
            Ok((layer.param.clone(), criterion.score(&ScoreInput { weights, layer, index })))
        };
        layers.iter().enumerate().map(score).collect()
    }
}
