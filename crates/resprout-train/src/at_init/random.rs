//! A random score: the control.

use super::{Build, Input, Method, Score, Scores};
use resprout::Result;
use resprout::model::{Model, Prunable};
use resprout::random::SplitMix64;
use resprout::table::Entry;

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "random",
    about: "a random number",
    paper: "the control that every method must beat",
    options: &[],
    build: |_, sparsity| Ok(Method { rounds: vec![sparsity], returns: false, batches: 0, score: Box::new(Random) }),
};

struct Random;

impl Score for Random {
    fn score(&self, _: &Model, _: &Model, layers: &[Prunable], input: &Input) -> Result<Scores> {
        let draw = |(index, layer): (usize, &Prunable)| {
            let mut random = SplitMix64::new(input.seed, index as u64);
            (layer.param.clone(), (0..layer.len()).map(|_| random.next_f64()).collect())
        };
        Ok(layers.iter().enumerate().map(draw).collect())
    }
}
