//! Measures the missing cells of a study of any kind: which are whose, how many at a time, and what becomes of each.

use super::journal::Journal;
use super::{Cell, CellResult, Failure, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes the result of the cell of an index. An error ends the run.
pub type Finished<'f, R> = dyn FnMut(usize, Result<R>) -> Result<()> + 'f;

/// Cells that one job measures in order.
pub trait CellGroup: Sync {
    /// A configuration.
    type Cell: Clone + Serialize + Send;
    /// The measurements of a cell.
    type Result: Clone + Serialize + Send;

    /// The key of each cell in the journal, and the cell.
    fn cells(&self) -> Vec<(&str, &Self::Cell)>;

    /// Measures the cells of these indices in order. Each result goes to `finished` at once, an error as a failure of its cell.
    /// `progress` has no stages and tells only whether to stop.
    ///
    /// # Errors
    /// What ends the run: those of `finished` and of `progress`.
    fn measure(&self, todo: &[usize], progress: &dyn Progress, finished: &mut Finished<Self::Result>) -> Result<()>;
}

/// Which part of the work is done, and how.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// The number of groups at a time.
    pub jobs: usize,
    /// The part `i` of `n` of the work, with `i` from 1 on.
    pub shard: Option<(usize, usize)>,
}

/// Records and lines by key.
pub type Done<C, R> = HashMap<String, (Record<C, R>, String)>;

/// The results of a run.
#[derive(Clone, Debug)]
pub struct RunOutcome<C = Cell, R = CellResult> {
    /// Key, record and line of every measured cell, in the order of the groups.
    pub lines: Vec<(String, Record<C, R>, String)>,
    /// The failed cells of this run.
    pub failures: Vec<Failure<C>>,
    /// The number of cells measured in this run.
    pub measured: usize,
    /// The number of cells that are neither measured nor failed: those of other shards.
    pub missing: usize,
}

/// Measures every cell that is not in `done`, and appends each to the journal. A cell that cannot be measured is a [`Failure`], and
/// the run goes on.
///
/// # Errors
/// Of kind `Io` or `Interrupted`.
pub fn schedule<G: CellGroup>(
    groups: &[G],
    done: Done<G::Cell, G::Result>,
    journal: &Journal,
    share: &Share,
    progress: &dyn Progress,
) -> Result<RunOutcome<G::Cell, G::Result>> {
    let mine = |(index, _): &(usize, &G)| share.shard.is_none_or(|(part, parts)| index % parts == part - 1);
    let missing = |group: &G| -> Vec<usize> {
        let cells = group.cells();
        (0..cells.len()).filter(|&index| !done.contains_key(cells[index].0)).collect()
    };
    let todo = groups.iter().enumerate().filter(mine).map(|(_, group)| (group, missing(group)));
    let todo: Vec<(&G, Vec<usize>)> = todo.filter(|(_, missing)| !missing.is_empty()).collect();
    let scheduled: usize = todo.iter().map(|(_, missing)| missing.len()).sum();
    let state = State { done: Mutex::new(done), failures: Mutex::default(), journal, progress };
    let (fatal, stop, next) = (Mutex::new(None), AtomicBool::new(false), AtomicUsize::new(0));
    progress.begin("sweep", scheduled as u64);
    let work = || {
        let ending = Ending { stop: &stop, progress };
        while let Some((group, missing)) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = ending.check().and_then(|()| state.measure(*group, missing, &ending)) {
                stop.store(true, Ordering::Relaxed);
                lock(&fatal).get_or_insert(error);
                return;
            }
        }
    };
    match share.jobs {
        0 | 1 => work(),
        jobs => {
            let threads = (rayon::current_num_threads() / jobs).max(1);
            let pools: Result<Vec<_>, _> =
                (0..jobs).map(|_| rayon::ThreadPoolBuilder::new().num_threads(threads).build()).collect();
            let pools = pools.map_err(|e| Error::new(ErrorKind::Io, format!("cannot start threads: {e}")))?;
            std::thread::scope(|scope| pools.iter().for_each(|pool| drop(scope.spawn(|| pool.install(work)))));
        }
    }
    progress.end();
    match lock(&fatal).take() {
        Some(error) if error.kind() == ErrorKind::Interrupted => {
            Err(Error::new(ErrorKind::Interrupted, "interrupted; the journal holds what is finished, the same command goes on"))
        }
        Some(error) => Err(error),
        None => Ok(state.collect(groups, scheduled)),
    }
}

/// Whether the run is to end: it was interrupted, or another job has failed for good.
struct Ending<'a> {
    stop: &'a AtomicBool,
    progress: &'a dyn Progress,
}

impl Progress for Ending<'_> {
    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.progress.cancelled()
    }
}

/// State that the jobs share.
struct State<'a, C, R> {
    done: Mutex<Done<C, R>>,
    failures: Mutex<Vec<Failure<C>>>,
    journal: &'a Journal,
    progress: &'a dyn Progress,
}

impl<C: Clone + Serialize, R: Clone + Serialize> State<'_, C, R> {
    fn measure<G: CellGroup<Cell = C, Result = R>>(&self, group: &G, missing: &[usize], ending: &Ending) -> Result<()> {
        let cells = group.cells();
        // Another model of the same contents may have had these cells in the meantime.
        let todo: Vec<usize> = missing.iter().copied().filter(|&i| !lock(&self.done).contains_key(cells[i].0)).collect();
        self.progress.advance((missing.len() - todo.len()) as u64);
        if todo.is_empty() {
            return Ok(());
        }
        group.measure(&todo, ending, &mut |index, result| {
            let (key, cell) = cells[index];
            match result {
                Ok(result) => {
                    let record = Record { cell: cell.clone(), result };
                    let line = self.journal.append(key, &record)?;
                    lock(&self.done).insert(key.to_string(), (record, line));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                Err(error) => lock(&self.failures).push(Failure { cell: cell.clone(), error: error.to_string() }),
            }
            self.progress.advance(1);
            Ok(())
        })
    }

    fn collect<G: CellGroup<Cell = C, Result = R>>(self, groups: &[G], scheduled: usize) -> RunOutcome<C, R> {
        let done = self.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let failures = self.failures.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (mut lines, mut missing) = (Vec::new(), 0);
        for (key, cell) in groups.iter().flat_map(|group| group.cells()) {
            match done.get(key) {
                // The model may have had another name when it was measured.
                Some((record, line)) => {
                    let record = Record { cell: cell.clone(), result: record.result.clone() };
                    lines.push((key.to_string(), record, line.clone()));
                }
                None => missing += 1,
            }
        }
        missing -= failures.len();
        RunOutcome { lines, measured: scheduled - failures.len(), failures, missing }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
