//! Benchmark of apply, flush, scan and division, on the engine's reference table: two strings, a time, ten
//! doubles.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::TimeUnit;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures::TryStreamExt;
use tidewater_common::clock::SystemClock;
use tidewater_common::ids::{
    ColumnId, Epoch, GroupId, Incarnation, OwnerEpoch, RegionId, SchemaVersion, Sequence, TableId,
};
use tidewater_common::keys::{KeyCodec, KeyRange};
use tidewater_common::schema::{Column, ColumnType, TableOptions, TableSchema, WriteMode};
use tidewater_region_engine::env::{EngineOptions, RegionEnv, SystemIds};
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
        options: TableOptions {
            write_mode: WriteMode::Upsert,
            hash: None,
            ttl_ms: None,
            refreshable: false,
        },
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

criterion_group!(region_benches, benches, division);
criterion_main!(region_benches);
