//! Benchmark of the count of a region's load, in comparison with the application of the same writes to a memtable. Times
//! are those of 1,000 writes of 100 rows; the throughput gives the time of a row.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::TimeUnit;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tidewater_common::clock::SystemClock;
use tidewater_common::ids::{
    ColumnId, Epoch, GroupId, Incarnation, OwnerEpoch, RegionId, SchemaVersion, Sequence, TableId,
};
use tidewater_common::keys::{KeyCodec, KeyRange};
use tidewater_common::schema::{Column, ColumnType, TableOptions, TableSchema};
use tidewater_data_node::group::region_load::RegionLoad;
use tidewater_region_engine::env::{EngineOptions, RegionEnv, SystemIds};
use tidewater_region_engine::storage::Storage;
use tidewater_region_engine::{MemoryBudget, Region, RegionSpec, RowOp, RowsWrite};

const WRITES: usize = 1_000;
const WRITE_ROWS: usize = 100;

/// Table of a host, a time and a value: the fewer columns, the greater the share of the count.
fn spec() -> RegionSpec {
    let column = |id: u32, name: &str, data_type| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        data_type,
        nullable: id > 2,
        default: None,
    };
    let columns = vec![
        column(1, "host", ColumnType::Utf8),
        column(2, "ts", ColumnType::Timestamp(TimeUnit::Millisecond, None)),
        column(3, "value", ColumnType::Float64),
    ];
    let key = vec![ColumnId(1), ColumnId(2)];
    let time = Some(ColumnId(2));
    RegionSpec {
        region_id: RegionId(1),
        table_id: TableId(1),
        incarnation: Incarnation(1),
        schema: TableSchema::new(SchemaVersion(1), columns, key, time, ColumnId(4)).unwrap(),
        options: TableOptions::upsert(),
        range: KeyRange::whole(),
        parents: Vec::new(),
    }
}

/// Sorted writes of 400 hosts that report once a second.
fn writes(spec: &RegionSpec, codec: &KeyCodec) -> Vec<RowsWrite> {
    let write = |write: usize| {
        let rows = write * WRITE_ROWS..(write + 1) * WRITE_ROWS;
        let host = |row: usize| format!("host_{}", row * 7 % 400);
        let time = |row: usize| 1_700_000_000_000 + (row / 400 * 1_000) as i64;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.clone().map(host))),
            Arc::new(TimestampMillisecondArray::from_iter_values(rows.clone().map(time))),
            Arc::new(Float64Array::from_iter_values(rows.map(|row| (row as f64).sin()))),
        ];
        let batch = RecordBatch::try_new(spec.schema.arrow(), columns).unwrap();
        RowsWrite {
            sequence: Sequence((write as u64 + 1) * Sequence::PER_ENTRY),
            epoch: Epoch(0),
            op: RowOp::Put,
            batch: codec.sorted(&batch).unwrap(),
        }
    };
    (0..WRITES).map(write).collect()
}

/// Counts a write as the apply of a group does.
fn count(load: &RegionLoad, codec: &KeyCodec, batch: &RecordBatch) {
    let keys = codec.key_columns(batch);
    load.record_writes(batch.num_rows(), |row| codec.row_key(&keys, row).ok());
}

fn benches(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let spec = spec();
    let codec = KeyCodec::new(&spec.schema, &spec.options).unwrap();
    let writes = writes(&spec, &codec);
    let env = RegionEnv::new(
        Storage::memory(),
        Arc::new(SystemClock),
        Arc::new(SystemIds),
        MemoryBudget::new(8 << 30),
        EngineOptions::default(),
    );
    let region = || {
        let region = Region::new(env.clone(), spec.clone(), Sequence(0), Sequence(0)).unwrap();
        runtime.block_on(region.take_ownership(OwnerEpoch::default(), GroupId(1))).unwrap();
        region
    };
    let mut group = criterion.benchmark_group("1,000 writes of 100 rows of 3 columns");
    group.throughput(Throughput::Elements((WRITES * WRITE_ROWS) as u64));
    group.bench_function("count in an empty window", |bencher| {
        let count_all = |load: RegionLoad| {
            for write in &writes {
                count(&load, &codec, &write.batch);
            }
            load
        };
        bencher.iter_batched(|| RegionLoad::new(1), count_all, BatchSize::SmallInput);
    });
    // A window begins with a quarter of the distances between samples that the one before has ended with.
    group.bench_function("count in successive windows", |bencher| {
        let load = RegionLoad::new(1);
        bencher.iter(|| {
            for write in &writes {
                count(&load, &codec, &write.batch);
            }
            load.take()
        });
    });
    group.bench_function("apply", |bencher| {
        let apply = |region: Arc<Region>| {
            for write in &writes {
                region.apply(write.clone()).unwrap();
            }
            region
        };
        bencher.iter_batched(region, apply, BatchSize::PerIteration);
    });
    group.bench_function("apply and count", |bencher| {
        let load = RegionLoad::new(1);
        let apply = |region: Arc<Region>| {
            for write in &writes {
                region.apply(write.clone()).unwrap();
                count(&load, &codec, &write.batch);
            }
            (region, load.take())
        };
        bencher.iter_batched(region, apply, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(region_load_benches, benches);
criterion_main!(region_load_benches);
