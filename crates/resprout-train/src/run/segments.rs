//! What happens between segments: pruning, rewinding, and the repair at initialisation.

use super::state::Run;
use crate::at_init::ablation::{self, Pruning};
use crate::at_init::{self, Input};
use crate::checkpoint::Emptied;
use crate::error::data;
use crate::methods::Before;
use crate::recipe::Recipe;
use resprout::Result;
use resprout::lipschitz;
use resprout::model::Model;
use resprout::progress::{Progress, Quiet};
use resprout::prune::prune;

impl Run<'_> {
    /// Prunes and repairs before the first step.
    pub(super) fn begin(&mut self, progress: &dyn Progress) -> Result<()> {
        self.begin_segment(progress)?;
        let Some(how) = lipschitz::find(&self.recipe.repair_init)? else { return Ok(()) };
        self.parameters.store(self.model);
        self.init_repair = lipschitz::repair(self.model, how)?;
        self.parameters.load(self.model)
    }

    /// Prunes and rewinds before the first step of the current segment.
    pub(super) fn begin_segment(&mut self, progress: &dyn Progress) -> Result<()> {
        match self.segment().before {
            Before::Nothing => Ok(()),
            Before::Prune(sparsity) => self.prune(sparsity, false, 0, progress),
            Before::PruneAtInit(sparsity) => self.prune_at_init(sparsity, progress),
            Before::PruneAtRandom(sparsity) => self.prune(sparsity, true, 0, progress),
            Before::PruneAndRewind { sparsity, .. } => {
                self.prune(sparsity, false, 0, progress)?;
                let early = self.rewind.as_ref().ok_or_else(|| data("the weights to rewind to are missing"))?;
                let masks = std::mem::take(&mut self.model.masks);
                *self.model = early.clone();
                self.model.masks = masks;
                self.model.apply_masks();
                self.parameters.load(self.model)
            }
        }
    }

    /// Prunes by the current weights after some steps of the epoch. Weights that an earlier mask has pruned stay pruned.
    pub(super) fn prune(&mut self, sparsity: f64, at_random: bool, steps: usize, progress: &dyn Progress) -> Result<()> {
        progress.check()?;
        self.parameters.store(self.model);
        let options = self.recipe.prune_options(sparsity, at_random);
        prune(self.model, &options, &Default::default(), &Quiet)?;
        self.parameters.set_masks(self.model);
        self.note_emptied(steps);
        Ok(())
    }

    /// Keeps which layers the last pruning has left without any weight.
    fn note_emptied(&mut self, steps: usize) {
        let known: Vec<&Emptied> = self.rows.iter().flat_map(|row| &row.emptied).chain(&self.emptied).collect();
        let empty = self.model.masks.iter().filter(|(name, mask)| mask.kept() == 0 && known.iter().all(|e| e.param != *name));
        let new: Vec<Emptied> = empty.map(|(name, _)| Emptied { param: name.to_string(), step: steps + 1 }).collect();
        self.emptied.extend(new);
    }

    fn prune_at_init(&mut self, sparsity: f64, progress: &dyn Progress) -> Result<()> {
        let method = at_init::find(self.recipe.prune_at_init.as_deref().unwrap_or_default(), sparsity)?;
        let Recipe { batch, device, seed, .. } = self.recipe;
        let batches = at_init::batches(&self.data.train, method.batches, *batch, *seed)?;
        let input = Input { batches: &batches, image: self.image, device, seed: *seed };
        let options = self.recipe.prune_options(sparsity, false);
        let pruning = Pruning { method: &method, options: &options, input: &input, init: &self.recipe.init };
        ablation::find(&self.recipe.ablation)?.prune(self.model, &pruning, progress)?;
        self.note_emptied(0);
        self.parameters.load(self.model)
    }
}

/// The share of prunable weights that is zero.
pub(super) fn sparsity(model: &Model, recipe: &Recipe) -> Result<f64> {
    let (layers, _) = model.prunable(&recipe.prune_options(0.0, false).rule)?;
    let (mut zeros, mut all) = (0, 0);
    for layer in &layers {
        let weights = &model.weight(&layer.param)?.data;
        zeros += weights.iter().filter(|&&weight| weight == 0.0).count();
        all += weights.len();
    }
    Ok(zeros as f64 / (all as f64).max(1.0))
}
