//! Golden bytes of whole data files: this release writes exactly these bytes, and still reads the files
//! of earlier releases.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::TimeUnit;
use bytes::Bytes;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidewater_common::ids::{ColumnId, Epoch, SchemaVersion, Sequence};
use tidewater_common::schema::{Column, ColumnType, TableSchema, WriteMode};

use crate::env::{IdSource, SystemIds};
use crate::file_meta::FileMeta;
use crate::manifest::{ActionKind, Author, Change, Edit};
use crate::region::tests::fixture::{GROUP, env, owner, spec};
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{Region, RegionSpec, RowsWrite, ScanOptions};

/// File as written by this release.
const CURRENT: &[u8] = include_bytes!("../../../sst/golden/format-2.parquet");
/// File of the last release with format 1.
const FORMAT_1: &[u8] = include_bytes!("../../../sst/golden/format-1.parquet");
/// File of an earlier release with format 1, which stored seconds as plain integers.
const PLAIN_SECONDS: &[u8] = include_bytes!("../../../sst/golden/format-1-plain-seconds.parquet");

fn table() -> RegionSpec {
    let column = |id, name: &str, data_type, nullable| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type,
        nullable,
        default: None,
    };
    let columns = vec![
        column(1, "host", ColumnType::Utf8, false),
        column(2, "seconds", ColumnType::Timestamp(TimeUnit::Second, None), false),
        column(3, "zoned", ColumnType::Timestamp(TimeUnit::Second, Some("UTC".into())), true),
        column(4, "level", ColumnType::Float64, true),
        column(5, "price", ColumnType::Decimal128(9, 2), true),
        column(6, "flags", ColumnType::UInt32, true),
        column(7, "blob", ColumnType::Binary, true),
    ];
    let key = vec![ColumnId(1), ColumnId(2)];
    let time = Some(ColumnId(2));
    let schema = TableSchema::new(SchemaVersion(1), columns, key, time, ColumnId(8)).unwrap();
    RegionSpec { schema, ..spec(WriteMode::Upsert, false) }
}

fn rows(spec: &RegionSpec) -> RecordBatch {
    let count = 50_i32;
    let some = |n: &i32| n % 3 != 0;
    let numbers = || 0..count;
    let level = |n: i32| if n == 20 { f64::NAN } else { f64::from(n) / 4.0 };
    let price = numbers().map(|n| some(&n).then_some(i128::from(n) * -100));
    let blobs: Vec<Option<Vec<u8>>> =
        numbers().map(|n| some(&n).then(|| vec![255; n as usize % 5])).collect();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(numbers().map(|n| format!("host {}", n / 10)))),
        Arc::new(TimestampSecondArray::from_iter_values(numbers().map(|n| i64::from(n) - 5))),
        Arc::new(
            TimestampSecondArray::from_iter(
                numbers().map(|n| some(&n).then_some(1_700_000_000 + i64::from(n))),
            )
            .with_timezone("UTC"),
        ),
        Arc::new(Float64Array::from_iter(numbers().map(|n| some(&n).then(|| level(n))))),
        Arc::new(Decimal128Array::from_iter(price).with_precision_and_scale(9, 2).unwrap()),
        Arc::new(UInt32Array::from_iter(
            numbers().map(|n| some(&n).then_some(u32::MAX - n as u32)),
        )),
        Arc::new(BinaryArray::from_iter(blobs)),
    ];
    RecordBatch::try_new(spec.schema.arrow(), arrays).unwrap()
}

async fn written() -> (Arc<Region>, Bytes) {
    let spec = table();
    let storage = Storage::memory();
    let region = Region::new(env(storage.clone()), spec.clone(), Sequence(0), Sequence(0)).unwrap();
    region.take_ownership(owner(1), GROUP).await.unwrap();
    let batch = rows(&spec);
    let write = RowsWrite { sequence: Sequence(7), epoch: Epoch(2), op: RowOp::Put, batch };
    region.apply(write).unwrap();
    region.flush().await.unwrap();
    let bytes = storage.get(&region.files()[0].path()).await.unwrap();
    (region, bytes)
}

fn tail_length(bytes: &[u8], data_end: u64) -> crate::file_meta::FileTail {
    let length = bytes.len() as u64 - data_end;
    let checksum = crc32c::crc32c(&bytes[data_end as usize..]);
    crate::file_meta::FileTail { length, checksum }
}

/// Returns the offset of the end of the data: row groups are contiguous from the magic number on.
fn data_end(bytes: &Bytes) -> u64 {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
    let groups = builder.metadata().row_groups();
    4 + groups.iter().map(|group| group.compressed_size() as u64).sum::<u64>()
}

/// Stores these bytes as a file with the rows of `written`, and returns its description.
pub(super) async fn stored_as(storage: &Storage, bytes: Bytes, written: &FileMeta) -> FileMeta {
    let file = FileMeta {
        file_id: SystemIds.file_id(1_700_000_000_000, 0),
        size: bytes.len() as u64,
        checksum: crc32c::crc32c(&bytes),
        tail: tail_length(&bytes, data_end(&bytes)),
        ..written.clone()
    };
    storage.put(&file.path(), bytes).await.unwrap();
    file
}

/// Adds files to a region's manifest, without any check of their content.
pub(super) async fn add_files(region: &Region, add: Vec<FileMeta>) {
    let edit = Edit { add, ..Edit::default() };
    let change = Change::new(Author::Owner(owner(1)), vec![ActionKind::Edit(edit)]);
    region.manifest.update_manifest(change).await.unwrap();
    region.load().await.unwrap();
}

/// Returns a region whose only file has these bytes.
async fn adopting(bytes: &'static [u8]) -> Arc<Region> {
    let (template, _) = written().await;
    let storage = Storage::memory();
    let file = stored_as(&storage, Bytes::from_static(bytes), &template.files()[0]).await;
    let region = Region::new(env(storage), table(), Sequence(0), Sequence(0)).unwrap();
    region.take_ownership(owner(1), GROUP).await.unwrap();
    add_files(&region, vec![file]).await;
    region
}

#[tokio::test]
async fn data_file_bytes_match_golden_file() {
    let (_, bytes) = written().await;
    if let Ok(directory) = std::env::var("TIDEWATER_WRITE_GOLDEN") {
        std::fs::write(format!("{directory}/format-2.parquet"), &bytes).unwrap();
    }
    assert!(bytes == CURRENT, "the bytes of a data file differ from the golden file");
}

#[tokio::test]
async fn golden_files_are_readable() {
    for stored in [CURRENT, FORMAT_1, PLAIN_SECONDS] {
        let region = adopting(stored).await;
        let ids: Vec<ColumnId> = (1..8).map(ColumnId).collect();
        let batches: Vec<RecordBatch> =
            region.scan(&ScanOptions::all(ids)).unwrap().try_collect().await.unwrap();
        let batch = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
        assert_eq!(batch, rows(&table()));
    }
}

/// Checks the types that a reader sees which ignores the Arrow schema in the footer.
#[tokio::test]
async fn seconds_are_microseconds_in_parquet_schema() {
    use parquet::basic::{LogicalType, TimeUnit as Unit};
    let (_, bytes) = written().await;
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let columns = builder.parquet_schema().columns().to_vec();
    let zoned: Vec<bool> = columns[1..3]
        .iter()
        .map(|column| match column.logical_type_ref() {
            Some(LogicalType::Timestamp(kind)) if kind.unit == Unit::MICROS => {
                kind.is_adjusted_to_u_t_c
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(zoned, [false, true]);
}
