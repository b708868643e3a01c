//! The system's allocator, which counts the allocations of each thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Allocations of a thread so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allocations {
    pub(crate) number: usize,
    /// Allocated, whether freed since or not.
    pub(crate) bytes: usize,
    pub(crate) freed_bytes: usize,
}

struct Counting;

thread_local! {
    static MADE: Cell<Allocations> =
        const { Cell::new(Allocations { number: 0, bytes: 0, freed_bytes: 0 }) };
}

/// Returns the allocations of this thread so far.
pub(crate) fn made() -> Allocations {
    MADE.get()
}

// SAFETY: every call is passed to the system's allocator unchanged.
#[allow(unsafe_code, reason = "an allocator is unsafe to implement")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = MADE.try_with(|made| {
            let before = made.get();
            let number = before.number + 1;
            made.set(Allocations { number, bytes: before.bytes + layout.size(), ..before });
        });
        // SAFETY: the caller's layout.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = MADE.try_with(|made| {
            let before = made.get();
            made.set(Allocations { freed_bytes: before.freed_bytes + layout.size(), ..before });
        });
        // SAFETY: allocated by `alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
