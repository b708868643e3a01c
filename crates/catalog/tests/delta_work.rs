//! Work of a delta, counted in allocations: it depends on what changes, not on the size of the catalog.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../benches/common/counting.rs"]
mod counting;
#[path = "../benches/common/shape.rs"]
mod shape;

use counting::Allocations;
use tidewater_catalog::Catalog;

/// Returns the allocations of one delta, among them those of its decoded table.
fn work(tables: u32) -> Allocations {
    let catalog = Catalog::from_snapshot(&shape::snapshot(tables)).unwrap();
    let delta = shape::delta(tables);
    let before = counting::made();
    let after_delta = catalog.with_delta(&delta).unwrap();
    let after = counting::made();
    assert_eq!(after_delta.tables().count(), tables as usize);
    Allocations {
        number: after.number - before.number,
        bytes: after.bytes - before.bytes,
        freed_bytes: after.freed_bytes - before.freed_bytes,
    }
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
