//! What a pool runs.

/// Parallel loops that run one after another.
pub trait Loops: Sync {
    /// How many loops there are.
    fn count(&self) -> usize;

    /// The first item of a worker's share of a loop. That of the worker past the last one is how many items there are; worker 0
    /// begins with item 0.
    fn first(&self, index: usize, worker: Worker) -> usize;

    /// Runs an item of a loop on a worker, whoever's share it is in. Items of one loop run at the same time.
    fn run(&self, index: usize, item: usize, worker: Worker);

    /// All items of a loop have been done, and none of the next one has begun.
    fn done(&self, _index: usize) {}
}

/// A thread of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    /// From 0, the calling thread, on.
    pub index: usize,
    /// How many there are.
    pub count: usize,
}

impl Worker {
    /// A thread that works alone.
    pub const ALONE: Worker = Worker { index: 0, count: 1 };

    /// The first of so many items of its share, where all shares are alike.
    pub fn first_of(&self, items: usize) -> usize {
        items * self.index / self.count
    }
}
