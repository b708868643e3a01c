//! What predicates spare a scan, and what they must not.

use futures::TryStreamExt;
use tidewater_common::schema::WriteMode;

use super::world::*;
use crate::storage::Storage;
use crate::{CompareOp, Predicate, ScanMeter, ScanOptions, ScanStats};

fn term(column: tidewater_common::ids::ColumnId, op: CompareOp, values: &[&str]) -> Predicate {
    Predicate { column, op, values: values.iter().map(|value| (*value).to_owned()).collect() }
}

fn rows(numbers: std::ops::Range<i32>, value: impl Fn(i32) -> i64) -> Vec<Row> {
    numbers.map(|n| (("k".to_owned(), n), Some(value(n)), "note".to_owned())).collect()
}

async fn metered(world: &World, predicates: Vec<Predicate>) -> (Vec<Row>, ScanStats) {
    let options = ScanOptions { predicates, ..all() };
    let meter = ScanMeter::default();
    let mut stream = world.region.scan_metered(&options, &meter).unwrap();
    let mut found = Vec::new();
    while let Some(batch) = stream.try_next().await.unwrap() {
        found.extend(rows_of(&batch));
    }
    (found, meter.stats())
}

/// The new version of each row does not match, the old one does. If the file with the new ones were
/// left out for it, the old ones would show.
#[tokio::test]
async fn an_old_version_that_matches_never_shows_instead_of_a_new_one_that_does_not() {
    for new_in_memory in [false, true] {
        let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
        world.put(&rows(0..100, |_| 1));
        world.region.flush().await.unwrap();
        world.put(&rows(0..100, |_| 2));
        if !new_in_memory {
            world.region.flush().await.unwrap();
        }
        let is_one = || vec![term(VALUE, CompareOp::Eq, &["1"])];
        let (found, stats) = metered(&world, is_one()).await;
        assert_eq!(found, []);
        assert_eq!(stats.row_groups_pruned, 0, "{stats:?}");
        // The rows that are gone altogether.
        let keys: Vec<Key> = (0..100).map(|n| ("k".to_owned(), n)).collect();
        world.delete(&keys);
        world.region.flush().await.unwrap();
        assert_eq!(metered(&world, is_one()).await.0, []);
        let is_null = vec![term(VALUE, CompareOp::IsNotNull, &[])];
        assert_eq!(metered(&world, is_null).await.0, []);
    }
}

#[tokio::test]
async fn a_file_that_overlaps_nothing_is_pruned_by_any_column() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    world.put(&rows(0..1_000, i64::from));
    world.region.flush().await.unwrap();
    let whole = metered(&world, vec![]).await.1;
    assert_eq!((whole.row_groups_pruned, whole.pages_pruned, whole.files_pruned), (0, 0, 0));
    assert!(whole.row_groups >= 25 && whole.bytes > 0, "{whole:?}");
    let some = vec![term(VALUE, CompareOp::Ge, &["500"]), term(VALUE, CompareOp::Lt, &["510"])];
    let (found, stats) = metered(&world, some.clone()).await;
    assert_eq!(found, rows(500..510, i64::from));
    assert_eq!(stats.row_groups, 1, "{stats:?}");
    assert!(stats.row_groups + stats.row_groups_pruned >= 25);
    // Of the one row group, some pages only.
    assert!(
        stats.pages < whole.pages / 25 && stats.bytes < whole.bytes / 20,
        "{stats:?} {whole:?}"
    );
    assert_eq!(stats.pages + stats.pages_pruned, whole.pages);
    assert_eq!(stats.bytes + stats.bytes_pruned, whole.bytes);
    // Rows in memory overlap: no row group may be left out.
    world.put(&rows(990..991, |_| 505));
    let (found, stats) = metered(&world, some).await;
    assert_eq!(found.len(), 11);
    assert!(stats.row_groups >= 1 && stats.row_groups_pruned < 25, "{stats:?}");
}

/// Key columns are the same in all versions of a row.
#[tokio::test]
async fn terms_on_key_columns_prune_what_overlaps() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    for value in [1, 2, 3] {
        world.put(&rows(0..400, |_| value));
        world.region.flush().await.unwrap();
    }
    let terms =
        vec![term(NAME, CompareOp::Eq, &["k"]), term(NUMBER, CompareOp::In, &["123", "127"])];
    let (found, stats) = metered(&world, terms).await;
    let expected: Vec<Row> =
        rows(0..400, |_| 3).into_iter().filter(|row| [123, 127].contains(&row.0.1)).collect();
    assert_eq!(found, expected);
    assert!(
        stats.row_groups <= 2 * 3 && stats.row_groups_pruned + stats.files_pruned > 15,
        "{stats:?}"
    );
    let none = vec![term(NAME, CompareOp::Gt, &["k"])];
    let (found, stats) = metered(&world, none).await;
    assert_eq!((found.len(), stats.files), (0, 0), "{stats:?}");
    // Not a leading column: by statistics alone.
    let by_number = vec![term(NUMBER, CompareOp::Gt, &["390"])];
    let (found, stats) = metered(&world, by_number).await;
    assert_eq!(found, rows(391..400, |_| 3));
    assert!(stats.row_groups_pruned > stats.row_groups, "{stats:?}");
}

/// Every row of an append-only table stays, so every predicate prunes.
#[tokio::test]
async fn append_only_tables_prune_whatever_overlaps() {
    let mut world = World::new(Storage::memory(), WriteMode::AppendOnly, false).await;
    world.put(&rows(0..200, |_| 1));
    world.region.flush().await.unwrap();
    world.put(&rows(0..200, |_| 2));
    world.region.flush().await.unwrap();
    let (found, stats) = metered(&world, vec![term(VALUE, CompareOp::Eq, &["1"])]).await;
    assert_eq!(found, rows(0..200, |_| 1));
    assert_eq!(stats.row_groups, stats.row_groups_pruned, "{stats:?}");
}
