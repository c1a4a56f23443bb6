//! What the process holds of the machine's memory.

/// Blocks of this many bytes or more are given back to the system when they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: i32 = 1 << 20;

/// For the start of a program: large blocks that are freed go back to the system. Left alone, the allocator of glibc
/// raises its limit to 32 MB when the first of them is freed, and the process keeps tens of megabytes that nothing uses.
/// Elsewhere nothing happens.
pub fn give_back_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const TRIM_THRESHOLD: i32 = -1;
        const MMAP_THRESHOLD: i32 = -3;
        unsafe extern "C" {
            fn mallopt(option: i32, value: i32) -> i32;
        }
        // SAFETY: mallopt takes two numbers and may be called at any time; these options are of every glibc.
        unsafe {
            mallopt(MMAP_THRESHOLD, LARGE);
            mallopt(TRIM_THRESHOLD, 8 * LARGE);
        }
    }
}
