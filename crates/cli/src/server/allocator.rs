//! Settings of the C library's allocator: the number of arenas, and the sizes that are returned to
//! the system immediately.
//!
//! The allocator assigns arenas to threads, up to eight per core, and returns only the free top of an
//! arena to the system. One thread allocates rows and another frees them, so every arena grows to the
//! peak of its use. A small number of arenas keeps a process within its memory limit.
//!
//! Large allocations are mapped one by one and returned when they are freed. But when the first of
//! them is freed, the allocator raises the threshold for large allocations above its size, up to
//! 32 MiB. From then on the buffers of a compaction, which have all sizes up to 32 MiB and similar
//! lifetimes, come from arenas, and the gaps between them double the memory of the process.

/// Bytes of the memory limit for each arena.
const BYTES_PER_ARENA: u64 = 256 << 20;
/// Maximum number of arenas: threads do not need more, whatever the memory limit.
const MAX_ARENAS: u64 = 64;

/// Fixed threshold in bytes from which an allocation is mapped on its own.
const MMAP_THRESHOLD: i32 = 1 << 20;
/// Free bytes at the top of an arena from which they are returned to the system.
const TRIM_THRESHOLD: i32 = 8 << 20;

/// Limits the number of arenas in proportion to the memory limit in bytes. Takes effect only if it is
/// called before other threads start.
pub(crate) fn limit_arenas(memory_limit: u64) {
    set_arenas(arenas(memory_limit));
}

/// Returns large allocations to the system as soon as they are freed. Costs a page fault for every
/// 4 KiB that is allocated again, so it is for processes that only compact.
pub(crate) fn return_large_allocations() {
    set_thresholds(MMAP_THRESHOLD, TRIM_THRESHOLD);
}

/// Returns the number of arenas, at least two: with one, all threads would contend for it.
fn arenas(memory_limit: u64) -> i32 {
    i32::try_from((memory_limit / BYTES_PER_ARENA).clamp(2, MAX_ARENAS)).unwrap_or(2)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set_arenas(arenas: i32) {
    // SAFETY: sets a number under the allocator's own lock; on failure the setting is unchanged.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, arenas);
    }
}

/// Sets the thresholds, which also stops the allocator from adjusting them.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set_thresholds(mmap: i32, trim: i32) {
    // SAFETY: as above.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, mmap);
        libc::mallopt(libc::M_TRIM_THRESHOLD, trim);
    }
}

/// Other allocators have no arenas per thread.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set_arenas(_: i32) {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set_thresholds(_: i32, _: i32) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_arenas_grows_with_memory_limit() {
        assert_eq!([0, 512 << 20, 1 << 30, 8 << 30].map(arenas), [2, 2, 4, 32]);
        assert_eq!(arenas(u64::MAX), 64);
    }
}
