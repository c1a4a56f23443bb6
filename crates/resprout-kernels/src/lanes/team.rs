//! Threads that run one piece of work together and meet between its steps.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a waiting thread looks before it lets others run: meetings are a few microseconds apart.
const SPINS: usize = 20_000;

/// Pieces of each thread's part of some work, at the least: what others can take over when it is held up. Pieces of a
/// convolution read the same input, so that more of them would read it more often.
pub(super) const PIECES: usize = 2;

/// How long a thread without work looks out for more before it sleeps: waking it takes about as long, and the parts of a
/// network follow each other sooner.
const IDLE: Duration = Duration::from_micros(50);

/// A number of threads: the calling one and others, which sleep between runs. A team of one is the calling thread.
///
/// A team as large as the machine has each thread on a CPU of its own: a thread that waits for one that the system has put
/// behind it on the same CPU would wait for milliseconds. The calling thread is bound to its CPU only while it works.
pub struct Team {
    shared: Arc<Shared>,
    others: Vec<JoinHandle<()>>,
    /// Where the calling thread works.
    cpu: Option<usize>,
}

struct Shared {
    threads: usize,
    order: Mutex<Order>,
    wake: Condvar,
    /// Of the last order; it changes under the order's lock, and can be looked at without.
    number: AtomicU64,
    /// Threads besides the calling one that have not done with it.
    busy: AtomicUsize,
    arrived: AtomicUsize,
    meeting: AtomicUsize,
    /// Of each member, how many of its things have been begun since the last meeting.
    begun: Vec<Counter>,
    /// A panic in a thread: the others must not wait for it.
    broken: AtomicUsize,
}

/// Alone on its line of the cache.
#[derive(Default)]
#[repr(align(64))]
struct Counter(AtomicUsize);

/// What is to be done.
struct Order {
    work: Option<Work>,
    over: bool,
}

/// The caller's closure. It outlives the run: [`Team::run`] returns only after every thread has done with it.
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
        wait_until(|| {
            assert!(!shared.is_broken(), "another thread of the team has panicked");
            shared.meeting.load(Ordering::Acquire) != meeting
        });
    }
}

impl Shared {
    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed) != 0
    }

    /// Does a member's part; a panic is kept for the calling thread.
    fn work(&self, index: usize, work: &dyn Fn(&Member)) {
        let member = Member { index, count: self.threads, shared: Some(self) };
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&member))).is_err() {
            self.broken.store(1, Ordering::Relaxed);
        }
    }

    /// The order after the last one; `None` when there will be no more.
    fn next(&self, last: u64) -> Option<(u64, Work)> {
        let start = Instant::now();
        while self.number.load(Ordering::Acquire) == last && start.elapsed() < IDLE {
            std::hint::spin_loop();
        }
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        while self.number.load(Ordering::Relaxed) == last && !order.over {
            order = self.wake.wait(order).unwrap_or_else(PoisonError::into_inner);
        }
        if order.over { None } else { order.work.map(|work| (self.number.load(Ordering::Relaxed), work)) }
    }
}

fn wait_until(is_so: impl Fn() -> bool) {
    let mut spins = 0;
    while !is_so() {
        spins += 1;
        if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
}

impl Team {
    /// Starts the threads besides the calling one.
    pub fn new(threads: usize) -> std::io::Result<Team> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            threads,
            order: Mutex::new(Order { work: None, over: false }),
            wake: Condvar::new(),
            number: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
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
                let mut last = 0;
                while let Some((number, Work(work))) = shared.next(last) {
                    // SAFETY: `Team::run` does not return before this thread has reported below.
                    shared.work(index, unsafe { &*work });
                    shared.busy.fetch_sub(1, Ordering::Release);
                    last = number;
                }
            };
            std::thread::Builder::new().name(format!("resprout-{index}")).spawn(work)
        };
        let others: std::io::Result<Vec<JoinHandle<()>>> = (1..threads).map(start).collect();
        Ok(Team { others: others?, cpu: cpu(0), shared })
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
        let bound = self.cpu.and_then(affinity::Bound::to);
        shared.busy.store(shared.threads - 1, Ordering::Relaxed);
        {
            let mut order = shared.order.lock().unwrap_or_else(PoisonError::into_inner);
            order.work = Some(Work(erased));
            shared.number.fetch_add(1, Ordering::Release);
        }
        shared.wake.notify_all();
        shared.work(0, work);
        wait_until(|| shared.busy.load(Ordering::Acquire) == 0);
        drop(bound);
        assert!(!shared.is_broken(), "a thread of the team has panicked");
    }
}

/// On which CPUs threads run. Where the system cannot tell, nothing is changed.
mod affinity {
    /// Bits of `cpu_set_t`.
    type Set = [u64; 16];

    /// What the current thread may use.
    #[cfg(target_os = "linux")]
    fn get() -> Option<Set> {
        unsafe extern "C" {
            fn sched_getaffinity(thread: i32, bytes: usize, set: *mut Set) -> i32;
        }
        let mut set: Set = [0; 16];
        // SAFETY: the set is as large as it is said to be.
        (unsafe { sched_getaffinity(0, size_of_val(&set), &mut set) } >= 0).then_some(set)
    }

    #[cfg(target_os = "linux")]
    fn put(set: &Set) {
        unsafe extern "C" {
            fn sched_setaffinity(thread: i32, bytes: usize, set: *const Set) -> i32;
        }
        // SAFETY: as above. If it fails, the thread runs wherever the system puts it.
        let _ = unsafe { sched_setaffinity(0, size_of_val(set), set) };
    }

    #[cfg(not(target_os = "linux"))]
    fn get() -> Option<Set> {
        None
    }

    #[cfg(not(target_os = "linux"))]
    fn put(_set: &Set) {}

    /// The CPUs that the current thread may use.
    pub fn allowed() -> Vec<usize> {
        let set = get().unwrap_or_default();
        (0..64 * set.len()).filter(|cpu| set[cpu / 64] >> (cpu % 64) & 1 == 1).collect()
    }

    /// Keeps the current thread on one of them.
    pub fn stay_on(cpu: usize) {
        let mut set: Set = [0; 16];
        set[cpu / 64] = 1 << (cpu % 64);
        put(&set);
    }

    /// The current thread on one CPU, until this is dropped.
    pub struct Bound {
        before: Set,
    }

    impl Bound {
        pub fn to(cpu: usize) -> Option<Bound> {
            let before = get()?;
            stay_on(cpu);
            Some(Bound { before })
        }
    }

    impl Drop for Bound {
        fn drop(&mut self) {
            put(&self.before);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.order.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.shared.wake.notify_all();
        self.others.drain(..).for_each(|other| drop(other.join()));
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
        for panics in [0, 1] {
            let mut team = Team::new(3).unwrap();
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                team.run(&|member| {
                    assert!(member.index != panics, "on purpose");
                    member.meet();
                });
            }));
            assert!(failed.is_err());
        }
    }

    #[test]
    fn the_calling_thread_is_bound_no_longer_than_it_works() {
        let before = affinity::allowed();
        let mut team = Team::new(before.len()).unwrap();
        team.run(&|member| assert_eq!(affinity::allowed().len(), 1.min(before.len()), "{}", member.index));
        assert_eq!(affinity::allowed(), before);
    }
}
