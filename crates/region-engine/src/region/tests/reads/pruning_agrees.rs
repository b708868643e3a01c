//! Pruned scans return the same rows as unpruned ones, for random values and predicates. Rows in memory
//! have no statistics, so a region that never flushes is the reference.

use std::sync::Arc;

use arrow::array::*;
use arrow::compute::concat_batches;
use arrow::datatypes::TimeUnit;
use futures::TryStreamExt;
use proptest::prelude::*;
use tidewater_common::ids::{ColumnId, Epoch, SchemaVersion, Sequence};
use tidewater_common::schema::{Column, ColumnType, TableSchema, WriteMode};

use crate::region::tests::fixture::{GROUP, env, owner, spec};
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{CompareOp, Predicate, Region, RegionSpec, RowsWrite, ScanOptions};

const KEY: ColumnId = ColumnId(1);
/// Number of distinct values of each column; a level identifies one of them.
const LEVELS: i64 = 12;

fn types() -> Vec<ColumnType> {
    vec![
        ColumnType::Int32,
        ColumnType::Int64,
        ColumnType::UInt64,
        ColumnType::Float64,
        ColumnType::Float32,
        ColumnType::Utf8,
        ColumnType::Binary,
        ColumnType::Decimal128(20, 3),
        ColumnType::Timestamp(TimeUnit::Second, Some("+00:00".into())),
        ColumnType::Date32,
        ColumnType::Bool,
    ]
}

fn double(level: i64) -> f64 {
    match level {
        0 => f64::NAN,
        1 => -f64::NAN,
        2 => -0.0,
        3 => 0.0,
        4 => f64::NEG_INFINITY,
        5 => f64::INFINITY,
        _ => (level - 8) as f64 / 2.0,
    }
}

/// Returns a text that is longer than the truncation limit of statistics, shares a prefix of that
/// length with others, or is empty.
fn text(level: i64) -> String {
    match level {
        0 => String::new(),
        1..=4 => format!("{}{level}", "é".repeat(60)),
        5 => "\u{10ffff}".repeat(40),
        _ => format!("{level}"),
    }
}

fn bytes(level: i64) -> Vec<u8> {
    match level {
        0 => vec![],
        1..=3 => [vec![255; 80], vec![level as u8]].concat(),
        _ => vec![level as u8 * 20, 0],
    }
}

/// Returns one value of a column as an array of one row.
fn value(data_type: &ColumnType, level: Option<i64>) -> ArrayRef {
    match data_type {
        ColumnType::Float64 => Arc::new(Float64Array::from(vec![level.map(double)])),
        ColumnType::Float32 => {
            Arc::new(Float32Array::from(vec![level.map(|level| double(level) as f32)]))
        }
        ColumnType::Utf8 => Arc::new(StringArray::from(vec![level.map(text)])),
        ColumnType::Binary => Arc::new(BinaryArray::from_iter(vec![level.map(bytes)])),
        ColumnType::Bool => Arc::new(BooleanArray::from(vec![level.map(|level| level % 2 == 0)])),
        ColumnType::UInt64 => {
            let far =
                |level: i64| if level % 2 == 0 { level as u64 } else { u64::MAX - level as u64 };
            Arc::new(UInt64Array::from(vec![level.map(far)]))
        }
        ColumnType::Date32 => {
            Arc::new(Date32Array::from(vec![level.map(|level| level as i32 - 5)]))
        }
        other => {
            let number = Int64Array::from(vec![level.map(|level| level - 5)]);
            arrow::compute::cast(&number, &other.arrow()).unwrap()
        }
    }
}

/// Returns the canonical text of a value.
fn canonical(data_type: &ColumnType, level: i64) -> String {
    match data_type {
        ColumnType::Binary => bytes(level).iter().map(|byte| format!("{byte:02x}")).collect(),
        ColumnType::Utf8 => text(level),
        ColumnType::Float64 | ColumnType::Float32 => {
            let number = double(level);
            if number.is_nan() { "NaN".to_owned() } else { format!("{number:?}") }
        }
        _ => {
            let array = value(data_type, Some(level));
            arrow::util::display::array_value_to_string(&array, 0).unwrap()
        }
    }
}

fn table(mode: WriteMode) -> RegionSpec {
    let mut columns = vec![Column {
        id: KEY,
        name: "key".to_owned(),
        data_type: ColumnType::Int64,
        nullable: false,
        default: None,
    }];
    columns.extend(types().into_iter().zip(2..).map(|(data_type, id)| Column {
        id: ColumnId(id),
        name: format!("c{id}"),
        data_type,
        nullable: true,
        default: None,
    }));
    let next = ColumnId(columns.len() as u32 + 1);
    let schema = TableSchema::new(SchemaVersion(1), columns, vec![KEY], None, next).unwrap();
    RegionSpec { schema, ..spec(mode, false) }
}

/// A write of keys from `first` on. Each column has its own level, which changes slowly from row to row,
/// so that pages differ.
#[derive(Debug, Clone)]
struct Write {
    first: i64,
    rows: i64,
    levels: Vec<Option<i64>>,
    every: i64,
    delete: bool,
    flush: bool,
}

fn batch(spec: &RegionSpec, write: &Write) -> RecordBatch {
    let keys: ArrayRef =
        Arc::new(Int64Array::from_iter_values(write.first..write.first + write.rows));
    if write.delete {
        return RecordBatch::try_new(spec.schema.key_arrow(), vec![keys]).unwrap();
    }
    let mut arrays = vec![keys];
    for (data_type, level) in types().iter().zip(&write.levels) {
        let values: Vec<ArrayRef> = (0..write.rows)
            .map(|row| {
                let level = level.map(|level| (level + row / write.every) % LEVELS);
                value(data_type, level.filter(|_| row % 7 != write.every % 7))
            })
            .collect();
        let values: Vec<&dyn Array> = values.iter().map(AsRef::as_ref).collect();
        arrays.push(arrow::compute::concat(&values).unwrap());
    }
    RecordBatch::try_new(spec.schema.arrow(), arrays).unwrap()
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let levels = prop::collection::vec(prop::option::weighted(0.9, 0..LEVELS), types().len());
    let write =
        (0_i64..300, 1_i64..120, levels, 3_i64..40, prop::bool::weighted(0.1), any::<bool>())
            .prop_map(|(first, rows, levels, every, delete, flush)| Write {
                first,
                rows,
                levels,
                every,
                delete,
                flush,
            });
    prop::collection::vec(write, 1..6)
}

fn predicates() -> impl Strategy<Value = Vec<Predicate>> {
    use CompareOp::{Eq, Ge, Gt, In, IsNotNull, IsNull, Le, Lt, Ne};
    let op = prop::sample::select(vec![Eq, Ne, Lt, Le, Gt, Ge, In, IsNull, IsNotNull]);
    let levels = prop::collection::vec(0..LEVELS, 1..4);
    let term = (0..types().len(), op, levels).prop_map(|(column, op, levels)| {
        let data_type = &types()[column];
        let taken = match op {
            In => levels.len(),
            IsNull | IsNotNull => 0,
            _ => 1,
        };
        let values = levels[..taken].iter().map(|level| canonical(data_type, *level)).collect();
        Predicate { column: ColumnId(column as u32 + 2), op, values }
    });
    let key = (prop::sample::select(vec![Lt, Ge, Eq]), 0_i64..300)
        .prop_map(|(op, value)| Predicate { column: KEY, op, values: vec![value.to_string()] });
    prop::collection::vec(prop_oneof![4 => term, 1 => key], 1..3)
}

async fn region(spec: &RegionSpec) -> Arc<Region> {
    let region =
        Region::new(env(Storage::memory()), spec.clone(), Sequence(0), Sequence(0)).unwrap();
    region.take_ownership(owner(1), GROUP).await.unwrap();
    region
}

async fn read(region: &Region, predicates: &[Predicate]) -> RecordBatch {
    let ids = region.spec().schema.columns().iter().map(|column| column.id).collect();
    let options = ScanOptions { predicates: predicates.to_vec(), ..ScanOptions::all(ids) };
    let batches: Vec<RecordBatch> = region.scan(&options).unwrap().try_collect().await.unwrap();
    concat_batches(&region.spec().schema.arrow(), &batches).unwrap()
}

async fn compare(writes: Vec<Write>, predicates: Vec<Vec<Predicate>>, mode: WriteMode) {
    let spec = table(mode);
    let pruned = region(&spec).await;
    let reference = region(&spec).await;
    for (write, sequence) in writes.iter().zip(1..) {
        if write.delete && mode == WriteMode::AppendOnly {
            continue;
        }
        let op = if write.delete { RowOp::Delete } else { RowOp::Put };
        for region in [&pruned, &reference] {
            let batch = batch(&spec, write);
            let sequence = Sequence(sequence);
            region.apply(RowsWrite { sequence, epoch: Epoch(0), op, batch }).unwrap();
        }
        if write.flush {
            pruned.flush().await.unwrap();
        }
    }
    for predicates in predicates {
        let (got, expected) =
            (read(&pruned, &predicates).await, read(&reference, &predicates).await);
        // Compared as text, because NaN does not equal NaN.
        let text = |batch: &RecordBatch| {
            arrow::util::pretty::pretty_format_batches(std::slice::from_ref(batch))
                .unwrap()
                .to_string()
        };
        assert_eq!(text(&got), text(&expected), "{predicates:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn pruned_and_unpruned_scans_agree(
        writes in writes(),
        predicates in prop::collection::vec(predicates(), 4),
        append_only in prop::bool::weighted(0.3),
    ) {
        let mode = if append_only { WriteMode::AppendOnly } else { WriteMode::Upsert };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(compare(writes, predicates, mode));
    }
}
