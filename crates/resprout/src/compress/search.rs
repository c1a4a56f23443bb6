//! The search: a ladder of cheap estimates first, then the best few in full.

use super::{Candidate, Cost, Effort, Examiner, Family, Meter, Row, Rows, Split, Stage, Wish};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::FolderLock;
use crate::model::{Model, PrunableRule};
use crate::progress::{Progress, Quiet, Renamed};
use crate::repair::RepairOptions;
use crate::session::SessionOptions;
use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Families whose best candidate is repaired in full.
const FINALISTS: usize = 3;
/// The most of the time that one network may take by forecast.
const SHARE: f64 = 0.2;
/// Images of an estimate.
const FEW_IMAGES: usize = 128;
/// Steps of a full repair.
const STEPS: usize = 8;
/// The repair of estimates and of full networks.
const REPAIR: &str = "least-squares";
/// The repair that is tried beside it in full for the best candidate: it harms less where images are few.
const CAUTIOUS: &str = "asr,bn";
/// Rungs around the chosen one that complete the picture.
const AROUND: [isize; 4] = [-2, 2, -4, 4];
/// Where estimates start if nothing says how cheap the network is to be.
const MIDDLE: f64 = 0.45;

/// How a search runs.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// What the network is to be.
    pub wish: Wish,
    /// Which layers are pruned.
    pub rule: PrunableRule,
    /// How latency is measured.
    pub session: SessionOptions,
    /// As [`RepairOptions::memory`].
    pub memory: usize,
    /// About how long the search may take, in seconds.
    pub seconds: f64,
    /// Which families are tried, such as [`Family::ALL`].
    pub families: Vec<Family>,
}

/// What a search has found.
pub struct Found {
    /// Every measured network.
    pub rows: Vec<Row>,
    /// The index of the row whose network keeps the wish; `None` if none does.
    pub chosen: Option<usize>,
    /// The index of the row that comes closest; the chosen one if there is one.
    pub nearest: usize,
    /// That network.
    pub network: Model,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// A search in a folder, which keeps what was measured.
pub struct Search<'a> {
    dense: &'a Model,
    split: &'a Split,
    options: &'a SearchOptions,
    folder: PathBuf,
    rows: Rows,
    meter: Meter,
    examiner: Examiner,
    progress: &'a dyn Progress,
    started: Instant,
    notes: Vec<String>,
    _lock: FolderLock,
}

impl<'a> Search<'a> {
    /// Begins a search, or goes on with an earlier one of the same `key` in this folder. The key is any text that changes with
    /// whatever the results depend on: network, images, options.
    ///
    /// # Errors
    /// Of kind `Option` for an invalid wish, or a folder of another search; `Io` for the folder. The errors of [`Meter::new`].
    pub fn open(
        dense: &'a Model,
        split: &'a Split,
        options: &'a SearchOptions,
        folder: &Path,
        key: &str,
        progress: &'a dyn Progress,
    ) -> Result<Search<'a>> {
        options.wish.check()?;
        let lock = FolderLock::take(folder)?;
        let networks = folder.join("candidates");
        std::fs::create_dir_all(&networks).map_err(|e| Error::io(&networks, e))?;
        Ok(Search {
            dense,
            split,
            options,
            folder: networks,
            rows: Rows::open(&folder.join("candidates.json"), key)?,
            meter: Meter::new(dense, &split.repair.shape[1..], &options.session)?,
            examiner: Examiner::new(dense, split.choose.clone())?,
            progress,
            started: Instant::now(),
            notes: Vec::new(),
            _lock: lock,
        })
    }

    /// Bytes of the dense network's parameters.
    pub fn dense_bytes(&self) -> u64 {
        self.meter.dense_bytes()
    }

    /// Runs the search until it is done or the time is over.
    ///
    /// # Errors
    /// Of kind `Data` if no network is cheap enough, `Interrupted`, and the errors of the folder.
    pub fn run(mut self) -> Result<Found> {
        let starts = self.starts()?;
        let mut estimates = Vec::new();
        for (index, &(family, rung)) in starts.iter().enumerate() {
            let what = format!("estimate {} of {}", index + 1, starts.len());
            if let Some(row) = self.try_measure(&family.candidate(rung), Stage::Estimate, REPAIR, &what)? {
                estimates.push((family, rung, row));
            }
        }
        let rank = |row: usize| self.rows.all()[row].loss.rank();
        estimates.sort_by(|a, b| order(rank(a.2), rank(b.2)));
        match self.options.wish.bounds_cost() {
            true => self.in_full(&estimates)?,
            false => {
                for &(family, rung, _) in estimates.iter().take(FINALISTS) {
                    self.as_fast_as_the_loss_allows(family, rung)?;
                }
            }
        }
        self.finish()
    }

    /// The first rung of each family that is cheap enough. Families without any are noted.
    fn starts(&mut self) -> Result<Vec<(&'a Family, usize)>> {
        let mut starts = Vec::new();
        self.progress.begin("measure costs", self.options.families.len() as u64);
        for family in &self.options.families {
            match self.first_rung(family) {
                Ok(Some(rung)) => starts.push((family, rung)),
                Ok(None) => self
                    .notes
                    .push(format!("{}: not cheap enough even so, and left out", family.candidate(family.rungs() - 1).name())),
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                Err(error) => self.notes.push(format!("{}: left out ({error})", family.candidate(0).name())),
            }
            self.progress.check()?;
            self.progress.advance(1);
        }
        self.progress.end();
        match starts.is_empty() {
            true => Err(Error::data(format!("no network is cheap enough: {}", self.notes.join("; ")))),
            false => Ok(starts),
        }
    }

    /// By bisection, as costs fall from rung to rung.
    fn first_rung(&mut self, family: &Family) -> Result<Option<usize>> {
        if !self.options.wish.bounds_cost() {
            return Ok(Some((family.rungs() as f64 * MIDDLE) as usize));
        }
        let (mut low, mut high) = (0, family.rungs());
        while low < high {
            let middle = (low + high) / 2;
            let masked = family.candidate(middle).masked(self.dense, &self.options.rule, &Quiet)?;
            self.progress.check()?;
            match self.options.wish.keeps_cost(&self.meter.measure(&masked)?) {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        Ok((low < family.rungs()).then_some(low))
    }

    /// The best candidates in full, then networks around the best one. Where all that are cheap enough lose too much, slower
    /// networks of its family come first: they show what can be had.
    fn in_full(&mut self, estimates: &[(&Family, usize, usize)]) -> Result<()> {
        let Some((family, candidate)) = self.finalists(estimates)? else { return Ok(()) };
        self.in_time(&candidate, CAUTIOUS, "another repair")?;
        let rung = rung_of(family, &candidate).unwrap_or(0);
        if self.keeper().is_none() {
            self.as_fast_as_the_loss_allows(family, rung / 2)?;
        }
        for step in AROUND.iter().map(|step| rung as isize + step).filter(|step| (0..family.rungs() as isize).contains(step)) {
            self.in_time(&family.candidate(step as usize), REPAIR, "around the best")?;
        }
        Ok(())
    }

    /// The candidates with the best estimates in full. Returns the best one that is cheap enough.
    fn finalists<'f>(&mut self, estimates: &[(&'f Family, usize, usize)]) -> Result<Option<(&'f Family, Candidate)>> {
        // Only this search's own: networks of an earlier one, with another wish, would lead elsewhere.
        let mut finalists = Vec::new();
        for (index, &(family, rung, _)) in estimates.iter().take(FINALISTS).enumerate() {
            let what = format!("finalist {} of {}", index + 1, estimates.len().min(FINALISTS));
            // The repaired network is measured anew. One that has become too slow makes way for the next rung.
            for rung in (rung..family.rungs()).take(2) {
                let row = self.in_time(&family.candidate(rung), REPAIR, &what)?;
                finalists.extend(row);
                if row.is_none_or(|row| self.options.wish.keeps_cost(&self.rows.all()[row].cost)) {
                    break;
                }
            }
        }
        let best = self.best(|search, index, row| finalists.contains(&index) && search.options.wish.keeps_cost(&row.cost));
        let best = best.map(|index| self.rows.all()[index].candidate.clone());
        Ok(best.and_then(|best| {
            let (family, ..) = estimates.iter().find(|(family, ..)| rung_of(family, &best).is_some())?;
            Some((*family, best))
        }))
    }

    /// The highest rung of a family whose loss is small enough, by bisection from `first` on.
    fn as_fast_as_the_loss_allows(&mut self, family: &Family, first: usize) -> Result<()> {
        let (mut low, mut high, mut next) = (0, family.rungs(), first);
        while low < high {
            let Some(row) = self.in_time(&family.candidate(next), REPAIR, "find the limit")? else { break };
            match self.options.wish.keeps_loss(&self.rows.all()[row].loss) {
                true => low = next + 1,
                false => high = next,
            }
            next = (low + high) / 2;
        }
        Ok(())
    }

    /// Measures a candidate in full if the time that is left suffices.
    fn in_time(&mut self, candidate: &Candidate, repair: &str, what: &str) -> Result<Option<usize>> {
        let full = |row: &&Row| row.stage == Stage::Full;
        let longest = self.rows.all().iter().filter(full).map(|row| row.seconds).fold(0.0, f64::max);
        let steps = self.effort(Stage::Full, repair).steps;
        let known = self.rows.find(candidate, repair, Stage::Full, steps).is_some();
        if !known && longest > 0.0 && self.started.elapsed().as_secs_f64() + longest > self.options.seconds {
            self.notes.push(format!("{} with {repair}: no time was left to repair it in full", candidate.name()));
            return Ok(None);
        }
        self.try_measure(candidate, Stage::Full, repair, what)
    }

    /// As [`measure`](Self::measure); a candidate that fails is noted.
    fn try_measure(&mut self, candidate: &Candidate, stage: Stage, repair: &str, what: &str) -> Result<Option<usize>> {
        match self.measure(candidate, stage, repair, what) {
            Ok(row) => Ok(Some(row)),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Io) => Err(error),
            Err(error) => {
                self.notes.push(format!("{} with {repair}: failed ({error})", candidate.name()));
                Ok(None)
            }
        }
    }

    /// Repairs and measures a candidate, unless that is done already. Returns its row.
    fn measure(&mut self, candidate: &Candidate, stage: Stage, repair: &str, what: &str) -> Result<usize> {
        let effort = self.effort(stage, repair);
        if let Some(row) = self.rows.find(candidate, repair, stage, effort.steps) {
            return Ok(row);
        }
        self.progress.check()?;
        let start = Instant::now();
        let named = Renamed::new(self.progress, |stage| format!("{what}, {}: {stage}", candidate.name()));
        let model = candidate.repaired(self.dense, &self.options.rule, &self.split.repair, &effort, &named)?;
        let seconds = start.elapsed().as_secs_f64();
        let (cost, loss): (Cost, _) = (self.meter.measure(&model)?, self.examiner.examine(&model)?);
        if stage == Stage::Full {
            model.save(self.file(candidate, repair))?;
        }
        let (candidate, repair, steps) = (candidate.clone(), repair.to_string(), effort.steps);
        self.rows.push(Row { candidate, repair, steps, stage, cost, loss, seconds })
    }

    /// The effort of a stage. Networks in full get fewer steps where these would take more than their share of the time.
    fn effort(&self, stage: Stage, repair: &str) -> Effort {
        let all = self.split.repair.shape[0];
        let (images, steps) = match stage {
            Stage::Estimate => (all.min(FEW_IMAGES), 1),
            Stage::Full => (all, STEPS),
        };
        let options = RepairOptions { memory: self.options.memory, seconds: None };
        let mut effort = Effort { repair: repair.into(), steps, images, options };
        let estimates = self.rows.all().iter().filter(|row| row.stage == Stage::Estimate).map(|row| row.seconds);
        let step = estimates.fold(0.0, f64::max) * (all as f64 / FEW_IMAGES as f64).max(1.0);
        while stage == Stage::Full && effort.steps > 1 && effort.steps as f64 * step > self.options.seconds * SHARE {
            effort.steps /= 2;
        }
        effort
    }

    fn file(&self, candidate: &Candidate, repair: &str) -> PathBuf {
        let name: String = format!("{} {repair}", candidate.name())
            .chars()
            .filter(|c| !matches!(c, '%' | '+'))
            .map(|c| if c.is_alphanumeric() || c == '.' { c } else { '-' })
            .collect();
        self.folder.join(format!("{}.onnx", name.replace("--", "-").replace("--", "-")))
    }

    /// The best of the rows in full that meet a condition: the one that loses least, or the fastest if only the loss is bound.
    fn best(&self, condition: impl Fn(&Search, usize, &Row) -> bool) -> Option<usize> {
        let rows = self.rows.all().iter().enumerate();
        let possible = rows.filter(|(index, row)| row.stage == Stage::Full && condition(self, *index, row));
        let rank = |row: &Row| match self.options.wish.bounds_cost() {
            true => row.loss.rank(),
            false => (row.loss.broken_images, -row.cost.faster),
        };
        possible.min_by(|a, b| order(rank(a.1), rank(b.1))).map(|(index, _)| index)
    }

    /// The best of the rows in full that keep the wish.
    fn keeper(&self) -> Option<usize> {
        self.best(|search, _, row| search.options.wish.keeps_cost(&row.cost) && search.options.wish.keeps_loss(&row.loss))
    }

    fn finish(self) -> Result<Found> {
        let wish = self.options.wish;
        let chosen = self.keeper();
        let closest = || {
            let full = self.rows.all().iter().enumerate().filter(|(_, row)| row.stage == Stage::Full);
            let rank = |row: &Row| (row.loss.broken_images, wish.miss(&row.cost, &row.loss));
            full.min_by(|a, b| order(rank(a.1), rank(b.1))).map(|(index, _)| index)
        };
        let nearest = chosen.or_else(closest);
        let nearest = nearest.ok_or_else(|| Error::data(format!("no candidate could be repaired: {}", self.notes.join("; "))))?;
        let row = &self.rows.all()[nearest];
        let network = Model::open(self.file(&row.candidate, &row.repair))?;
        Ok(Found { rows: self.rows.all().to_vec(), chosen, nearest, network, notes: self.notes })
    }
}

/// Fewer broken images come first, then the lower number.
fn order(a: (usize, f64), b: (usize, f64)) -> Ordering {
    a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
}

/// The rung of a candidate in its family.
fn rung_of(family: &Family, candidate: &Candidate) -> Option<usize> {
    (0..family.rungs()).find(|&rung| family.candidate(rung) == *candidate)
}
