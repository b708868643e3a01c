//! A region in a directory: its rows, written as files that overlap, and the merge of them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::TimeUnit;
use tidewater_common::clock::SystemClock;
use tidewater_common::ids::{
    ColumnId, Epoch, GroupId, Incarnation, OwnerEpoch, RegionId, SchemaVersion, Sequence, TableId,
    Term,
};
use tidewater_common::keys::{KeyCodec, KeyRange};
use tidewater_common::schema::{Column, ColumnType, TableOptions, TableSchema};
use tidewater_region_engine::compaction::{Attempt, Scope};
use tidewater_region_engine::env::{EngineOptions, RegionEnv, SystemIds};
use tidewater_region_engine::storage::Storage;
use tidewater_region_engine::{
    CompactionReport, MemoryBudget, Region, RegionSpec, RowOp, RowsWrite,
};

/// Series that report at the same time.
const HOSTS: u64 = 400;
/// Rows of a write.
const WRITE_ROWS: u64 = 8_192;
/// Columns of numbers beside two of text and one of time.
const NUMBERS: u32 = 10;

type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Which rows meet in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Each file has a stretch of time of every series, as flushes do.
    Slices,
    /// Each file has every so many-th row: the worst that can be merged.
    Interleaved,
}

/// Two strings, a time, ten doubles; by host, then region, then time.
fn spec() -> Result<RegionSpec, Problem> {
    let column = |id: u32, name: String, data_type| Column {
        id: ColumnId(id),
        name,
        data_type,
        nullable: id > 3,
        default: None,
    };
    let mut columns = vec![
        column(1, "host".to_owned(), ColumnType::Utf8),
        column(2, "zone".to_owned(), ColumnType::Utf8),
        column(3, "ts".to_owned(), ColumnType::Timestamp(TimeUnit::Millisecond, None)),
    ];
    let numbers = 4..4 + NUMBERS;
    columns.extend(numbers.map(|id| column(id, format!("v{}", id - 3), ColumnType::Float64)));
    let key = vec![ColumnId(1), ColumnId(2), ColumnId(3)];
    let next = ColumnId(4 + NUMBERS);
    let schema = TableSchema::new(SchemaVersion(1), columns, key, Some(ColumnId(3)), next)?;
    Ok(RegionSpec {
        region_id: RegionId(1),
        table_id: TableId(1),
        incarnation: Incarnation(1),
        schema,
        options: TableOptions::upsert(),
        range: KeyRange::whole(),
    })
}

async fn open(dir: &Path, term: u64) -> Result<Arc<Region>, Problem> {
    std::fs::create_dir_all(dir)?;
    let dir = dir.canonicalize()?;
    let storage = Storage::open(&format!("file://{}", dir.display())).await?;
    let env = RegionEnv::new(
        storage,
        Arc::new(SystemClock),
        Arc::new(SystemIds),
        MemoryBudget::new(8 << 30),
        EngineOptions::default(),
    );
    let region = Region::new(env, spec()?, Sequence(0), Sequence(0))?;
    let epoch = OwnerEpoch { move_epoch: 0, term: Term(term) };
    region.take_ownership(epoch, GroupId(1)).await?;
    Ok(region)
}

/// Writes `rows` rows as `files` flushes.
pub(super) async fn prepare(
    dir: &Path,
    rows: u64,
    files: u64,
    layout: Layout,
) -> Result<(), Problem> {
    let region = open(dir, 1).await?;
    let spec = region.spec().clone();
    let codec = KeyCodec::new(&spec.schema, &spec.options)?;
    let each = rows / files.max(1);
    let mut sequence = 0;
    for file in 0..files {
        for first in (0..each).step_by(usize::try_from(WRITE_ROWS)?) {
            let numbers = (first..(first + WRITE_ROWS).min(each)).map(|row| match layout {
                Layout::Slices => file * each + row,
                Layout::Interleaved => row * files + file,
            });
            sequence += Sequence::PER_ENTRY;
            let batch = codec.sorted(&batch(&spec, &numbers.collect::<Vec<_>>())?)?;
            let (sequence, epoch) = (Sequence(sequence), Epoch(0));
            region.apply(RowsWrite { sequence, epoch, op: RowOp::Put, batch })?;
        }
        region.flush().await?;
    }
    Ok(())
}

fn batch(spec: &RegionSpec, rows: &[u64]) -> Result<RecordBatch, Problem> {
    let host = |row: &u64| row % HOSTS;
    let at = |row: &u64| 1_700_000_000_000_i64 + i64::try_from(row / HOSTS).unwrap_or(0) * 1_000;
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(
            rows.iter().map(|row| format!("host_{}", host(row))),
        )),
        Arc::new(StringArray::from_iter_values(
            rows.iter().map(|row| format!("zone-{}", host(row) % 4)),
        )),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(at))),
    ];
    arrays.extend((0..NUMBERS).map(|column| {
        let value = |row: &u64| ((row * 31 + u64::from(column) * 17) as f64).sin() * 100.0;
        Arc::new(Float64Array::from_iter_values(rows.iter().map(value))) as ArrayRef
    }));
    Ok(RecordBatch::try_new(spec.schema.arrow(), arrays)?)
}

/// Merges all files into one run.
pub(super) async fn merge(dir: &Path) -> Result<(CompactionReport, Duration), Problem> {
    let region = open(dir, 2).await?;
    let started = Instant::now();
    let report = region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await?;
    let elapsed = started.elapsed();
    Ok((report.ok_or("there was nothing to merge")?, elapsed))
}
