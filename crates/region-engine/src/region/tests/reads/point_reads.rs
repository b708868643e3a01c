//! Memory of point reads: charged to their own budget, with a bounded wait.

use std::time::Duration;

use tidewater_common::ids::ColumnId;
use tidewater_common::schema::WriteMode;
use tokio::time::Instant;

use crate::read::memory::{ByteLease, NestedBudgets};
use crate::region::PointReadOptions;
use crate::region::PointRows;
use crate::region::tests::fixture::*;
use crate::storage::Storage;
use crate::{EngineError, Region, ScanMeter};

const MIB: u64 = 1 << 20;

async fn fixture(note_bytes: usize) -> RegionFixture {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    let note = "n".repeat(note_bytes);
    let rows: Vec<Row> = (0..8).map(|n| (number(n), Some(1), note.clone())).collect();
    fixture.put(&rows);
    fixture.region.flush().await.unwrap();
    fixture
}

fn number(n: i32) -> Key {
    ("k".to_owned(), n)
}

async fn read(region: &Region, keys: &[Key]) -> Result<PointRows, EngineError> {
    let projection: Vec<ColumnId> = region.spec().schema.columns().iter().map(|c| c.id).collect();
    region
        .get_charged(
            &key_batch(keys, region.spec()),
            &projection,
            PointReadOptions::default(),
            &ScanMeter::default(),
        )
        .await
}

/// Takes all memory of point reads but `left` bytes.
async fn hold(region: &Region, left: u64) -> ByteLease {
    let budget = region.env.scan_memory.point_reads();
    let bytes = budget.limit() - left;
    let budgets = NestedBudgets::new([budget.clone()]);
    budgets.lease(bytes, bytes, Duration::ZERO).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn point_read_waits_for_memory_then_is_refused() {
    let fixture = fixture(10).await;
    let region = fixture.region.clone();
    let held = hold(&region, 0).await;
    let begun = Instant::now();
    let refused = read(&region, &[number(1)]).await.unwrap_err();
    assert!(matches!(refused, EngineError::ScanMemory { .. }), "{refused}");
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
    let waiting = tokio::spawn({
        let region = region.clone();
        async move { read(&region, &[number(1)]).await.map(|found| found.rows.num_rows()) }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
    assert_eq!(region.env.scan_memory.point_reads().used(), 0);
}

#[tokio::test(start_paused = true)]
async fn point_read_does_not_wait_for_scans() {
    let fixture = fixture(10).await;
    let memory = &fixture.region.env.scan_memory;
    let account = memory.account();
    let all = account.sources.limit();
    let _held = account.sources.lease(all, all, Duration::ZERO).await.unwrap();
    let sources = account.sources.clone();
    let _waiting = tokio::spawn(async move { sources.lease(1, 1, Duration::from_secs(90)).await });
    tokio::task::yield_now().await;
    let begun = Instant::now();
    assert_eq!(read(&fixture.region, &[number(1)]).await.unwrap().rows.num_rows(), 1);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn rows_are_charged_until_they_are_dropped() {
    let fixture = fixture(1 << 20).await;
    let region = &fixture.region;
    let budget = region.env.scan_memory.point_reads();
    let keys: Vec<Key> = (0..4).map(number).collect();
    let found = read(region, &keys).await.unwrap();
    assert_eq!(found.rows.num_rows(), 4);
    // The rows, which were copied once.
    assert!(budget.used() >= 8 * MIB - (1 << 18), "{}", budget.used());
    drop(found);
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn large_rows_are_refused_without_a_wait() {
    let fixture = fixture(1 << 20).await;
    let region = &fixture.region;
    // One read may exceed the budget, and the next is refused.
    let _held = hold(region, MIB).await;
    let first = read(region, &[number(1)]).await.unwrap();
    let begun = Instant::now();
    let refused = read(region, &[number(2)]).await.unwrap_err();
    assert!(matches!(refused, EngineError::ScanMemory { .. }), "{refused}");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    drop(first);
    assert_eq!(read(region, &[number(2)]).await.unwrap().rows.num_rows(), 1);
}
