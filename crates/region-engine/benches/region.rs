//! Benchmark of apply, flush, scan, division and comparison with staged rows, on the engine's reference table: two
//! strings, a time, ten doubles.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, StringArray,
    TimestampMillisecondArray, UInt64Array,
};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{Float64Type, TimeUnit, TimestampMillisecondType};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures::TryStreamExt;
use tidewater_common::clock::SystemClock;
use tidewater_common::ids::{
    ColumnId, Epoch, GroupId, Incarnation, OwnerEpoch, RegionId, SchemaVersion, Sequence, TableId,
};
use tidewater_common::keys::{KeyCodec, KeyRange};
use tidewater_common::schema::{Column, ColumnType, TableOptions, TableSchema};
use tidewater_region_engine::bulk::BulkWriter;
use tidewater_region_engine::env::{EngineOptions, RegionEnv, SystemIds};
use tidewater_region_engine::manifest::AreaId;
use tidewater_region_engine::region::{ChangeCounts, ChangeOptions};
use tidewater_region_engine::storage::Storage;
use tidewater_region_engine::{MemoryBudget, Region, RegionSpec, RowOp, RowsWrite, ScanOptions};

const ROWS: usize = 1_000_000;
const WRITE_ROWS: usize = 8_192;
/// Runs of a region that is divided, and rows of each.
const DIVIDED_RUNS: usize = 64;
const DIVIDED_ROWS: usize = 100_000;

fn spec() -> RegionSpec {
    let column = |id: u32, name: &str, data_type| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type,
        nullable: id > 3,
        default: None,
    };
    let mut columns = vec![
        column(1, "host", ColumnType::Utf8),
        column(2, "region", ColumnType::Utf8),
        column(3, "ts", ColumnType::Timestamp(TimeUnit::Millisecond, None)),
    ];
    columns.extend((4..14).map(|id| column(id, &format!("v{id}"), ColumnType::Float64)));
    let key = vec![ColumnId(1), ColumnId(2), ColumnId(3)];
    let time = Some(ColumnId(3));
    let schema = TableSchema::new(SchemaVersion(1), columns, key, time, ColumnId(14)).unwrap();
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

/// Writes as a loader makes them: 400 hosts report once a second, and each write is sorted.
fn writes(spec: &RegionSpec, all_rows: usize, write_rows: usize) -> Vec<RowsWrite> {
    let codec = KeyCodec::new(&spec.schema, &spec.options).unwrap();
    (0..all_rows.div_ceil(write_rows))
        .map(|write| {
            let rows = write * write_rows..((write + 1) * write_rows).min(all_rows);
            let host = |row: usize| format!("host_{}", row * 7 % 400);
            let mut arrays: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from_iter_values(rows.clone().map(host))),
                Arc::new(StringArray::from_iter_values(
                    rows.clone().map(|row| format!("eu-{}", row * 7 % 4)),
                )),
                Arc::new(TimestampMillisecondArray::from_iter_values(
                    rows.clone().map(|row| 1_700_000_000_000 + (row / 400 * 1_000) as i64),
                )),
            ];
            arrays.extend((0..10).map(|column| {
                let value = |row: usize| ((row * 31 + column * 17) as f64).sin() * 100.0;
                Arc::new(Float64Array::from_iter_values(rows.clone().map(value))) as ArrayRef
            }));
            let batch = RecordBatch::try_new(spec.schema.arrow(), arrays).unwrap();
            RowsWrite {
                sequence: Sequence((write as u64 + 1) * Sequence::PER_ENTRY),
                epoch: Epoch(0),
                op: RowOp::Put,
                batch: codec.sorted(&batch).unwrap(),
            }
        })
        .collect()
}

fn env() -> RegionEnv {
    RegionEnv::new(
        Storage::memory(),
        Arc::new(SystemClock),
        Arc::new(SystemIds),
        MemoryBudget::new(8 << 30),
        EngineOptions::default(),
    )
}

async fn region(spec: &RegionSpec) -> Arc<Region> {
    let region = Region::new(env(), spec.clone(), Sequence(0), Sequence(0)).unwrap();
    region.take_ownership(OwnerEpoch::default(), GroupId(1)).await.unwrap();
    region
}

async fn filled(spec: &RegionSpec, writes: &[RowsWrite]) -> Arc<Region> {
    let region = region(spec).await;
    for write in writes {
        region.apply(write.clone()).unwrap();
        if region.is_merge_due() {
            region.merge_runs().await.unwrap();
        }
    }
    region
}

async fn scan(region: &Region) -> usize {
    let ids = region.spec().schema.columns().iter().map(|column| column.id).collect();
    let mut rows = region.scan(&ScanOptions::all(ids)).unwrap();
    let mut total = 0;
    while let Some(batch) = rows.try_next().await.unwrap() {
        total += batch.num_rows();
    }
    assert!(total > 0);
    total
}

/// Divides regions whose runs are single writes, or were merged of 16 writes.
fn division(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let spec = spec();
    let env = env();
    let codec = KeyCodec::new(&spec.schema, &spec.options).unwrap();
    let mut group = criterion.benchmark_group("64 runs of 100,000 rows of 13 columns");
    for (name, write_rows) in
        [("divide written runs", DIVIDED_ROWS), ("divide merged runs", DIVIDED_ROWS / 16)]
    {
        let writes = writes(&spec, DIVIDED_ROWS, write_rows);
        let batch = &writes[0].batch;
        let cut = codec.row_key(&codec.key_columns(batch), batch.num_rows() / 2).unwrap();
        let run = runtime.block_on(filled(&spec, &writes)).unflushed();
        assert_eq!((run.len(), run[0].rows()), (1, DIVIDED_ROWS));
        let child = |id, range| RegionSpec { region_id: RegionId(id), range, ..spec.clone() };
        let setup = || {
            let parent = Region::new(env.clone(), spec.clone(), Sequence(0), Sequence(0)).unwrap();
            parent.restore(vec![run[0].clone(); DIVIDED_RUNS]);
            let low = child(2, KeyRange::new(Vec::new(), Some(cut.clone())));
            (parent, vec![low, child(3, KeyRange::new(cut.clone(), None))])
        };
        let divide = |(parent, children): (Arc<Region>, Vec<RegionSpec>)| {
            let children = parent.divide(Sequence(0), children).unwrap();
            (parent, children)
        };
        group.bench_function(name, |bencher| {
            bencher.iter_batched(setup, divide, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// Stages rows in an area, each in one of `files` series of files in turn.
async fn stage(region: &Region, env: &RegionEnv, rows: &RecordBatch, files: usize) -> AreaId {
    let area = AreaId(env.ids.random());
    region.open_unlogged_area(area, u64::MAX).await.unwrap();
    for file in 0..files {
        let own =
            UInt64Array::from_iter_values((file as u64..rows.num_rows() as u64).step_by(files));
        let batch = take_record_batch(rows, &own).unwrap();
        let writer = BulkWriter::new(env.clone(), region.spec()).unwrap();
        let written = writer.write([batch]).await.unwrap();
        region.stage_files(area, &written).await.unwrap();
    }
    area
}

/// Returns the rows with 1 % of them changed: of each 1,000, eight have another value, one is lacking and one has
/// another key.
fn with_changes(rows: &RecordBatch) -> RecordBatch {
    let mut columns = rows.columns().to_vec();
    let times = columns[2].as_primitive::<TimestampMillisecondType>().values().iter().enumerate();
    let times = times.map(|(row, time)| if row % 1_000 == 900 { time + 1 } else { *time });
    columns[2] = Arc::new(TimestampMillisecondArray::from_iter_values(times));
    let values = columns[3].as_primitive::<Float64Type>().values().iter().enumerate();
    let values = values.map(|(row, v)| if row % 100 == 50 && row % 1_000 < 800 { -v } else { *v });
    columns[3] = Arc::new(Float64Array::from_iter_values(values));
    let kept: BooleanArray = (0..rows.num_rows()).map(|row| Some(row % 1_000 != 950)).collect();
    filter_record_batch(&RecordBatch::try_new(rows.schema(), columns).unwrap(), &kept).unwrap()
}

async fn compare(region: &Arc<Region>, area: AreaId) -> ChangeCounts {
    let options = ChangeOptions {
        range: KeyRange::whole(),
        after: None,
        chunk_rows: 100_000,
        chunk_bytes: 4 << 20,
    };
    let mut changes = region.staged_changes(area, options).await.unwrap();
    let mut counts = ChangeCounts::default();
    while let Some(chunk) = changes.next().await.unwrap() {
        counts += chunk.counts;
    }
    counts
}

/// Compares the files of a region with staged ones, of which one has all rows or four overlap.
fn comparison(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let spec = spec();
    let env = env();
    let region = Region::new(env.clone(), spec.clone(), Sequence(0), Sequence(0)).unwrap();
    runtime.block_on(region.take_ownership(OwnerEpoch::default(), GroupId(1))).unwrap();
    let [write] = writes(&spec, ROWS, ROWS).try_into().unwrap();
    let rows = write.batch.clone();
    region.apply(write).unwrap();
    runtime.block_on(region.flush()).unwrap();
    let changed = with_changes(&rows);
    let mut group = criterion.benchmark_group("compare 1M rows of 13 columns");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(10);
    for (name, rows, files) in [
        ("unchanged, 1 staged file", &rows, 1),
        ("1 % changed, 1 staged file", &changed, 1),
        ("unchanged, 4 staged files", &rows, 4),
        ("1 % changed, 4 staged files", &changed, 4),
    ] {
        let area = runtime.block_on(stage(&region, &env, rows, files));
        let counts = runtime.block_on(compare(&region, area));
        assert_eq!(counts.unchanged, if name.starts_with('1') { 990_000 } else { 1_000_000 });
        group.bench_function(name, |bencher| {
            bencher.to_async(&runtime).iter(|| compare(&region, area));
        });
    }
    let area = runtime.block_on(stage(&region, &env, &rows.slice(0, 1), 1));
    group.bench_function("1 staged row", |bencher| {
        bencher.to_async(&runtime).iter(|| compare(&region, area));
    });
    group.finish();
}

fn benches(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let spec = spec();
    let writes = writes(&spec, ROWS, WRITE_ROWS);
    let mut group = criterion.benchmark_group("1M rows of 13 columns");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(10);
    group.bench_function("apply", |bencher| {
        let setup = || runtime.block_on(region(&spec));
        let apply = |region: Arc<Region>| {
            for write in &writes {
                region.apply(write.clone()).unwrap();
            }
            region
        };
        bencher.iter_batched(setup, apply, BatchSize::PerIteration);
    });
    group.bench_function("apply and merge runs", |bencher| {
        bencher.to_async(&runtime).iter(|| filled(&spec, &writes));
    });
    group.bench_function("flush", |bencher| {
        let setup = || runtime.block_on(filled(&spec, &writes));
        let flush = |region: Arc<Region>| runtime.block_on(region.flush()).unwrap();
        bencher.iter_batched(setup, flush, BatchSize::PerIteration);
    });
    let region = runtime.block_on(filled(&spec, &writes));
    group.bench_function("scan of the memtable", |bencher| {
        bencher.to_async(&runtime).iter(|| scan(&region));
    });
    runtime.block_on(region.flush()).unwrap();
    group.bench_function("scan of files", |bencher| {
        bencher.to_async(&runtime).iter(|| scan(&region));
    });
    group.finish();
}

criterion_group!(region_benches, benches, division, comparison);
criterion_main!(region_benches);
