//! Pruning of files, row groups and pages by predicates.

use futures::TryStreamExt;
use tidewater_common::schema::WriteMode;

use crate::region::tests::fixture::*;
use crate::storage::Storage;
use crate::{CompareOp, Predicate, ScanMeter, ScanOptions, ScanStats};

fn term(column: tidewater_common::ids::ColumnId, op: CompareOp, values: &[&str]) -> Predicate {
    Predicate { column, op, values: values.iter().map(|value| (*value).to_owned()).collect() }
}

fn rows(numbers: std::ops::Range<i32>, value: impl Fn(i32) -> i64) -> Vec<Row> {
    numbers.map(|n| (("k".to_owned(), n), Some(value(n)), "note".to_owned())).collect()
}

async fn metered(fixture: &RegionFixture, predicates: Vec<Predicate>) -> (Vec<Row>, ScanStats) {
    let options = ScanOptions { predicates, ..all() };
    let meter = ScanMeter::default();
    let mut stream = fixture.region.scan_metered(&options, &meter).unwrap();
    let mut found = Vec::new();
    while let Some(batch) = stream.try_next().await.unwrap() {
        found.extend(rows_of(&batch));
    }
    (found, meter.stats())
}

/// The new version of each row does not match, but the old one does. If the file with the new versions
/// were pruned, the old ones would show.
#[tokio::test]
async fn matching_old_version_is_hidden_by_mismatching_new_one() {
    for new_in_memory in [false, true] {
        let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
        fixture.put(&rows(0..100, |_| 1));
        fixture.region.flush().await.unwrap();
        fixture.put(&rows(0..100, |_| 2));
        if !new_in_memory {
            fixture.region.flush().await.unwrap();
        }
        let is_one = || vec![term(VALUE, CompareOp::Eq, &["1"])];
        let (found, stats) = metered(&fixture, is_one()).await;
        assert_eq!(found, []);
        assert_eq!(stats.row_groups_pruned, 0, "{stats:?}");
        // Deleted rows.
        let keys: Vec<Key> = (0..100).map(|n| ("k".to_owned(), n)).collect();
        fixture.delete(&keys);
        fixture.region.flush().await.unwrap();
        assert_eq!(metered(&fixture, is_one()).await.0, []);
        let is_null = vec![term(VALUE, CompareOp::IsNotNull, &[])];
        assert_eq!(metered(&fixture, is_null).await.0, []);
    }
}

#[tokio::test]
async fn file_without_overlap_is_pruned_by_any_column() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    fixture.put(&rows(0..1_000, i64::from));
    fixture.region.flush().await.unwrap();
    let whole = metered(&fixture, vec![]).await.1;
    assert_eq!((whole.row_groups_pruned, whole.pages_pruned, whole.files_pruned), (0, 0, 0));
    assert!(whole.row_groups >= 25 && whole.bytes > 0, "{whole:?}");
    let some = vec![term(VALUE, CompareOp::Ge, &["500"]), term(VALUE, CompareOp::Lt, &["510"])];
    let (found, stats) = metered(&fixture, some.clone()).await;
    assert_eq!(found, rows(500..510, i64::from));
    assert_eq!(stats.row_groups, 1, "{stats:?}");
    assert!(stats.row_groups + stats.row_groups_pruned >= 25);
    // Only some pages of the row group are read.
    assert!(
        stats.pages < whole.pages / 25 && stats.bytes < whole.bytes / 20,
        "{stats:?} {whole:?}"
    );
    assert_eq!(stats.pages + stats.pages_pruned, whole.pages);
    assert_eq!(stats.bytes + stats.bytes_pruned, whole.bytes);
    // Rows in memory overlap: no overlapping row group may be pruned.
    fixture.put(&rows(990..991, |_| 505));
    let (found, stats) = metered(&fixture, some).await;
    assert_eq!(found.len(), 11);
    assert!(stats.row_groups >= 1 && stats.row_groups_pruned < 25, "{stats:?}");
}

/// Key columns are the same in all versions of a row.
#[tokio::test]
async fn key_column_terms_prune_overlapping_files() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    for value in [1, 2, 3] {
        fixture.put(&rows(0..400, |_| value));
        fixture.region.flush().await.unwrap();
    }
    let terms =
        vec![term(NAME, CompareOp::Eq, &["k"]), term(NUMBER, CompareOp::In, &["123", "127"])];
    let (found, stats) = metered(&fixture, terms).await;
    let expected: Vec<Row> =
        rows(0..400, |_| 3).into_iter().filter(|row| [123, 127].contains(&row.0.1)).collect();
    assert_eq!(found, expected);
    assert!(
        stats.row_groups <= 2 * 3 && stats.row_groups_pruned + stats.files_pruned > 15,
        "{stats:?}"
    );
    let none = vec![term(NAME, CompareOp::Gt, &["k"])];
    let (found, stats) = metered(&fixture, none).await;
    assert_eq!((found.len(), stats.files), (0, 0), "{stats:?}");
    // Not a leading column: pruned by statistics alone.
    let by_number = vec![term(NUMBER, CompareOp::Gt, &["390"])];
    let (found, stats) = metered(&fixture, by_number).await;
    assert_eq!(found, rows(391..400, |_| 3));
    assert!(stats.row_groups_pruned > stats.row_groups, "{stats:?}");
}

/// Every row of an append-only table stays, so every predicate prunes.
#[tokio::test]
async fn append_only_tables_prune_overlapping_files() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::AppendOnly, false).await;
    fixture.put(&rows(0..200, |_| 1));
    fixture.region.flush().await.unwrap();
    fixture.put(&rows(0..200, |_| 2));
    fixture.region.flush().await.unwrap();
    let (found, stats) = metered(&fixture, vec![term(VALUE, CompareOp::Eq, &["1"])]).await;
    assert_eq!(found, rows(0..200, |_| 1));
    assert_eq!(stats.row_groups, stats.row_groups_pruned, "{stats:?}");
}
