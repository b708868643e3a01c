//! The C library's allocator: how many arenas it may spread what is allocated over, and what it gives
//! back at once.
//!
//! It gives threads arenas of their own, up to eight per core, and returns to the system only what
//! is free at the top of one. Rows are allocated by one thread and freed by another, so every arena
//! grows as large as the busiest moment that it saw. Few arenas keep a process within its limit.
//!
//! Large pieces are mapped one by one and given back when they are freed; but with the first of them
//! that is freed the allocator moves the bound of what is large beyond it, up to 32 MiB. From then on a
//! merge's pieces, which are of all sizes up to 32 MiB and live for about as long as each other, come
//! from arenas, and the gaps between them double what the process takes.

/// Memory for which there is an arena.
const BYTES_PER_ARENA: u64 = 256 << 20;
/// More would be more than threads need, however much memory there is.
const MOST_ARENAS: u64 = 64;

/// Bytes from which on a piece is large, for good.
const LARGE: i32 = 1 << 20;
/// Bytes at the top of an arena that are given back.
const TOP: i32 = 8 << 20;

/// Lets the allocator have as many arenas as suits the limit. Holds only when it is called before
/// other threads are started.
pub(crate) fn fit(memory_limit: u64) {
    set_arenas(arenas(memory_limit));
}

/// Has large pieces given back as soon as they are freed, which costs a page fault for every 4 KiB that is
/// allocated again: for processes that merge and do nothing else.
pub(crate) fn give_back() {
    set_large(LARGE, TOP);
}

/// One would have all threads wait for each other.
fn arenas(memory_limit: u64) -> i32 {
    i32::try_from((memory_limit / BYTES_PER_ARENA).clamp(2, MOST_ARENAS)).unwrap_or(2)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set_arenas(arenas: i32) {
    // SAFETY: sets a number under the allocator's own lock; a refusal leaves what was before.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, arenas);
    }
}

/// Setting the bounds also keeps them from moving.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set_large(large: i32, top: i32) {
    // SAFETY: as above.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, large);
        libc::mallopt(libc::M_TRIM_THRESHOLD, top);
    }
}

/// Other allocators have no arenas for each thread.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set_arenas(_: i32) {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set_large(_: i32, _: i32) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_more_arenas_with_more_memory() {
        assert_eq!([0, 512 << 20, 1 << 30, 8 << 30].map(arenas), [2, 2, 4, 32]);
        assert_eq!(arenas(u64::MAX), 64);
    }
}
