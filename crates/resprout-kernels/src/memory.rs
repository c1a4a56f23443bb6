//! How the allocator returns memory to the system.

/// Blocks of at least this many bytes are given back to the system when they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: i32 = 1 << 20;

/// Makes the allocator give freed large blocks back to the system; a program calls it when it starts.
///
/// By default glibc raises its limit for such blocks to 32 MB when the first one is freed. Then the process keeps tens of
/// megabytes that nothing uses. With other allocators nothing happens.
pub fn give_back_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const TRIM_THRESHOLD: i32 = -1;
        const MMAP_THRESHOLD: i32 = -3;
        unsafe extern "C" {
            fn mallopt(option: i32, value: i32) -> i32;
        }
        // SAFETY: mallopt takes two integers and may be called at any time; every glibc has these options.
        unsafe {
            mallopt(MMAP_THRESHOLD, LARGE);
            mallopt(TRIM_THRESHOLD, 8 * LARGE);
        }
    }
}
