//! Threads that run parallel loops one after another, with a barrier between any two.
//!
//! Other programs may use the machine, too: a thread that has a CPU now may wait for one for milliseconds. So a run needs no thread
//! but the calling one. Items are claimed one by one, each worker beginning with its own share, and a barrier waits for
//! items that were begun, never for a worker that has begun none.

mod affinity;
mod loops;
mod shared;
mod spin;
mod sync;

pub use loops::{Loops, Worker};
use shared::Shared;
use spin::Spin;
use std::thread::JoinHandle;
use std::time::Duration;
use sync::Arc;

/// Items of each worker's share, at the least: what others can take over when it is held up. Pieces of a convolution read
/// the same input, so that more of them would read it more often.
pub(super) const PIECES: usize = 2;

/// How a [`ThreadPool`] is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolOptions {
    /// Threads, the calling one among them.
    pub threads: usize,
    /// Whether each stays on a CPU of its own while it works, where the process has as many.
    pub pin: bool,
    /// The most time that a thread waits awake before it sleeps; none at all where there are more threads than CPUs. `None` for
    /// what the environment variable `RESPROUT_SPIN` says in microseconds, or for 200.
    pub spin: Option<Duration>,
}

/// A number of threads: the calling one and others, which sleep between runs. A pool of one is the calling thread.
pub struct ThreadPool {
    shared: Arc<Shared>,
    others: Vec<JoinHandle<()>>,
    /// Where the calling thread works.
    cpu: Option<usize>,
    spin: Spin,
    /// See [`take_slept`](Self::take_slept).
    slept: Duration,
}

/// How many threads this process can use at once: its CPUs, or what its quota of their time is worth.
pub fn usable_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl ThreadPool {
    /// A pool of so many threads, as usual.
    ///
    /// # Errors
    /// As [`with_options`](Self::with_options).
    pub fn new(threads: usize) -> std::io::Result<ThreadPool> {
        ThreadPool::with_options(&PoolOptions { threads, ..PoolOptions::default() })
    }

    /// Starts the threads besides the calling one.
    ///
    /// # Errors
    /// If the system starts no more threads, or `RESPROUT_SPIN` is no number.
    pub fn with_options(options: &PoolOptions) -> std::io::Result<ThreadPool> {
        let threads = options.threads.max(1);
        let most = options.spin.map_or_else(spin::most, Ok)?;
        let most = if threads > usable_threads() { Duration::ZERO } else { most };
        let shared = Arc::new(Shared::new(threads));
        let cpus = if options.pin { affinity::allowed() } else { Vec::new() };
        let cpu = |index: usize| cpus.get(index).copied().filter(|_| cpus.len() >= threads);
        let mut pool = ThreadPool { shared, others: Vec::new(), cpu: cpu(0), spin: Spin::new(most), slept: Duration::ZERO };
        for index in 1..threads {
            let (shared, cpu) = (pool.shared.clone(), cpu(index));
            let work = move || {
                cpu.into_iter().for_each(affinity::stay_on);
                shared.register(index);
                let _slept = shared.work(index, &mut Spin::new(most));
            };
            pool.others.push(std::thread::Builder::new().name(format!("resprout-{index}")).spawn(work)?);
        }
        Ok(pool)
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.shared.threads()
    }

    /// How long the calling thread has slept in runs since the last call, until an item of another was done: where that is much
    /// of the time, it had better work alone.
    pub fn take_slept(&mut self) -> Duration {
        std::mem::take(&mut self.slept)
    }

    /// Runs loops one after another. Only the calling thread is needed: the others help as far as they get a CPU.
    /// Items must not wait for each other.
    ///
    /// # Panics
    /// If an item panics; those that have not begun are left out.
    pub fn run(&mut self, loops: &dyn Loops) {
        let threads = self.threads();
        let _bound = self.cpu.and_then(affinity::Bound::to);
        if threads == 1 {
            return run_alone(loops, threads);
        }
        self.shared.register(0);
        // SAFETY: only the lifetime is forgotten.
        let forever: *const (dyn Loops + 'static) = unsafe { std::mem::transmute(std::ptr::from_ref(loops)) };
        // SAFETY: `work` returns when the job is done, and `&mut self` lets nobody start another.
        unsafe { self.shared.start(forever) };
        self.slept += self.shared.work(0, &mut self.spin);
        assert!(!self.shared.has_panicked(), "a worker of the pool has panicked");
    }
}

/// Runs loops on the calling thread, cut as for so many.
pub fn run_alone(loops: &dyn Loops, threads: usize) {
    let worker = |index: usize| Worker { index, count: threads };
    for index in 0..loops.count() {
        let items = loops.first(index, worker(threads));
        (0..items).for_each(|item| loops.run(index, item, worker(0)));
        loops.done(index);
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.close();
        self.others.drain(..).for_each(|other| drop(other.join()));
    }
}

#[cfg(test)]
mod tests;
