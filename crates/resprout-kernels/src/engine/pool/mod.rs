//! Threads that run parallel loops one after another, with a barrier between any two.
//!
//! Other programs use the machine too, so a thread may wait milliseconds for a CPU. Therefore a run needs only the calling thread.
//! Workers claim items one by one: first those of their own share, then others' (work stealing). A barrier waits for items that
//! have begun, never for a worker without one.

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

/// The least number of items of each worker's share. Others can take some over when the worker is delayed. More pieces of a
/// convolution would read the same input more often.
pub(super) const PIECES: usize = 2;

/// Options of a [`ThreadPool`].
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolOptions {
    /// Threads, including the calling one.
    pub threads: usize,
    /// Whether each thread stays on its own CPU while it works, if the process has as many CPUs.
    pub pin: bool,
    /// The most time that a thread waits awake before it sleeps. With more threads than CPUs it sleeps at once. `None` takes the
    /// microseconds of the environment variable `RESPROUT_SPIN`, or 200.
    pub spin: Option<Duration>,
}

/// A number of threads: the calling one and others, which sleep between runs. A pool of one is the calling thread.
pub struct ThreadPool {
    shared: Arc<Shared>,
    others: Vec<JoinHandle<()>>,
    /// The CPU of the calling thread while it works.
    cpu: Option<usize>,
    spin: Spin,
    /// See [`take_slept`](Self::take_slept).
    slept: Duration,
}

/// How many threads this process can use at once: its CPUs, or fewer if it has a quota of their time.
pub fn usable_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl ThreadPool {
    /// A pool of so many threads with default options.
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

    /// How long the calling thread has slept in runs since the last call, waiting for items of others. If that is much of the
    /// time, working alone is faster.
    pub fn take_slept(&mut self) -> Duration {
        std::mem::take(&mut self.slept)
    }

    /// Runs loops one after another. Only the calling thread is needed; the others help as far as they get a CPU.
    /// Items must not wait for each other.
    ///
    /// # Panics
    /// If an item panics. Items that have not begun do not run then.
    pub fn run(&mut self, loops: &dyn Loops) {
        let threads = self.threads();
        let _bound = self.cpu.and_then(affinity::Bound::to);
        if threads == 1 {
            return run_alone(loops, threads);
        }
        self.shared.register(0);
        // SAFETY: only the lifetime changes.
        let forever: *const (dyn Loops + 'static) = unsafe { std::mem::transmute(std::ptr::from_ref(loops)) };
        // SAFETY: `work` returns when the job is done. `&mut self` excludes another job, and this thread is worker 0.
        unsafe { self.shared.start(forever) };
        self.slept += self.shared.work(0, &mut self.spin);
        assert!(!self.shared.has_panicked(), "a worker of the pool has panicked");
    }
}

/// Runs loops on the calling thread, divided as for so many threads.
pub(super) fn run_alone(loops: &dyn Loops, threads: usize) {
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
