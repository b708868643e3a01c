//! A region in a local directory: writes overlapping files and compacts them.

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

/// Series that report at each timestamp.
const HOSTS: u64 = 400;
/// Rows per write.
const WRITE_ROWS: u64 = 8_192;
/// Number columns, in addition to two text columns and one time column.
const NUMBERS: u32 = 10;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Distribution of the rows over the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Each file holds one time slice of every series, as flushes produce.
    Slices,
    /// Rows are dealt to the files in turn: the worst case of a merge.
    Interleaved,
}

/// Region of two strings, a time and ten doubles, ordered by host, zone and time.
fn spec() -> Result<RegionSpec, BoxError> {
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
        parents: Vec::new(),
    })
}

async fn open(dir: &Path, term: u64) -> Result<Arc<Region>, BoxError> {
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
) -> Result<(), BoxError> {
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
            region.apply(RowsWrite {
                sequence: Sequence(sequence),
                epoch: Epoch(0),
                op: RowOp::Put,
                batch,
            })?;
        }
        region.flush().await?;
    }
    Ok(())
}

fn batch(spec: &RegionSpec, rows: &[u64]) -> Result<RecordBatch, BoxError> {
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

/// Compacts all files into one sorted run.
pub(super) async fn compact(dir: &Path) -> Result<(CompactionReport, Duration), BoxError> {
    let region = open(dir, 2).await?;
    let started = Instant::now();
    let report = region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await?;
    let elapsed = started.elapsed();
    Ok((report.ok_or("nothing to compact")?, elapsed))
}
