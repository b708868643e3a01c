//! Reads of a table's queue.

use prost::Message;
use rocksdb::{Direction, IteratorMode};
use tidewater_events::{Priority, RecordedEvent};
use tidewater_proto::v1;

use super::database::OpenDatabase;
use super::error::SpoolError;
use super::keys::{self, EventSequence, TableNumber};
use super::state::EventTotal;

/// Bytes that the records of an event take in addition to its own.
const RECORD_BYTES: u64 = 64;

/// Bytes that an event takes in the spool, from the length of its record.
pub(super) fn record_bytes(length: usize) -> u64 {
    length as u64 + RECORD_BYTES
}

/// Batch of a table's queue.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClaimedBatch {
    pub(crate) first: EventSequence,
    pub(crate) last: EventSequence,
    pub(crate) events: Vec<RecordedEvent>,
    /// Records that cannot be read, with their errors.
    pub(crate) unreadable: Vec<(Vec<u8>, String)>,
    /// Place of each event in the spool, in order.
    pub(super) places: Vec<Place>,
    /// Number of the claim in this process: sequences are used again.
    pub(super) claim: u64,
}

/// Place of an event in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) sequence: EventSequence,
    /// `None`: the record cannot be read.
    pub(super) priority: Option<Priority>,
    /// Length of its record.
    pub(super) length: u32,
}

impl ClaimedBatch {
    /// Number of the claim in this process.
    pub(crate) fn claim(&self) -> u64 {
        self.claim
    }

    /// Events of the batch in the spool.
    pub(super) fn total(&self) -> EventTotal {
        let mut total = EventTotal::default();
        for place in &self.places {
            total.add(record_bytes(place.length as usize));
        }
        total
    }
}

/// A part of a table's queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueRange {
    pub(super) number: TableNumber,
    pub(super) first: EventSequence,
    pub(super) last: EventSequence,
    pub(super) max_events: usize,
    /// Bytes of the records; the first event is read in any case.
    pub(super) max_bytes: usize,
}

/// Reads the first events of a range; `None` if it has none.
pub(super) fn read_queue(
    database: &OpenDatabase<'_>,
    table: &str,
    range: QueueRange,
) -> Result<Option<ClaimedBatch>, SpoolError> {
    let mut places = Vec::new();
    let mut events = Vec::new();
    let mut unreadable = Vec::new();
    let mut bytes = 0;
    for_each_event(database, range.number, range.first, |sequence, record| {
        let is_full = places.len() >= range.max_events
            || (!places.is_empty() && bytes + record.len() > range.max_bytes);
        if sequence > range.last || is_full {
            return false;
        }
        bytes += record.len();
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        let mut priority = None;
        match RecordedEvent::decode(table, record) {
            Ok(event) => {
                priority = Some(event.priority);
                events.push(event);
            }
            Err(error) => unreadable.push((record.to_vec(), error.to_string())),
        }
        places.push(Place { sequence, priority, length });
        true
    })?;
    let (Some(first), Some(last)) = (places.first(), places.last()) else { return Ok(None) };
    let first = first.sequence;
    let last = last.sequence;
    Ok(Some(ClaimedBatch { first, last, events, unreadable, places, claim: 0 }))
}

/// Calls a function with each event of a table from `first` on, until it returns false.
pub(super) fn for_each_event(
    database: &OpenDatabase<'_>,
    number: TableNumber,
    first: EventSequence,
    mut each: impl FnMut(EventSequence, &[u8]) -> bool,
) -> Result<(), SpoolError> {
    let key = keys::event(number, first);
    let from = IteratorMode::From(&key, Direction::Forward);
    for entry in database.db.iterator_cf(database.family(keys::EVENTS)?, from) {
        let (key, record) = entry.map_err(|error| database.error(error))?;
        let (found, sequence) =
            keys::parse_event(&key).ok_or_else(|| database.damaged("a key of the events"))?;
        if found != number || !each(sequence, &record) {
            break;
        }
    }
    Ok(())
}

/// Returns the batch of a table that is not complete.
pub(super) fn stored_batch(
    database: &OpenDatabase<'_>,
    number: TableNumber,
) -> Result<Option<v1::SpooledBatch>, SpoolError> {
    let family = database.family(keys::BATCHES)?;
    let record = database.db.get_cf(family, keys::table(number));
    let record = record.map_err(|error| database.error(error))?;
    record
        .map(|record| v1::SpooledBatch::decode(record.as_slice()))
        .transpose()
        .map_err(|error| database.damaged(format!("the record of a batch: {error}")))
}
