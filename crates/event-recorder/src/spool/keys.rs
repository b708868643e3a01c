//! Keys of the spool's column families. Numbers are big-endian, so that keys sort by them.
//!
//! | family | key | value |
//! |---|---|---|
//! | default | [`FORMAT`] | version of the format, 4 bytes |
//! | default | [`TABLE`], then the name of a table | number of the table, 4 bytes |
//! | default | [`DROPPED`] | `DroppedEvents` |
//! | [`EVENTS`] | table, sequence | `SpooledEvent` |
//! | [`EVICTABLE`] | priority (1 byte), table, sequence | size of the event's record, 4 bytes |
//! | [`BATCHES`] | table | `SpooledBatch` |
//! | [`NOTES`] | table, then the key of a note | the note |

use tidewater_events::Priority;

/// Key of the version of the format.
pub(super) const FORMAT: &[u8] = b"format";

/// Prefix of the names of tables.
pub(super) const TABLE: &[u8] = b"table/";

/// Key of the events that were evicted and that no summary has reported.
pub(super) const DROPPED: &[u8] = b"dropped";

/// Column family of the events.
pub(super) const EVENTS: &str = "events";

/// Column family of the events that may be evicted: those that are in no batch.
pub(super) const EVICTABLE: &str = "evictable";

/// Column family of the batches that the handler has received, one for each table.
pub(super) const BATCHES: &str = "batches";

/// Column family of the handler's notes about these batches.
pub(super) const NOTES: &str = "notes";

/// Number of a table in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TableNumber(pub(crate) u32);

/// Position of an event in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EventSequence(pub(crate) u64);

impl EventSequence {
    pub(super) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

pub(super) fn table(number: TableNumber) -> [u8; 4] {
    number.0.to_be_bytes()
}

pub(super) fn event(number: TableNumber, sequence: EventSequence) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&number.0.to_be_bytes());
    key[4..].copy_from_slice(&sequence.0.to_be_bytes());
    key
}

pub(super) fn parse_event(key: &[u8]) -> Option<(TableNumber, EventSequence)> {
    let (number, sequence) = key.split_first_chunk::<4>()?;
    let sequence = <[u8; 8]>::try_from(sequence).ok()?;
    Some((TableNumber(u32::from_be_bytes(*number)), EventSequence(u64::from_be_bytes(sequence))))
}

/// Prefix of the events of a priority and a table in [`EVICTABLE`].
pub(super) fn evictable_queue(priority: Priority, number: TableNumber) -> [u8; 5] {
    let mut key = [0; 5];
    key[0] = priority.to_wire();
    key[1..].copy_from_slice(&number.0.to_be_bytes());
    key
}

pub(super) fn evictable(
    priority: Priority,
    number: TableNumber,
    sequence: EventSequence,
) -> [u8; 13] {
    let mut key = [0; 13];
    key[..5].copy_from_slice(&evictable_queue(priority, number));
    key[5..].copy_from_slice(&sequence.0.to_be_bytes());
    key
}

pub(super) fn parse_evictable(key: &[u8]) -> Option<(Priority, TableNumber, EventSequence)> {
    let (priority, rest) = key.split_first()?;
    let (number, sequence) = parse_event(rest)?;
    Some((Priority::from_wire(u32::from(*priority)), number, sequence))
}

/// Key of a note of a table's batch.
pub(super) fn note(number: TableNumber, key: &[u8]) -> Vec<u8> {
    [&table(number), key].concat()
}

/// First key after those of a table in [`EVENTS`] and [`NOTES`].
pub(super) fn table_end(number: TableNumber) -> [u8; 4] {
    number.0.saturating_add(1).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_their_numbers() {
        let at = |table, sequence| event(TableNumber(table), EventSequence(sequence));
        assert!(at(1, 255) < at(1, 256) && at(1, u64::MAX) < at(2, 0));
        assert!(at(1, u64::MAX)[..] < table_end(TableNumber(1))[..]);
        let entry = |priority, table, sequence| {
            evictable(priority, TableNumber(table), EventSequence(sequence))
        };
        assert!(entry(Priority::Low, 9, 256) < entry(Priority::Normal, 1, 1));
        assert!(entry(Priority::Low, 1, u64::MAX) < entry(Priority::Low, 2, 0));
        assert!(entry(Priority::Low, 9, 255) < entry(Priority::Low, 9, 256));
        let queue = evictable_queue(Priority::Low, TableNumber(9));
        assert!(entry(Priority::Low, 9, 0).starts_with(&queue));
    }

    #[test]
    fn parsed_keys_equal_the_parts() {
        let parts = (TableNumber(3), EventSequence(1 << 40));
        assert_eq!(parse_event(&event(parts.0, parts.1)), Some(parts));
        let entry = (Priority::High, TableNumber(3), EventSequence(7));
        assert_eq!(parse_evictable(&evictable(entry.0, entry.1, entry.2)), Some(entry));
        assert_eq!((parse_event(&[1]), parse_evictable(&[1])), (None, None));
    }
}
