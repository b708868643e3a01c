//! Round trip of every column type, through memory and through a file.

use std::sync::Arc;

use arrow::array::*;
use arrow::compute::concat_batches;
use arrow::datatypes::TimeUnit;
use futures::TryStreamExt;
use tidewater_common::ids::{ColumnId, Epoch, SchemaVersion, Sequence};
use tidewater_common::schema::{Column, ColumnType, TableSchema, WriteMode};

use crate::region::tests::fixture::{GROUP, env, owner, spec};
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{CompareOp, Predicate, Region, RowsWrite, ScanOptions};

fn samples() -> Vec<(ColumnType, ArrayRef)> {
    let zone: Arc<str> = "+01:00".into();
    let mut samples: Vec<(ColumnType, ArrayRef)> = vec![
        (ColumnType::Bool, Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        (ColumnType::Int8, Arc::new(Int8Array::from(vec![Some(i8::MIN), None, Some(i8::MAX)]))),
        (ColumnType::Int16, Arc::new(Int16Array::from(vec![Some(i16::MIN), None, Some(i16::MAX)]))),
        (ColumnType::Int32, Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(i32::MAX)]))),
        (ColumnType::Int64, Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)]))),
        (ColumnType::UInt8, Arc::new(UInt8Array::from(vec![Some(0), None, Some(u8::MAX)]))),
        (ColumnType::UInt16, Arc::new(UInt16Array::from(vec![Some(0), None, Some(u16::MAX)]))),
        (ColumnType::UInt32, Arc::new(UInt32Array::from(vec![Some(0), None, Some(u32::MAX)]))),
        (ColumnType::UInt64, Arc::new(UInt64Array::from(vec![Some(0), None, Some(u64::MAX)]))),
        (ColumnType::Float32, Arc::new(Float32Array::from(vec![Some(f32::MIN), None, Some(-0.0)]))),
        (
            ColumnType::Float64,
            Arc::new(Float64Array::from(vec![Some(f64::INFINITY), None, Some(f64::MIN_POSITIVE)])),
        ),
        (ColumnType::Utf8, Arc::new(StringArray::from(vec![Some(""), None, Some("é\0x")]))),
        (
            ColumnType::Binary,
            Arc::new(BinaryArray::from(vec![Some(&b""[..]), None, Some(&[0, 255][..])])),
        ),
        (ColumnType::Date32, Arc::new(Date32Array::from(vec![Some(-1), None, Some(20_000)]))),
        (
            ColumnType::Decimal128(38, 10),
            Arc::new(
                Decimal128Array::from(vec![Some(-1), None, Some(i128::MAX / 10)])
                    .with_precision_and_scale(38, 10)
                    .unwrap(),
            ),
        ),
        (
            ColumnType::Decimal128(9, 2),
            Arc::new(
                Decimal128Array::from(vec![Some(-1), None, Some(999_999_999)])
                    .with_precision_and_scale(9, 2)
                    .unwrap(),
            ),
        ),
    ];
    for unit in
        [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond]
    {
        for zone in [None, Some(zone.clone())] {
            let data_type = ColumnType::Timestamp(unit, zone);
            let values = Int64Array::from(vec![Some(-1), None, Some(1_700_000_000_123)]);
            let array = arrow::compute::cast(&values, &data_type.arrow()).unwrap();
            samples.push((data_type, array));
        }
    }
    samples
}

fn make() -> (crate::RegionSpec, RecordBatch, Vec<ColumnId>) {
    let samples = samples();
    let mut columns = vec![Column {
        id: ColumnId(1),
        name: "key".to_owned(),
        data_type: ColumnType::Int32,
        nullable: false,
        default: None,
    }];
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(vec![1, 2, 3]))];
    for (index, (data_type, array)) in samples.into_iter().enumerate() {
        let id = ColumnId(u32::try_from(index).unwrap() + 2);
        columns.push(Column {
            id,
            name: format!("c{id}"),
            data_type,
            nullable: true,
            default: None,
        });
        arrays.push(array);
    }
    let next = ColumnId(u32::try_from(columns.len()).unwrap() + 1);
    let ids = columns.iter().map(|column| column.id).collect();
    let schema =
        TableSchema::new(SchemaVersion(1), columns, vec![ColumnId(1)], None, next).unwrap();
    let batch = RecordBatch::try_new(schema.arrow(), arrays).unwrap();
    (crate::RegionSpec { schema, ..spec(WriteMode::Upsert, false) }, batch, ids)
}

async fn read(region: &Region, ids: &[ColumnId]) -> RecordBatch {
    let stream = region.scan(&ScanOptions::all(ids.to_vec())).unwrap();
    let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

#[tokio::test]
async fn every_type_round_trips() {
    let (spec, batch, ids) = make();
    let region = Region::new(env(Storage::memory()), spec, Sequence(0), Sequence(0)).unwrap();
    region.take_ownership(owner(1), GROUP).await.unwrap();
    let write =
        RowsWrite { sequence: Sequence(1), epoch: Epoch(0), op: RowOp::Put, batch: batch.clone() };
    region.apply(write).unwrap();
    assert_eq!(read(&region, &ids).await, batch);
    let image = &region.unflushed()[0];
    let decoded = crate::RunImage::decode(&image.encode().unwrap()).unwrap();
    region.flush().await.unwrap();
    assert_eq!(read(&region, &ids).await, batch);
    let other =
        Region::new(env(Storage::memory()), region.spec().clone(), Sequence(0), Sequence(0))
            .unwrap();
    other.restore(vec![decoded]);
    other.load().await.unwrap();
    assert_eq!(read(&other, &ids).await, batch);
}

#[tokio::test]
async fn values_equal_their_canonical_text() {
    let (spec, batch, _) = make();
    let region =
        Region::new(env(Storage::memory()), spec.clone(), Sequence(0), Sequence(0)).unwrap();
    region.load().await.unwrap();
    let write = RowsWrite { sequence: Sequence(1), epoch: Epoch(0), op: RowOp::Put, batch };
    region.apply(write).unwrap();
    let texts = [
        "true",
        "-128",
        "-32768",
        "-2147483648",
        "-9223372036854775808",
        "0",
        "0",
        "0",
        "0",
        "-3.4028235e38",
        "inf",
        "",
        "",
        "1969-12-31",
        "-0.0000000001",
        "-0.01",
        "1969-12-31T23:59:59",
        "1970-01-01T00:59:59+01:00",
        "1969-12-31T23:59:59.999",
        "1970-01-01T00:59:59.999+01:00",
        "1969-12-31T23:59:59.999999",
        "1970-01-01T00:59:59.999999+01:00",
        "1969-12-31T23:59:59.999999999",
        "1970-01-01T00:59:59.999999999+01:00",
    ];
    for (column, text) in spec.schema.columns()[1..].iter().zip(texts) {
        let count = |op, values: Vec<String>| {
            let mut options = ScanOptions::all(Vec::new());
            options.predicates = vec![Predicate { column: column.id, op, values }];
            let region = region.clone();
            async move { region.count(&options).await.unwrap() }
        };
        let value = vec![text.to_owned()];
        let name = column.data_type.to_string();
        assert_eq!(count(CompareOp::Eq, value.clone()).await, 1, "{name} = {text}");
        assert_eq!(count(CompareOp::Ne, value.clone()).await, 1, "{name} <> {text}");
        assert_eq!(count(CompareOp::In, value).await, 1, "{name} in {text}");
        assert_eq!(count(CompareOp::In, vec![]).await, 0, "{name} in ()");
        assert_eq!(count(CompareOp::IsNull, vec![]).await, 1, "{name} is null");
        assert_eq!(count(CompareOp::IsNotNull, vec![]).await, 2, "{name} is not null");
    }
}

/// Writes each case to a table with a key and a value of this type: one value is a key to delete, two
/// values are a row. A case that does not fit must be refused with an error that contains `words`.
async fn check_accepted_values<T: Copy + std::fmt::Debug>(
    data_type: ColumnType,
    array: impl Fn(T) -> ArrayRef,
    cases: Vec<(Vec<T>, bool)>,
    words: &str,
) {
    let column = |id, nullable| Column {
        id: ColumnId(id),
        name: format!("c{id}"),
        data_type: data_type.clone(),
        nullable,
        default: None,
    };
    let columns = vec![column(1, false), column(2, true)];
    let schema =
        TableSchema::new(SchemaVersion(1), columns, vec![ColumnId(1)], None, ColumnId(3)).unwrap();
    let spec = crate::RegionSpec { schema, ..spec(WriteMode::Upsert, false) };
    let region =
        Region::new(env(Storage::memory()), spec.clone(), Sequence(0), Sequence(0)).unwrap();
    region.take_ownership(owner(1), GROUP).await.unwrap();
    let mut accepted = Vec::new();
    for ((values, fits), sequence) in cases.into_iter().zip(1..) {
        let (op, schema) = match values.len() {
            1 => (RowOp::Delete, spec.schema.key_arrow()),
            _ => (RowOp::Put, spec.schema.arrow()),
        };
        let arrays = values.iter().map(|value| array(*value)).collect();
        let batch = RecordBatch::try_new(schema, arrays).unwrap();
        let write = RowsWrite { sequence: Sequence(sequence), epoch: Epoch(0), op, batch };
        match region.apply(write) {
            Ok(()) => {
                assert!(fits, "{values:?}");
                accepted.push(values[1]);
            }
            Err(crate::EngineError::BadRows { detail }) => {
                assert!(!fits && detail.contains(words), "{detail}");
            }
            Err(other) => panic!("{other}"),
        }
    }
    region.flush().await.unwrap();
    assert_eq!(read(&region, &[ColumnId(2)]).await.column(0).as_ref(), array(accepted[0]).as_ref());
    assert_eq!(accepted.len(), 1);
}

/// Seconds that a file cannot store are refused on write: a memtable with them could never be flushed.
#[tokio::test]
async fn unstorable_seconds_are_refused_on_write() {
    let seconds = ColumnType::Timestamp(TimeUnit::Second, None);
    let array = |value| Arc::new(TimestampSecondArray::from(vec![value])) as ArrayRef;
    let most = i64::MAX / 1_000;
    let cases = vec![
        (vec![most, -most], true),
        (vec![0, most + 1], false),
        (vec![i64::MIN, 0], false),
        (vec![i64::MIN], false),
    ];
    check_accepted_values(seconds, array, cases, "milliseconds").await;
}

/// A file stores only the lower digits: the row would be read with another value or under another key.
#[tokio::test]
async fn decimals_beyond_precision_are_refused_on_write() {
    let array = |value| -> ArrayRef {
        let array = Decimal128Array::from(vec![value]);
        Arc::new(array.with_precision_and_scale(9, 2).unwrap())
    };
    let most = 999_999_999;
    let cases = vec![
        (vec![most, -most], true),
        (vec![0, 1_000_000_000_000], false),
        (vec![-most - 1, 0], false),
        (vec![most + 1], false),
    ];
    check_accepted_values(ColumnType::Decimal128(9, 2), array, cases, "digits").await;
}
