//! The loop of distillation.

use super::batches::Batches;
use super::choice::Choice;
use super::domain;
use super::pair::{Pair, Section};
use super::{Distill, split};
use crate::rates::{self, Schedule};
use resprout::Result;
use resprout::model::Model;
use resprout::progress::Progress;
use resprout::repair::{RepairOptions, RepairOutcome};
use resprout::tensor::Tensor;
use std::time::Instant;

/// Share of the steps in which the rate rises.
const WARM_UP: f64 = 0.05;
/// How many states are judged, about.
const JUDGED: usize = 10;

/// Trains `model` in place, unless no state is better than its own.
pub(super) fn train(
    distill: &Distill,
    model: &mut Model,
    dense: &Model,
    images: &Tensor,
    options: &RepairOptions,
    progress: &dyn Progress,
) -> Result<RepairOutcome> {
    let started = Instant::now();
    let mut outcome = RepairOutcome { acted: vec![true], ..RepairOutcome::default() };
    let (seen, held_out) = split(images)?;
    let image = &images.shape[1..];
    let mut pair = Pair::new(distill, model, dense, image, options.memory)?;
    if let Some(warning) = domain::far(distill, dense, images, progress)? {
        outcome.warnings.push(warning);
        return Ok(outcome);
    }
    let choice = Choice::new(dense, held_out, model)?;
    let limit = [options.seconds, distill.seconds].into_iter().flatten().fold(f64::INFINITY, f64::min);
    let (sections, batches) = (pair.sections(), Batches::new(&seen, distill.changes(image), distill.batch, distill.seed));
    progress.begin("distill", distill.steps as u64);
    let mut training = Training {
        distill,
        batches,
        choice,
        schedule: rates::find("cosine")?,
        progress: Advance { progress, all: distill.steps, sections: sections.len(), told: 0 },
        finished: 0,
    };
    for (index, &section) in sections.iter().enumerate() {
        let left = sections.len() - index;
        let steps = (distill.steps - training.finished.min(distill.steps)).div_ceil(left);
        let seconds = (limit - started.elapsed().as_secs_f64()).max(0.0) / left as f64;
        training.section(&mut pair, section, index, steps, seconds)?;
        outcome.changed += pair.trained();
    }
    progress.end();
    outcome.seconds = started.elapsed().as_secs_f64();
    outcome.expected_seconds = outcome.seconds;
    outcome.trained = Some(training.choice.finish(model, training.finished, &mut outcome.warnings));
    Ok(outcome)
}

/// Everything that goes through all sections.
struct Training<'t> {
    distill: &'t Distill,
    batches: Batches<'t>,
    choice: Choice,
    schedule: Box<dyn Schedule>,
    progress: Advance<'t>,
    /// Steps of all sections so far.
    finished: usize,
}

impl Training<'_> {
    /// Trains a section in `steps` steps, or in as many as `seconds` allow.
    fn section(&mut self, pair: &mut Pair, section: Section, index: usize, steps: usize, seconds: f64) -> Result<()> {
        pair.enter(section);
        let began = Instant::now();
        let judged = JUDGED.div_ceil(self.progress.sections);
        let (mut done, mut planned) = (0, affordable(steps, 0, 0.0, seconds));
        while done < planned {
            self.progress.progress.check()?;
            let warm_up = (planned as f64 * WARM_UP) as usize;
            let rate = rates::rate(&*self.schedule, self.distill.rate, done, planned, warm_up);
            pair.step(&self.batches.next(), rate, self.finished)?;
            (done, self.finished) = (done + 1, self.finished + 1);
            planned = affordable(steps, done, began.elapsed().as_secs_f64(), seconds);
            if done == planned || done * judged / planned > (done - 1) * judged / planned {
                self.choice.consider(|model| pair.store(model))?;
            }
            self.progress.tell(index, done as f64 / planned as f64);
        }
        Ok(())
    }
}

/// How many of `steps` fit into `seconds`, of which `done` have taken so long.
fn affordable(steps: usize, done: usize, taken: f64, seconds: f64) -> usize {
    let fit = match done {
        _ if seconds.is_infinite() => steps,
        0 => usize::from(seconds > 0.0),
        _ => (seconds * done as f64 / taken.max(1e-9)) as usize,
    };
    steps.min(fit.max(done))
}

/// Progress in steps, where their number may fall on the way.
struct Advance<'t> {
    progress: &'t dyn Progress,
    all: usize,
    sections: usize,
    told: u64,
}

impl Advance<'_> {
    /// A share of a section is done.
    fn tell(&mut self, section: usize, share: f64) {
        let now = (self.all as f64 * (section as f64 + share) / self.sections as f64) as u64;
        self.progress.advance(now.saturating_sub(self.told));
        self.told = now.max(self.told);
    }
}

#[cfg(test)]
mod tests {
    use super::affordable;

    #[test]
    fn steps_follow_the_time() {
        assert_eq!(affordable(100, 0, 0.0, f64::INFINITY), 100);
        assert_eq!(affordable(100, 0, 0.0, 0.0), 0);
        // The first step always runs, and tells how many more do.
        assert_eq!(affordable(100, 0, 0.0, 5.0), 1);
        assert_eq!(affordable(100, 1, 0.5, 5.0), 10);
        assert_eq!(affordable(100, 4, 8.0, 5.0), 4);
        assert_eq!(affordable(100, 4, 0.004, 5.0), 100);
    }
}
