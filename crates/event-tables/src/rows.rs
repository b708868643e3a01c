//! Rows of events (pure).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampNanosecondArray, UInt64Array,
};
use arrow::compute::interleave;
use tidewater_common::keys::KeyCodec;
use tidewater_common::rows::oversized_rows;
use tidewater_common::schema::{Column, TableSchema};
use tidewater_events::{
    HandlerError, RecordedEvent, RowInsertsRequest, Value, ValueType, build_row_inserts_request,
    divide_by_schema, group_events_by_type,
};
use uuid::Uuid;

use crate::table::{ID, PAYLOAD, TIMESTAMP, TYPE};

/// Zone of all times.
const UTC: &str = "UTC";

/// Events that cannot be made rows: a defect, since events and tables are checked before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("events cannot be made rows: {0}")]
pub(crate) struct RowsError(String);

impl From<RowsError> for HandlerError {
    fn from(error: RowsError) -> Self {
        Self(error.to_string())
    }
}

/// Groups events by type, and by extra schema. Unlike for a new write, none of an earlier one is left out.
pub(crate) fn requests<'a>(
    events: &[&'a RecordedEvent],
) -> Result<Vec<RowInsertsRequest<'a>>, RowsError> {
    let mut requests = Vec::new();
    for (key, mut group) in group_events_by_type(events.iter().copied()) {
        while !group.is_empty() {
            let (alike, odd) = divide_by_schema(&group);
            let request = build_row_inserts_request(key.clone(), &alike);
            requests.push(request.map_err(|error| RowsError(error.to_string()))?);
            group = odd.into_iter().map(|(event, _)| event).collect();
        }
    }
    Ok(requests)
}

/// Returns one row for each event of the requests, in their order, with all columns of the table. A column that an event
/// does not have, or has with another type, is without a value.
pub(crate) fn record_batch(
    table: &TableSchema,
    requests: &[RowInsertsRequest<'_>],
) -> Result<RecordBatch, RowsError> {
    let columns = table.columns().iter().map(|column| values(column, requests));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(table.arrow(), columns).map_err(|error| RowsError(error.to_string()))
}

/// Returns the events whose rows exceed the limits of a write, with the reasons. `batch`: rows of the requests.
pub(crate) fn oversized(
    codec: &KeyCodec,
    requests: &[RowInsertsRequest<'_>],
    batch: &RecordBatch,
) -> Result<Vec<(Uuid, String)>, RowsError> {
    let rows = oversized_rows(codec, batch).map_err(|error| RowsError(error.to_string()))?;
    let events: Vec<&RecordedEvent> = events_of(requests).collect();
    let reasons = rows.into_iter().filter_map(|(row, problem)| {
        let event = events.get(row)?;
        Some((event.id, problem.to_string()))
    });
    Ok(reasons.collect())
}

fn events_of<'a>(requests: &'a [RowInsertsRequest<'a>]) -> impl Iterator<Item = &'a RecordedEvent> {
    requests.iter().flat_map(|request| request.events.iter().copied())
}

fn values(column: &Column, requests: &[RowInsertsRequest<'_>]) -> Result<ArrayRef, RowsError> {
    // Arrays need iterators of a known length.
    let events: Vec<&RecordedEvent> = events_of(requests).collect();
    let events = events.into_iter();
    let array: ArrayRef = match column.name.as_str() {
        ID => Arc::new(BinaryArray::from_iter_values(events.map(|event| event.id.into_bytes()))),
        TYPE => {
            Arc::new(StringArray::from_iter_values(events.map(|event| event.event_type.as_str())))
        }
        PAYLOAD => Arc::new(events.map(payload_of).collect::<BinaryArray>()),
        TIMESTAMP => {
            let times = events.map(|event| event.timestamp_ns);
            Arc::new(TimestampNanosecondArray::from_iter_values(times).with_timezone(UTC))
        }
        _ => extra_values(column, requests)?,
    };
    Ok(array)
}

fn payload_of(event: &RecordedEvent) -> Option<&[u8]> {
    (!event.payload.is_empty()).then_some(event.payload.as_bytes())
}

fn extra_values(
    column: &Column,
    requests: &[RowInsertsRequest<'_>],
) -> Result<ArrayRef, RowsError> {
    const NULL: &Value = &Value::Null;
    let text = column.data_type.to_string();
    let mut value_type = None;
    let mut values: Vec<&Value> = Vec::new();
    for request in requests {
        let of_column = |extra: &tidewater_events::ExtraColumn| {
            extra.name == column.name && extra.value_type.as_str() == text
        };
        match request.extra.iter().position(of_column) {
            Some(position) => {
                value_type = request.extra.get(position).map(|extra| extra.value_type);
                values.extend(request.extra_values(position));
            }
            None => values.extend(request.events.iter().map(|_| NULL)),
        }
    }
    let array = match value_type {
        Some(value_type) => typed(value_type, &values),
        None => arrow::array::new_null_array(&column.data_type.arrow(), values.len()),
    };
    if column.nullable { Ok(array) } else { with_default(column, &array) }
}

/// Replaces nulls by the default of a column that has none.
fn with_default(column: &Column, array: &ArrayRef) -> Result<ArrayRef, RowsError> {
    let default = column.missing_value().map_err(|error| RowsError(error.to_string()))?;
    let from = |row: usize| if array.is_null(row) { (1, 0) } else { (0, row) };
    let rows: Vec<(usize, usize)> = (0..array.len()).map(from).collect();
    interleave(&[array.as_ref(), default.as_ref()], &rows)
        .map_err(|error| RowsError(error.to_string()))
}

fn typed(value_type: ValueType, values: &[&Value]) -> ArrayRef {
    let values = values.iter().copied();
    match value_type {
        ValueType::Bool => Arc::new(values.map(bool_of).collect::<BooleanArray>()),
        ValueType::Int64 => Arc::new(values.map(int64_of).collect::<Int64Array>()),
        ValueType::UInt64 => Arc::new(values.map(uint64_of).collect::<UInt64Array>()),
        ValueType::Float64 => Arc::new(values.map(float64_of).collect::<Float64Array>()),
        ValueType::Text => Arc::new(values.map(text_of).collect::<StringArray>()),
        ValueType::Binary => Arc::new(values.map(bytes_of).collect::<BinaryArray>()),
        ValueType::Timestamp => {
            let times = values.map(time_of).collect::<TimestampNanosecondArray>();
            Arc::new(times.with_timezone(UTC))
        }
    }
}

fn bool_of(value: &Value) -> Option<bool> {
    if let Value::Bool(value) = value { Some(*value) } else { None }
}

fn int64_of(value: &Value) -> Option<i64> {
    if let Value::Int64(value) = value { Some(*value) } else { None }
}

fn uint64_of(value: &Value) -> Option<u64> {
    if let Value::UInt64(value) = value { Some(*value) } else { None }
}

fn float64_of(value: &Value) -> Option<f64> {
    if let Value::Float64(value) = value { Some(*value) } else { None }
}

fn text_of(value: &Value) -> Option<&str> {
    if let Value::Text(value) = value { Some(value) } else { None }
}

fn bytes_of(value: &Value) -> Option<&[u8]> {
    if let Value::Binary(value) = value { Some(value) } else { None }
}

fn time_of(value: &Value) -> Option<i64> {
    if let Value::Timestamp(value) = value { Some(*value) } else { None }
}

#[cfg(test)]
mod tests;
