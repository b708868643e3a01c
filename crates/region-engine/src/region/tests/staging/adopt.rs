//! Adoption of bulk-load files: accepted files and refused ones.

use arrow::array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use tidewater_common::ids::{Epoch, FileId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{TableSchema, WriteMode};
use uuid::Uuid;

use crate::bulk::{AdoptError, BulkWriter, MAX_FILES, Unfit};
use crate::env::{IdSource, SystemIds};
use crate::file_meta::FileMeta;
use crate::manifest::Void;
use crate::region::PublicationContent;
use crate::region::staging_area::files_of;
use crate::region::tests::fixture::{column as column_of, *};
use crate::storage::Storage;
use crate::{EngineError, Region, RegionSpec, RowOp, RowsWrite};

fn row(number: i32) -> Row {
    (("k".to_owned(), number), Some(i64::from(number)), format!("row {number}"))
}

fn rows(numbers: std::ops::Range<i32>) -> Vec<Row> {
    numbers.map(row).collect()
}

fn fresh_id() -> FileId {
    FileId(SystemIds.at(1_700_000_000_000))
}

async fn write_file(fixture: &RegionFixture, batches: Vec<RecordBatch>) -> FileId {
    let writer = BulkWriter::new(env(fixture.storage.clone()), &fixture.spec).unwrap();
    let files = writer.write(batches).await.unwrap();
    assert_eq!(files.len(), 1);
    files[0]
}

/// Stores bytes in the region's directory as a bulk-load file.
async fn put_bulk_file(fixture: &RegionFixture, bytes: Bytes) -> FileId {
    let file = fresh_id();
    fixture.storage.put(&fixture.region.dir.data(file), bytes).await.unwrap();
    file
}

async fn refusal_reason(region: &Region, file: FileId) -> Unfit {
    match region.adopt(new_area(), &[file], DEADLINE).await {
        Err(AdoptError::Unfit { file: named, reason }) => {
            assert_eq!(named, file);
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn adopted_file_gets_same_metadata_as_flush() {
    for (mode, hashed) in
        [(WriteMode::Upsert, false), (WriteMode::Upsert, true), (WriteMode::AppendOnly, false)]
    {
        let mut fixture = RegionFixture::new(Storage::memory(), mode, hashed).await;
        fixture.put(&rows(0..100));
        fixture.region.flush().await.unwrap();
        let flushed = fixture.region.files().remove(0);
        let bytes = fixture.storage.get(&flushed.path()).await.unwrap();
        let file = put_bulk_file(&fixture, bytes).await;
        let area = new_area();
        fixture.region.adopt(area, &[file], DEADLINE).await.unwrap();
        let state = fixture.region.manifest.state();
        let staged: Vec<FileMeta> = files_of(&state.areas[&area]).cloned().collect();
        assert_eq!(staged, [FileMeta { file_id: file, ..flushed }]);
    }
}

#[tokio::test]
async fn published_rows_are_ordered_by_publication_sequence() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    fixture.put(&rows(0..30));
    assert!(!fixture.region.check_published(new_area()).await.unwrap());
    fixture.adopt(&[(("k".to_owned(), 5), None, "loaded".to_owned()), row(100)]).await;
    fixture.put(&[(("k".to_owned(), 100), None, "later".to_owned())]);
    fixture.region.record_obligations().await.unwrap();
    fixture.check().await;
    fixture.region.flush().await.unwrap();
    fixture.check().await;
    fixture.compact(crate::compaction::Scope::Whole).await.unwrap();
    fixture.check().await;
    fixture.reopen().await.unwrap();
    fixture.check().await;
}

#[tokio::test]
async fn publication_flushes_earlier_rows_but_not_later_ones() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    for number in 0..8 {
        fixture.put(&[row(number)]);
    }
    let below = fixture.last_write();
    fixture.adopt(&[row(50), row(60)]).await;
    for number in 8..16 {
        fixture.put(&[row(number)]);
    }
    // The only copy of the deleted row is in the file that is not live yet.
    fixture.delete(&[("k".to_owned(), 50)]);
    fixture.region.merge_runs().await.unwrap();
    fixture.region.record_obligations().await.unwrap();
    assert!(fixture.region.flushed_sequence().get() > below);
    assert_eq!(fixture.region.flushed_sequence(), fixture.region.done_through());
    assert_eq!(fixture.region.stats().memtable_rows, 9);
    fixture.check().await;
    fixture.region.flush().await.unwrap();
    fixture.check().await;
}

#[tokio::test]
async fn new_owner_records_pending_publication() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    fixture.epoch = 3;
    fixture.adopt(&rows(0..5)).await;
    fixture.reopen().await.unwrap();
    assert_eq!(fixture.region.obligations().len(), 1);
    fixture.region.record_obligations().await.unwrap();
    fixture.check().await;
    let file = fixture.region.files().remove(0);
    assert_eq!((file.min_epoch(), file.max_epoch()), (Epoch(3), Epoch(3)));
    assert_eq!(file.max_sequence(), fixture.region.done_through());
    assert_eq!(fixture.region.staging_areas(), []);
}

#[tokio::test]
async fn adopt_refuses_malformed_files() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    let region = fixture.region.clone();
    let batch = |rows: &[Row]| put_batch(rows, &fixture.spec);
    assert_eq!(refusal_reason(&region, fresh_id()).await, Unfit::Missing);
    assert_eq!(refusal_reason(&region, FileId(Uuid::new_v4())).await, Unfit::Name);
    let unsorted = write_file(&fixture, vec![batch(&rows(5..9)), batch(&rows(0..3))]).await;
    assert_eq!(refusal_reason(&region, unsorted).await, Unfit::Order { row: 4 });
    let twice = write_file(&fixture, vec![batch(&rows(0..3)), batch(&rows(2..3))]).await;
    assert_eq!(refusal_reason(&region, twice).await, Unfit::Order { row: 3 });

    let good = write_file(&fixture, vec![batch(&rows(0..30))]).await;
    let bytes = fixture.storage.get(&region.dir.data(good)).await.unwrap();
    // One byte of the data, and one of the magic number.
    for position in [100, bytes.len() - 2] {
        let mut bad = bytes.to_vec();
        bad[position] ^= 4;
        let file = put_bulk_file(&fixture, bad.into()).await;
        assert!(
            matches!(refusal_reason(&region, file).await, Unfit::Damaged(_)),
            "byte {position}"
        );
    }
    for bad in [bytes.slice(..bytes.len() - 9), bytes.slice(..3), Bytes::from_static(b"no file")] {
        let file = put_bulk_file(&fixture, bad).await;
        assert!(matches!(refusal_reason(&region, file).await, Unfit::Damaged(_)));
    }
    let mut empty = Vec::new();
    ArrowWriter::try_new(&mut empty, fixture.spec.schema.arrow(), None).unwrap().close().unwrap();
    let empty = put_bulk_file(&fixture, empty.into()).await;
    assert_eq!(refusal_reason(&region, empty).await, Unfit::Empty);

    fixture.put(&rows(0..3));
    region.flush().await.unwrap();
    assert_eq!(refusal_reason(&region, region.files()[0].file_id).await, Unfit::Known);
    assert_eq!(region.staging_areas(), []);
}

#[tokio::test]
async fn adopt_refuses_files_with_deletes() {
    let storage = Storage::memory();
    let mut spec = spec(WriteMode::Upsert, false);
    let columns = spec.schema.columns().iter().cloned().map(|column| {
        let nullable = ![NAME, NUMBER].contains(&column.id);
        column_of(column.id, &column.name, column.data_type, nullable)
    });
    let version = spec.schema.version();
    let next = spec.schema.next_column_id();
    spec.schema =
        TableSchema::new(version, columns.collect(), vec![NAME, NUMBER], None, next).unwrap();
    let region = RegionFixture::fresh(&storage, &spec);
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
    assert_eq!(refusal_reason(&region, file).await, Unfit::Deletes);
}

#[tokio::test]
async fn append_only_region_adopts_equal_but_not_descending_keys() {
    let fixture = RegionFixture::new(Storage::memory(), WriteMode::AppendOnly, false).await;
    let batch = |rows: &[Row]| put_batch(rows, &fixture.spec);
    let equal = write_file(&fixture, vec![batch(&rows(0..3)), batch(&rows(2..5))]).await;
    fixture.region.adopt(new_area(), &[equal], DEADLINE).await.unwrap();
    let unsorted = write_file(&fixture, vec![batch(&rows(1..3)), batch(&rows(0..1))]).await;
    assert_eq!(refusal_reason(&fixture.region, unsorted).await, Unfit::Order { row: 2 });
}

#[tokio::test]
async fn adopt_refuses_other_columns_and_out_of_range_keys() {
    let fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    let schema = fixture.spec.schema.altered(&[added("more")]).unwrap();
    let other = RegionSpec { schema, ..fixture.spec.clone() };
    let file = bulk_files(&fixture.storage, &other, &rows(0..3)).await.remove(0);
    assert!(matches!(refusal_reason(&fixture.region, file).await, Unfit::Columns(_)));

    let bounds = [3, 6].map(|number| row_key(&fixture.spec, &("k".to_owned(), number)));
    let [start, end] = bounds;
    let range = KeyRange::new(start, Some(end));
    let storage = Storage::memory();
    let narrow = RegionFixture::fresh(&storage, &RegionSpec { range, ..fixture.spec.clone() });
    narrow.take_ownership(owner(1), GROUP).await.unwrap();
    for (numbers, fits) in [(2..5, false), (4..7, false), (3..6, true)] {
        let file = bulk_files(&storage, narrow.spec(), &rows(numbers.clone())).await.remove(0);
        if fits {
            narrow.adopt(new_area(), &[file], DEADLINE).await.unwrap();
        } else {
            assert_eq!(refusal_reason(&narrow, file).await, Unfit::Range, "{numbers:?}");
        }
    }
}

#[tokio::test]
async fn adopt_refuses_known_files_areas_and_too_many_files() {
    let fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    let file = write_file(&fixture, vec![put_batch(&rows(0..3), &fixture.spec)]).await;
    let error = fixture.region.adopt(new_area(), &[file, file], DEADLINE).await.unwrap_err();
    assert!(matches!(error, AdoptError::Unfit { reason: Unfit::Known, .. }), "{error}");
    let area = new_area();
    fixture.region.adopt(area, &[file], DEADLINE).await.unwrap();
    assert_eq!(refusal_reason(&fixture.region, file).await, Unfit::Known);
    let error = fixture.region.adopt(area, &[fresh_id()], DEADLINE).await.unwrap_err();
    assert!(matches!(error, AdoptError::AreaTaken { .. }), "{error}");
    let many: Vec<FileId> = (0..=MAX_FILES).map(|_| fresh_id()).collect();
    let error = fixture.region.adopt(new_area(), &many, DEADLINE).await.unwrap_err();
    assert!(matches!(error, AdoptError::TooMany { files } if files == MAX_FILES + 1), "{error}");
}

#[tokio::test]
async fn adoption_is_withdrawn_unless_log_published_it() {
    let mut fixture = RegionFixture::new(Storage::memory(), WriteMode::Upsert, false).await;
    let region = fixture.region.clone();
    let files = bulk_files(&fixture.storage, &fixture.spec, &rows(0..3)).await;
    let area = new_area();
    region.adopt(area, &files, DEADLINE).await.unwrap();
    region.withdraw_area(area).await.unwrap();
    region.withdraw_area(area).await.unwrap();
    assert_eq!(region.staging_areas(), []);
    // The id of the area cannot be reused.
    let error = region.adopt(area, &files, DEADLINE).await.unwrap_err();
    let used = matches!(
        &error,
        AdoptError::Engine(EngineError::Refused { reason: Void::AreaUsed { .. }, .. })
    );
    assert!(used, "{error}");
    let area = new_area();
    region.adopt(area, &files, DEADLINE).await.unwrap();
    fixture.publish(area, PublicationContent::Files, &[rows(0..3)]);
    let error = region.withdraw_area(area).await.unwrap_err();
    assert!(matches!(error, AdoptError::Decided { .. }), "{error}");
    region.record_obligations().await.unwrap();
    fixture.check().await;
    let error = region.adopt(new_area(), &[], 1).await.unwrap_err();
    assert!(matches!(error, AdoptError::Overdue { .. }), "{error}");
}
