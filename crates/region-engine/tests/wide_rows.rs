//! Test of rows of 64 KiB with the sizes of releases: memory in use is bounded in bytes, not only
//! in rows. Separate from the engine's own tests, which run with small pieces, pages and row
//! groups.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryBuilder, Int64Array, RecordBatch, StringBuilder};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use tidewater_common::clock::SystemClock;
use tidewater_common::ids::{
    ColumnId, Epoch, GroupId, Incarnation, OwnerEpoch, RegionId, SchemaVersion, Sequence, TableId,
};
use tidewater_common::keys::KeyRange;
use tidewater_common::rows::bytes_of;
use tidewater_common::schema::{Column, ColumnType, TableOptions, TableSchema};
use tidewater_region_engine::compaction::{Attempt, Scope};
use tidewater_region_engine::env::{EngineOptions, RegionEnv, SystemIds};
use tidewater_region_engine::storage::Storage;
use tidewater_region_engine::{MemoryBudget, Region, RegionSpec, RowOp, RowsWrite, ScanOptions};

const ROWS: i64 = 2_000;
/// Number of writes of one round of rows; their keys interleave.
const WRITES: i64 = 20;
/// Bytes of each of the two wide columns.
const WIDE: usize = 32 << 10;
/// Maximum bytes of a batch's rows: twice the target.
const MAX_ROW_BYTES: usize = 16 << 20;
/// Maximum bytes of a batch's buffers, which grow by doubling.
const MAX_BUFFER_BYTES: usize = 24 << 20;
/// Half to five quarters of the target size of a row group.
const ROW_GROUP: std::ops::Range<u64> = (16 << 20)..(40 << 20);

const ID: ColumnId = ColumnId(1);
const NOISE: ColumnId = ColumnId(2);
const TEXT: ColumnId = ColumnId(3);

fn spec() -> RegionSpec {
    let column = |id, name: &str, data_type| Column {
        id,
        name: name.to_owned(),
        data_type,
        nullable: id != ID,
        default: None,
    };
    let columns = vec![
        column(ID, "id", ColumnType::Int64),
        column(NOISE, "noise", ColumnType::Binary),
        column(TEXT, "text", ColumnType::Utf8),
    ];
    let schema = TableSchema::new(SchemaVersion(1), columns, vec![ID], None, ColumnId(4)).unwrap();
    RegionSpec {
        region_id: RegionId(1),
        table_id: TableId(1),
        incarnation: Incarnation(1),
        schema,
        options: TableOptions::upsert(),
        range: KeyRange::whole(),
        parents: Vec::new(),
    }
}

async fn region() -> Arc<Region> {
    let env = RegionEnv::new(
        Storage::memory(),
        Arc::new(SystemClock),
        Arc::new(SystemIds),
        MemoryBudget::new(1 << 30),
        EngineOptions::default(),
    );
    let region = Region::new(env, spec(), Sequence(0), Sequence(0)).unwrap();
    region.take_ownership(OwnerEpoch::default(), GroupId(1)).await.unwrap();
    region
}

/// Incompressible bytes: a xorshift with another seed for each row.
fn noise(id: i64, round: u64) -> Vec<u8> {
    let mut state = (id.unsigned_abs() + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round;
    let mut bytes = Vec::with_capacity(WIDE);
    while bytes.len() < WIDE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// Writes every `step`-th row; the keys of each write are spread over the range.
fn write(region: &Region, round: u64, step: i64) {
    // The same in every row: next to nothing in a file, but full size once it is read.
    let text = "t".repeat(WIDE);
    for write in 0..WRITES {
        let ids: Vec<i64> = (0..ROWS / step)
            .filter(|number| number % WRITES == write)
            .map(|number| number * step)
            .collect();
        let mut noises = BinaryBuilder::new();
        let mut texts = StringBuilder::new();
        for id in &ids {
            noises.append_value(noise(*id, round));
            texts.append_value(&text);
        }
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(ids)),
            Arc::new(noises.finish()),
            Arc::new(texts.finish()),
        ];
        let batch = RecordBatch::try_new(region.spec().schema.arrow(), arrays).unwrap();
        let entry = round * WRITES.unsigned_abs() + write.unsigned_abs() + 1;
        let sequence = Sequence(entry * Sequence::PER_ENTRY);
        region.apply(RowsWrite { sequence, epoch: Epoch(0), op: RowOp::Put, batch }).unwrap();
    }
}

/// Checks that all rows are returned, each from the round that `round` returns, in batches below
/// the limits.
async fn check(region: &Region, context: &str, round: impl Fn(i64) -> u64) {
    let mut rows = region.scan(&ScanOptions::all(vec![ID, NOISE, TEXT])).unwrap();
    let mut next = 0;
    while let Some(batch) = rows.try_next().await.unwrap() {
        let row_bytes = bytes_of(batch.columns(), 0..batch.num_rows());
        assert!(row_bytes <= MAX_ROW_BYTES, "{context}: a batch of {row_bytes} bytes");
        let buffer_bytes = batch.get_array_memory_size();
        assert!(buffer_bytes <= MAX_BUFFER_BYTES, "{context}: a batch holds {buffer_bytes} bytes");
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let noises = batch.column(1).as_binary::<i32>();
        let texts = batch.column(2).as_string::<i32>();
        for row in 0..batch.num_rows() {
            assert_eq!(ids.value(row), next, "{context}");
            assert!(noises.value(row) == noise(next, round(next)), "{context}: row {next}");
            assert_eq!(texts.value_length(row), i32::try_from(WIDE).unwrap(), "{context}");
            next += 1;
        }
    }
    assert_eq!(next, ROWS, "{context}");
}

fn check_row_groups(region: &Region, context: &str) {
    for file in region.files() {
        let bytes = file.rows * 2 * WIDE as u64 / u64::from(file.row_groups);
        assert!(ROW_GROUP.contains(&bytes), "{context}: row groups of {bytes} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wide_rows_are_processed_in_bounded_memory() {
    let region = region().await;
    write(&region, 0, 1);
    check(&region, "runs that overlap", |_| 0).await;
    region.flush().await.unwrap();
    assert_eq!(region.files().len(), 1);
    check_row_groups(&region, "after a flush");
    check(&region, "a file alone", |_| 0).await;

    write(&region, 1, 2);
    let newest = |id| u64::from(id % 2 == 0);
    check(&region, "a file and runs", newest).await;
    region.flush().await.unwrap();
    assert_eq!(region.files().len(), 2);
    check_row_groups(&region, "after the second flush");
    check(&region, "files that overlap", newest).await;

    let report = region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await.unwrap();
    assert_eq!(report.unwrap().files_in, 2);
    check_row_groups(&region, "after a compaction");
    check(&region, "after a compaction", newest).await;
}
