//! Events that several nodes derive from the same log entry.

use std::any::Any;

use tidewater_common::ids::LogIndex;
use tidewater_events::{Event, EventError, ExtraColumn, Priority, Value};
use uuid::Uuid;

/// Place of a shared event: the time of its log entry, the entry, and its number among the events of the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedPosition {
    /// Replicated time of the entry, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The entry.
    pub index: LogIndex,
    /// Number among the events of the entry.
    pub ordinal: u16,
}

impl SharedPosition {
    /// Returns the id of the event: a UUIDv8 (RFC 9562) with the time in the place of UUIDv7, then the log index and the
    /// ordinal. Ids of one log increase with the position.
    pub fn id(&self) -> Uuid {
        const INDEX: u64 = (1 << 58) - 1;
        let place = u128::from(self.index.get() & INDEX) << 16 | u128::from(self.ordinal);
        let time = u128::from(self.time_ms & ((1 << 48) - 1));
        // 48 bits of time, 4 of the version, 12, 2 of the variant, 62.
        let bits = time << 80 | (place >> 62) << 64 | place & ((1 << 62) - 1);
        uuid::Builder::from_custom_bytes(bits.to_be_bytes()).into_uuid()
    }

    /// Returns the time of the event, nanoseconds since the Unix epoch.
    pub fn timestamp_ns(&self) -> i64 {
        i64::try_from(self.time_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000)
    }
}

/// An event with the id and the time of a log entry.
#[derive(Debug)]
pub struct SharedEvent {
    event: Box<dyn Event>,
    position: SharedPosition,
}

impl SharedEvent {
    /// Gives an event its place.
    pub fn new(event: Box<dyn Event>, position: SharedPosition) -> Self {
        Self { event, position }
    }

    /// Place of the event.
    pub fn position(&self) -> SharedPosition {
        self.position
    }
}

impl Event for SharedEvent {
    fn table_name(&self) -> &str {
        self.event.table_name()
    }

    fn event_type(&self) -> &str {
        self.event.event_type()
    }

    fn timestamp(&self) -> Option<i64> {
        Some(self.position.timestamp_ns())
    }

    fn shared_id(&self) -> Option<Uuid> {
        Some(self.position.id())
    }

    fn json_payload(&self) -> Result<String, EventError> {
        self.event.json_payload()
    }

    fn extra_schema(&self) -> Vec<ExtraColumn> {
        self.event.extra_schema()
    }

    fn extra_row(&self) -> Result<Vec<Value>, EventError> {
        self.event.extra_row()
    }

    fn priority(&self) -> Priority {
        self.event.priority()
    }

    fn as_any(&self) -> &dyn Any {
        self.event.as_any()
    }
}

#[cfg(test)]
mod tests {
    use tidewater_events::is_shared;

    use super::*;
    use crate::types::NodeDown;

    fn position(time_ms: u64, index: u64, ordinal: u16) -> SharedPosition {
        SharedPosition { time_ms, index: LogIndex(index), ordinal }
    }

    #[test]
    fn ids_increase_with_the_position() {
        let positions = [
            position(1, 7, 0),
            position(1, 7, 1),
            position(1, 8, 0),
            position(1, 1 << 46, 0),
            position(1, 1 << 57, u16::MAX),
            position(2, 0, 0),
            position(1_800_000_000_000, 9, 3),
        ];
        let ids: Vec<_> = positions.iter().map(SharedPosition::id).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        assert!(ids.iter().all(|id| is_shared(*id)));
    }

    #[test]
    fn shared_event_has_the_values_of_its_event() {
        let event = NodeDown {
            node_id: 3,
            node_kind: "data".to_owned(),
            address: "a:1".to_owned(),
            cause: "it is silent".to_owned(),
        };
        let shared = SharedEvent::new(Box::new(event.clone()), position(5, 1, 0));
        assert_eq!(shared.timestamp(), Some(5_000_000));
        assert_eq!(shared.shared_id(), Some(position(5, 1, 0).id()));
        assert_eq!(shared.extra_row(), event.extra_row());
        assert_eq!(shared.as_any().downcast_ref(), Some(&event));
    }
}
