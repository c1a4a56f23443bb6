//! Threads that run one piece of work together and meet between its steps.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// How often a waiting thread looks before it lets others run: meetings are a few microseconds apart.
const SPINS: usize = 20_000;

/// Pieces of each thread's part of some work, at the least: what others can take over when it is held up. Pieces of a
/// convolution read the same input, so that more of them would read it more often.
pub(super) const PIECES: usize = 2;

/// A number of threads. They sleep between runs, and while they run the calling thread sleeps; a team of one is the
/// calling thread.
///
/// A team as large as the machine has each thread on a CPU of its own: a thread that waits for one that the system has put
/// behind it on the same CPU would wait for milliseconds.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    threads: usize,
    order: Mutex<Order>,
    wake: Condvar,
    finished: Condvar,
    arrived: AtomicUsize,
    meeting: AtomicUsize,
    /// Of each member, how many of its things have been begun since the last meeting.
    begun: Vec<Counter>,
    /// A panic in a worker: the others must not wait for it.
    broken: AtomicUsize,
}

/// Alone on its line of the cache.
#[derive(Default)]
#[repr(align(64))]
struct Counter(AtomicUsize);

/// What the workers are to do.
struct Order {
    number: u64,
    work: Option<Work>,
    busy: usize,
    over: bool,
}

/// The caller's closure. It outlives the run: [`Team::run`] returns only after every worker has finished with it.
#[derive(Clone, Copy)]
struct Work(*const (dyn Fn(&Member) + Sync));

// SAFETY: the closure is `Sync`, and only used while `Team::run` keeps it alive.
unsafe impl Send for Work {}

/// A thread at work.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    /// From 0 on.
    pub index: usize,
    /// How many there are.
    pub count: usize,
    shared: Option<&'a Shared>,
}

impl Member<'_> {
    /// A thread that works alone.
    pub fn alone() -> Member<'static> {
        Member { index: 0, count: 1, shared: None }
    }

    /// Does so many things with the others. Each begins with its own part of them and is then of help to the others, so that a
    /// thread that is held up does not hold up all. Members must meet before they divide again.
    pub fn divide(&self, things: usize, work: impl FnMut(usize)) {
        self.divide_at(|owner| things * owner / self.count, work);
    }

    /// The same where each begins with the things from `first(index)` to `first(index + 1)`.
    pub(super) fn divide_at(&self, first: impl Fn(usize) -> usize, mut work: impl FnMut(usize)) {
        let Some(shared) = self.shared else { return (0..first(self.count)).for_each(work) };
        for owner in (self.index..self.count).chain(0..self.index) {
            let (begin, end) = (first(owner), first(owner + 1));
            loop {
                let thing = begin + shared.begun[owner].0.fetch_add(1, Ordering::Relaxed);
                if thing >= end {
                    break;
                }
                work(thing);
            }
        }
    }

    /// The same for small things, in pieces of neighbours.
    pub fn each(&self, things: usize, mut work: impl FnMut(usize)) {
        self.each_of(1, things, |_, thing| work(thing));
    }

    /// The same for each channel of each band: threads begin with their own bands.
    pub(super) fn each_of(&self, bands: usize, channels: usize, mut work: impl FnMut(usize, usize)) {
        let pieces = channels.min(PIECES * self.count).max(1);
        self.divide(bands * pieces, |thing| {
            let (band, piece) = (thing / pieces, thing % pieces);
            (channels * piece / pieces..channels * (piece + 1) / pieces).for_each(|channel| work(band, channel));
        });
    }

    /// Waits until all have come here.
    pub fn meet(&self) {
        let Some(shared) = self.shared else { return };
        let meeting = shared.meeting.load(Ordering::Acquire);
        if shared.arrived.fetch_add(1, Ordering::AcqRel) + 1 == shared.threads {
            shared.arrived.store(0, Ordering::Relaxed);
            shared.begun.iter().for_each(|begun| begun.0.store(0, Ordering::Relaxed));
            shared.meeting.fetch_add(1, Ordering::AcqRel);
            return;
        }
        let mut spins = 0;
        while shared.meeting.load(Ordering::Acquire) == meeting {
            assert!(shared.broken.load(Ordering::Relaxed) == 0, "another thread of the team has panicked");
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

impl Team {
    /// Starts the threads.
    pub fn new(threads: usize) -> std::io::Result<Team> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            threads,
            order: Mutex::new(Order { number: 0, work: None, busy: 0, over: false }),
            wake: Condvar::new(),
            finished: Condvar::new(),
            arrived: AtomicUsize::new(0),
            meeting: AtomicUsize::new(0),
            begun: (0..threads).map(|_| Counter::default()).collect(),
            broken: AtomicUsize::new(0),
        });
        let cpus = affinity::allowed();
        let cpu = |index: usize| (cpus.len() == threads).then(|| cpus[index]);
        let start = |index: usize| {
            let (shared, cpu) = (shared.clone(), cpu(index));
            let work = move || {
                cpu.into_iter().for_each(affinity::stay_on);
                worker(&shared, index);
            };
            std::thread::Builder::new().name(format!("resprout-{index}")).spawn(work)
        };
        let workers: std::io::Result<Vec<JoinHandle<()>>> = (0..if threads == 1 { 0 } else { threads }).map(start).collect();
        Ok(Team { workers: workers?, shared })
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Runs `work` on every thread at once.
    ///
    /// # Panics
    /// If `work` panics on any of them.
    pub fn run(&mut self, work: &(dyn Fn(&Member) + Sync)) {
        let shared = &*self.shared;
        if shared.threads == 1 {
            return work(&Member::alone());
        }
        // SAFETY: only the lifetime is forgotten; this function waits below until no worker uses `work` any more.
        let erased: *const (dyn Fn(&Member) + Sync + 'static) = unsafe { std::mem::transmute(std::ptr::from_ref(work)) };
        let mut order = shared.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.number += 1;
        order.work = Some(Work(erased));
        order.busy = shared.threads;
        shared.wake.notify_all();
        while order.busy > 0 {
            order = shared.finished.wait(order).unwrap_or_else(PoisonError::into_inner);
        }
        order.work = None;
        drop(order);
        assert!(shared.broken.load(Ordering::Relaxed) == 0, "a thread of the team has panicked");
    }
}

/// On which CPUs threads run. Where the system cannot tell, nothing is changed.
mod affinity {
    #[cfg(target_os = "linux")]
    mod system {
        /// Bits of `cpu_set_t`.
        pub type Set = [u64; 16];

        unsafe extern "C" {
            pub fn sched_getaffinity(thread: i32, bytes: usize, set: *mut Set) -> i32;
            pub fn sched_setaffinity(thread: i32, bytes: usize, set: *const Set) -> i32;
        }
    }

    /// The CPUs that this process may use.
    #[cfg(target_os = "linux")]
    pub fn allowed() -> Vec<usize> {
        let mut set: system::Set = [0; 16];
        // SAFETY: the set is as large as it is said to be.
        let failed = unsafe { system::sched_getaffinity(0, size_of_val(&set), &mut set) } < 0;
        let has = |cpu: &usize| set[cpu / 64] >> (cpu % 64) & 1 == 1;
        if failed { Vec::new() } else { (0..64 * set.len()).filter(has).collect() }
    }

    /// Keeps the current thread on one of them.
    #[cfg(target_os = "linux")]
    pub fn stay_on(cpu: usize) {
        let mut set: system::Set = [0; 16];
        set[cpu / 64] = 1 << (cpu % 64);
        // SAFETY: as above. If it fails, the thread runs wherever the system puts it.
        let _ = unsafe { system::sched_setaffinity(0, size_of_val(&set), &set) };
    }

    #[cfg(not(target_os = "linux"))]
    pub fn allowed() -> Vec<usize> {
        Vec::new()
    }

    #[cfg(not(target_os = "linux"))]
    pub fn stay_on(_cpu: usize) {}
}

fn worker(shared: &Shared, index: usize) {
    let mut last = 0;
    loop {
        let work = {
            let mut order = shared.order.lock().unwrap_or_else(PoisonError::into_inner);
            while order.number == last && !order.over {
                order = shared.wake.wait(order).unwrap_or_else(PoisonError::into_inner);
            }
            if order.over {
                return;
            }
            last = order.number;
            order.work
        };
        if let Some(Work(work)) = work {
            let member = Member { index, count: shared.threads, shared: Some(shared) };
            // SAFETY: `Team::run` does not return before this thread has reported below.
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unsafe { (*work)(&member) }));
            if done.is_err() {
                shared.broken.store(1, Ordering::Relaxed);
            }
        }
        let mut order = shared.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.busy -= 1;
        if order.busy == 0 {
            shared.finished.notify_all();
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.order.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.shared.wake.notify_all();
        self.workers.drain(..).for_each(|worker| drop(worker.join()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_meet_between_steps() {
        for threads in [1, 2, 5] {
            let mut team = Team::new(threads).unwrap();
            for _ in 0..50 {
                let count = AtomicUsize::new(0);
                team.run(&|member| {
                    for round in 1..=10 {
                        count.fetch_add(1, Ordering::Relaxed);
                        member.meet();
                        assert_eq!(count.load(Ordering::Relaxed), round * threads);
                        member.meet();
                    }
                });
                assert_eq!(count.load(Ordering::Relaxed), 10 * threads);
            }
        }
    }

    #[test]
    fn everything_is_done_once() {
        for (threads, things) in [(1, 10), (3, 0), (3, 2), (3, 10), (3, 100)] {
            let done: Vec<AtomicUsize> = (0..things).map(|_| AtomicUsize::new(0)).collect();
            let count = |thing: usize| {
                done[thing].fetch_add(1, Ordering::Relaxed);
            };
            let mut team = Team::new(threads).unwrap();
            for round in 1..=20 {
                team.run(&|member| {
                    member.divide(things, count);
                    member.meet();
                    member.each(things, count);
                    member.meet();
                });
                assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 2 * round), "{threads} {things}");
            }
        }
    }

    #[test]
    fn who_is_through_helps_the_others() {
        let (done, start) = (AtomicUsize::new(0), std::time::Instant::now());
        Team::new(2).unwrap().run(&|member| {
            // The thread with the first thing waits until the other has done all the rest.
            member.divide(10, |thing| {
                while thing == 0 && done.load(Ordering::Relaxed) < 9 {
                    assert!(start.elapsed().as_secs() < 10, "nobody helps");
                    std::thread::yield_now();
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
            member.meet();
        });
        assert_eq!(done.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let mut team = Team::new(3).unwrap();
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            team.run(&|member| {
                assert!(member.index != 1, "on purpose");
                member.meet();
            });
        }));
        assert!(failed.is_err());
    }
}
