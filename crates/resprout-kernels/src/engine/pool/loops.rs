//! The loops that a pool runs.

/// Parallel loops that run one after another.
pub trait Loops: Sync {
    /// How many loops there are.
    fn count(&self) -> usize;

    /// The first item of a worker's share of a loop. Worker 0 begins with item 0. The worker past the last one begins at the number
    /// of items.
    fn first(&self, index: usize, worker: Worker) -> usize;

    /// Runs an item of a loop on a worker, which may take over items of others' shares. Items of one loop run at the same time.
    fn run(&self, index: usize, item: usize, worker: Worker);

    /// Called when all items of a loop are done and none of the next loop has begun.
    fn done(&self, _index: usize) {}
}

/// A thread of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Its number; the calling thread is 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
}

impl Worker {
    /// The first item of this worker's share of so many items, where all shares are equal.
    pub fn first_of(&self, items: usize) -> usize {
        items * self.index / self.count
    }
}
