//! Maximum duration of a scan, and reads of past epochs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tidewater_common::clock::Clock;
use tidewater_common::ids::{Epoch, JobId, Sequence};
use tidewater_common::schema::WriteMode;

use crate::env::{EngineOptions, RegionEnv, SystemIds};
use crate::manifest::{ActionKind, Author, Change, Edit};
use crate::memory::MemoryBudget;
use crate::region::tests::fixture::*;
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{AsOf, EngineError, Region, RowsWrite, ScanOptions};

#[derive(Debug, Default)]
struct ManualClock(AtomicU64);

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn scan_fails_after_its_maximum_duration() {
    let clock = Arc::new(ManualClock::default());
    let options =
        EngineOptions { scan_lifetime: Duration::from_secs(60), ..EngineOptions::default() };
    let env = RegionEnv::new(
        Storage::memory(),
        clock.clone(),
        Arc::new(SystemIds),
        MemoryBudget::new(1 << 30),
        options,
    );
    let spec = spec(WriteMode::Upsert, false);
    let region = Region::new(env, spec.clone(), Sequence(0), Sequence(0)).unwrap();
    region.take_ownership(owner(1), GROUP).await.unwrap();
    let rows: Vec<Row> = (0..200).map(|n| (("k".to_owned(), n), Some(1), "n".to_owned())).collect();
    let batch = put_batch(&rows, &spec);
    let write = RowsWrite { sequence: Sequence(1), epoch: Epoch(0), op: RowOp::Put, batch };
    region.apply(write).unwrap();
    for flushed in [false, true] {
        if flushed {
            region.flush().await.unwrap();
        }
        let options = ScanOptions { batch_rows: 5, ..all() };
        let mut stream = region.scan(&options).unwrap();
        assert!(stream.next().await.unwrap().is_ok());
        clock.0.fetch_add(60_000, Ordering::SeqCst);
        assert!(stream.next().await.unwrap().is_ok());
        clock.0.fetch_add(1, Ordering::SeqCst);
        let end = stream.try_collect::<Vec<_>>().await;
        match end {
            Err(EngineError::VersionExpired { region, life }) => {
                assert_eq!((region, life), (spec.region_id, Duration::from_secs(60)));
            }
            other => panic!("{other:?}"),
        }
        // A new scan has its own limit.
        assert_eq!(scan(&region, &all()).await.unwrap(), rows);
    }
}

async fn with_epochs() -> RegionFixture {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    for epoch in 1..4_u64 {
        let rows: Vec<Row> = (0..60)
            .map(|n| (("k".to_owned(), n), Some(epoch as i64), format!("{epoch}")))
            .collect();
        let batch = put_batch(&rows, &fixture.spec);
        let write =
            RowsWrite { sequence: Sequence(epoch), epoch: Epoch(epoch), op: RowOp::Put, batch };
        fixture.region.apply(write).unwrap();
        if epoch < 3 {
            fixture.region.flush().await.unwrap();
        }
    }
    fixture.term = 1;
    fixture
}

#[tokio::test]
async fn scan_as_of_epoch_ignores_newer_versions() {
    let fixture = with_epochs().await;
    let seen = |as_of: Option<Epoch>| {
        let region = fixture.region.clone();
        async move {
            let as_of = as_of.map(|epoch| AsOf { epoch, upper: Epoch(4) });
            let rows = scan(&region, &ScanOptions { as_of, ..all() }).await.unwrap();
            let values: Vec<i64> = rows.iter().filter_map(|row| row.1).collect();
            assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
            (rows.len(), values.first().copied())
        }
    };
    assert_eq!(seen(None).await, (60, Some(3)));
    assert_eq!(seen(Some(Epoch(3))).await, (60, Some(3)));
    assert_eq!(seen(Some(Epoch(2))).await, (60, Some(2)));
    assert_eq!(seen(Some(Epoch(1))).await, (60, Some(1)));
    assert_eq!(seen(Some(Epoch(0))).await, (0, None));
}

#[tokio::test]
async fn scan_below_since_epoch_is_refused() {
    let fixture = with_epochs().await;
    let merged = Edit { since: Some(Epoch(2)), ..Edit::default() };
    let job = Author::Job(JobId(uuid::Uuid::from_u128(7)));
    fixture
        .region
        .manifest
        .update_manifest(Change::new(job, vec![ActionKind::Edit(merged)]))
        .await
        .unwrap();
    fixture.region.load().await.unwrap();
    let at = |epoch| {
        let as_of = AsOf { epoch: Epoch(epoch), upper: Epoch(4) };
        ScanOptions { as_of: Some(as_of), ..all() }
    };
    // Rows may still be written in epoch 4.
    match fixture.region.scan(&at(4)).err() {
        Some(EngineError::EpochIncomplete { requested: Epoch(4), upper: Epoch(4), .. }) => {}
        other => panic!("{other:?}"),
    }
    match fixture.region.scan(&at(1)).err() {
        Some(EngineError::BelowSince { requested: Epoch(1), since: Epoch(2), .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(fixture.region.scan(&at(2)).is_ok());
    assert!(fixture.region.scan(&all()).is_ok());
}
