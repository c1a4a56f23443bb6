//! Connection sensitivity: SNIP, iterative SNIP and FORCE.

use super::{BATCHES, Build, Input, Method, ROUNDS, SCHEDULE, Score, Scores, mean_gradients, rounds, whole};
use resprout::Result;
use resprout::model::{Model, Prunable};
use resprout::table::Entry;

pub(super) const SNIP: Entry<Build> = Entry {
    name: "snip",
    about: "what the loss changes by the first order when the weight goes: |w dL/dw|, gradients summed over batches first",
    paper: "Lee, Ajanthan, Torr, SNIP, ICLR 2019",
    options: &[BATCHES],
    build: |options, sparsity| {
        let score = Box::new(Sensitivity { of: |masked, _| masked });
        Ok(Method { rounds: vec![sparsity], returns: false, batches: whole(options, "batches")?, score })
    },
};

pub(super) const ITERATIVE: Entry<Build> = Entry {
    name: "iter-snip",
    about: "SNIP in rounds; what is pruned stays so",
    paper: "de Jorge et al., Progressive skeletonization (FORCE), ICLR 2021",
    options: &[ROUNDS, SCHEDULE, BATCHES],
    build: |options, sparsity| {
        let score = Box::new(Sensitivity { of: |masked, _| masked });
        Ok(Method { rounds: rounds(options, sparsity)?, returns: false, batches: whole(options, "batches")?, score })
    },
};

pub(super) const FORCE: Entry<Build> = Entry {
    name: "force",
    about: "SNIP in rounds with the gradients of the pruned network and the weights of the dense one; weights may come back",
    paper: "de Jorge et al., Progressive skeletonization (FORCE), ICLR 2021",
    options: &[ROUNDS, SCHEDULE, BATCHES],
    build: |options, sparsity| {
        let score = Box::new(Sensitivity { of: |_, fresh| fresh });
        Ok(Method { rounds: rounds(options, sparsity)?, returns: true, batches: whole(options, "batches")?, score })
    },
};

struct Sensitivity {
    /// Whose weights the gradients are multiplied with: the masked network's or the fresh one's.
    of: for<'m> fn(&'m Model, &'m Model) -> &'m Model,
}

impl Score for Sensitivity {
    fn score(&self, model: &Model, fresh: &Model, layers: &[Prunable], input: &Input) -> Result<Scores> {
        let mut scores = mean_gradients(model, layers, input)?;
        for (name, scores) in &mut scores {
            let weights = &(self.of)(model, fresh).weight(name)?.data;
            scores.iter_mut().zip(weights).for_each(|(score, &weight)| *score = (*score * f64::from(weight)).abs());
        }
        Ok(scores)
    }
}
