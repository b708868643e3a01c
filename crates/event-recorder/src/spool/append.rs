//! Addition of events, and the events that are evicted for them.

use std::collections::VecDeque;

use prost::Message;
use rocksdb::{DBIterator, IteratorMode, WriteBatch};
use tidewater_events::{Priority, RecordedEvent};
use tidewater_proto::v1;

use super::MAX_TABLES;
use super::database::OpenDatabase;
use super::error::SpoolError;
use super::keys::{self, EventSequence, TableNumber};
use super::read::record_bytes;
use super::state::{SpoolState, TableState};

/// Room for new events, and those that may be evicted for them.
pub(super) struct Room<'a> {
    limit: u64,
    /// The oldest of the lowest priority first; those after `next`. Opened when it is first needed.
    evictable: Option<DBIterator<'a>>,
    /// Candidates that were read, in order.
    next: VecDeque<Candidate>,
}

/// Event that may be evicted.
struct Candidate {
    priority: Priority,
    number: TableNumber,
    sequence: EventSequence,
    /// Length of its record.
    length: u32,
}

impl<'a> Room<'a> {
    /// Room up to a limit of bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, evictable: None, next: VecDeque::new() }
    }

    /// Returns the events to evict for one that takes `bytes`, in a spool of `used` bytes; `None`: there is not enough
    /// of lower priority, and nothing is evicted.
    fn make(
        &mut self,
        database: &'a OpenDatabase<'_>,
        used: u64,
        bytes: u64,
        priority: Priority,
    ) -> Result<Option<Vec<Candidate>>, SpoolError> {
        let excess = used.saturating_add(bytes).saturating_sub(self.limit);
        let mut freed = 0;
        let mut taken = 0;
        while freed < excess {
            if taken == self.next.len() {
                match self.read(database)? {
                    Some(candidate) => self.next.push_back(candidate),
                    None => return Ok(None),
                }
            }
            let candidate = &self.next[taken];
            if candidate.priority >= priority {
                return Ok(None);
            }
            freed += record_bytes(candidate.length as usize);
            taken += 1;
        }
        Ok(Some(self.next.drain(..taken).collect()))
    }

    fn read(&mut self, database: &'a OpenDatabase<'_>) -> Result<Option<Candidate>, SpoolError> {
        let iterator = match &mut self.evictable {
            Some(iterator) => iterator,
            None => {
                let family = database.family(keys::EVICTABLE)?;
                self.evictable.insert(database.db.iterator_cf(family, IteratorMode::Start))
            }
        };
        let Some(entry) = iterator.next() else { return Ok(None) };
        let (key, length) = entry.map_err(|error| database.error(error))?;
        let parsed = keys::parse_evictable(&key).zip(<[u8; 4]>::try_from(&*length).ok());
        let ((priority, number, sequence), length) =
            parsed.ok_or_else(|| database.damaged("an entry of the evictable events"))?;
        let length = u32::from_be_bytes(length);
        Ok(Some(Candidate { priority, number, sequence, length }))
    }
}

/// Adds an event to a batch of the database, and to the state; returns whether there is room for it.
pub(super) fn append_one<'a>(
    database: &'a OpenDatabase<'_>,
    batch: &mut WriteBatch,
    state: &mut SpoolState,
    room: &mut Room<'a>,
    event: &RecordedEvent,
) -> Result<bool, SpoolError> {
    let encoded = event.encode();
    let bytes = record_bytes(encoded.len());
    let Some(number) = state.table(batch, &event.table) else { return Ok(false) };
    let Some(evicted) = room.make(database, state.bytes, bytes, event.priority)? else {
        return Ok(false);
    };
    let events = database.family(keys::EVENTS)?;
    let evictable = database.family(keys::EVICTABLE)?;
    for oldest in evicted {
        let key = keys::evictable(oldest.priority, oldest.number, oldest.sequence);
        batch.delete_cf(evictable, key);
        batch.delete_cf(events, keys::event(oldest.number, oldest.sequence));
        state.remove_evicted(&oldest);
    }
    let sequence = state.next;
    state.next = sequence.next();
    state.bytes = state.bytes.saturating_add(bytes);
    if let Some(table) = state.tables.get_mut(&event.table) {
        table.waiting.add(bytes);
    }
    let length = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
    batch.put_cf(events, keys::event(number, sequence), encoded);
    let key = keys::evictable(event.priority, number, sequence);
    batch.put_cf(evictable, key, length.to_be_bytes());
    Ok(true)
}

/// Encodes the events that were evicted and that no summary has reported.
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
        self.tables.insert(name.to_owned(), TableState::new(number, self.next));
        Some(number)
    }

    fn remove_evicted(&mut self, evicted: &Candidate) {
        let bytes = record_bytes(evicted.length as usize);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.dropped.add(evicted.priority, 1);
        if let Some(table) = self.tables.values_mut().find(|table| table.number == evicted.number) {
            table.waiting.remove(bytes);
        }
    }
}
