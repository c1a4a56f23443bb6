//! The accuracy of a model on labelled images.

use super::state::Run;
use crate::loader::Examples;
use resprout::Result;
use resprout::eval::Estimate;
use resprout::forward::{Network, PlanOptions};
use resprout::model::Model;
use resprout::progress::Progress;

/// Images that are evaluated at a time.
const EVALUATED: usize = 256;

impl Run<'_> {
    pub(super) fn accuracy(&self, model: &Model, examples: &Examples, stage: &str, progress: &dyn Progress) -> Result<Estimate> {
        let labels = examples.labels()?;
        let network = Network::new(model, &self.image, &PlanOptions::default())?;
        progress.begin(stage, labels.len() as u64);
        let mut hits = 0;
        for (indices, labels) in examples.indices.chunks(EVALUATED).zip(labels.chunks(EVALUATED)) {
            progress.check()?;
            let images = examples.set.load_picked(indices, examples.channels, &examples.preprocess)?;
            let results = network.run(&images)?.swap_remove(0);
            hits += results.data.chunks_exact(self.classes).zip(labels).filter(|(row, label)| largest(row) == **label).count();
            progress.advance(labels.len() as u64);
        }
        progress.end();
        Ok(Estimate::share(hits, examples.indices.len()))
    }
}

pub(super) fn hits(logits: &[f32], labels: &[usize], classes: usize) -> usize {
    logits.chunks_exact(classes).zip(labels).filter(|(row, label)| largest(row) == **label).count()
}

fn largest(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}
