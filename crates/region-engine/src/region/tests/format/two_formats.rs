//! Files of format 1 beside files of format 2, in one region: reads, pruning, compaction, indexes, bulk
//! load. A region that never flushes is the reference.

use std::sync::Arc;

use arrow::array::*;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, TimeUnit};
use bytes::Bytes;
use futures::TryStreamExt;
use tidewater_common::ids::{ColumnId, Epoch, SchemaVersion, Sequence};
use tidewater_common::schema::{Column, ColumnType, TableSchema, WriteMode};

use super::frozen::{add_files, stored_as};
use crate::compaction::{Attempt, Scope};
use crate::file_meta::FileMeta;
use crate::index::Bloom;
use crate::region::staging_area::files_of;
use crate::region::tests::fixture::{DEADLINE, GROUP, env, new_area, owner, spec};
use crate::row_versions::RowOp;
use crate::sst::footer::{Footer, footer};
use crate::storage::Storage;
use crate::{CompareOp, Predicate, Region, RegionSpec, RowsWrite, ScanMeter, ScanOptions};

/// The files of [`written`] as the last release with format 1 wrote them.
const FORMAT_1: [&[u8]; 3] = [
    include_bytes!("../../../sst/golden/format-1-times.parquet"),
    include_bytes!("../../../sst/golden/format-1-changes.parquet"),
    include_bytes!("../../../sst/golden/format-1-far.parquet"),
];

/// The files of [`written`] as this release writes them.
const FORMAT_2: [&[u8]; 3] = [
    include_bytes!("../../../sst/golden/format-2-times.parquet"),
    include_bytes!("../../../sst/golden/format-2-changes.parquet"),
    include_bytes!("../../../sst/golden/format-2-far.parquet"),
];

const HOST: ColumnId = ColumnId(1);
const AT: ColumnId = ColumnId(2);
const SECONDS: ColumnId = ColumnId(3);

/// Table with a timestamp of every unit; the key and the time column are milliseconds with a zone.
fn table() -> RegionSpec {
    let column = |id, name: &str, data_type, nullable| Column {
        id,
        name: name.to_owned(),
        data_type,
        nullable,
        default: None,
    };
    let at = |unit, zone: &str| ColumnType::Timestamp(unit, Some(zone.into()));
    let columns = vec![
        column(HOST, "host", ColumnType::Utf8, false),
        column(AT, "at", at(TimeUnit::Millisecond, "+01:00"), false),
        column(SECONDS, "seconds", ColumnType::Timestamp(TimeUnit::Second, None), true),
        column(ColumnId(4), "zoned", at(TimeUnit::Second, "Europe/Paris"), true),
        column(ColumnId(5), "micros", at(TimeUnit::Microsecond, "+02:00"), true),
        column(ColumnId(6), "nanos", at(TimeUnit::Nanosecond, "UTC"), true),
        column(ColumnId(7), "number", ColumnType::Int64, true),
    ];
    let schema =
        TableSchema::new(SchemaVersion(1), columns, vec![HOST, AT], Some(AT), ColumnId(8)).unwrap();
    RegionSpec { schema, ..spec(WriteMode::Upsert, false) }
}

/// A row of [`table`]: host, time in milliseconds, seconds, number.
type TimeRow = (String, i64, Option<i64>, i64);

fn batch(rows: &[TimeRow]) -> RecordBatch {
    let schema = table().schema.arrow();
    let times = |column: usize, values: Vec<Option<i64>>| {
        cast(&Int64Array::from(values), schema.field(column).data_type()).unwrap()
    };
    let seconds = || rows.iter().map(|row| row.2);
    let small = |scale: i64| seconds().map(|s| s.map(|s| s % 1_000_000 * scale + 1)).collect();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.0))),
        times(1, rows.iter().map(|row| Some(row.1)).collect()),
        times(2, seconds().collect()),
        times(3, seconds().collect()),
        times(4, small(1_000_000)),
        times(5, small(1_000_000_000)),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.3))),
    ];
    RecordBatch::try_new(schema, arrays).unwrap()
}

/// The rows of the first file.
fn first() -> Vec<TimeRow> {
    let seconds = |n: i64| (n % 3 != 0).then_some(n - 10);
    (0..50).map(|n| (format!("host {}", n / 10), (n - 25) * 1_001, seconds(n), n)).collect()
}

/// Rows of the first file with other values.
fn changed() -> Vec<TimeRow> {
    let number = |row: &TimeRow| row.3 + 1_000;
    first()[20..30].iter().map(|row| (row.0.clone(), row.1, row.2, number(row))).collect()
}

/// Rows whose times overflow as microseconds, next to some that do not.
fn far() -> Vec<TimeRow> {
    let millis = [i64::MIN, i64::MIN / 1_000, -1, i64::MAX / 1_000, i64::MAX / 1_000 + 1, i64::MAX];
    let seconds = |n: usize| [i64::MIN / 1_000, -1, i64::MAX / 1_000][n % 3];
    let row = |(n, ms): (usize, i64)| ("host 2".to_owned(), ms, Some(seconds(n)), n as i64);
    millis.into_iter().enumerate().map(row).collect()
}

fn put(region: &Region, sequence: u64, rows: &[TimeRow]) {
    let batch = batch(rows);
    let sequence = Sequence(sequence);
    region.apply(RowsWrite { sequence, epoch: Epoch(2), op: RowOp::Put, batch }).unwrap();
}

fn delete(region: &Region, sequence: u64, rows: &[TimeRow]) {
    let keys = batch(rows).project(&[0, 1]).unwrap();
    let batch = RecordBatch::try_new(table().schema.key_arrow(), keys.columns().to_vec()).unwrap();
    let sequence = Sequence(sequence);
    region.apply(RowsWrite { sequence, epoch: Epoch(2), op: RowOp::Delete, batch }).unwrap();
}

async fn region(storage: &Storage) -> Arc<Region> {
    let region = Region::new(env(storage.clone()), table(), Sequence(0), Sequence(0)).unwrap();
    region.take_ownership(owner(1), GROUP).await.unwrap();
    region
}

fn put_first(region: &Region) {
    put(region, 7, &first());
}

fn put_changes(region: &Region) {
    put(region, 8, &changed());
    delete(region, 9, &first()[40..45]);
}

fn put_far(region: &Region) {
    put(region, 10, &far());
}

/// Writes rows over those of the other files, which a release with format 2 writes.
fn put_later(region: &Region) {
    let later: Vec<TimeRow> =
        first().into_iter().step_by(4).map(|row| (row.0, row.1, row.2, row.3 + 5_000)).collect();
    put(region, 11, &later);
    delete(region, 12, &first()[21..23]);
}

/// Writes three files: the first rows; changes and deletes of some; rows with far times. Returns the
/// region, and its files in this order.
async fn written(storage: &Storage) -> (Arc<Region>, Vec<FileMeta>) {
    let region = region(storage).await;
    for write in [put_first, put_changes, put_far] {
        write(&region);
        region.flush().await.unwrap();
    }
    let mut files = region.files();
    files.sort_by_key(|file| file.stored_max_sequence);
    assert_eq!(files.len(), 3);
    (region, files)
}

/// Returns a region with all rows in memory.
async fn reference() -> Arc<Region> {
    let region = region(&Storage::memory()).await;
    region.load().await.unwrap();
    [put_first, put_changes, put_far, put_later].iter().for_each(|write| write(&region));
    region
}

/// Returns a region with three files of format 1 and one of format 2.
async fn both_formats(storage: &Storage) -> Arc<Region> {
    let (_, files) = written(&Storage::memory()).await;
    let region = region(storage).await;
    let mut old = Vec::new();
    for (bytes, file) in FORMAT_1.into_iter().zip(&files) {
        old.push(stored_as(storage, Bytes::from_static(bytes), file).await);
    }
    add_files(&region, old).await;
    put_later(&region);
    region.flush().await.unwrap();
    assert_eq!(formats(storage, &region).await, [1, 1, 1, 2]);
    region
}

async fn footer_of(storage: &Storage, file: &FileMeta) -> Arc<Footer> {
    footer(storage, &env(storage.clone()).footers, file).await.unwrap()
}

async fn formats(storage: &Storage, region: &Region) -> Vec<u32> {
    let mut formats = Vec::new();
    for file in region.files() {
        formats.push(footer_of(storage, &file).await.format);
    }
    formats.sort_unstable();
    formats
}

async fn rows_of(region: &Region) -> RecordBatch {
    let ids = (1..8).map(ColumnId).collect();
    let batches: Vec<RecordBatch> =
        region.scan(&ScanOptions::all(ids)).unwrap().try_collect().await.unwrap();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// Compares scans and point reads of all rows with those of the reference.
async fn compare_rows(region: &Region) {
    let reference = reference().await;
    let rows = rows_of(region).await;
    assert_eq!(rows, rows_of(&reference).await);
    let keys = RecordBatch::try_new(table().schema.key_arrow(), rows.columns()[..2].to_vec());
    let ids: Vec<ColumnId> = (1..8).map(ColumnId).collect();
    let meter = ScanMeter::default();
    let found = region.get_metered(&keys.unwrap(), &ids, &meter).await.unwrap();
    assert_eq!(found, rows);
}

/// Compares the rows that predicates select, with times at, next to and beyond the statistics of files.
async fn compare_predicates(region: &Region) {
    let reference = reference().await;
    let text = |column: usize, value: i64| {
        let own = table().schema.arrow().field(column).data_type().clone();
        let array = cast(&Int64Array::from(vec![value]), &own).unwrap();
        arrow::util::display::array_value_to_string(&array, 0).unwrap()
    };
    let millis = [-25_025, -25_024, -1, 0, 5_005, 24_024, 24_025, 8_000_000_000_000];
    let seconds = [-10, -9, -1, 0, 1, 39, 40, 4_000_000_000];
    let millis = millis.iter().map(|value| (AT, text(1, *value)));
    let cases = millis.chain(seconds.iter().map(|value| (SECONDS, text(2, *value))));
    for (column, text) in cases {
        for op in [
            CompareOp::Eq,
            CompareOp::Ne,
            CompareOp::Lt,
            CompareOp::Le,
            CompareOp::Gt,
            CompareOp::Ge,
            CompareOp::In,
            CompareOp::IsNull,
        ] {
            let unary = op == CompareOp::IsNull;
            let values = if unary { Vec::new() } else { vec![text.clone()] };
            let mut options = ScanOptions::all(Vec::new());
            options.predicates = vec![Predicate { column, op, values }];
            let expected = reference.count(&options).await.unwrap();
            assert_eq!(region.count(&options).await.unwrap(), expected, "{column} {op:?} {text}");
        }
    }
}

#[tokio::test]
async fn files_of_every_unit_match_golden_files() {
    let storage = Storage::memory();
    let (_, files) = written(&storage).await;
    let mut written = Vec::new();
    for (file, name) in files.iter().zip(["times", "changes", "far"]) {
        let bytes = storage.get(&file.path()).await.unwrap();
        if let Ok(directory) = std::env::var("TIDEWATER_WRITE_GOLDEN") {
            std::fs::write(format!("{directory}/format-2-{name}.parquet"), &bytes).unwrap();
        }
        written.push(bytes);
    }
    assert!(written == FORMAT_2, "the bytes of a data file differ from the golden file");
}

#[tokio::test]
async fn both_formats_are_read_side_by_side() {
    let storage = Storage::memory();
    let region = both_formats(&storage).await;
    compare_rows(&region).await;
    compare_predicates(&region).await;
}

#[tokio::test]
async fn compaction_rewrites_format_1_as_format_2() {
    let storage = Storage::memory();
    let region = both_formats(&storage).await;
    region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await.unwrap().unwrap();
    let formats = formats(&storage, &region).await;
    assert!(!formats.is_empty() && formats.iter().all(|format| *format == 2), "{formats:?}");
    compare_rows(&region).await;
    compare_predicates(&region).await;
}

#[tokio::test]
async fn indexes_of_both_formats_find_all_keys() {
    let storage = Storage::memory();
    let region = both_formats(&storage).await;
    assert_eq!(region.build_indexes(&Bloom).await.unwrap().built, 4);
    compare_rows(&region).await;
}

#[tokio::test]
async fn statistics_of_both_formats_prune_files_and_pages() {
    let storage = Storage::memory();
    let region = both_formats(&storage).await;
    let pruned = async |column, op, text: &str| {
        let mut options = ScanOptions::all(vec![HOST]);
        options.predicates = vec![Predicate { column, op, values: vec![text.to_owned()] }];
        let meter = ScanMeter::default();
        let stream = region.scan_metered(&options, &meter).unwrap();
        stream.try_collect::<Vec<RecordBatch>>().await.unwrap();
        meter.stats()
    };
    // Only the file with far times has rows from 1980 on.
    let stats = pruned(AT, CompareOp::Gt, "1980-01-01T00:00:00+01:00").await;
    assert_eq!((stats.files, stats.files_pruned), (1, 3));
    // Times ascend with the key: few pages have rows of the first second.
    let stats = pruned(AT, CompareOp::Lt, "1970-01-01T00:59:36+01:00").await;
    assert!(stats.pages_pruned > 0, "{stats:?}");
}

/// Returns the stored types of a file's columns.
async fn stored_types(storage: &Storage, file: &FileMeta) -> Vec<DataType> {
    let footer = footer_of(storage, file).await;
    footer.metadata.schema().fields().iter().map(|field| field.data_type().clone()).collect()
}

#[tokio::test]
async fn times_are_stored_as_micros_unless_they_overflow() {
    let at = |unit, zoned: bool| DataType::Timestamp(unit, zoned.then(|| "UTC".into()));
    let storage = Storage::memory();
    let (_, files) = written(&storage).await;
    let times = |unit| {
        [
            at(unit, true),
            at(unit, false),
            at(unit, true),
            at(TimeUnit::Microsecond, true),
            at(TimeUnit::Nanosecond, true),
        ]
    };
    let near = times(TimeUnit::Microsecond);
    assert_eq!(stored_types(&storage, &files[0]).await[1..6], near);
    assert_eq!(stored_types(&storage, &files[1]).await[1..6], near);
    assert_eq!(stored_types(&storage, &files[2]).await[1..6], times(TimeUnit::Millisecond));
}

#[tokio::test]
async fn compaction_of_far_times_ends_file_before_them() {
    let storage = Storage::memory();
    let (region, _) = written(&storage).await;
    region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await.unwrap().unwrap();
    put_later(&region);
    compare_rows(&region).await;
    let mut units = Vec::new();
    for file in region.files() {
        units.push(stored_types(&storage, &file).await[1].clone());
    }
    let millis = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    assert!(units.contains(&millis), "{units:?}");
}

#[tokio::test]
async fn append_only_rows_keep_order_around_far_times() {
    let mut table = table();
    table.options.write_mode = WriteMode::AppendOnly;
    let storage = Storage::memory();
    let region =
        Region::new(env(storage.clone()), table.clone(), Sequence(0), Sequence(0)).unwrap();
    region.take_ownership(owner(1), GROUP).await.unwrap();
    // One write with many rows of one key, more than a batch of a merge has in a test.
    let row = |n: i64| {
        let seconds = if n == 300 { i64::MAX / 1_000 } else { n };
        ("host".to_owned(), 5, Some(seconds), n)
    };
    let rows: Vec<TimeRow> = (0..600).map(row).collect();
    let reference = Region::new(env(Storage::memory()), table, Sequence(0), Sequence(0)).unwrap();
    reference.take_ownership(owner(1), GROUP).await.unwrap();
    reference.load().await.unwrap();
    for region in [&region, &reference] {
        put(region, 1, &rows);
    }
    region.flush().await.unwrap();
    assert_eq!(region.files().len(), 1, "rows with equal key and sequence are in one file");
    assert_eq!(rows_of(&region).await, rows_of(&reference).await);
    for region in [&region, &reference] {
        put(region, 2, &rows[..1]);
    }
    region.flush().await.unwrap();
    region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await.unwrap().unwrap();
    assert_eq!(region.files().len(), 1, "rows with equal key and sequence are in one file");
    assert_eq!(rows_of(&region).await, rows_of(&reference).await);
    let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
    assert_eq!(stored_types(&storage, &region.files()[0]).await[2], millis);
}

#[tokio::test]
async fn bulk_files_of_both_formats_are_adopted() {
    let storage = Storage::memory();
    let (region, files) = written(&storage).await;
    for index in [0, 2] {
        let bytes = storage.get(&files[index].path()).await.unwrap();
        for (format, bytes) in [(1, Bytes::from_static(FORMAT_1[index])), (2, bytes)] {
            let stored = stored_as(&storage, bytes, &files[index]).await;
            assert_eq!(footer_of(&storage, &stored).await.format, format);
            let area = new_area();
            region.adopt(area, &[stored.file_id], DEADLINE).await.unwrap();
            let state = region.manifest.state();
            let staged: Vec<FileMeta> = files_of(&state.areas[&area]).cloned().collect();
            assert_eq!(staged, [stored]);
        }
    }
}
