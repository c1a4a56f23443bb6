//! What the threads of a pool share: claims on items, and the barrier between loops.
//!
//! A barrier waits for items, not for workers. The worker that finishes the last item of a loop opens the next loop. Late workers
//! find what is left. So a run needs only the workers that hold an item.
//!
//! A worker uses the caller's memory only while it holds an unfinished item, and the run cannot end before that item is done.
//! Between items it uses only this structure. A claim carries the number of its loop, so that a late claim fails.

use super::loops::{Loops, Worker};
use super::spin::Spin;
use super::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering, Thread, UnsafeCell, current, park};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Low bits of a claim: items that nobody has begun. The other bits are the loop's number.
const LEFT_BITS: u32 = 26;
const LEFT: u64 = (1 << LEFT_BITS) - 1;

/// Low bits of the state: whether a loop is open, and whether a worker may be asleep. The other bits are the loop's number.
const RUNNING: u64 = 1;
const SLEEPERS: u64 = 2;
const NUMBER_SHIFT: u32 = 2;

/// Alone on its pair of cache lines, because CPUs fetch them in pairs.
#[repr(align(128))]
struct CachePadded<T>(T);

/// A worker's items of the open loop.
struct Share {
    claim: AtomicU64,
    /// Items that are not done.
    unfinished: AtomicUsize,
    /// Past the last item.
    end: AtomicUsize,
}

/// The caller's loops, which outlive the run.
type Job = *const dyn Loops;

/// The job before the first run.
struct Nothing;

impl Loops for Nothing {
    fn count(&self) -> usize {
        0
    }

    fn first(&self, _loop: usize, _worker: Worker) -> usize {
        0
    }

    fn run(&self, _loop: usize, _item: usize, _worker: Worker) {}
}

/// What changes with each loop, apart from what does not.
struct Current {
    state: AtomicU64,
    /// The loop that is open.
    index: AtomicUsize,
    /// Written while no loop is open, read by holders of items.
    job: UnsafeCell<Job>,
}

pub(super) struct Shared {
    current: CachePadded<Current>,
    /// Shares of the open loop that are not done, and one more while the loop is being opened.
    open: CachePadded<AtomicUsize>,
    shares: Vec<CachePadded<Share>>,
    panicked: AtomicBool,
    over: AtomicBool,
    threads: Vec<Mutex<Option<Thread>>>,
}

// SAFETY: one thread writes `job` while no loop is open, and workers only read it while one is. The loops themselves are `Sync`.
unsafe impl Send for Shared {}
// SAFETY: one thread writes `job` while no loop is open, and workers only read it while one is. The loops themselves are `Sync`.
unsafe impl Sync for Shared {}

fn number(state: u64) -> u64 {
    state >> NUMBER_SHIFT
}

/// The loop's number as a claim carries it.
fn tag(number: u64) -> u64 {
    number << LEFT_BITS
}

impl Shared {
    pub fn new(threads: usize) -> Shared {
        let share = || Share { claim: AtomicU64::new(0), unfinished: AtomicUsize::new(0), end: AtomicUsize::new(0) };
        let current = Current { state: AtomicU64::new(0), index: AtomicUsize::new(0), job: UnsafeCell::new(&Nothing) };
        Shared {
            current: CachePadded(current),
            open: CachePadded(AtomicUsize::new(0)),
            shares: (0..threads).map(|_| CachePadded(share())).collect(),
            panicked: AtomicBool::new(false),
            over: AtomicBool::new(false),
            threads: (0..threads).map(|_| Mutex::new(None)).collect(),
        }
    }

    pub fn threads(&self) -> usize {
        self.shares.len()
    }

    /// Makes the current thread the one that is woken as this worker.
    pub fn register(&self, me: usize) {
        let thread = current();
        let mut known = self.threads[me].lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|known| known.id() != thread.id()) {
            *known = Some(thread);
        }
    }

    /// Opens the first loop of a job.
    ///
    /// # Safety
    /// `loops` must be valid until [`work`](Self::work) has returned on the calling thread, which must be worker 0. No other job may
    /// run.
    pub unsafe fn start(&self, loops: Job) {
        self.panicked.store(false, Ordering::Relaxed);
        // SAFETY: no loop is open, so nobody holds an item or reads the job.
        self.current.0.job.with_mut(|job| unsafe { *job = loops });
        // SAFETY: the caller vouches for `loops`; no loop is open, and no other thread starts a job.
        unsafe { self.open(loops, 0, 0) };
    }

    /// Runs items: on the calling thread until its job is done, on the others until the pool is closed. Returns how long the thread
    /// has slept.
    pub fn work(&self, me: usize, spin: &mut Spin) -> Duration {
        let mut slept = Duration::ZERO;
        loop {
            let state = self.current.0.state.load(Ordering::Acquire);
            if (me == 0 && state & RUNNING == 0) || self.over.load(Ordering::Relaxed) {
                return slept;
            }
            if state & RUNNING != 0 {
                self.take_items(me, number(state));
            }
            slept += self.wait(state, spin);
        }
    }

    /// Whether an item of the last job has panicked.
    pub fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Relaxed)
    }

    /// Lets the other threads return.
    pub fn close(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.current.0.state.fetch_add(1 << NUMBER_SHIFT, Ordering::AcqRel);
        (1..self.threads()).for_each(|worker| self.wake(worker));
    }

    /// Runs items of the loop with this number until there are none: the worker's own, then others'.
    fn take_items(&self, me: usize, number: u64) {
        for owner in (me..self.threads()).chain(0..me) {
            while let Some(item) = self.claim(owner, number) {
                // The item is not done, so the job is valid and does not change.
                let (loops, index) = (self.job(), self.current.0.index.load(Ordering::Relaxed));
                let worker = Worker { index: me, count: self.threads() };
                // SAFETY: the job is valid until this item is done.
                self.guard(|| unsafe { (*loops).run(index, item, worker) });
                let share = &self.shares[owner].0;
                // After the last item only this worker is left. After any other, another worker may end the run.
                if share.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 && self.open.0.fetch_sub(1, Ordering::AcqRel) == 1 {
                    // SAFETY: all shares are done, so only this worker can open the next loop or end the job.
                    return unsafe { self.end_loop(loops, index, me) };
                }
            }
        }
    }

    fn claim(&self, owner: usize, number: u64) -> Option<usize> {
        let share = &self.shares[owner].0;
        let mut claim = share.claim.load(Ordering::Acquire);
        while claim & !LEFT == tag(number) && claim & LEFT > 0 {
            match share.claim.compare_exchange_weak(claim, claim - 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(share.end.load(Ordering::Relaxed) - (claim & LEFT) as usize),
                Err(now) => claim = now,
            }
        }
        None
    }

    /// The job; only for workers that hold an item.
    fn job(&self) -> Job {
        // SAFETY: the job is written only while no loop is open.
        self.current.0.job.with(|job| unsafe { *job })
    }

    /// Calls the caller's code, unless an item has panicked.
    fn guard<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        if self.has_panicked() {
            return None;
        }
        let result = catch_unwind(AssertUnwindSafe(work)).ok();
        if result.is_none() {
            self.panicked.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Ends a loop and opens the next one.
    ///
    /// # Safety
    /// `loops` must be valid until this worker ends the job. All items of the loop must be done, and no other worker may be about to
    /// open a loop.
    unsafe fn end_loop(&self, loops: Job, index: usize, me: usize) {
        // SAFETY: the caller vouches for `loops`.
        self.guard(|| unsafe { (*loops).done(index) });
        // SAFETY: the caller's contract is the same; the loop before is done, so none is open.
        unsafe { self.open(loops, index + 1, me) }
    }

    /// Opens the loop, or the next one that has items, or ends the job.
    ///
    /// # Safety
    /// `loops` must be valid until the job ends. No loop may be open, and no other worker may be about to open one.
    unsafe fn open(&self, loops: Job, mut index: usize, me: usize) {
        // SAFETY: the caller vouches for `loops`; until a loop is published nobody else can end the job.
        while let Some(shares) = self.guard(|| unsafe { self.prepare(&*loops, index) }).flatten() {
            if shares > 0 && !self.publish(shares, me) {
                return;
            }
            // SAFETY: all items are done already, or there were none, so nobody else can end the job.
            self.guard(|| unsafe { (*loops).done(index) });
            index += 1;
        }
        self.finish();
    }

    /// Prepares a loop and returns how many of its shares have items; `None` after the last loop.
    fn prepare(&self, loops: &dyn Loops, index: usize) -> Option<usize> {
        let (count, mut shares) = (self.threads(), 0);
        if index >= loops.count() {
            return None;
        }
        self.current.0.index.store(index, Ordering::Relaxed);
        let mut begin = 0;
        for (owner, CachePadded(share)) in self.shares.iter().enumerate() {
            let end = loops.first(index, Worker { index: owner + 1, count });
            let items = end - begin;
            assert!(items as u64 <= LEFT, "{items} items");
            share.end.store(end, Ordering::Relaxed);
            share.unfinished.store(items, Ordering::Relaxed);
            shares += usize::from(items > 0);
            begin = end;
        }
        Some(shares)
    }

    /// Lets workers claim items of the prepared loop. Returns whether all of them are done already, so that this worker must open
    /// the next loop.
    fn publish(&self, shares: usize, me: usize) -> bool {
        // The one more share is this worker's: until it is given back, nobody can end the loop and open another.
        self.open.0.store(shares + 1, Ordering::Relaxed);
        let number = number(self.current.0.state.load(Ordering::Relaxed)) + 1;
        for CachePadded(share) in &self.shares {
            let items = share.unfinished.load(Ordering::Relaxed) as u64;
            share.claim.store(tag(number) | items, Ordering::Release);
        }
        let before = self.current.0.state.swap(number << NUMBER_SHIFT | RUNNING, Ordering::AcqRel);
        let done = self.open.0.fetch_sub(1, Ordering::AcqRel) == 1;
        if before & SLEEPERS != 0 {
            (0..self.threads()).filter(|worker| *worker != me).for_each(|worker| self.wake(worker));
        }
        done
    }

    /// Ends the job. Workers that sleep stay asleep.
    fn finish(&self) {
        let next = |state: u64| Some((number(state) + 1) << NUMBER_SHIFT | state & SLEEPERS);
        let before = self.current.0.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next).unwrap_or(0);
        if before & SLEEPERS != 0 {
            self.wake(0);
        }
    }

    fn wake(&self, worker: usize) {
        let thread = self.threads[worker].lock().unwrap_or_else(PoisonError::into_inner).clone();
        thread.into_iter().for_each(|thread| thread.unpark());
    }

    /// Waits until the state changes: awake for a while, then asleep. Returns how long the worker has slept.
    fn wait(&self, state: u64, spin: &mut Spin) -> Duration {
        let has_changed = |now: u64| now & !SLEEPERS != state & !SLEEPERS;
        let changed = || has_changed(self.current.0.state.load(Ordering::Acquire));
        let Err(start) = spin.until(changed) else { return Duration::ZERO };
        let asleep = Instant::now();
        // Either the worker that changes the state sees this flag, or this worker sees the change.
        while !changed() && !has_changed(self.current.0.state.fetch_or(SLEEPERS, Ordering::AcqRel)) {
            park();
        }
        spin.learn(start.elapsed());
        asleep.elapsed()
    }
}
