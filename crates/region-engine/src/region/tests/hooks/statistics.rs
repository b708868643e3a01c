//! Column statistics of the files of an event.

use std::time::Duration;

use tidewater_common::schema::WriteMode;
use tokio::time::Instant;

use crate::file_meta::FileMeta;
use crate::hooks::{ColumnSummary, FileStatisticsReader, MAX_EVENT_COLUMNS};
use crate::region::tests::fixture::*;
use crate::storage::testing::{Fault, FaultyStore};
use crate::storage::{Operation, Storage};

/// Returns a region with one file of several row groups.
async fn fixture(storage: Storage) -> (RegionFixture, FileMeta) {
    let mut fixture = RegionFixture::new(storage, WriteMode::Upsert, false).await;
    let row = |n: i32| {
        let value = (n % 4 != 0).then_some(i64::from(n) - 20);
        (("host".to_owned(), n), value, format!("note {}", n % 7))
    };
    fixture.put(&(0..100).map(row).collect::<Vec<_>>());
    fixture.region.flush().await.unwrap();
    let file = fixture.region.files()[0].clone();
    assert!(file.row_groups > 1, "{}", file.row_groups);
    (fixture, file)
}

/// Returns a reader without footers in memory.
fn reader(fixture: &RegionFixture) -> FileStatisticsReader {
    let env = fixture.env();
    FileStatisticsReader::new(env.storage, env.footers)
}

#[tokio::test]
async fn statistics_cover_all_row_groups() {
    let (fixture, file) = fixture(Storage::memory()).await;
    let reader = reader(&fixture);
    let found = reader.read(&[&file], &fixture.spec.schema).await;
    let summary = |column, nulls, min: &str, max: &str| {
        let (min, max) = (Some(min.to_owned()), Some(max.to_owned()));
        ColumnSummary { column, bytes: 0, nulls: Some(nulls), has_nan: Some(false), min, max }
    };
    let expected = [
        summary(VALUE, 25, "-19", "79"),
        summary(NAME, 0, "host", "host"),
        summary(NUMBER, 0, "0", "99"),
        summary(NOTE, 0, "note 0", "note 6"),
    ];
    let columns = found.into_iter().next().flatten().unwrap();
    assert!(columns.iter().all(|column| column.bytes > 0 && column.bytes < file.size));
    let without_sizes: Vec<ColumnSummary> =
        columns.into_iter().map(|column| ColumnSummary { bytes: 0, ..column }).collect();
    assert_eq!(without_sizes, expected);
}

#[tokio::test]
async fn statistics_of_one_event_are_bounded() {
    let (fixture, file) = fixture(Storage::memory()).await;
    let reader = reader(&fixture);
    let within = MAX_EVENT_COLUMNS / fixture.spec.schema.columns().len();
    let found = reader.read(&vec![&file; within + 3], &fixture.spec.schema).await;
    assert_eq!(found.len(), within + 3);
    assert_eq!(found.iter().flatten().count(), within);
    assert!(found[within - 1].is_some() && found[within].is_none());
}

#[tokio::test(start_paused = true)]
async fn slow_store_costs_statistics_not_the_event() {
    let store = FaultyStore::new();
    let (fixture, file) = fixture(store.storage()).await;
    store.plan(|call| match call.operation {
        Operation::Get => Fault::Slow(Duration::from_secs(60)),
        _ => Fault::None,
    });
    let reader = reader(&fixture);
    let started = Instant::now();
    let found = reader.read(&[&file; 20], &fixture.spec.schema).await;
    assert_eq!(found, vec![None; 20]);
    assert!(started.elapsed() <= Duration::from_secs(3), "{:?}", started.elapsed());
}
