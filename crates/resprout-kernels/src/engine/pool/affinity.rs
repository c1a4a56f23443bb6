//! On which CPUs threads run. Where the system does not tell, nothing changes.

/// Bits of `cpu_set_t`.
type Set = [u64; 16];

/// The CPUs that the current thread may use.
#[cfg(target_os = "linux")]
fn affinity() -> Option<Set> {
    unsafe extern "C" {
        fn sched_getaffinity(thread: i32, bytes: usize, set: *mut Set) -> i32;
    }
    let mut set: Set = [0; 16];
    // SAFETY: the set is a valid buffer of the given size.
    (unsafe { sched_getaffinity(0, size_of_val(&set), &mut set) } >= 0).then_some(set)
}

#[cfg(target_os = "linux")]
fn set_affinity(set: &Set) {
    unsafe extern "C" {
        fn sched_setaffinity(thread: i32, bytes: usize, set: *const Set) -> i32;
    }
    // SAFETY: the set is a valid buffer of the given size. If the call fails, the thread runs wherever the system puts it.
    let _ = unsafe { sched_setaffinity(0, size_of_val(set), set) };
}

#[cfg(not(target_os = "linux"))]
fn affinity() -> Option<Set> {
    None
}

#[cfg(not(target_os = "linux"))]
fn set_affinity(_set: &Set) {}

/// The CPUs that the current thread may use.
pub(super) fn allowed() -> Vec<usize> {
    let set = affinity().unwrap_or_default();
    (0..64 * set.len()).filter(|cpu| set[cpu / 64] >> (cpu % 64) & 1 == 1).collect()
}

/// Keeps the current thread on one CPU.
pub(super) fn stay_on(cpu: usize) {
    let mut set: Set = [0; 16];
    set[cpu / 64] = 1 << (cpu % 64);
    set_affinity(&set);
}

/// Keeps the current thread on one CPU until this is dropped.
pub(super) struct Bound {
    before: Set,
}

impl Bound {
    pub fn to(cpu: usize) -> Option<Bound> {
        let before = affinity()?;
        stay_on(cpu);
        Some(Bound { before })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        set_affinity(&self.before);
    }
}
