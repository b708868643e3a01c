//! S3: whatever call of the store a flush breaks at, and however, nothing is lost, nothing is
//! there twice, and the region opens.

use tidewater_common::ids::Epoch;
use tidewater_common::schema::WriteMode;

use super::world::*;
use crate::compaction::{Attempt, Scope};
use crate::storage::Operation;
use crate::storage::testing::{Fault, FaultyStore};

fn some_rows(round: i32) -> Vec<Row> {
    (0..60)
        .map(|n| (("k".to_owned(), n * (round + 1)), Some(i64::from(round)), format!("{round}")))
        .collect()
}

const OPERATIONS: [Operation; 6] = [
    Operation::PutIfAbsent,
    Operation::Put,
    Operation::Upload,
    Operation::Get,
    Operation::List,
    Operation::Head,
];

/// From the `number`-th call of `operation` on, every call breaks so: the process has lost its
/// store for good.
fn broken_from(store: &FaultyStore, operation: Operation, number: u64, fault: Fault) {
    let broken = std::sync::atomic::AtomicBool::new(false);
    store.plan(move |call| {
        use std::sync::atomic::Ordering::SeqCst;
        if broken.load(SeqCst) {
            return Fault::ErrorBefore;
        }
        if call.operation == operation && call.number == number {
            broken.store(true, SeqCst);
            return fault;
        }
        Fault::None
    });
}

async fn crash_at(mode: WriteMode, operation: Operation, number: u64, fault: Fault) -> bool {
    let store = FaultyStore::new();
    let mut world = World::new(store.storage(), mode, false).await;
    world.put(&some_rows(0));
    world.region.flush().await.unwrap();
    world.put(&some_rows(1));
    broken_from(&store, operation, number, fault);
    let failed = world.region.flush().await.is_err();
    store.plan(|_| Fault::None);
    // The same process goes on, ..
    world.put(&some_rows(2));
    world.check().await;
    let report = world.region.flush().await.unwrap();
    assert_eq!(report.flushed_sequence, world.region.last_sequence());
    world.check().await;
    // .. and another one opens what is there.
    world.reopen().await.unwrap();
    assert_eq!(world.region.stats().memtable_rows, 0);
    world.check().await;
    failed
}

#[tokio::test]
async fn a_flush_may_break_at_any_call_of_the_store() {
    let mut broken = 0;
    for operation in OPERATIONS {
        for fault in [Fault::ErrorBefore, Fault::ErrorAfter, Fault::FalseConflict] {
            for number in 1.. {
                // Append-only: what is flushed twice would show twice.
                if !crash_at(WriteMode::AppendOnly, operation, number, fault).await {
                    break;
                }
                broken += 1;
            }
        }
    }
    assert!(broken >= 10, "{broken}");
}

#[tokio::test]
async fn another_process_finds_nothing_lost_right_after_the_break() {
    for operation in OPERATIONS {
        for fault in [Fault::ErrorBefore, Fault::ErrorAfter] {
            for number in 1..4 {
                let store = FaultyStore::new();
                let mut world = World::new(store.storage(), WriteMode::AppendOnly, true).await;
                world.put(&some_rows(0));
                broken_from(&store, operation, number, fault);
                let _ = world.region.flush().await;
                store.plan(|_| Fault::None);
                world.reopen().await.unwrap();
                world.check().await;
                world.region.flush().await.unwrap();
                world.check().await;
            }
        }
    }
}

/// Breaks a compaction at a call of the store; whether it failed.
async fn compaction_crash_at(
    mode: WriteMode,
    operation: Operation,
    number: u64,
    fault: Fault,
) -> bool {
    let store = FaultyStore::new();
    let mut world = World::new(store.storage(), mode, false).await;
    for round in 0..3 {
        world.put(&some_rows(round));
        if mode == WriteMode::Upsert {
            world.delete(&[("k".to_owned(), round), ("k".to_owned(), 4)]);
        }
        world.region.flush().await.unwrap();
    }
    // Footers in the cache would be calls that are not made.
    world.reopen().await.unwrap();
    broken_from(&store, operation, number, fault);
    let compacted = world.region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await;
    store.plan(|_| Fault::None);
    // The same process goes on, ..
    world.check().await;
    world.put(&some_rows(3));
    world.region.flush().await.unwrap();
    world.check().await;
    while world.compact(Scope::Due).await.is_some() {
        world.check().await;
    }
    // .. and another one opens what is there.
    world.reopen().await.unwrap();
    world.check().await;
    world.compact(Scope::Whole).await;
    world.check().await;
    compacted.is_err()
}

#[tokio::test]
async fn a_compaction_may_break_at_any_call_of_the_store() {
    for mode in [WriteMode::AppendOnly, WriteMode::Upsert] {
        let mut broken = 0;
        for operation in OPERATIONS {
            for fault in [Fault::ErrorBefore, Fault::ErrorAfter, Fault::FalseConflict] {
                for number in 1.. {
                    if !compaction_crash_at(mode, operation, number, fault).await {
                        break;
                    }
                    broken += 1;
                }
            }
        }
        assert!(broken >= 20, "{broken}");
    }
}

#[tokio::test]
async fn another_process_finds_nothing_lost_right_after_a_compaction_broke() {
    for operation in OPERATIONS {
        for fault in [Fault::ErrorBefore, Fault::ErrorAfter] {
            for number in 1..6 {
                let store = FaultyStore::new();
                let mut world = World::new(store.storage(), WriteMode::AppendOnly, true).await;
                for round in 0..2 {
                    world.put(&some_rows(round));
                    world.region.flush().await.unwrap();
                }
                broken_from(&store, operation, number, fault);
                let attempt = Attempt::default();
                let _ = world.region.compact(Scope::Whole, Epoch(0), &attempt).await;
                store.plan(|_| Fault::None);
                world.reopen().await.unwrap();
                world.check().await;
                world.compact(Scope::Whole).await;
                world.check().await;
            }
        }
    }
}
