//! Which state of training is kept: the nearest to the dense network on images that training has not seen.

use resprout::Result;
use resprout::calibrate::Trained;
use resprout::eval::Evaluation;
use resprout::model::Model;
use resprout::repair::Judge;
use resprout::tensor::Tensor;

/// The start, and the best state so far.
pub(super) struct Choice {
    judge: Judge,
    images: usize,
    /// The start; states differ from it in their numbers alone.
    model: Model,
    start: Evaluation,
    best: Option<(Evaluation, Model)>,
}

impl Choice {
    /// With the start, and images that are not trained on.
    pub fn new(dense: &Model, held_out: Tensor, start: &Model) -> Result<Choice> {
        let images = held_out.shape[0];
        let judge = Judge::new(dense, held_out)?;
        Ok(Choice { start: judge.judge(start)?, judge, images, model: start.clone(), best: None })
    }

    /// Judges a state, which `store` writes into a model.
    pub fn consider(&mut self, store: impl FnOnce(&mut Model)) -> Result<()> {
        let mut model = self.model.clone();
        store(&mut model);
        let evaluation = self.judge.judge(&model)?;
        let best = self.best.as_ref().map_or(&self.start, |(best, _)| best);
        if Judge::is_harmless(&self.start, &evaluation) && Judge::distance(&evaluation) < Judge::distance(best) {
            self.best = Some((evaluation, model));
        }
        Ok(())
    }

    /// Puts the best state into `model`, or leaves it with a warning.
    pub fn finish(self, model: &mut Model, steps: usize, warnings: &mut Vec<String>) -> Trained {
        let end = match self.best {
            Some((evaluation, best)) => {
                *model = best;
                evaluation
            }
            None => {
                warnings.push(format!(
                    "repair distill: on {} held-out images no state was nearer to the dense network than the start; nothing was \
                     changed",
                    self.images
                ));
                self.start.clone()
            }
        };
        let distance = [&self.start, &end].map(Judge::distance);
        let agreement = self.start.agreement.zip(end.agreement).map(|(start, end)| [start.value, end.value]);
        Trained { steps, images: self.images, distance, agreement }
    }
}
