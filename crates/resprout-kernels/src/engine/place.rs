//! Where values lie in an arena.

use super::arena::{Arena, LANES};
use super::layout::Extent;
use super::pool::Worker;
use std::sync::atomic::{AtomicBool, Ordering};

/// A value's place in the arena.
#[derive(Clone, Copy)]
pub(super) struct Placed {
    pub extent: Extent,
    /// Its first vector.
    pub start: usize,
    /// The number of its first replica among those of all values.
    pub first_replica: usize,
}

/// Addresses that all threads use at once, each its own parts.
#[derive(Clone, Copy)]
pub(super) struct Base {
    arena: *mut f32,
    /// For each replica of a value, whether this run has made it.
    replica_made: *const AtomicBool,
    /// Null if outputs are not written.
    outputs: *const *mut f32,
}

// SAFETY: items of a loop write to disjoint parts, and read only what was written before the last barrier.
unsafe impl Send for Base {}
// SAFETY: items of a loop write to disjoint parts, and read only what was written before the last barrier.
unsafe impl Sync for Base {}

impl Base {
    /// The addresses of an arena, and those of all outputs, which may be null.
    pub fn new(arena: &mut Arena, outputs: *const *mut f32) -> Base {
        Base { replica_made: arena.replica_made().as_ptr(), arena: arena.pointer(), outputs }
    }

    /// Whether outputs are written.
    pub fn has_outputs(&self) -> bool {
        !self.outputs.is_null()
    }

    /// The address of an output.
    ///
    /// # Safety
    /// [`has_outputs`](Self::has_outputs) must hold, and the program must have an output of this number.
    pub unsafe fn output(&self, index: usize) -> *mut f32 {
        // SAFETY: the caller vouches for the output.
        unsafe { *self.outputs.add(index) }
    }

    /// The first vector of a channel, which may belong to the halo.
    ///
    /// # Safety
    /// `value` must lie in the arena and have the channel.
    pub unsafe fn channel(&self, value: &Placed, channel: usize) -> *mut f32 {
        // SAFETY: the caller vouches for the channel.
        unsafe { self.arena.add((value.start + channel * value.extent.pitch()) * LANES) }
    }

    /// The addresses at which `value` is this replica.
    ///
    /// # Safety
    /// `value` must lie in the arena and have the replica.
    pub unsafe fn replica(&self, value: &Placed, replica: usize) -> Base {
        // SAFETY: replicas lie in the arena, a row partition apart.
        Base { arena: unsafe { self.arena.add(replica * value.extent.partition * LANES) }, ..*self }
    }

    /// Says whether this run has made a replica. Others see it after the next barrier.
    ///
    /// # Safety
    /// `value` must lie in the arena and have the replica.
    pub unsafe fn set_made(&self, value: &Placed, replica: usize, made: bool) {
        // SAFETY: the arena has a flag for each replica of each value.
        unsafe { (*self.replica_made.add(value.first_replica + replica)).store(made, Ordering::Relaxed) };
    }

    /// The addresses at which a worker reads `value`: its own replica, if this run has made it, or the first that it has made.
    ///
    /// # Safety
    /// `value` must lie in the arena. If it has several replicas, the loop that makes them must be done.
    pub unsafe fn nearest(&self, value: &Placed, worker: Worker) -> Base {
        let replicas = value.extent.replicas;
        if replicas == 1 {
            return *self;
        }
        // SAFETY: the arena has a flag for each replica of each value.
        let made = |replica: &usize| unsafe { (*self.replica_made.add(value.first_replica + replica)).load(Ordering::Relaxed) };
        let own = Some(worker.index).filter(|own| *own < replicas).filter(made);
        // SAFETY: the number is less than `replicas`. The loop makes at least one of them.
        unsafe { self.replica(value, own.or_else(|| (0..replicas).find(made)).unwrap_or(0)) }
    }
}
