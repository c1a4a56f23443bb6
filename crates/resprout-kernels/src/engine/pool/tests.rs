use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Loops with these numbers of items.
struct Count<F> {
    items: Vec<usize>,
    work: F,
}

impl<F: Fn(usize, usize, Worker) + Sync> Loops for Count<F> {
    fn count(&self) -> usize {
        self.items.len()
    }

    fn first(&self, index: usize, worker: Worker) -> usize {
        worker.first_of(self.items[index])
    }

    fn run(&self, index: usize, item: usize, worker: Worker) {
        (self.work)(index, item, worker);
    }
}

#[test]
fn every_item_runs_once_and_after_those_of_the_loop_before() {
    for threads in [1, 2, 3, 5] {
        let mut pool = ThreadPool::new(threads).unwrap();
        let items = vec![0, 2, 10, 1, 0, 0, 100, 3, 0];
        for _ in 0..50 {
            let done: Vec<AtomicUsize> = items.iter().map(|_| AtomicUsize::new(0)).collect();
            let seen: Vec<AtomicUsize> = (0..items.iter().sum()).map(|_| AtomicUsize::new(0)).collect();
            let work = |index: usize, item: usize, worker: Worker| {
                assert!(worker.index < threads && worker.count == threads);
                let before = (0..index).map(|index| done[index].load(Ordering::Relaxed));
                assert!(before.eq(items[..index].iter().copied()), "loop {index} has begun too early");
                seen[items[..index].iter().sum::<usize>() + item].fetch_add(1, Ordering::Relaxed);
                done[index].fetch_add(1, Ordering::Relaxed);
            };
            pool.run(&Count { items: items.clone(), work });
            assert!(seen.iter().all(|seen| seen.load(Ordering::Relaxed) == 1), "{threads}");
        }
    }
}

#[test]
fn a_run_waits_for_no_worker_without_an_item() {
    // The worker with the last item waits in it until all others are done.
    let mut pool = ThreadPool::new(2).unwrap();
    let (done, start) = (AtomicUsize::new(0), Instant::now());
    let work = |_: usize, item: usize, _: Worker| {
        while item == 9 && done.load(Ordering::Relaxed) < 9 {
            assert!(start.elapsed().as_secs() < 10, "nobody helps");
            std::thread::yield_now();
        }
        done.fetch_add(1, Ordering::Relaxed);
    };
    pool.run(&Count { items: vec![10], work });
    assert_eq!(done.load(Ordering::Relaxed), 10);
}

#[test]
fn the_calling_thread_finishes_alone() {
    // The other workers never run, as if they had no CPU.
    let shared = Shared::new(4);
    let done = AtomicUsize::new(0);
    let loops = Count { items: vec![7; 20], work: |_: usize, _: usize, _: Worker| _ = done.fetch_add(1, Ordering::Relaxed) };
    let forever: &(dyn Loops + '_) = &loops;
    // SAFETY: `work` returns when all is done, this thread is worker 0, and nobody else has `shared`.
    unsafe { shared.start(std::mem::transmute::<*const (dyn Loops + '_), *const (dyn Loops + 'static)>(forever)) };
    shared.work(0, &mut Spin::new(Duration::ZERO));
    assert_eq!(done.load(Ordering::Relaxed), 140);
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
    let mut pool = ThreadPool::new(3).unwrap();
    for panics in 0..6 {
        let work = |index: usize, item: usize, _: Worker| assert!((index, item) != (1, panics), "on purpose");
        let run = std::panic::AssertUnwindSafe(|| pool.run(&Count { items: vec![6; 3], work }));
        assert!(std::panic::catch_unwind(run).is_err());
        pool.run(&Count { items: vec![6; 3], work: |_: usize, _: usize, _: Worker| {} });
    }
}

/// Many short runs on pools of one to eight threads. Pauses between and in them put workers to sleep.
fn stress(runs: usize) {
    for threads in 1..=8 {
        let mut pool = ThreadPool::new(threads).unwrap();
        let mut state = threads as u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for run in 0..runs / 8 {
            let items: Vec<usize> = (0..1 + random(5)).map(|_| random(12) as usize).collect();
            let sleeper = (random(200) == 0).then(|| random(12) as usize);
            let done = AtomicUsize::new(0);
            let work = |_: usize, item: usize, _: Worker| {
                if sleeper == Some(item) {
                    std::thread::sleep(Duration::from_micros(60));
                }
                done.fetch_add(1, Ordering::Relaxed);
            };
            pool.run(&Count { items: items.clone(), work });
            assert_eq!(done.load(Ordering::Relaxed), items.iter().sum::<usize>(), "{threads} threads, run {run}");
            if random(100) == 0 {
                std::thread::sleep(Duration::from_micros(random(200)));
            }
        }
    }
}

#[test]
fn no_wake_up_is_lost() {
    stress(8_000);
}

/// `cargo test --release -p resprout-kernels --lib a_million -- --ignored`
#[test]
#[ignore = "takes minutes"]
fn no_wake_up_is_lost_in_a_million_runs() {
    stress(1_000_000);
}

#[test]
fn threads_are_pinned_only_on_demand_and_the_calling_one_only_while_it_works() {
    let before = affinity::allowed();
    for pin in [false, true] {
        let mut pool = ThreadPool::with_options(&PoolOptions { threads: before.len(), pin, spin: None }).unwrap();
        let expected = if pin { 1.min(before.len()) } else { before.len() };
        let work = |_: usize, _: usize, worker: Worker| assert_eq!(affinity::allowed().len(), expected, "{}", worker.index);
        pool.run(&Count { items: vec![2 * before.len()], work });
        assert_eq!(affinity::allowed(), before);
    }
}
