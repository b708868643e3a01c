//! Addition of events, and the events that give way to them.

use prost::Message;
use rocksdb::{DBIterator, IteratorMode, WriteBatch};
use tidewater_proto::v1;

use super::database::OpenDatabase;
use super::error::SpoolError;
use super::keys::{self, EventSequence, TableNumber};
use super::read::record_bytes;
use super::{MAX_TABLES, SpoolState, TableState};
use crate::event::Priority;
use crate::recorded::RecordedEvent;

/// Room for new events, and those that may give way to them.
pub(super) struct Room<'a> {
    limit: u64,
    /// The oldest of the lowest priority first; those after `next`.
    evictable: Option<DBIterator<'a>>,
    next: Option<Candidate>,
}

/// Event that may give way.
struct Candidate {
    priority: Priority,
    number: TableNumber,
    sequence: EventSequence,
    /// Length of its record.
    length: u32,
}

impl<'a> Room<'a> {
    pub(super) fn new(database: &'a OpenDatabase<'_>, limit: u64) -> Result<Self, SpoolError> {
        let family = database.family(keys::EVICTABLE)?;
        let evictable = database.db.iterator_cf(family, IteratorMode::Start);
        Ok(Self { limit, evictable: Some(evictable), next: None })
    }

    /// Room for events that are stored in any case.
    pub(super) fn unlimited() -> Self {
        Self { limit: u64::MAX, evictable: None, next: None }
    }

    /// Returns the next event with a priority below `priority`.
    fn next_below(
        &mut self,
        database: &OpenDatabase<'_>,
        priority: Priority,
    ) -> Result<Option<Candidate>, SpoolError> {
        if self.next.is_none() {
            let entry = self.evictable.as_mut().and_then(Iterator::next).transpose();
            self.next = match entry.map_err(|error| database.error(error))? {
                Some((key, length)) => Some(parse(database, &key, &length)?),
                None => None,
            };
        }
        Ok(self.next.take_if(|candidate| candidate.priority < priority))
    }
}

fn parse(database: &OpenDatabase<'_>, key: &[u8], length: &[u8]) -> Result<Candidate, SpoolError> {
    let parsed = keys::parse_evictable(key).zip(<[u8; 4]>::try_from(length).ok());
    let ((priority, number, sequence), length) =
        parsed.ok_or_else(|| database.damaged("an entry of the evictable events"))?;
    Ok(Candidate { priority, number, sequence, length: u32::from_be_bytes(length) })
}

/// Adds an event to a batch of the database, and to the state; returns whether there is room for it.
pub(super) fn append_one(
    database: &OpenDatabase<'_>,
    batch: &mut WriteBatch,
    state: &mut SpoolState,
    room: &mut Room<'_>,
    event: &RecordedEvent,
    now_ms: u64,
) -> Result<bool, SpoolError> {
    let Some(number) = state.table(batch, &event.table) else {
        state.count_dropped(event.priority, now_ms);
        return Ok(false);
    };
    let encoded = event.encode();
    let bytes = record_bytes(encoded.len());
    let events = database.family(keys::EVENTS)?;
    let evictable = database.family(keys::EVICTABLE)?;
    while state.bytes.saturating_add(bytes) > room.limit {
        let Some(oldest) = room.next_below(database, event.priority)? else {
            state.count_dropped(event.priority, now_ms);
            return Ok(false);
        };
        let key = keys::evictable(oldest.priority, oldest.number, oldest.sequence);
        batch.delete_cf(evictable, key);
        batch.delete_cf(events, keys::event(oldest.number, oldest.sequence));
        state.remove_evicted(&oldest, now_ms);
    }
    let sequence = state.next;
    state.next = sequence.next();
    state.bytes = state.bytes.saturating_add(bytes);
    if let Some(table) = state.tables.get_mut(&event.table) {
        table.waiting += 1;
    }
    let length = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
    batch.put_cf(events, keys::event(number, sequence), encoded);
    let key = keys::evictable(event.priority, number, sequence);
    batch.put_cf(evictable, key, length.to_be_bytes());
    Ok(true)
}

/// Encodes the events that gave way and that no summary has reported.
pub(super) fn encode_dropped(state: &SpoolState) -> Vec<u8> {
    let counts = &state.dropped;
    let record = v1::DroppedEvents {
        low: counts.of(Priority::Low),
        normal: counts.of(Priority::Normal),
        high: counts.of(Priority::High),
        since_ms: state.dropped_since_ms,
    };
    record.encode_to_vec()
}

impl SpoolState {
    /// Returns the number of a table, which is new when it has had no event; `None` if the spool has too many tables.
    fn table(&mut self, batch: &mut WriteBatch, name: &str) -> Option<TableNumber> {
        if let Some(table) = self.tables.get(name) {
            return Some(table.number);
        }
        if self.tables.len() >= MAX_TABLES {
            return None;
        }
        let last = self.tables.values().map(|table| table.number.0).max().unwrap_or(0);
        let number = TableNumber(last + 1);
        let key = [keys::TABLE, name.as_bytes()].concat();
        batch.put(key, keys::table(number));
        let table = TableState { number, first: self.next, waiting: 0, in_batch: 0 };
        self.tables.insert(name.to_owned(), table);
        Some(number)
    }

    pub(super) fn count_dropped(&mut self, priority: Priority, now_ms: u64) {
        if self.dropped.total() == 0 {
            self.dropped_since_ms = now_ms;
        }
        self.dropped.add(priority, 1);
    }

    fn remove_evicted(&mut self, evicted: &Candidate, now_ms: u64) {
        self.bytes = self.bytes.saturating_sub(record_bytes(evicted.length as usize));
        self.count_dropped(evicted.priority, now_ms);
        if let Some(table) = self.tables.values_mut().find(|table| table.number == evicted.number) {
            table.waiting = table.waiting.saturating_sub(1);
        }
    }
}
