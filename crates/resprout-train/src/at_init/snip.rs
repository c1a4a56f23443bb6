//! Connection sensitivity: SNIP, iterative SNIP and FORCE.

use super::gradients::mean_gradients;
use super::method::{BATCHES, Build, Input, Method, ROUNDS, SCHEDULE, Score, Scores, positive, rounds};
use resprout::Result;
use resprout::model::{Model, Prunable};
use resprout::table::{Entry, Options};

pub(super) const SNIP: Entry<Build> = Entry {
    name: "snip",
    about: "what the loss changes by the first order when the weight goes: |w dL/dw|, gradients summed over batches first",
    paper: "Lee, Ajanthan, Torr, SNIP, ICLR 2019",
    options: &[BATCHES],
    build: |options, sparsity| method(options, vec![sparsity], false),
};

pub(super) const ITERATIVE: Entry<Build> = Entry {
    name: "iter-snip",
    about: "SNIP in rounds; what is pruned stays so",
    paper: "de Jorge et al., Progressive skeletonization (FORCE), ICLR 2021",
    options: &[ROUNDS, SCHEDULE, BATCHES],
    build: |options, sparsity| method(options, rounds(options, sparsity)?, false),
};

pub(super) const FORCE: Entry<Build> = Entry {
    name: "force",
    about: "SNIP in rounds with the gradients of the pruned network and the weights of the dense one; weights may come back",
    paper: "de Jorge et al., Progressive skeletonization (FORCE), ICLR 2021",
    options: &[ROUNDS, SCHEDULE, BATCHES],
    build: |options, sparsity| method(options, rounds(options, sparsity)?, true),
};

/// Weights that may come back are scored by the weights from before the pruning.
fn method(options: &Options, rounds: Vec<f64>, returns: bool) -> Result<Method> {
    let batches = positive(options, "batches")?;
    Ok(Method { rounds, returns, batches, score: Box::new(Sensitivity { of_fresh: returns }) })
}

struct Sensitivity {
    /// Whether gradients are multiplied with the fresh network's weights, or with the masked one's.
    of_fresh: bool,
}

impl Score for Sensitivity {
    fn score(&self, model: &Model, fresh: &Model, layers: &[Prunable], input: &Input) -> Result<Scores> {
        let of = if self.of_fresh { fresh } else { model };
        let mut scores = mean_gradients(model, layers, input)?;
        for (name, scores) in &mut scores {
            let weights = &of.weight(name)?.data;
            scores.iter_mut().zip(weights).for_each(|(score, &weight)| *score = (*score * f64::from(weight)).abs());
        }
        Ok(scores)
    }
}
