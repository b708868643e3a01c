//! Work of a delta, counted in allocations: it depends on what changes, not on the size of the catalog.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../benches/common/shape.rs"]
mod shape;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tidewater_client::Catalog;

/// The system's allocator, which counts the allocations of each thread.
struct Counting;

thread_local! {
    static MADE: Cell<Allocations> = const { Cell::new(Allocations { number: 0, bytes: 0 }) };
}

#[derive(Debug, Clone, Copy)]
struct Allocations {
    number: usize,
    bytes: usize,
}

// SAFETY: every call is passed to the system's allocator unchanged.
#[allow(unsafe_code, reason = "an allocator is unsafe to implement")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = MADE.try_with(|made| {
            let before = made.get();
            let bytes = before.bytes + layout.size();
            made.set(Allocations { number: before.number + 1, bytes });
        });
        // SAFETY: the caller's layout.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: allocated by `alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the allocations of one delta, among them those of its decoded table.
fn work(tables: u32) -> Allocations {
    let catalog = Catalog::from_snapshot(&shape::snapshot(tables)).unwrap();
    let delta = shape::delta(tables);
    let before = MADE.get();
    let after_delta = catalog.with_delta(&delta).unwrap();
    let after = MADE.get();
    assert_eq!(after_delta.tables().count(), tables as usize);
    Allocations { number: after.number - before.number, bytes: after.bytes - before.bytes }
}

#[test]
fn delta_at_many_tables_costs_little_more() {
    let few = work(100);
    let many = work(10_000);
    println!("at 100 tables: {few:?}, at 10,000: {many:?}");
    // A tree of 100 times the size has paths that are log2(100) = 7 nodes longer.
    assert!(many.number < 2 * few.number, "{many:?} against {few:?}");
    assert!(many.bytes < 2 * few.bytes, "{many:?} against {few:?}");
}
