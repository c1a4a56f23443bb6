//! The weight's size before any training.

use super::{Build, Input, Method, Score, Scores};
use resprout::Result;
use resprout::model::{Model, Prunable};
use resprout::table::Entry;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "magnitude",
    about: "the weight's absolute value at initialisation",
    paper: "baseline",
    options: &[],
    build: |_, sparsity| Ok(Method { rounds: vec![sparsity], returns: false, batches: 0, score: Box::new(Magnitude) }),
};

struct Magnitude;

impl Score for Magnitude {
    fn score(&self, model: &Model, _: &Model, layers: &[Prunable], _: &Input) -> Result<Scores> {
        let size = |layer: &Prunable| {
            let weights = &model.weight(&layer.param)?.data;
            Ok((layer.param.clone(), weights.iter().map(|&weight| f64::from(weight).abs()).collect()))
        };
        layers.iter().map(size).collect()
    }
}
