//! Rows of children in particular situations.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use tidewater_common::ids::{Epoch, RegionId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{ColumnType, TableSchema, WriteMode};
use tokio::sync::OwnedSemaphorePermit;

use super::family::Family;
use crate::file_meta::TimeRange;
use crate::memtable::FAN_IN;
use crate::region::SealedParent;
use crate::region::tests::fixture::*;
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{Region, RegionSpec, RowsWrite};

fn row(number: i32) -> Row {
    (("k".to_owned(), number), Some(i64::from(number)), format!("row {number}"))
}

fn rows(numbers: std::ops::Range<i32>) -> Vec<Row> {
    numbers.map(row).collect()
}

fn ranges(spec: &RegionSpec, cut: i32) -> [KeyRange; 2] {
    let cut = row_key(spec, &("k".to_owned(), cut));
    [KeyRange::new(Vec::new(), Some(cut.clone())), KeyRange::new(cut, None)]
}

/// Divides a region at a key. The manifests of the children are empty.
fn divide(region: &Arc<Region>, cut: i32) -> [Arc<Region>; 2] {
    let mut id = 20;
    let specs = ranges(region.spec(), cut).map(|range| {
        id += 1;
        RegionSpec { region_id: RegionId(id), range, ..region.spec().clone() }
    });
    region.divide(Sequence(0), specs.to_vec()).unwrap().try_into().unwrap()
}

async fn fixture() -> RegionFixture {
    RegionFixture::new(Storage::memory(), WriteMode::AppendOnly, false).await
}

#[tokio::test]
async fn children_skip_entries_that_the_parent_applied() {
    let mut fixture = fixture().await;
    fixture.put(&rows(0..10));
    fixture.put(&rows(0..2));
    let [_, high] = divide(&fixture.region, 5);
    assert_eq!(high.last_sequence(), Sequence(20));
    // A log may be replayed from an index before the division.
    let mut replayed = fixture.log[0].clone();
    replayed.batch = put_batch(&[row(7)], &fixture.spec);
    high.apply(replayed.clone()).unwrap();
    replayed.sequence = Sequence(20);
    high.apply(replayed.clone()).unwrap();
    high.load().await.unwrap();
    assert_eq!(scan(&high, &all()).await.unwrap(), rows(5..10));
    replayed.sequence = Sequence(30);
    high.apply(replayed).unwrap();
    assert_eq!(scan(&high, &all()).await.unwrap().len(), 6);
}

#[tokio::test]
async fn age_of_rows_is_that_of_the_parent() {
    let mut fixture = fixture().await;
    fixture.put(&rows(0..3));
    let since_ms = fixture.region.stats().unflushed_since_ms;
    assert!(since_ms.is_some());
    fixture.clock.advance(5_000);
    fixture.put(&rows(3..4));
    fixture.clock.advance(5_000);
    let [low, high] = divide(&fixture.region, 5);
    // The other child has no rows.
    assert_eq!(low.stats().unflushed_since_ms, since_ms);
    assert_eq!((high.stats().unflushed_since_ms, high.stats().runs), (None, 0));
}

#[tokio::test]
async fn merged_region_has_no_row_that_parents_hide() {
    let mut fixture = fixture().await;
    fixture.put(&[]);
    let parents = divide(&fixture.region, 5);
    for parent in &parents {
        // The caller has not checked the range: each parent gets all keys, and shows its own.
        let mut write = fixture.log[0].clone();
        write.batch = put_batch(&rows(0..10), &fixture.spec);
        write.sequence = Sequence(20);
        parent.apply(write).unwrap();
    }
    let spec = RegionSpec { region_id: RegionId(30), ..fixture.spec.clone() };
    let parents = parents.map(|region| SealedParent { region, flushed: Sequence(0) });
    let whole = Region::merge(&parents, spec).unwrap();
    whole.load().await.unwrap();
    assert_eq!(scan(&whole, &all()).await.unwrap(), rows(0..10));
    assert_eq!(whole.stats().memtable_rows, 10);
}

#[tokio::test]
async fn children_hide_rows_that_the_parent_hid() {
    let mut fixture = fixture().await;
    // One merged run on both sides of the flushed sequence, as a follower has it.
    let follower = fixture.log_replica();
    for n in 0..FAN_IN as i32 {
        fixture.put(&rows(n..n + 10));
        follower.apply(fixture.log.last().unwrap().clone()).unwrap();
        if n == 7 {
            fixture.region.flush().await.unwrap();
        }
    }
    follower.merge_runs().await.unwrap();
    follower.load().await.unwrap();
    assert_eq!(follower.stats().runs, 1);
    let children = divide(&follower, 12);
    let flushed = fixture.region.flushed_sequence();
    for child in &children {
        assert_eq!(child.flushed_sequence(), flushed);
        child.load().await.unwrap();
    }
    // Without the files of the parent, the rows that are not flushed are left.
    let mut found = scan(&children[0], &all()).await.unwrap();
    found.extend(scan(&children[1], &all()).await.unwrap());
    let unflushed: usize = found.len();
    assert_eq!(unflushed, 10 * (FAN_IN - 8));
}

/// Occupies all workers of a region, so that merges and flushes wait between choosing and reading runs.
async fn occupy_workers(region: &Region) -> OwnedSemaphorePermit {
    let workers = region.env.options.workers as u32;
    region.env.workers.clone().acquire_many_owned(workers).await.unwrap()
}

#[tokio::test]
async fn merge_in_progress_does_not_take_rows_from_children() {
    let mut fixture = fixture().await;
    for n in 0..FAN_IN as i32 {
        fixture.put(&rows(n..n + 10));
    }
    let occupied = occupy_workers(&fixture.region).await;
    let mut merging = Box::pin(fixture.region.merge_runs());
    assert!(futures::poll!(&mut merging).is_pending());
    let children = divide(&fixture.region, 12);
    drop(occupied);
    merging.await.unwrap();
    let stats = fixture.region.stats();
    assert_eq!((stats.runs, stats.memtable_bytes), (0, 0));
    let rows: u64 = children.iter().map(|child| child.stats().memtable_rows).sum();
    assert_eq!(rows, 10 * FAN_IN as u64);
}

#[tokio::test]
async fn flush_in_progress_does_not_take_rows_from_children() {
    let mut fixture = fixture().await;
    fixture.put(&rows(0..10));
    let occupied = occupy_workers(&fixture.region).await;
    let mut flushing = Box::pin(fixture.region.flush());
    while fixture.region.contents.lock().frozen.is_none() {
        assert!(futures::poll!(&mut flushing).is_pending());
        tokio::task::yield_now().await;
    }
    let children = divide(&fixture.region, 5);
    drop(occupied);
    // The files of the parent are in a manifest version that the children do not refer to.
    assert_eq!(flushing.await.unwrap().rows, 10);
    let mut found = Vec::new();
    for child in &children {
        child.take_ownership(owner(1), GROUP).await.unwrap();
        child.flush().await.unwrap();
        found.extend(scan(child, &all()).await.unwrap());
    }
    assert_eq!(found, rows(0..10));
}

#[tokio::test]
async fn scan_in_progress_reads_the_rows_of_its_region() {
    let mut fixture = fixture().await;
    fixture.put(&rows(0..10));
    let before = fixture.region.scan(&all()).unwrap();
    divide(&fixture.region, 5);
    let batches: Vec<_> = futures::TryStreamExt::try_collect::<Vec<_>>(before).await.unwrap();
    assert_eq!(batches.iter().flat_map(rows_of).collect::<Vec<_>>(), rows(0..10));
}

#[tokio::test]
async fn child_flushes_deletes_of_keys_in_parent_files() {
    let mut family = Family::new(WriteMode::Upsert, false).await;
    family.put(&rows(0..10));
    family.regions[0].owner.flush().await.unwrap();
    family.delete(&[("k".to_owned(), 2), ("k".to_owned(), 7)]);
    let cut = row_key(&family.spec, &("k".to_owned(), 5));
    let parent = family.split(0, &[cut]).await;
    family.bear(&[parent]).await;
    family.check().await;
    for region in &family.regions {
        let report = region.owner.flush().await.unwrap();
        // One delete each, not that of the other child.
        assert_eq!((report.files, report.rows), (1, 1));
        assert_eq!(report.flushed_sequence, family.last_sequence());
    }
    family.finish().await;
}

/// Returns a table whose time column is `value`.
fn timed_spec() -> RegionSpec {
    let plain = spec(WriteMode::AppendOnly, false);
    let mut columns = plain.schema.columns().to_vec();
    columns[0].data_type = ColumnType::Timestamp(TimeUnit::Microsecond, None);
    let schema = TableSchema::new(
        plain.schema.version(),
        columns,
        vec![NAME, NUMBER],
        Some(VALUE),
        plain.schema.next_column_id(),
    );
    RegionSpec { schema: schema.unwrap(), ..plain }
}

#[tokio::test]
async fn time_range_of_child_covers_its_rows() {
    let spec = timed_spec();
    let mut arrays = put_batch(&rows(0..10), &spec_of_numbers()).columns().to_vec();
    arrays[0] = cast(&arrays[0], &DataType::Timestamp(TimeUnit::Microsecond, None)).unwrap();
    let batch = RecordBatch::try_new(spec.schema.arrow(), arrays).unwrap();
    let parent = RegionFixture::fresh(&Storage::memory(), &spec);
    let write = RowsWrite { sequence: Sequence(10), epoch: Epoch(0), op: RowOp::Put, batch };
    parent.apply(write).unwrap();
    let children = divide(&parent, 4);
    let times = children.map(|child| child.time_range().unwrap().unwrap());
    assert_eq!(times, [TimeRange { min: 0, max: 3 }, TimeRange { min: 4, max: 9 }]);
}

fn spec_of_numbers() -> RegionSpec {
    spec(WriteMode::AppendOnly, false)
}

#[tokio::test]
async fn regions_are_split_and_merged_at_one_key() {
    let mut family = Family::new(WriteMode::Upsert, false).await;
    family.put(&rows(0..10));
    family.regions[0].owner.flush().await.unwrap();
    let cut = row_key(&family.spec, &("k".to_owned(), 5));
    for _ in 0..3 {
        let parent = family.split(0, std::slice::from_ref(&cut)).await;
        family.bear(&[parent]).await;
        let parents = family.merge(0).await.unwrap();
        family.bear(&parents).await;
        family.check().await;
        assert_eq!(family.regions[0].owner.stats().files, 1);
    }
    family.finish().await;
}
