//! Addition of events, and the events that are evicted for them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use prost::Message;
use rocksdb::{DBIterator, Direction, IteratorMode, WriteBatch};
use tidewater_events::{Priority, RecordedEvent};
use tidewater_proto::v1;

use super::MAX_TABLES;
use super::database::OpenDatabase;
use super::error::SpoolError;
use super::keys::{self, TableNumber};
use super::read::record_bytes;
use super::shares::{Candidate, Choice, NewEvent, TableBytes, choose};
use super::state::{SpoolState, TableState};

/// Room for new events, and those that may be evicted for them.
pub(super) struct Room<'a> {
    limit: u64,
    /// Opened when they are first needed.
    queues: BTreeMap<(Priority, TableNumber), EvictionQueue<'a>>,
}

/// Events of a priority and a table that may be evicted.
struct EvictionQueue<'a> {
    /// Candidates that were considered and not evicted, the oldest last.
    considered: Vec<Candidate>,
    /// Events after them; `None` after the last one.
    rest: Option<DBIterator<'a>>,
}

impl<'a> Room<'a> {
    /// Room up to a limit of bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, queues: BTreeMap::new() }
    }

    /// Returns the events to evict for a new one; `None`: there is not enough room, and nothing is evicted.
    fn make(
        &mut self,
        database: &'a OpenDatabase<'_>,
        state: &SpoolState,
        event: NewEvent,
    ) -> Result<Option<Vec<Candidate>>, SpoolError> {
        let excess = state.bytes.saturating_add(event.bytes).saturating_sub(self.limit);
        if excess == 0 {
            return Ok(Some(Vec::new()));
        }
        let limit = self.limit;
        let take = |priority, number| self.take_oldest(database, priority, number);
        match choose(limit, state.table_bytes(), event, excess, take)? {
            Choice::Evict(chosen) => Ok(Some(chosen)),
            Choice::Drop(considered) => {
                for candidate in considered.into_iter().rev() {
                    let key = (candidate.priority, candidate.number);
                    if let Some(queue) = self.queues.get_mut(&key) {
                        queue.considered.push(candidate);
                    }
                }
                Ok(None)
            }
        }
    }

    fn take_oldest(
        &mut self,
        database: &'a OpenDatabase<'_>,
        priority: Priority,
        number: TableNumber,
    ) -> Result<Option<Candidate>, SpoolError> {
        let queue = match self.queues.entry((priority, number)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let prefix = keys::evictable_queue(priority, number);
                let from = IteratorMode::From(&prefix, Direction::Forward);
                let rest = database.db.iterator_cf(database.family(keys::EVICTABLE)?, from);
                entry.insert(EvictionQueue { considered: Vec::new(), rest: Some(rest) })
            }
        };
        if let Some(candidate) = queue.considered.pop() {
            return Ok(Some(candidate));
        }
        let Some(rest) = &mut queue.rest else { return Ok(None) };
        let next = rest.next().transpose().map_err(|error| database.error(error))?;
        let candidate =
            next.map(|(key, length)| parse_candidate(database, &key, &length)).transpose()?;
        let of_queue = candidate
            .filter(|candidate| (candidate.priority, candidate.number) == (priority, number));
        if of_queue.is_none() {
            queue.rest = None;
        }
        Ok(of_queue)
    }
}

/// Parses an entry of the events that may be evicted.
fn parse_candidate(
    database: &OpenDatabase<'_>,
    key: &[u8],
    length: &[u8],
) -> Result<Candidate, SpoolError> {
    let parsed = keys::parse_evictable(key).zip(<[u8; 4]>::try_from(length).ok());
    let ((priority, number, sequence), length) =
        parsed.ok_or_else(|| database.damaged("an entry of the evictable events"))?;
    Ok(Candidate { priority, number, sequence, length: u32::from_be_bytes(length) })
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
    let added = NewEvent { number, priority: event.priority, bytes };
    let Some(evicted) = room.make(database, state, added)? else { return Ok(false) };
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

    /// Bytes of each table.
    fn table_bytes(&self) -> Vec<TableBytes> {
        let tables = self.tables.values();
        let bytes = |table: &TableState| table.waiting.plus(table.in_batch).bytes;
        tables.map(|table| TableBytes { number: table.number, bytes: bytes(table) }).collect()
    }

    fn remove_evicted(&mut self, evicted: &Candidate) {
        let bytes = evicted.bytes();
        self.bytes = self.bytes.saturating_sub(bytes);
        self.dropped.add(evicted.priority, 1);
        if let Some(table) = self.tables.values_mut().find(|table| table.number == evicted.number) {
            table.waiting.remove(bytes);
        }
    }
}
