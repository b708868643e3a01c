//! Files that somebody else wrote: what is taken over, and what is refused.

use arrow::array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use tidewater_common::ids::{Epoch, FileId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{TableSchema, WriteMode};
use uuid::Uuid;

use super::world::{column as column_of, *};
use crate::bulk::{AdoptError, BulkWriter, MAX_FILES, Unfit};
use crate::env::{IdSource, SystemIds};
use crate::file_meta::FileMeta;
use crate::manifest::Void;
use crate::region::Content;
use crate::region::area::files_of;
use crate::storage::Storage;
use crate::{EngineError, Region, RegionSpec, RowOp, RowsWrite};

fn a_row(number: i32) -> Row {
    (("k".to_owned(), number), Some(i64::from(number)), format!("row {number}"))
}

fn rows(numbers: std::ops::Range<i32>) -> Vec<Row> {
    numbers.map(a_row).collect()
}

fn fresh_id() -> FileId {
    FileId(SystemIds.at(1_700_000_000_000))
}

async fn written(world: &World, batches: Vec<RecordBatch>) -> FileId {
    let writer = BulkWriter::new(env(world.storage.clone()), &world.spec).unwrap();
    let files = writer.write(batches).await.unwrap();
    assert_eq!(files.len(), 1);
    files[0]
}

/// Puts bytes into the region's directory as a file that somebody else wrote.
async fn brought(world: &World, bytes: Bytes) -> FileId {
    let file = fresh_id();
    world.storage.put(&world.region.dir.data(file), bytes).await.unwrap();
    file
}

async fn why(region: &Region, file: FileId) -> Unfit {
    match region.adopt(new_area(), &[file], DEADLINE).await {
        Err(AdoptError::Unfit { file: named, reason }) => {
            assert_eq!(named, file);
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_is_described_as_the_flush_that_wrote_it_describes_it() {
    for (mode, hashed) in
        [(WriteMode::Upsert, false), (WriteMode::Upsert, true), (WriteMode::AppendOnly, false)]
    {
        let mut world = World::new(Storage::memory(), mode, hashed).await;
        world.put(&rows(0..100));
        world.region.flush().await.unwrap();
        let flushed = world.region.files().remove(0);
        let bytes = world.storage.get(&flushed.path()).await.unwrap();
        let file = brought(&world, bytes).await;
        let area = new_area();
        world.region.adopt(area, &[file], DEADLINE).await.unwrap();
        let state = world.region.manifest.state();
        let staged: Vec<FileMeta> = files_of(&state.areas[&area]).cloned().collect();
        assert_eq!(staged, [FileMeta { file_id: file, ..flushed }]);
    }
}

#[tokio::test]
async fn published_rows_are_newer_than_those_before_and_older_than_those_after() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    world.put(&rows(0..30));
    assert!(!world.region.published(new_area()).await.unwrap());
    world.adopt(&[(("k".to_owned(), 5), None, "brought".to_owned()), a_row(100)]).await;
    world.put(&[(("k".to_owned(), 100), None, "later".to_owned())]);
    world.region.settle().await.unwrap();
    world.check().await;
    world.region.flush().await.unwrap();
    world.check().await;
    world.compact(crate::compaction::Scope::Whole).await.unwrap();
    world.check().await;
    world.reopen().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn what_lies_below_a_publication_is_flushed_first_and_what_lies_above_after() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    for number in 0..8 {
        world.put(&[a_row(number)]);
    }
    let below = world.last_write();
    world.adopt(&[a_row(50), a_row(60)]).await;
    for number in 8..16 {
        world.put(&[a_row(number)]);
    }
    // The only copy of a row that a delete hides lies in the file that is not live yet.
    world.delete(&[("k".to_owned(), 50)]);
    world.region.merge_runs().await.unwrap();
    world.region.settle().await.unwrap();
    assert!(world.region.flushed_sequence().get() > below);
    assert_eq!(world.region.flushed_sequence(), world.region.done_through());
    assert_eq!(world.region.stats().memtable_rows, 9);
    world.check().await;
    world.region.flush().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_new_owner_publishes_what_the_log_has_decided() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    world.epoch = 3;
    world.adopt(&rows(0..5)).await;
    world.reopen().await.unwrap();
    assert_eq!(world.region.obligations().len(), 1);
    world.region.settle().await.unwrap();
    world.check().await;
    let file = world.region.files().remove(0);
    assert_eq!((file.min_epoch(), file.max_epoch()), (Epoch(3), Epoch(3)));
    assert_eq!(file.max_sequence(), world.region.done_through());
    assert_eq!(world.region.areas(), []);
}

#[tokio::test]
async fn files_that_are_not_what_the_region_writes_are_refused() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    let region = world.region.clone();
    let batch = |rows: &[Row]| put_batch(rows, &world.spec);
    assert_eq!(why(&region, fresh_id()).await, Unfit::Missing);
    assert_eq!(why(&region, FileId(Uuid::new_v4())).await, Unfit::Name);
    let unsorted = written(&world, vec![batch(&rows(5..9)), batch(&rows(0..3))]).await;
    assert_eq!(why(&region, unsorted).await, Unfit::Order { row: 4 });
    let twice = written(&world, vec![batch(&rows(0..3)), batch(&rows(2..3))]).await;
    assert_eq!(why(&region, twice).await, Unfit::Order { row: 3 });

    let good = written(&world, vec![batch(&rows(0..30))]).await;
    let bytes = world.storage.get(&region.dir.data(good)).await.unwrap();
    // In the data, and in the magic number.
    for position in [100, bytes.len() - 2] {
        let mut bad = bytes.to_vec();
        bad[position] ^= 4;
        let file = brought(&world, bad.into()).await;
        assert!(matches!(why(&region, file).await, Unfit::Damaged(_)), "byte {position}");
    }
    for bad in [bytes.slice(..bytes.len() - 9), bytes.slice(..3), Bytes::from_static(b"no file")] {
        let file = brought(&world, bad).await;
        assert!(matches!(why(&region, file).await, Unfit::Damaged(_)));
    }
    let mut empty = Vec::new();
    ArrowWriter::try_new(&mut empty, world.spec.schema.arrow(), None).unwrap().close().unwrap();
    let empty = brought(&world, empty.into()).await;
    assert_eq!(why(&region, empty).await, Unfit::Empty);

    world.put(&rows(0..3));
    region.flush().await.unwrap();
    assert_eq!(why(&region, region.files()[0].file_id).await, Unfit::Known);
    assert_eq!(region.areas(), []);
}

#[tokio::test]
async fn deletes_are_refused() {
    let storage = Storage::memory();
    let mut spec = spec(WriteMode::Upsert, false);
    let columns = spec.schema.columns().iter().cloned().map(|column| {
        let nullable = ![NAME, NUMBER].contains(&column.id);
        column_of(column.id, &column.name, column.data_type, nullable)
    });
    let (version, next) = (spec.schema.version(), spec.schema.next_column_id());
    spec.schema =
        TableSchema::new(version, columns.collect(), vec![NAME, NUMBER], None, next).unwrap();
    let region = World::fresh(&storage, &spec);
    region.take_ownership(owner(1), GROUP).await.unwrap();
    let put = (10, RowOp::Put, put_batch(&rows(0..3), &spec));
    let delete = (20, RowOp::Delete, delete_batch(&[("k".to_owned(), 1)], &spec));
    for (sequence, op, batch) in [put, delete] {
        let sequence = Sequence(sequence);
        region.apply(RowsWrite { sequence, epoch: Epoch(0), op, batch }).unwrap();
        region.flush().await.unwrap();
    }
    let deleting = region.files().into_iter().find(|file| file.deletes > 0).unwrap();
    let file = fresh_id();
    let bytes = storage.get(&deleting.path()).await.unwrap();
    storage.put(&region.dir.data(file), bytes).await.unwrap();
    assert_eq!(why(&region, file).await, Unfit::Deletes);
}

#[tokio::test]
async fn an_append_only_region_takes_equal_keys_but_no_descending_ones() {
    let world = World::new(Storage::memory(), WriteMode::AppendOnly, false).await;
    let batch = |rows: &[Row]| put_batch(rows, &world.spec);
    let equal = written(&world, vec![batch(&rows(0..3)), batch(&rows(2..5))]).await;
    world.region.adopt(new_area(), &[equal], DEADLINE).await.unwrap();
    let unsorted = written(&world, vec![batch(&rows(1..3)), batch(&rows(0..1))]).await;
    assert_eq!(why(&world.region, unsorted).await, Unfit::Order { row: 2 });
}

#[tokio::test]
async fn other_columns_and_keys_of_other_regions_are_refused() {
    let world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    let schema = world.spec.schema.altered(&[added("more")]).unwrap();
    let other = RegionSpec { schema, ..world.spec.clone() };
    let file = bulk_files(&world.storage, &other, &rows(0..3)).await.remove(0);
    assert!(matches!(why(&world.region, file).await, Unfit::Columns(_)));

    let bounds = [3, 6].map(|number| row_key(&world.spec, &("k".to_owned(), number)));
    let [start, end] = bounds;
    let range = KeyRange::new(start, Some(end));
    let storage = Storage::memory();
    let narrow = World::fresh(&storage, &RegionSpec { range, ..world.spec.clone() });
    narrow.take_ownership(owner(1), GROUP).await.unwrap();
    for (numbers, fits) in [(2..5, false), (4..7, false), (3..6, true)] {
        let file = bulk_files(&storage, narrow.spec(), &rows(numbers.clone())).await.remove(0);
        match fits {
            true => {
                narrow.adopt(new_area(), &[file], DEADLINE).await.unwrap();
            }
            false => assert_eq!(why(&narrow, file).await, Unfit::Range, "{numbers:?}"),
        }
    }
}

#[tokio::test]
async fn one_file_is_named_once() {
    let world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    let file = written(&world, vec![put_batch(&rows(0..3), &world.spec)]).await;
    let error = world.region.adopt(new_area(), &[file, file], DEADLINE).await.unwrap_err();
    assert!(matches!(error, AdoptError::Unfit { reason: Unfit::Known, .. }), "{error}");
    let area = new_area();
    world.region.adopt(area, &[file], DEADLINE).await.unwrap();
    assert_eq!(why(&world.region, file).await, Unfit::Known);
    let error = world.region.adopt(area, &[fresh_id()], DEADLINE).await.unwrap_err();
    assert!(matches!(error, AdoptError::AreaTaken { .. }), "{error}");
    let many: Vec<FileId> = (0..=MAX_FILES).map(|_| fresh_id()).collect();
    let error = world.region.adopt(new_area(), &many, DEADLINE).await.unwrap_err();
    assert!(matches!(error, AdoptError::TooMany { files } if files == MAX_FILES + 1), "{error}");
}

#[tokio::test]
async fn an_adoption_is_taken_back_unless_the_log_has_decided() {
    let mut world = World::new(Storage::memory(), WriteMode::Upsert, false).await;
    let region = world.region.clone();
    let files = bulk_files(&world.storage, &world.spec, &rows(0..3)).await;
    let area = new_area();
    region.adopt(area, &files, DEADLINE).await.unwrap();
    region.withdraw(area).await.unwrap();
    region.withdraw(area).await.unwrap();
    assert_eq!(region.areas(), []);
    // Its id is used up.
    let error = region.adopt(area, &files, DEADLINE).await.unwrap_err();
    let used = matches!(
        &error,
        AdoptError::Engine(EngineError::Refused { reason: Void::AreaUsed { .. }, .. })
    );
    assert!(used, "{error}");
    let area = new_area();
    region.adopt(area, &files, DEADLINE).await.unwrap();
    world.publish(area, Content::Files, &[rows(0..3)]);
    let error = region.withdraw(area).await.unwrap_err();
    assert!(matches!(error, AdoptError::Decided { .. }), "{error}");
    region.settle().await.unwrap();
    world.check().await;
    let error = region.adopt(new_area(), &[], 1).await.unwrap_err();
    assert!(matches!(error, AdoptError::Overdue { .. }), "{error}");
}
