//! Events, as the code that records them defines them.

use std::any::Any;
use std::fmt::Debug;

use uuid::{Uuid, Version};

use crate::name::DEFAULT_TABLE;
use crate::value::{ExtraColumn, Value};

/// An event, before it is recorded.
///
/// Its functions are called once, by the thread that records it.
pub trait Event: Debug + Send + Sync + 'static {
    /// Table that has the event.
    fn table_name(&self) -> &str {
        DEFAULT_TABLE
    }

    /// Type of the event: lower-case letters, digits and underscores, at most 64.
    fn event_type(&self) -> &str;

    /// Time of the event, nanoseconds since the Unix epoch; `None`: the time at which it is recorded.
    fn timestamp(&self) -> Option<i64> {
        None
    }

    /// Id of an event that several nodes record, all with this id ([`is_shared`]), the same time and the same values: its
    /// table has it once. If the text of an error differs, the table has the first one that was written. `None`: the recorder
    /// gives the event an id of its own.
    fn shared_id(&self) -> Option<Uuid> {
        None
    }

    /// Payload of the event, a JSON document; empty: none.
    ///
    /// # Errors
    /// [`EventError`] if there is no text of it: the event is not recorded.
    fn json_payload(&self) -> Result<String, EventError> {
        Ok(String::new())
    }

    /// Columns that events of this type have in addition to those of all events.
    fn extra_schema(&self) -> Vec<ExtraColumn> {
        Vec::new()
    }

    /// Values of [`Self::extra_schema`], one for each column.
    ///
    /// # Errors
    /// [`EventError`] if there is no value: the event is not recorded.
    fn extra_row(&self) -> Result<Vec<Value>, EventError> {
        Ok(Vec::new())
    }

    /// Events of lower priority are evicted when there is no room for all.
    fn priority(&self) -> Priority {
        Priority::Normal
    }

    /// The event as its own type.
    fn as_any(&self) -> &dyn Any;
}

/// Returns whether an id is that of an event that several nodes record: a UUIDv8. Those of all others are UUIDv7.
pub fn is_shared(id: Uuid) -> bool {
    id.get_version() == Some(Version::Custom)
}

/// A value that becomes an event when it has something to report.
pub trait Eventable {
    /// Returns the event, or none.
    fn to_event(&self) -> Option<Box<dyn Event>> {
        None
    }
}

/// Priority of an event in a full queue or spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Frequent events of little weight, such as slow operations.
    Low,
    /// Events of the normal course.
    Normal,
    /// Events that an operator needs to explain an outage.
    High,
}

impl Priority {
    /// All priorities, ascending.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// Number of the priority in stored records.
    pub fn to_wire(self) -> u8 {
        match self {
            Self::Low => 0,
            Self::Normal => 1,
            Self::High => 2,
        }
    }

    /// The priority with this number; later ones are read as the highest.
    pub fn from_wire(number: u32) -> Self {
        match number {
            0 => Self::Low,
            1 => Self::Normal,
            _ => Self::High,
        }
    }
}

/// Reason why an event cannot be made a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The payload or the extra row has no value.
    #[error("the event has no value: {0}")]
    Value(String),
    /// A name breaks the rule of names.
    #[error(
        "{what} {name:?} is not a name: use lower-case letters, digits and underscores, at most {max}, a letter first"
    )]
    Name {
        /// The kind of the name.
        what: &'static str,
        /// The name, cut to a line.
        name: String,
        /// Most characters of a name.
        max: usize,
    },
    /// The payload is no JSON document.
    #[error("the payload is not JSON: {0}")]
    Payload(String),
    /// The id of a shared event is that of another kind.
    #[error("the id {0} is no id of a shared event: use a UUIDv8")]
    SharedId(Uuid),
    /// The event exceeds the limit.
    #[error("the event has {bytes} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Bytes of the event.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The extra row does not fit the extra schema.
    #[error("the extra row does not fit its schema: {0}")]
    ExtraRow(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_version_8_are_shared() {
        let custom = uuid::Builder::from_custom_bytes([255; 16]).into_uuid();
        let of_time = uuid::Builder::from_unix_timestamp_millis(5, &[7; 10]).into_uuid();
        let random = uuid::Builder::from_random_bytes([7; 16]).into_uuid();
        let ids = [custom, of_time, random, Uuid::nil(), Uuid::max()];
        assert_eq!(ids.map(is_shared), [true, false, false, false, false]);
    }
}
