//! Scans of little memory, and scans in any order, return the rows of an unlimited scan.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::TimeUnit;
use futures::TryStreamExt;
use proptest::prelude::*;
use tidewater_common::ids::{ColumnId, Epoch, SchemaVersion, Sequence};
use tidewater_common::schema::{ColumnType, TableSchema, WriteMode};

use crate::read::memory::{ScanAccount, ScanMemory};
use crate::region::tests::fixture::{GROUP, column, env, owner, spec};
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{
    CompareOp, EngineError, Predicate, Region, RegionSpec, RowOrder, RowsWrite, ScanMeter,
    ScanOptions,
};

const DEVICE: ColumnId = ColumnId(1);
const AT: ColumnId = ColumnId(2);
const VALUE: ColumnId = ColumnId(3);
const NOTE: ColumnId = ColumnId(4);
const KIB: u64 = 1_024;

fn table(mode: WriteMode, time_in_key: bool) -> RegionSpec {
    let columns = vec![
        column(DEVICE, "device", ColumnType::Int64, false),
        column(AT, "at", ColumnType::Timestamp(TimeUnit::Millisecond, None), false),
        column(VALUE, "value", ColumnType::Int64, true),
        column(NOTE, "note", ColumnType::Utf8, false),
    ];
    let key = if time_in_key { vec![DEVICE, AT] } else { vec![DEVICE] };
    let schema = TableSchema::new(SchemaVersion(1), columns, key, Some(AT), ColumnId(5)).unwrap();
    RegionSpec { schema, ..spec(mode, false) }
}

/// Memory of which sources may hold this much.
fn memory(sources: u64) -> ScanMemory {
    ScanMemory::new(2 * sources)
}

/// Rows of one write: devices `first ..`, all at the times of one window.
#[derive(Debug, Clone)]
struct Write {
    first: i64,
    devices: i64,
    window: i64,
    steps: i64,
    delete: bool,
    flush: bool,
}

fn batch(spec: &RegionSpec, write: &Write, value: i64) -> RecordBatch {
    let time_in_key = spec.schema.primary_key().len() == 2;
    let steps = if time_in_key { write.steps } else { 1 };
    let keys: Vec<(i64, i64)> = (write.first..write.first + write.devices)
        .flat_map(|device| (0..steps).map(move |step| (device, write.window * 100 + step * 7)))
        .collect();
    let devices: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.iter().map(|key| key.0)));
    let times: ArrayRef =
        Arc::new(TimestampMillisecondArray::from_iter_values(keys.iter().map(|key| key.1)));
    if write.delete {
        let arrays = if time_in_key { vec![devices, times] } else { vec![devices] };
        return RecordBatch::try_new(spec.schema.key_arrow(), arrays).unwrap();
    }
    let values: ArrayRef =
        Arc::new(Int64Array::from_iter(keys.iter().map(|key| (key.0 % 5 != 0).then_some(value))));
    let notes: ArrayRef = Arc::new(StringArray::from_iter_values(
        keys.iter().map(|key| "n".repeat(key.0 as usize % 9)),
    ));
    RecordBatch::try_new(spec.schema.arrow(), vec![devices, times, values, notes]).unwrap()
}

async fn region(spec: &RegionSpec, writes: &[Write]) -> Arc<Region> {
    let region =
        Region::new(env(Storage::memory()), spec.clone(), Sequence(0), Sequence(0)).unwrap();
    region.take_ownership(owner(1), GROUP).await.unwrap();
    for (write, sequence) in writes.iter().zip(1_u64..) {
        let deletes = write.delete && spec.options.write_mode == WriteMode::Upsert;
        let write = Write { delete: deletes, ..write.clone() };
        let op = if deletes { RowOp::Delete } else { RowOp::Put };
        let batch = batch(spec, &write, sequence as i64);
        let sequence = Sequence(sequence);
        region.apply(RowsWrite { sequence, epoch: Epoch(0), op, batch }).unwrap();
        if write.flush {
            region.flush().await.unwrap();
        }
    }
    region
}

fn options(predicates: &[Predicate], batch_rows: usize) -> ScanOptions {
    let columns = vec![DEVICE, AT, VALUE, NOTE];
    ScanOptions { predicates: predicates.to_vec(), batch_rows, ..ScanOptions::all(columns) }
}

async fn read(region: &Region, options: &ScanOptions) -> RecordBatch {
    let batches: Vec<RecordBatch> = region.scan(options).unwrap().try_collect().await.unwrap();
    concat_batches(&region.spec().schema.arrow(), &batches).unwrap()
}

/// Rows as text, in the order of their text.
fn sorted(batch: &RecordBatch) -> Vec<String> {
    let text = arrow::util::pretty::pretty_format_batches(std::slice::from_ref(batch)).unwrap();
    let mut lines: Vec<String> = text.to_string().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Compares scans with an account of this memory to unlimited ones.
async fn compare(
    region: &Region,
    predicates: &[Predicate],
    batch_rows: usize,
    account: &ScanAccount,
) {
    let unlimited = options(predicates, batch_rows);
    let expected = read(region, &unlimited).await;
    let bounded = ScanOptions { account: account.clone(), ..unlimited };
    assert_eq!(read(region, &bounded).await, expected, "in key order");
    let any_order = ScanOptions { order: RowOrder::Any, ..bounded.clone() };
    assert_eq!(sorted(&read(region, &any_order).await), sorted(&expected), "in any order");
    let count = region.count(&bounded).await.unwrap();
    assert_eq!(count, expected.num_rows() as u64, "counted");
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let write = (0_i64..30, 1_i64..40, 0_i64..5, 1_i64..4, any::<bool>(), any::<bool>()).prop_map(
        |(first, devices, window, steps, delete, flush)| {
            let delete = delete && steps == 1;
            Write { first, devices, window, steps, delete, flush: flush || delete }
        },
    );
    prop::collection::vec(write, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn bounded_and_unlimited_scans_agree(
        writes in writes(),
        append_only in prop::bool::weighted(0.3),
        time_in_key in prop::bool::weighted(0.7),
        batch_rows in 1_usize..40,
        extra in 0_u64..30,
        device in prop::option::of(0_i64..40),
        value in prop::option::of(1_i64..12),
    ) {
        let mode = if append_only { WriteMode::AppendOnly } else { WriteMode::Upsert };
        let term = |column, value: Option<i64>| {
            value.map(|value| Predicate { column, op: CompareOp::Ge, values: vec![value.to_string()] })
        };
        let predicates: Vec<Predicate> =
            term(DEVICE, device).into_iter().chain(term(VALUE, value)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let region = region(&table(mode, time_in_key), &writes).await;
            // Little more than the open sources take without rows.
            let memory = memory((17 + extra) * KIB * writes.len() as u64);
            compare(&region, &predicates, batch_rows, &memory.account()).await;
            assert_eq!(memory.used(), 0, "memory is released");
        });
    }
}

/// Writes of time windows that all span the same devices, each flushed.
fn windows(count: i64) -> Vec<Write> {
    let window =
        |window| Write { first: 0, devices: 30, window, steps: 3, delete: false, flush: true };
    (0..count).map(window).collect()
}

#[tokio::test]
async fn count_reads_no_file_when_windows_share_no_key() {
    for mode in [WriteMode::Upsert, WriteMode::AppendOnly] {
        let region = region(&table(mode, true), &windows(6)).await;
        // All of it is taken: the numbers of rows are in the manifest.
        let memory = memory(4 * KIB);
        let _held = memory.account().sources.lease(4 * KIB, 0, Duration::ZERO).await.unwrap();
        let counted = ScanOptions { account: memory.account(), ..options(&[], 10) };
        assert_eq!(region.count(&counted).await.unwrap(), 6 * 90, "{mode:?}");
    }
}

#[tokio::test]
async fn scan_in_any_order_holds_one_window() {
    let region = region(&table(WriteMode::Upsert, true), &windows(20)).await;
    let memory = memory(200 * KIB);
    let any_order =
        ScanOptions { order: RowOrder::Any, account: memory.account(), ..options(&[], 10) };
    let mut rows = region.scan(&any_order).unwrap();
    let mut most = 0;
    while rows.try_next().await.unwrap().is_some() {
        most = most.max(memory.used());
    }
    assert!(most > 0 && most < 100 * KIB, "{most}");
    let by_key = ScanOptions { order: RowOrder::Key, ..any_order };
    let mut rows = region.scan(&by_key).unwrap();
    rows.try_next().await.unwrap();
    assert!(memory.used() > 150 * KIB, "20 files are open: {}", memory.used());
}

#[tokio::test]
async fn window_without_overlap_is_filtered_by_any_column() {
    let region = region(&table(WriteMode::Upsert, true), &windows(6)).await;
    // The value of a window is the number of its write.
    let of_third = Predicate { column: VALUE, op: CompareOp::Eq, values: vec!["3".to_owned()] };
    let meter = ScanMeter::default();
    let options = options(&[of_third], 100);
    let rows: Vec<RecordBatch> =
        region.scan_metered(&options, &meter).unwrap().try_collect().await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 24 * 3);
    assert_eq!(meter.stats().row_groups_pruned, 5 * 3, "{:?}", meter.stats());
}

#[tokio::test(start_paused = true)]
async fn scan_without_memory_is_refused_with_a_remedy() {
    let region = region(&table(WriteMode::Upsert, false), &windows(4)).await;
    let memory = memory(100 * KIB);
    let account = memory.account();
    let _held = account.sources.lease(100 * KIB, 0, Duration::ZERO).await.unwrap();
    let options = ScanOptions { account, ..options(&[], 10) };
    let begun = tokio::time::Instant::now();
    let refused = region.scan(&options).unwrap().try_next().await.unwrap_err();
    assert!(matches!(refused, EngineError::ScanMemory { .. }), "{refused}");
    assert!(refused.to_string().contains("--scan-memory"), "{refused}");
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    // Far more sources than the memory of all scans.
    let little = ScanMemory::new(16 * KIB).account();
    let options = ScanOptions { account: little, ..options };
    let refused = region.scan(&options).unwrap().try_next().await.unwrap_err();
    assert!(matches!(refused, EngineError::ScanTooLarge { .. }), "{refused}");
}
