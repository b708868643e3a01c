//! Reads as of epochs, while versions are dropped that no read can return.

use tidewater_common::ids::Epoch;
use tidewater_common::schema::WriteMode;

use crate::compaction::{Attempt, Scope};
use crate::read::memory::ScanAccount;
use crate::region::PointReadOptions;
use crate::region::tests::fixture::*;
use crate::storage::Storage;
use crate::{AsOf, EngineError, ScanMeter, ScanOptions};

fn row(number: i32, note: &str) -> Row {
    (("k".to_owned(), number), None, note.to_owned())
}

/// Writes five epochs, of which the last three can be read: row 1 is overwritten in each epoch, twice; row 2 is deleted in
/// epoch 3 and returns in epoch 4.
async fn with_history() -> RegionFixture {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    fixture.put(&[row(2, "first")]);
    for epoch in 0..5 {
        fixture.put(&[row(1, "overwritten")]);
        fixture.put(&[row(1, &format!("epoch {epoch}"))]);
        match epoch {
            3 => fixture.delete(&[("k".to_owned(), 2)]),
            4 => fixture.put(&[row(2, "again")]),
            _ => {}
        }
        fixture.begin_epoch(3);
    }
    fixture
}

#[tokio::test]
async fn kept_versions_are_those_of_the_oldest_readable_epoch() {
    let mut fixture = with_history().await;
    let epochs = [2, 3, 4].map(Epoch);
    // As of epoch 2: three of row 1; of row 2 that of epoch 0, the delete and the last one. As of epoch 3, its delete is the
    // oldest of row 2, and hides nothing.
    let expected = [6, 3, 2];
    for is_flushed in [false, true] {
        if is_flushed {
            fixture.region.flush().await.unwrap();
        }
        let counts = fixture.region.kept_versions(&epochs, &ScanAccount::default()).await;
        assert_eq!(counts.unwrap(), expected, "flushed: {is_flushed}");
    }
    // A compaction as of an epoch leaves what was counted.
    for (epochs, kept) in [(1, 3), (1, 2)] {
        for _ in 0..epochs {
            fixture.since += 1;
            fixture.region.advance_since(Epoch(fixture.since));
        }
        fixture.compact(Scope::Whole).await;
        assert_eq!(fixture.region.stats().file_rows, kept);
    }
}

#[tokio::test]
async fn merged_runs_keep_rows_of_readable_epochs() {
    let mut fixture = with_history().await;
    for number in 10..40 {
        fixture.put(&[row(number, "more")]);
    }
    assert!(fixture.region.is_merge_due());
    fixture.region.merge_runs().await.unwrap();
    fixture.check().await;
}

#[tokio::test]
async fn flushed_file_keeps_a_version_of_each_epoch() {
    let fixture = with_history().await;
    let report = fixture.region.flush().await.unwrap();
    // Epochs 2, 3 and 4 of row 1; of row 2 that of epoch 0, which epoch 2 returns, the delete and the last one.
    assert_eq!((report.files, report.rows), (1, 6));
    let files = fixture.region.files();
    assert_eq!((files[0].deletes, files[0].one_version_per_key), (1, false));
    assert_eq!(fixture.region.manifest.state().since, Epoch(2));
    fixture.check().await;
}

#[tokio::test]
async fn versions_are_dropped_when_no_epoch_returns_them() {
    let mut fixture = with_history().await;
    fixture.region.flush().await.unwrap();
    fixture.begin_epoch(0);
    fixture.compact(Scope::Whole).await.unwrap();
    let files = fixture.region.files();
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    assert_eq!((rows, files[0].one_version_per_key), (2, true));
    fixture.check().await;
}

#[tokio::test]
async fn keys_written_once_stay_unique_in_files() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    for number in 0..30 {
        fixture.put(&[row(number, "once")]);
        fixture.begin_epoch(100);
    }
    fixture.region.merge_runs().await.unwrap();
    fixture.region.flush().await.unwrap();
    assert!(fixture.region.files().iter().all(|file| file.one_version_per_key));
    fixture.put(&[row(7, "twice")]);
    fixture.begin_epoch(100);
    fixture.region.flush().await.unwrap();
    let attempt = Attempt::default();
    fixture.region.compact(Scope::Whole, fixture.region.since(), &attempt).await.unwrap().unwrap();
    assert!(fixture.region.files().iter().any(|file| !file.one_version_per_key));
    fixture.check().await;
}

#[tokio::test]
async fn point_read_returns_the_row_of_its_epoch() {
    let fixture = with_history().await;
    fixture.region.flush().await.unwrap();
    let keys = key_batch(&[("k".to_owned(), 1), ("k".to_owned(), 2)], &fixture.spec);
    let (projection, meter) = (all().projection, ScanMeter::default());
    let read = |epoch| {
        let as_of = Some(AsOf { epoch: Epoch(epoch), upper: Epoch(5) });
        let read = PointReadOptions { as_of, ..PointReadOptions::default() };
        fixture.region.get_charged(&keys, &projection, read, &meter)
    };
    for (epoch, expected) in [
        (2, vec![row(1, "epoch 2"), row(2, "first")]),
        (3, vec![row(1, "epoch 3")]),
        (4, vec![row(1, "epoch 4"), row(2, "again")]),
    ] {
        assert_eq!(rows_of(&read(epoch).await.unwrap().rows), expected);
    }
    let below = read(1).await.err().unwrap();
    assert!(matches!(below, EngineError::BelowSince { since: Epoch(2), upper: Epoch(5), .. }));
    assert!(below.to_string().ends_with("below since 2 (upper is 5)"), "{below}");
    assert!(matches!(read(5).await, Err(EngineError::EpochIncomplete { .. })));
}

#[tokio::test]
async fn truncated_epochs_can_no_longer_be_read() {
    let mut fixture = with_history().await;
    fixture.truncate();
    fixture.put(&[row(1, "after")]);
    fixture.begin_epoch(3);
    fixture.check().await;
    let as_of = Some(AsOf { epoch: Epoch(4), upper: Epoch(6) });
    let read = fixture.region.scan(&ScanOptions { as_of, ..all() }).err();
    assert!(matches!(read, Some(EngineError::BelowSince { since: Epoch(5), .. })), "{read:?}");
}
