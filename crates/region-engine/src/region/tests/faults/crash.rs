//! S3: after a failure of any store call of a flush or a compaction, no row is lost or duplicated, and the
//! region opens.

use tidewater_common::ids::Epoch;
use tidewater_common::schema::WriteMode;

use crate::compaction::{Attempt, Scope};
use crate::region::tests::fixture::*;
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

/// Makes the `number`-th call of `operation` fail with `fault`, and every later call fail as well: the
/// process has lost its store permanently.
fn break_store_from(store: &FaultyStore, operation: Operation, number: u64, fault: Fault) {
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

/// Breaks a flush at a call of the store. Returns whether it failed.
async fn crash_at(mode: WriteMode, operation: Operation, number: u64, fault: Fault) -> bool {
    let store = FaultyStore::new();
    let mut fixture = RegionFixture::new(store.storage(), mode, false).await;
    fixture.put(&some_rows(0));
    fixture.region.flush().await.unwrap();
    fixture.put(&some_rows(1));
    break_store_from(&store, operation, number, fault);
    let failed = fixture.region.flush().await.is_err();
    store.plan(|_| Fault::None);
    // The same process continues, ...
    fixture.put(&some_rows(2));
    fixture.check().await;
    let report = fixture.region.flush().await.unwrap();
    assert_eq!(report.flushed_sequence, fixture.region.last_sequence());
    fixture.check().await;
    // ... and another one opens the region.
    fixture.reopen().await.unwrap();
    assert_eq!(fixture.region.stats().memtable_rows, 0);
    fixture.check().await;
    failed
}

#[tokio::test]
async fn flush_survives_failure_of_any_store_call() {
    let mut broken = 0;
    for operation in OPERATIONS {
        for fault in [Fault::ErrorBefore, Fault::ErrorAfter, Fault::FalseConflict] {
            for number in 1.. {
                // Append-only: rows that are flushed twice would show twice.
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
async fn new_process_finds_all_rows_after_broken_flush() {
    for operation in OPERATIONS {
        for fault in [Fault::ErrorBefore, Fault::ErrorAfter] {
            for number in 1..4 {
                let store = FaultyStore::new();
                let mut fixture =
                    RegionFixture::new(store.storage(), WriteMode::AppendOnly, true).await;
                fixture.put(&some_rows(0));
                break_store_from(&store, operation, number, fault);
                let _ = fixture.region.flush().await;
                store.plan(|_| Fault::None);
                fixture.reopen().await.unwrap();
                fixture.check().await;
                fixture.region.flush().await.unwrap();
                fixture.check().await;
            }
        }
    }
}

/// Breaks a compaction at a call of the store. Returns whether it failed.
async fn compaction_crash_at(
    mode: WriteMode,
    operation: Operation,
    number: u64,
    fault: Fault,
) -> bool {
    let store = FaultyStore::new();
    let mut fixture = RegionFixture::new(store.storage(), mode, false).await;
    for round in 0..3 {
        fixture.put(&some_rows(round));
        if mode == WriteMode::Upsert {
            fixture.delete(&[("k".to_owned(), round), ("k".to_owned(), 4)]);
        }
        fixture.region.flush().await.unwrap();
    }
    // Cached footers would save store calls.
    fixture.reopen().await.unwrap();
    break_store_from(&store, operation, number, fault);
    let compacted = fixture.region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await;
    store.plan(|_| Fault::None);
    // The same process continues, ...
    fixture.check().await;
    fixture.put(&some_rows(3));
    fixture.region.flush().await.unwrap();
    fixture.check().await;
    while fixture.compact(Scope::Due).await.is_some() {
        fixture.check().await;
    }
    // ... and another one opens the region.
    fixture.reopen().await.unwrap();
    fixture.check().await;
    fixture.compact(Scope::Whole).await;
    fixture.check().await;
    compacted.is_err()
}

#[tokio::test]
async fn compaction_survives_failure_of_any_store_call() {
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
async fn new_process_finds_all_rows_after_broken_compaction() {
    for operation in OPERATIONS {
        for fault in [Fault::ErrorBefore, Fault::ErrorAfter] {
            for number in 1..6 {
                let store = FaultyStore::new();
                let mut fixture =
                    RegionFixture::new(store.storage(), WriteMode::AppendOnly, true).await;
                for round in 0..2 {
                    fixture.put(&some_rows(round));
                    fixture.region.flush().await.unwrap();
                }
                break_store_from(&store, operation, number, fault);
                let attempt = Attempt::default();
                let _ = fixture.region.compact(Scope::Whole, Epoch(0), &attempt).await;
                store.plan(|_| Fault::None);
                fixture.reopen().await.unwrap();
                fixture.check().await;
                fixture.compact(Scope::Whole).await;
                fixture.check().await;
            }
        }
    }
}
