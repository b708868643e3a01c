//! Events as they are printed.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, TimeUnit, TimestampNanosecondType};
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use tidewater_events::COMMON_COLUMNS;
use tidewater_readers::value::instants::{displayed, time_text};
use uuid::Uuid;

use crate::exit::Failure;
use crate::output::Listed;

/// An event. Its JSON fields are those of all events, then the columns of its type that have a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EventLine {
    pub(super) id: Uuid,
    pub(super) event_type: String,
    /// Nanoseconds since the Unix epoch.
    pub(super) timestamp_ns: i64,
    payload: Option<Value>,
    extra: Map<String, Value>,
    /// Bytes of the text of the values.
    pub(super) bytes: usize,
}

impl EventLine {
    /// Returns the time as text.
    fn time(&self) -> String {
        let utc = DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()));
        time_text(&utc, self.timestamp_ns).unwrap_or_else(|_| self.timestamp_ns.to_string())
    }

    /// Returns the values of the event's own columns as text.
    fn details(&self) -> String {
        let columns = self.extra.iter().map(|(name, value)| match value {
            Value::String(text) if is_word(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        });
        let payload = self.payload.iter().map(|payload| format!("payload={payload}"));
        columns.chain(payload).collect::<Vec<_>>().join(" ")
    }

    /// Returns the line of a follower.
    pub(super) fn text(&self) -> String {
        format!("{}  {:<22}  {}", self.time(), self.event_type, self.details())
    }
}

/// Returns whether a text is readable without quotes.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains([' ', '"', '=']) && !text.contains(char::is_control)
}

impl Serialize for EventLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("type", &self.event_type)?;
        map.serialize_entry("timestamp", &self.time())?;
        map.serialize_entry("payload", &self.payload)?;
        for (name, value) in &self.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Listed for EventLine {
    const HEADINGS: &'static [&'static str] = &["TIME", "TYPE", "DETAILS"];

    fn cells(&self) -> Vec<String> {
        vec![self.time(), self.event_type.clone(), self.details()]
    }
}

/// Returns the events of a batch of rows.
pub(super) fn event_lines(batch: &RecordBatch) -> Result<Vec<EventLine>, Failure> {
    let ids = common_column(batch, "id")?;
    let types = common_column(batch, "type")?;
    let times = common_column(batch, "timestamp")?;
    let payloads = common_column(batch, "payload")?;
    let times = times
        .as_primitive_opt::<TimestampNanosecondType>()
        .ok_or_else(|| wrong_column("timestamp", times.data_type()))?;
    let extra = extra_values(batch).map_err(|error| {
        Failure::other(format!("the columns of the events cannot be printed: {error}"))
    })?;
    let rows = extra.into_iter().enumerate().take(batch.num_rows());
    let line = |(row, (extra, extra_bytes)): (usize, (Map<String, Value>, usize))| {
        let payload = bytes(&payloads, row).unwrap_or_default();
        EventLine {
            id: bytes(&ids, row).and_then(|id| Uuid::from_slice(id).ok()).unwrap_or_default(),
            event_type: text(bytes(&types, row).unwrap_or_default()),
            timestamp_ns: times.value(row),
            payload: payload_value(payload),
            extra,
            bytes: payload.len() + extra_bytes,
        }
    };
    Ok(rows.map(line).collect())
}

fn common_column(batch: &RecordBatch, name: &str) -> Result<ArrayRef, Failure> {
    let missing = || Failure::other(format!("the events have no column {name}"));
    batch.column_by_name(name).cloned().ok_or_else(missing)
}

fn wrong_column(name: &str, data_type: &DataType) -> Failure {
    Failure::other(format!("the column {name} of the events has the type {data_type}"))
}

/// Returns the bytes of a text or binary value; `None`: it is null.
fn bytes(column: &ArrayRef, row: usize) -> Option<&[u8]> {
    if column.is_null(row) {
        return None;
    }
    if let Some(texts) = column.as_string_opt::<i32>() {
        return Some(texts.value(row).as_bytes());
    }
    column.as_binary_opt::<i32>().map(|values| values.value(row))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn payload_value(payload: &[u8]) -> Option<Value> {
    if payload.is_empty() {
        return None;
    }
    Some(serde_json::from_slice(payload).unwrap_or_else(|_| Value::String(text(payload))))
}

/// Values of one row by column, without nulls, and their bytes as text.
type ExtraValues = (Map<String, Value>, usize);

/// Returns the values of the columns of the types.
fn extra_values(batch: &RecordBatch) -> Result<Vec<ExtraValues>, ArrowError> {
    let fields = batch.schema_ref().fields().iter().enumerate();
    let extra = fields.filter(|(_, field)| !COMMON_COLUMNS.contains(&field.name().as_str()));
    let extra: Vec<usize> = extra.map(|(position, _)| position).collect();
    if extra.is_empty() {
        return Ok(vec![(Map::new(), 0); batch.num_rows()]);
    }
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(&displayed(&batch.project(&extra)?)?)?;
    writer.finish()?;
    let text = writer.into_inner();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| match serde_json::from_slice(line) {
            Ok(values) => Ok((values, line.len())),
            Err(error) => Err(ArrowError::JsonError(error.to_string())),
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, StringArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt64Array,
    };

    use super::*;

    /// An event without values.
    pub(crate) fn plain(timestamp_ns: i64, id: u128) -> EventLine {
        EventLine {
            id: Uuid::from_u128(id),
            event_type: "node_up".to_owned(),
            timestamp_ns,
            payload: None,
            extra: Map::new(),
            bytes: 0,
        }
    }

    fn batch(with_extra: bool) -> RecordBatch {
        let ids = [7_u128, 8].map(|id| *Uuid::from_u128(id).as_bytes());
        let times = TimestampNanosecondArray::from(vec![1_357_034_400_000_000_001, 2]);
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(BinaryArray::from_iter_values(ids))),
            ("type", Arc::new(StringArray::from(vec!["node_down", "other"]))),
            ("payload", Arc::new(StringArray::from(vec![Some(r#"{"a":1}"#), None]))),
            ("timestamp", Arc::new(times.with_timezone("UTC"))),
        ];
        if with_extra {
            let at = TimestampMillisecondArray::from(vec![None, Some(0)]);
            columns.push(("node_id", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]))));
            columns.push(("cause", Arc::new(StringArray::from(vec![Some("it is off"), None]))));
            columns.push(("at", Arc::new(at.with_timezone("Europe/Berlin"))));
        }
        RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, column)| (name, column, true)),
        )
        .unwrap()
    }

    #[test]
    fn event_has_stable_json_fields() {
        let lines = event_lines(&batch(true)).unwrap();
        let json: Vec<String> =
            lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
        assert_eq!(
            json,
            [
                r#"{"id":"00000000-0000-0000-0000-000000000007","type":"node_down","timestamp":"2013-01-01T10:00:00.000000001Z","payload":{"a":1},"cause":"it is off","node_id":18446744073709551615}"#,
                r#"{"id":"00000000-0000-0000-0000-000000000008","type":"other","timestamp":"1970-01-01T00:00:00.000000002Z","payload":null,"at":"1970-01-01T00:00:00Z"}"#,
            ]
        );
    }

    #[test]
    fn text_of_an_event_has_its_values() {
        let lines = event_lines(&batch(true)).unwrap();
        assert_eq!(
            lines[0].text(),
            r#"2013-01-01T10:00:00.000000001Z  node_down               cause="it is off" node_id=18446744073709551615 payload={"a":1}"#
        );
        assert_eq!(lines[1].cells()[1..], ["other", "at=1970-01-01T00:00:00Z"]);
    }

    #[test]
    fn events_without_columns_of_their_own_are_read() {
        let lines = event_lines(&batch(false)).unwrap();
        let ids: Vec<_> = lines.iter().map(|line| line.id.as_u128()).collect();
        assert_eq!(ids, [7, 8]);
        assert!(lines.iter().all(|line| line.extra.is_empty()));
    }

    #[test]
    fn rows_of_other_tables_are_refused() {
        let other = batch(false).project(&[0, 1, 2]).unwrap();
        assert!(event_lines(&other).unwrap_err().message.contains("no column timestamp"));
    }
}
