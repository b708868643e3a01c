//! Events that several nodes record, all with the same id and time.

use std::any::Any;

use tidewater_common::ids::LogIndex;
use tidewater_events::{Event, EventError, ExtraColumn, Priority, Value};
use uuid::Uuid;

/// Place of a shared event: the time of its log entry, the entry, and its number among the events of its type in the
/// entry. A release that derives events of another type, too, gives the others the same ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedPosition {
    /// Replicated time of the entry, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The entry.
    pub index: LogIndex,
    /// Number among the events of its type in the entry, below [`MAX_SHARED`].
    pub number: u16,
}

/// Maximum number of shared events of a type in one log entry.
pub const MAX_SHARED: u16 = 1 << 12;

impl SharedPosition {
    /// Returns the id of the event of a type: a UUIDv8 (RFC 9562) with the time in the place of UUIDv7, then 54 bits of the
    /// log index, 8 bits of the type and 12 bits of the number. Ids of one type increase with the position.
    pub fn id(&self, event_type: &str) -> Uuid {
        const INDEX: u64 = (1 << 54) - 1;
        let of_entry =
            u128::from(type_code(event_type)) << 12 | u128::from(self.number % MAX_SHARED);
        let place = u128::from(self.index.get() & INDEX) << 20 | of_entry;
        let time = u128::from(self.time_ms & ((1 << 48) - 1));
        // 48 bits of time, 4 of the version, 12, 2 of the variant, 62.
        let bits = time << 80 | (place >> 62) << 64 | place & ((1 << 62) - 1);
        uuid::Builder::from_custom_bytes(bits.to_be_bytes()).into_uuid()
    }

    /// Returns the time of the event, nanoseconds since the Unix epoch.
    pub fn timestamp_ns(&self) -> i64 {
        timestamp_ns(self.time_ms)
    }
}

/// Converts milliseconds since the Unix epoch to nanoseconds. Later times than that of the type are its last one.
pub fn timestamp_ns(time_ms: u64) -> i64 {
    i64::try_from(time_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}

/// Returns the code of a type in ids: the low byte of FNV-1a of the name. It is another one for each type.
fn type_code(event_type: &str) -> u8 {
    let fold = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let [low, ..] = event_type.bytes().fold(0x811c_9dc5, fold).to_le_bytes();
    low
}

/// An event with an id and a time that are the same on every node that records it.
#[derive(Debug)]
pub struct SharedEvent {
    event: Box<dyn Event>,
    id: Uuid,
    timestamp_ns: i64,
}

impl SharedEvent {
    /// Gives an event its id, a UUIDv8, and its time, nanoseconds since the Unix epoch.
    pub fn new(event: Box<dyn Event>, id: Uuid, timestamp_ns: i64) -> Self {
        Self { event, id, timestamp_ns }
    }

    /// Gives an event the id and the time of its position in the log.
    pub fn at(event: Box<dyn Event>, position: SharedPosition) -> Self {
        let id = position.id(event.event_type());
        Self::new(event, id, position.timestamp_ns())
    }

    /// Time of the event, nanoseconds since the Unix epoch.
    pub fn timestamp_ns(&self) -> i64 {
        self.timestamp_ns
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
        Some(self.timestamp_ns)
    }

    fn shared_id(&self) -> Option<Uuid> {
        Some(self.id)
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

    fn position(time_ms: u64, index: u64, number: u16) -> SharedPosition {
        SharedPosition { time_ms, index: LogIndex(index), number }
    }

    #[test]
    fn ids_increase_with_the_position() {
        let positions = [
            position(1, 7, 0),
            position(1, 7, 1),
            position(1, 8, 0),
            position(1, 1 << 46, 0),
            position(1, 1 << 53, MAX_SHARED - 1),
            position(2, 0, 0),
            position(1_800_000_000_000, 9, 3),
        ];
        let ids: Vec<_> = positions.iter().map(|position| position.id("node_down")).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        assert!(ids.iter().all(|id| is_shared(*id)));
    }

    // Releases of a rolling upgrade give an event the same id.
    #[test]
    fn id_of_an_event_is_frozen() {
        let id = position(1_800_000_000_000, 9, 3).id("node_down").to_string();
        assert_eq!(id, "01a3185c-5000-8000-8000-00000091e003");
    }

    #[test]
    fn times_in_nanoseconds_are_limited() {
        assert_eq!(timestamp_ns(1_800_000_000_000), 1_800_000_000_000_000_000);
        assert_eq!(timestamp_ns(u64::MAX), i64::MAX);
    }

    #[test]
    fn types_have_different_codes() {
        let types = crate::event_types();
        let codes: std::collections::BTreeSet<u8> =
            types.iter().map(|known| type_code(known.name)).collect();
        assert_eq!(codes.len(), types.len(), "choose another name for the new type");
    }

    #[test]
    fn shared_event_has_the_values_of_its_event() {
        let event = NodeDown {
            node_id: 3,
            node_kind: "data".to_owned(),
            address: "a:1".to_owned(),
            cause: "it is silent".to_owned(),
        };
        let shared = SharedEvent::at(Box::new(event.clone()), position(5, 1, 0));
        assert_eq!((shared.timestamp_ns(), shared.timestamp()), (5_000_000, Some(5_000_000)));
        assert_eq!(shared.shared_id(), Some(position(5, 1, 0).id("node_down")));
        assert_eq!(shared.extra_row(), event.extra_row());
        assert_eq!(shared.as_any().downcast_ref(), Some(&event));
    }
}
