//! The core of the thread pool with loom's atomics, cells and threads.
#![cfg(test)]

#[path = "../../crates/resprout-kernels/src/engine/pool/loops.rs"]
mod loops;
#[path = "../../crates/resprout-kernels/src/engine/pool/shared.rs"]
mod shared;
#[path = "../../crates/resprout-kernels/src/engine/pool/spin.rs"]
mod spin;

mod sync {
    pub use loom::cell::UnsafeCell;
    pub use loom::sync::Mutex;
    pub use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
    pub use loom::thread::{Thread, current, park};
}

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loops::{Loops, Worker};
use shared::Shared;
use spin::Spin;
use std::time::Duration;

/// Each loop adds one to a cell for each item, and the next loop reads all cells. Loom reports a read before the barrier, and an
/// access after the run.
struct Sums {
    cells: Vec<UnsafeCell<usize>>,
    loops: Vec<usize>,
}

impl Sums {
    fn new(loops: &[usize]) -> Sums {
        let items = loops.iter().copied().max().unwrap_or(0);
        Sums { cells: (0..items).map(|_| UnsafeCell::new(0)).collect(), loops: loops.to_vec() }
    }
}

// SAFETY: the pool gives each item to one worker; loom checks it.
unsafe impl Sync for Sums {}

impl Loops for Sums {
    fn count(&self) -> usize {
        self.loops.len()
    }

    fn first(&self, index: usize, worker: Worker) -> usize {
        worker.first_of(self.loops[index])
    }

    fn run(&self, index: usize, item: usize, _worker: Worker) {
        // SAFETY: the pool gives each item to one worker; loom checks it.
        self.cells[item].with_mut(|cell| unsafe { *cell += 1 });
        assert!(index < self.loops.len());
    }

    fn done(&self, index: usize) {
        for (item, cell) in self.cells.iter().enumerate() {
            let expected = self.loops[..=index].iter().filter(|items| **items > item).count();
            // SAFETY: between two loops no item runs.
            cell.with(|cell| assert_eq!(unsafe { *cell }, expected));
        }
    }
}

/// Runs jobs on so many threads, in every order that loom explores.
fn check(threads: usize, jobs: &'static [&'static [usize]], preemptions: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        let shared = Arc::new(Shared::new(threads));
        let worker = |index: usize| {
            let shared = shared.clone();
            loom::thread::spawn(move || {
                shared.register(index);
                let _slept = shared.work(index, &mut Spin::new(Duration::ZERO));
            })
        };
        let workers: Vec<_> = (1..threads).map(worker).collect();
        shared.register(0);
        for job in jobs {
            let sums = Sums::new(job);
            let loops: *const (dyn Loops + '_) = &sums;
            // SAFETY: only the lifetime changes; `work` returns when the job is done, and this thread is worker 0.
            unsafe { shared.start(std::mem::transmute::<*const (dyn Loops + '_), *const (dyn Loops + 'static)>(loops)) };
            let _slept = shared.work(0, &mut Spin::new(Duration::ZERO));
            assert!(!shared.has_panicked());
            // Loom reports here what a worker does after the end of the run.
            for (item, cell) in sums.cells.into_iter().enumerate() {
                assert_eq!(cell.into_inner(), job.iter().filter(|items| **items > item).count());
            }
        }
        shared.close();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn two_threads_and_two_loops() {
    check(2, &[&[2, 2]], 3);
}

#[test]
fn two_jobs_one_after_another() {
    check(2, &[&[2], &[1]], 3);
}

#[test]
fn empty_loops_and_single_items() {
    check(2, &[&[0, 1, 0, 2]], 3);
}

#[test]
fn three_threads() {
    check(3, &[&[3]], 2);
}
