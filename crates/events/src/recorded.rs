//! Events as they are spooled and handled: plain values, complete and checked.

use bytes::Bytes;
use prost::Message;
use serde::de::IgnoredAny;
use tidewater_proto::v1;
use uuid::Uuid;

use crate::event::{Event, EventError, Priority, is_shared};
use crate::name::check_name;
use crate::value::{ExtraColumn, Value, ValueType, check_extra};

/// A recorded event.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedEvent {
    /// UUIDv7, made when the event was recorded, or the id of a shared event.
    pub id: Uuid,
    /// Table that has the event.
    pub table: String,
    /// Type of the event.
    pub event_type: String,
    /// JSON, or empty.
    pub payload: String,
    /// Nanoseconds since the Unix epoch.
    pub timestamp_ns: i64,
    /// Priority in a full queue or spool.
    pub priority: Priority,
    /// Extra columns with their values.
    pub extra: Vec<(ExtraColumn, Value)>,
}

/// A stored event that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event of the spool cannot be read: {0}")]
pub struct DecodeError(String);

impl RecordedEvent {
    /// Takes the values of an event. `limit`: most bytes of it.
    ///
    /// # Errors
    /// [`EventError`]: the event is not recorded.
    pub fn new(event: &dyn Event, id: Uuid, now_ns: i64, limit: usize) -> Result<Self, EventError> {
        check_name("table", event.table_name())?;
        check_name("type", event.event_type())?;
        let payload = event.json_payload()?;
        let schema = event.extra_schema();
        let row = event.extra_row()?;
        check_extra(&schema, &row)?;
        let shared_id = event.shared_id();
        if let Some(id) = shared_id.filter(|id| !is_shared(*id)) {
            return Err(EventError::SharedId(id));
        }
        let recorded = Self {
            id: shared_id.unwrap_or(id),
            table: event.table_name().to_owned(),
            event_type: event.event_type().to_owned(),
            payload,
            timestamp_ns: event.timestamp().unwrap_or(now_ns),
            priority: event.priority(),
            extra: schema.into_iter().zip(row).collect(),
        };
        let bytes = recorded.size();
        if bytes > limit {
            return Err(EventError::TooLarge { bytes, limit });
        }
        if !recorded.payload.is_empty()
            && let Err(error) = serde_json::from_str::<IgnoredAny>(&recorded.payload)
        {
            return Err(EventError::Payload(error.to_string()));
        }
        Ok(recorded)
    }

    /// Bytes that the event takes in memory, nearly.
    pub fn size(&self) -> usize {
        let extra: usize =
            self.extra.iter().map(|(column, value)| column.name.len() + value.size() + 48).sum();
        self.table.len() + self.event_type.len() + self.payload.len() + extra + 128
    }

    /// Extra columns of the event.
    pub fn extra_schema(&self) -> Vec<ExtraColumn> {
        self.extra.iter().map(|(column, _)| column.clone()).collect()
    }

    /// Encodes the event; the key of the spool has the table.
    pub fn encode(&self) -> Vec<u8> {
        let extra = self
            .extra
            .iter()
            .map(|(column, value)| v1::EventField {
                name: column.name.clone(),
                r#type: column.value_type.to_wire().into(),
                value: value.to_wire(),
            })
            .collect();
        let stored = v1::SpooledEvent {
            id: Bytes::copy_from_slice(self.id.as_bytes()),
            r#type: self.event_type.clone(),
            payload: Bytes::copy_from_slice(self.payload.as_bytes()),
            timestamp_ns: self.timestamp_ns,
            priority: u32::from(self.priority.to_wire()),
            extra,
        };
        stored.encode_to_vec()
    }

    /// Decodes an event of a table.
    ///
    /// # Errors
    /// [`DecodeError`] for a damaged record.
    pub fn decode(table: &str, bytes: &[u8]) -> Result<Self, DecodeError> {
        let stored =
            v1::SpooledEvent::decode(bytes).map_err(|error| DecodeError(error.to_string()))?;
        let extra = stored
            .extra
            .into_iter()
            .map(|field| {
                let value_type = ValueType::from_wire(field.r#type())
                    .ok_or_else(|| DecodeError(format!("column {} has no type", field.name)))?;
                let column = ExtraColumn { name: field.name, value_type };
                Ok((column, Value::from_wire(field.value)))
            })
            .collect::<Result<_, DecodeError>>()?;
        Ok(Self {
            id: Uuid::from_slice(&stored.id).map_err(|error| DecodeError(error.to_string()))?,
            table: table.to_owned(),
            event_type: stored.r#type,
            payload: String::from_utf8(stored.payload.into())
                .map_err(|error| DecodeError(error.to_string()))?,
            timestamp_ns: stored.timestamp_ns,
            priority: Priority::from_wire(stored.priority),
            extra,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestEvent;

    const LIMIT: usize = 1_000;

    fn record(event: &TestEvent) -> Result<RecordedEvent, EventError> {
        RecordedEvent::new(event, Uuid::from_u128(7), 5, LIMIT)
    }

    #[test]
    fn recorded_event_equals_its_stored_form() {
        let event = TestEvent {
            payload: r#"{"a": 1}"#.to_owned(),
            extra: vec![(ExtraColumn::new("node", ValueType::UInt64), Value::UInt64(3))],
            priority: Priority::High,
            ..TestEvent::new("node_up")
        };
        let recorded = record(&event).unwrap();
        assert_eq!(recorded.timestamp_ns, 5);
        assert_eq!(RecordedEvent::decode("events", &recorded.encode()).unwrap(), recorded);
    }

    #[test]
    fn shared_event_keeps_its_id() {
        let id = uuid::Builder::from_custom_bytes([7; 16]).into_uuid();
        let shared = TestEvent { shared_id: Some(id), ..TestEvent::new("node_down") };
        let recorded = record(&shared).unwrap();
        assert_eq!(recorded.id, id);
        assert_eq!(RecordedEvent::decode("events", &recorded.encode()).unwrap().id, id);
        // The recorder's own id.
        assert_eq!(record(&TestEvent::new("node_down")).unwrap().id, Uuid::from_u128(7));
    }

    #[test]
    fn shared_id_of_another_version_is_refused() {
        let of_time = uuid::Builder::from_unix_timestamp_millis(5, &[7; 10]).into_uuid();
        for id in [of_time, Uuid::nil()] {
            let event = TestEvent { shared_id: Some(id), ..TestEvent::new("node_down") };
            assert_eq!(record(&event), Err(EventError::SharedId(id)));
        }
    }

    #[test]
    fn invalid_events_are_refused() {
        let valid = TestEvent::new("node_up");
        let payload = |text: &str| TestEvent { payload: text.to_owned(), ..valid.clone() };
        assert!(record(&valid).is_ok());
        assert!(matches!(record(&payload("{")), Err(EventError::Payload(_))));
        let large = payload(&format!("\"{}\"", "x".repeat(LIMIT)));
        assert!(matches!(record(&large), Err(EventError::TooLarge { limit: LIMIT, .. })));
        assert!(matches!(record(&TestEvent::new("node up")), Err(EventError::Name { .. })));
        let table = TestEvent { table: "my events".to_owned(), ..valid.clone() };
        assert!(matches!(record(&table), Err(EventError::Name { what: "table", .. })));
        let failing = TestEvent { fails: true, ..valid };
        assert!(matches!(record(&failing), Err(EventError::Value(_))));
    }

    #[test]
    fn damaged_records_are_refused() {
        let recorded = record(&TestEvent::new("node_up")).unwrap();
        let mut bytes = recorded.encode();
        bytes.truncate(bytes.len() - 1);
        assert!(RecordedEvent::decode("events", &bytes).is_err());
        assert!(RecordedEvent::decode("events", &[]).is_err());
    }
}
