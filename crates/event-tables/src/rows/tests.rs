use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType, UInt64Type};
use tidewater_common::rows::MAX_KEY_BYTES;
use tidewater_events::ExtraColumn;

use super::*;
use crate::table::EVENT_KEY;
use crate::testing::{column, event, events_table, schema_of, table_options};

fn extra(name: &str, value_type: ValueType, value: Value) -> (ExtraColumn, Value) {
    (ExtraColumn::new(name, value_type), value)
}

fn batch(table: &TableSchema, events: &[RecordedEvent]) -> RecordBatch {
    let events: Vec<_> = events.iter().collect();
    record_batch(table, &requests(&events).unwrap()).unwrap()
}

#[test]
fn rows_have_the_columns_of_all_types() {
    let columns = [
        ("bool", ValueType::Bool, Value::Bool(true)),
        ("int64", ValueType::Int64, Value::Int64(-1)),
        ("uint64", ValueType::UInt64, Value::UInt64(u64::MAX)),
        ("float64", ValueType::Float64, Value::Float64(0.5)),
        ("utf8", ValueType::Text, Value::Text("ä".to_owned())),
        ("binary", ValueType::Binary, Value::Binary(vec![0, 255])),
        ("timestamp(ns, UTC)", ValueType::Timestamp, Value::Timestamp(7)),
    ];
    let named: Vec<_> = columns.iter().map(|(name, of, _)| (*name, of.as_str())).collect();
    let table = events_table(&named);
    let values = columns.map(|(name, of, value)| extra(name, of, value)).to_vec();
    let mut plain = event(1, "b", vec![]);
    plain.payload = r#"{"n":1}"#.to_owned();
    let batch = batch(&table, &[plain, event(2, "a", values)]);
    assert_eq!(batch.schema(), table.arrow());
    let of = |name: &str| batch.column_by_name(name).unwrap();
    // By type.
    assert_eq!(of(TYPE).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(of(ID).as_binary::<i32>().value(0), Uuid::from_u128(2).as_bytes());
    assert_eq!(of(TIMESTAMP).as_primitive::<TimestampNanosecondType>().values(), &[2, 1]);
    assert!(of(PAYLOAD).is_null(0));
    assert_eq!(of(PAYLOAD).as_binary::<i32>().value(1), br#"{"n":1}"#);
    for (name, _) in &named {
        assert_eq!((of(name).is_null(0), of(name).is_null(1)), (false, true), "{name}");
    }
    assert!(of("bool").as_boolean().value(0));
    assert_eq!(of("int64").as_primitive::<Int64Type>().value(0), -1);
    assert_eq!(of("uint64").as_primitive::<UInt64Type>().value(0), u64::MAX);
    assert_eq!(of("float64").as_primitive::<Float64Type>().value(0), 0.5);
    assert_eq!(of("utf8").as_string::<i32>().value(0), "ä");
    assert_eq!(of("binary").as_binary::<i32>().value(0), [0, 255]);
    let times = of("timestamp(ns, UTC)").as_primitive::<TimestampNanosecondType>();
    assert_eq!(times.value(0), 7);
}

#[test]
fn value_of_another_type_is_left_out() {
    let table = events_table(&[("node", "utf8")]);
    let number = extra("node", ValueType::UInt64, Value::UInt64(3));
    let name = extra("node", ValueType::Text, Value::Text("n3".to_owned()));
    let batch = batch(&table, &[event(1, "a", vec![number]), event(2, "a", vec![name])]);
    let nodes = batch.column_by_name("node").unwrap().as_string::<i32>();
    let by_id = batch.column_by_name(ID).unwrap().as_binary::<i32>();
    for row in 0..2 {
        let is_first = by_id.value(row) == Uuid::from_u128(1).as_bytes();
        assert_eq!(nodes.is_null(row), is_first);
    }
}

#[test]
fn column_that_is_never_null_has_its_default() {
    let mut columns = events_table(&[]).columns().to_vec();
    let default = Some("7".to_owned());
    columns.push(Column { default, ..column("x", "int64", false) });
    let table = schema_of(columns, &EVENT_KEY);
    let with = event(1, "a", vec![extra("x", ValueType::Int64, Value::Int64(1))]);
    let batch = batch(&table, &[with, event(2, "b", vec![])]);
    let values = batch.column_by_name("x").unwrap().as_primitive::<Int64Type>();
    assert_eq!(values.values(), &[1, 7]);
}

#[test]
fn events_above_the_row_limits_are_found() {
    let table = events_table(&[]);
    let codec = KeyCodec::new(&table, &table_options()).unwrap();
    let long = "t".repeat(MAX_KEY_BYTES + 1);
    let events = [event(1, "a", vec![]), event(2, &long, vec![])];
    let events: Vec<_> = events.iter().collect();
    let requests = requests(&events).unwrap();
    let batch = record_batch(&table, &requests).unwrap();
    let found = oversized(&codec, &requests, &batch).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, Uuid::from_u128(2));
    assert!(found[0].1.contains("above the limit"), "{found:?}");
}
