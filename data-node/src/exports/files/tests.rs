use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray, UInt8Array, UInt64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::env::SystemIds;
use tidewater_region_engine::sst::{EPOCH_COLUMN, OP_COLUMN};
use tidewater_region_engine::{EngineError, RowOp};

use super::*;
use crate::exports::open_target::OpenTarget;
use crate::exports::testing::ExportDirectory;
use crate::group::testing::schema;
use crate::groups::tests::until;

const REGION: RegionId = RegionId(7);
/// A row group for each batch, and one file.
const ONE_FILE: FileSizes =
    FileSizes { file_bytes: u64::MAX, row_group_bytes: 0, single_rows: u64::MAX };

/// Columns of changes of table `t`.
fn changes_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new(OP_COLUMN, DataType::UInt8, false),
        Field::new(EPOCH_COLUMN, DataType::UInt64, false),
    ]))
}

/// Rows of epoch 9 with ids from `first`. A row without a name is a delete.
fn rows(first: i64, names: Vec<Option<String>>) -> RecordBatch {
    let ids = Int64Array::from_iter_values(first..first + names.len() as i64);
    let op = |name: &Option<String>| match name {
        Some(_) => RowOp::Put.code(),
        None => RowOp::Delete.code(),
    };
    let ops: UInt8Array = names.iter().map(op).collect::<Vec<_>>().into();
    let epochs = UInt64Array::from_value(9, names.len());
    let columns: Vec<ArrayRef> =
        vec![Arc::new(ids), Arc::new(StringArray::from(names)), Arc::new(ops), Arc::new(epochs)];
    RecordBatch::try_new(changes_schema(), columns).unwrap()
}

/// Returns a text of this length, which has 6 random bits in each character.
fn random_text(state: &mut u64, length: usize) -> String {
    let mut text = String::new();
    while text.len() < length {
        // Xorshift.
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        let bits = *state;
        text.extend((0..10).map(|at| char::from(b'0' + ((bits >> (6 * at)) & 63) as u8)));
    }
    text.truncate(length);
    text
}

/// Puts of this number of rows, with names of this length.
fn puts(first: i64, number: usize, length: usize) -> RecordBatch {
    let mut state = first as u64 + 1;
    rows(first, (0..number).map(|_| Some(random_text(&mut state, length))).collect())
}

/// A batch whose encoded rows are above the buffer of an object's writer, so that parts of the object are sent.
fn large_batch() -> RecordBatch {
    let batch = puts(0, 3_000, 4_096);
    assert!(batch.num_rows() * 4_096 / 8 * 6 > 8 << 20);
    batch
}

/// Writer of the region in step 2.
fn part_writer<'a>(
    target: &'a OpenTarget,
    schema: &'a TableSchema,
    sizes: FileSizes,
    rows: &'a AtomicU64,
) -> PartWriter<'a> {
    let target = &target.target;
    PartWriter { target, ids: &SystemIds, step: 2, region: REGION, schema, rows, sizes }
}

/// Writes changes of the region in step 2; returns the files and the number of counted rows.
async fn write(
    target: &OpenTarget,
    sizes: FileSizes,
    batches: Vec<Result<RecordBatch, EngineError>>,
) -> (Result<Vec<StepFile>, Refusal>, u64) {
    let counter = AtomicU64::new(0);
    let schema = schema(1);
    let writer = part_writer(target, &schema, sizes, &counter);
    let changes = EpochChanges { schema: changes_schema(), rows: stream::iter(batches).boxed() };
    let files = writer.write(changes).await;
    (files, counter.into_inner())
}

/// Reads a file; checks its size and its columns.
fn read(directory: &ExportDirectory, file: &StepFile) -> RecordBatch {
    let bytes = fs::read(directory.prefix().join(&file.path)).unwrap();
    assert_eq!(bytes.len() as u64, file.bytes);
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
    assert_eq!(reader.schema().fields(), changes_schema().fields());
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    let batch = concat_batches(&changes_schema(), &batches).unwrap();
    assert_eq!(batch.num_rows() as u64, file.rows);
    batch
}

#[tokio::test]
async fn large_part_is_written_to_several_files() {
    let directory = ExportDirectory::new();
    let target = directory.open(5).await;
    let batches: Vec<RecordBatch> = (0..12).map(|number| puts(number * 1_000, 1_000, 32)).collect();
    // An encoded batch has at least 24,000 bytes, and at most 40,000.
    let sizes = FileSizes { file_bytes: 60_000, ..ONE_FILE };
    let (files, counted) = write(&target, sizes, batches.iter().cloned().map(Ok).collect()).await;
    let files = files.unwrap();
    assert!(files.len() > 1 && files.len() < batches.len(), "{files:?}");
    assert_eq!(counted, 12_000);
    let written: Vec<RecordBatch> = files.iter().map(|file| read(&directory, file)).collect();
    let all = concat_batches(&changes_schema(), &written).unwrap();
    assert_eq!(all, concat_batches(&changes_schema(), &batches).unwrap());
    let mut paths: Vec<String> = files.into_iter().map(|file| file.path).collect();
    assert!(paths.iter().all(|path| path.starts_with("data/00000000000000000002/7-")), "{paths:?}");
    paths.sort();
    assert_eq!(directory.files(), paths);
}

/// Ids of all rows of files, ascending.
fn ids(directory: &ExportDirectory, files: &[StepFile]) -> Vec<i64> {
    let of_file = |file: &StepFile| {
        let rows = read(directory, file);
        rows.column(0).as_primitive::<Int64Type>().values().to_vec()
    };
    let mut ids: Vec<i64> = files.iter().flat_map(of_file).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_part_is_written_to_two_files() {
    let directory = ExportDirectory::new();
    let target = directory.open(5).await;
    let batches = || (0..40).map(|number| Ok(puts(number * 1_000, 1_000, 32))).collect();
    let sizes = FileSizes { single_rows: 3_000, ..ONE_FILE };
    let (files, counted) = write(&target, sizes, batches()).await;
    let files = files.unwrap();
    assert_eq!((files.len(), counted), (2, 40_000));
    assert_eq!(ids(&directory, &files), (0..40_000).collect::<Vec<i64>>());
    // A part below the limit has one file.
    let sizes = FileSizes { single_rows: 40_000, ..ONE_FILE };
    let files = write(&target, sizes, batches()).await.0.unwrap();
    assert_eq!(files.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_read_of_a_large_part_leaves_no_file() {
    let directory = ExportDirectory::new();
    let target = directory.open(5).await;
    let mut batches: Vec<_> = (0..20).map(|number| Ok(puts(number * 1_000, 1_000, 32))).collect();
    batches.push(Err(EngineError::Closed { region: REGION }));
    let sizes = FileSizes { single_rows: 2_000, file_bytes: 60_000, ..ONE_FILE };
    let (files, _) = write(&target, sizes, batches).await;
    assert_eq!(files.unwrap_err().reason, Reason::RegionNotFound);
    until("the files are removed", async || directory.files().is_empty()).await;
}

#[tokio::test]
async fn file_has_deletes_and_missing_values() {
    let directory = ExportDirectory::new();
    let target = directory.open(5).await;
    let names = vec![Some("a".to_owned()), None, Some(String::new())];
    let batches = vec![Ok(rows(1, names.clone()))];
    let (files, counted) = write(&target, FileSizes::default(), batches).await;
    let files = files.unwrap();
    assert_eq!((files.len(), files[0].rows, counted), (1, 3, 3));
    let read = read(&directory, &files[0]);
    assert_eq!(read, rows(1, names));
    let names = read.column(1).as_string::<i32>();
    assert_eq!(names.iter().collect::<Vec<_>>(), [Some("a"), None, Some("")]);
}

#[tokio::test]
async fn part_without_rows_has_no_files() {
    let directory = ExportDirectory::new();
    let target = directory.open(5).await;
    let (files, _) = write(&target, ONE_FILE, Vec::new()).await;
    assert_eq!((files, directory.files()), (Ok(Vec::new()), Vec::new()));
}

#[tokio::test]
async fn failed_read_leaves_no_incomplete_file() {
    let directory = ExportDirectory::new();
    let target = directory.open(5).await;
    for batch in [puts(0, 10, 32), large_batch()] {
        let rows = batch.num_rows() as u64;
        let closed = EngineError::Closed { region: REGION };
        let (files, counted) = write(&target, ONE_FILE, vec![Ok(batch), Err(closed)]).await;
        assert_eq!(files.unwrap_err().reason, Reason::RegionNotFound);
        assert_eq!(counted, rows);
        // The last part of an aborted object may still be written.
        until("the file is removed", async || directory.files().is_empty()).await;
    }
}

#[tokio::test]
async fn failing_target_is_reported_with_its_object() {
    let directory = ExportDirectory::new();
    let target = directory.open(5).await;
    // The directory of the files would be a file.
    fs::write(directory.prefix().join("data"), "").unwrap();
    for batch in [puts(0, 10, 32), large_batch()] {
        let (files, _) = write(&target, ONE_FILE, vec![Ok(batch)]).await;
        let refused = files.unwrap_err();
        assert_eq!(refused.reason, Reason::ExportTargetUnavailable, "{refused}");
        let object = "/prefix/data/00000000000000000002/7-";
        assert!(refused.message.contains(object), "{refused}");
        assert_eq!(directory.files(), ["data"]);
    }
}

#[tokio::test]
async fn rows_of_other_columns_fail_the_part() {
    let directory = ExportDirectory::new();
    let target = directory.open(5).await;
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["1"]));
    let other = RecordBatch::try_from_iter([("id", ids)]).unwrap();
    for single_rows in [u64::MAX, 0] {
        let sizes = FileSizes { single_rows, ..ONE_FILE };
        let batches = vec![Ok(large_batch()), Ok(other.clone()), Ok(puts(9_000, 10, 32))];
        let refused = write(&target, sizes, batches).await.0.unwrap_err();
        assert_eq!(refused.reason, Reason::Internal);
        assert!(refused.message.contains("cannot be written"), "{refused}");
        until("the files are removed", async || directory.files().is_empty()).await;
    }
}

#[tokio::test]
async fn aborted_write_leaves_no_file() {
    let directory = ExportDirectory::new();
    let target = directory.open(5).await;
    let rows = stream::iter([Ok(large_batch())]).chain(stream::pending()).boxed();
    let writing = tokio::spawn(async move {
        let schema = schema(1);
        let counter = AtomicU64::new(0);
        let changes = EpochChanges { schema: changes_schema(), rows };
        part_writer(&target, &schema, ONE_FILE, &counter).write(changes).await
    });
    until("a part of the file is sent", async || !directory.files().is_empty()).await;
    writing.abort();
    assert!(writing.await.unwrap_err().is_cancelled());
    until("the file is removed", async || directory.files().is_empty()).await;
}
