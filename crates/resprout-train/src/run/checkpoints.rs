//! The files of a run, and how it resumes from them.

use super::state::Run;
use crate::checkpoint::{self, Checkpoint};
use crate::error::{data, option};
use crate::recipe::{RECIPE, Recipe};
use resprout::Result;
use resprout::eval::Estimate;
use resprout::progress::Progress;

impl Run<'_> {
    /// Begins, or resumes from the last checkpoint.
    pub(super) fn start(&mut self, progress: &dyn Progress) -> Result<()> {
        let Some(folder) = &self.options.folder else {
            return self.begin(progress);
        };
        let (last, kept) = (folder.join(checkpoint::LAST), folder.join(RECIPE));
        if self.options.resume && kept.exists() && Recipe::read(&kept)? != *self.recipe {
            return Err(option(format!("resume: {} holds another recipe; its run can only go on as it began", kept.display())));
        }
        if !self.options.resume && last.exists() {
            return Err(option(format!("{}: holds a run already; resume it, or choose another folder", folder.display())));
        }
        if !last.exists() {
            self.recipe.write(&kept)?;
            return self.begin(progress);
        }
        let Checkpoint { position, rows, momentum, init_repair, best, seconds } = checkpoint::read(&last, self.model)?;
        self.parameters.load(self.model)?;
        for (name, values) in &momentum {
            let index = self.parameters.index(name).ok_or_else(|| data(format!("{}: momentum of {name:?}", last.display())))?;
            self.parameters.set_momentum(index, values);
        }
        (self.position, self.rows, self.init_repair) = (position, rows, init_repair);
        (self.trained_seconds, self.waited_seconds, self.trained_images) = seconds;
        if let Some((epoch, validation)) = best {
            let mut model = self.initial.clone();
            checkpoint::read(&folder.join(checkpoint::BEST), &mut model)?;
            self.best = Some((epoch, validation, model));
        }
        if self.needs_rewind().is_some_and(|step| self.position.step > step) {
            let mut model = self.initial.clone();
            checkpoint::read(&folder.join(checkpoint::REWIND), &mut model)?;
            self.rewind = Some(model);
        }
        checkpoint::write_journal(folder, &self.rows)?;
        if self.position.epoch == 0 && !self.finished() && self.position.segment > 0 {
            self.begin_segment(progress)?;
        }
        Ok(())
    }

    pub(super) fn keep_early_weights(&mut self) -> Result<()> {
        let mut early = self.model.clone();
        self.parameters.store(&mut early);
        if let Some(folder) = &self.options.folder {
            let checkpoint = Checkpoint { position: self.position, ..Checkpoint::default() };
            checkpoint::write(&folder.join(checkpoint::REWIND), &early, &checkpoint)?;
        }
        self.rewind = Some(early);
        Ok(())
    }

    /// Keeps the best epoch. Only epochs at the final sparsity are candidates, because a denser network is another one.
    pub(super) fn choose(&mut self, validation: Option<Estimate>, sparsity: f64) -> Result<()> {
        let Some(validation) = validation.map(|estimate| estimate.value) else { return Ok(()) };
        let densest = self.rows.iter().map(|row| row.sparsity).fold(0.0, f64::max);
        let stale = self.best.as_ref().is_some_and(|(epoch, ..)| self.rows[*epoch - 1].sparsity < densest);
        let better = self.best.as_ref().is_none_or(|(_, best, _)| validation > *best);
        if sparsity >= densest && (stale || better) {
            self.best = Some((self.rows.len(), validation, self.model.clone()));
            if let Some(folder) = &self.options.folder {
                checkpoint::write(&folder.join(checkpoint::BEST), self.model, &Checkpoint::default())?;
            }
        }
        Ok(())
    }

    pub(super) fn save(&self) -> Result<()> {
        let Some(folder) = &self.options.folder else { return Ok(()) };
        let momentum = self.parameters.trained.iter();
        let momentum = momentum.filter_map(|p| Some((p.name.clone(), p.momentum.clone()?))).collect();
        let checkpoint = Checkpoint {
            position: self.position,
            rows: self.rows.clone(),
            init_repair: self.init_repair.clone(),
            momentum,
            best: self.best.as_ref().map(|(epoch, validation, _)| (*epoch, *validation)),
            seconds: (self.trained_seconds, self.waited_seconds, self.trained_images),
        };
        checkpoint::write(&folder.join(checkpoint::LAST), self.model, &checkpoint)?;
        checkpoint::write_journal(folder, &self.rows)
    }
}
