//! Spool: the events of a node that their tables do not have yet, on the node's disk.
//!
//! Each table has a queue of events in the order in which they were recorded. The handler receives a *batch*: the
//! first events of a queue. A batch keeps its events until it is complete, also over restarts, and *notes* of the
//! handler about it, from which the handler learns after a crash what it has begun. An event that is in no batch
//! may give way to one of higher priority when the spool is full.
//!
//! All functions block: the recorder calls them on threads of their own.

mod append;
mod database;
mod error;
mod keys;
mod open;
mod read;
mod state;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use parking_lot::Mutex;
use prost::Message;
use rocksdb::{Direction, IteratorMode};
use tidewater_proto::v1;

use self::append::{Room, append_one, encode_dropped};
use self::database::{Database, Durability};
pub use self::error::SpoolError;
pub(crate) use self::keys::{EventSequence, TableNumber};
pub(crate) use self::read::ClaimedBatch;
use self::read::{QueueRange, read_queue, stored_batch};
pub(crate) use self::state::{Appended, DroppedSummary, SpoolSize, TableEvents};
use self::state::{SpoolState, TableState};
use crate::queue::PriorityCounts;
use crate::recorded::RecordedEvent;

/// Tables of one spool, at most.
pub(crate) const MAX_TABLES: usize = 64;

/// Spool of a node.
#[derive(Debug)]
pub(crate) struct Spool {
    database: Database,
    limit: u64,
    state: Mutex<SpoolState>,
}

impl Spool {
    /// Opens the spool of a directory, creating it if missing. `limit`: bytes of the events, at most.
    pub(crate) fn open(path: &Path, limit: u64) -> Result<Self, SpoolError> {
        let database = Database::open(path)?;
        let state = Mutex::new(open::load(&database)?);
        Ok(Self { database, limit, state })
    }

    /// Number and bytes of the events.
    pub(crate) fn size(&self) -> SpoolSize {
        let state = self.state.lock();
        let events = state.tables.values().map(|table| table.waiting + table.in_batch).sum();
        SpoolSize { events, bytes: state.bytes }
    }

    /// Tables that have had events, with the number of events in the spool.
    pub(crate) fn tables(&self) -> Vec<(String, u64)> {
        let state = self.state.lock();
        state
            .tables
            .iter()
            .map(|(name, table)| (name.clone(), table.waiting + table.in_batch))
            .collect()
    }

    /// Events of a table.
    pub(crate) fn events_of(&self, table: &str) -> TableEvents {
        let state = self.state.lock();
        state.tables.get(table).map_or_else(TableEvents::default, |table| TableEvents {
            waiting: table.waiting,
            in_batch: table.in_batch,
        })
    }

    /// Error of a task that works on the spool.
    pub(crate) fn disk_error(&self, error: &dyn Display) -> SpoolError {
        SpoolError::Disk { path: self.database.path().to_owned(), message: error.to_string() }
    }

    /// Appends events. In a full spool, the oldest events of the lowest
    /// priority give way to those of a higher one. `dropped`: events that found no room in the queue.
    pub(crate) fn append(
        &self,
        events: &[RecordedEvent],
        dropped: PriorityCounts,
        now_ms: u64,
    ) -> Result<Appended, SpoolError> {
        let mut state = self.state.lock();
        let mut next = state.clone_for_append();
        if next.dropped.total() == 0 && dropped.total() > 0 {
            next.dropped_since_ms = now_ms;
        }
        next.dropped.add_all(dropped);
        let before = next.dropped.total();
        let mut accepted = Vec::with_capacity(events.len());
        self.database.write(Durability::Synced, |database, batch| {
            let mut room = Room::new(database, self.limit)?;
            for event in events {
                accepted.push(append_one(database, batch, &mut next, &mut room, event, now_ms)?);
            }
            batch.put(keys::DROPPED, encode_dropped(&next));
            Ok(())
        })?;
        let dropped = next.dropped.total().saturating_sub(before);
        *state = next;
        Ok(Appended { accepted, dropped })
    }

    /// Appends the summary of the events that gave way, whether or not there is room: it takes little, and replaces
    /// the count. Does nothing unless the count is that of `summary`.
    pub(crate) fn append_summary(
        &self,
        summary: &DroppedSummary,
        event: &RecordedEvent,
    ) -> Result<(), SpoolError> {
        let mut state = self.state.lock();
        if state.dropped != summary.counts {
            return Ok(());
        }
        let mut next = state.clone_for_append();
        next.dropped = PriorityCounts::default();
        self.database.write(Durability::Synced, |database, batch| {
            let mut room = Room::unlimited();
            append_one(database, batch, &mut next, &mut room, event, summary.since_ms)?;
            batch.put(keys::DROPPED, encode_dropped(&next));
            Ok(())
        })?;
        *state = next;
        Ok(())
    }

    /// Returns the events that gave way and that no summary has reported.
    pub(crate) fn dropped(&self) -> Option<DroppedSummary> {
        let state = self.state.lock();
        (state.dropped.total() > 0)
            .then_some(DroppedSummary { counts: state.dropped, since_ms: state.dropped_since_ms })
    }

    /// Returns the batch of a table: the one that is not complete, or a new one of the first events of the queue.
    /// A batch has at least one event and at most `max_events`; its records have at most `max_bytes`, or it has one
    /// event.
    pub(crate) fn claim(
        &self,
        table: &str,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<Option<ClaimedBatch>, SpoolError> {
        let mut state = self.state.lock();
        let Some(table_state) = state.tables.get_mut(table) else { return Ok(None) };
        let number = table_state.number;
        let stored = self.database.read(|database| stored_batch(database, number))?;
        if let Some(stored) = stored {
            let last = EventSequence(stored.last);
            let (max_events, max_bytes) = (usize::MAX, usize::MAX);
            let first = EventSequence(stored.first);
            return self.database.read(|database| {
                let range = QueueRange { number, first, last, max_events, max_bytes };
                read_queue(database, table, range)
            });
        }
        let first = table_state.first;
        let last = EventSequence(u64::MAX);
        let claimed = self.database.read(|database| {
            read_queue(database, table, QueueRange { number, first, last, max_events, max_bytes })
        })?;
        let Some(claimed) = claimed else { return Ok(None) };
        self.database.write(Durability::Written, |database, batch| {
            let record = v1::SpooledBatch { first: claimed.first.0, last: claimed.last.0 };
            let families = (database.family(keys::BATCHES)?, database.family(keys::EVICTABLE)?);
            batch.put_cf(families.0, keys::table(number), record.encode_to_vec());
            for place in &claimed.places {
                let key = keys::evictable(place.priority, number, place.sequence);
                batch.delete_cf(families.1, key);
            }
            Ok(())
        })?;
        table_state.first = claimed.first;
        let count = claimed.places.len() as u64;
        table_state.waiting = table_state.waiting.saturating_sub(count);
        table_state.in_batch = count;
        Ok(Some(claimed))
    }

    /// Ends a batch without an effect: its events wait again. The batch must have no notes.
    pub(crate) fn release(&self, table: &str, claimed: &ClaimedBatch) -> Result<(), SpoolError> {
        let mut state = self.state.lock();
        let Some(table_state) = state.tables.get_mut(table) else { return Ok(()) };
        let number = table_state.number;
        self.database.write(Durability::Written, |database, batch| {
            let families = (database.family(keys::BATCHES)?, database.family(keys::EVICTABLE)?);
            batch.delete_cf(families.0, keys::table(number));
            for place in &claimed.places {
                let key = keys::evictable(place.priority, number, place.sequence);
                batch.put_cf(families.1, key, place.length.to_be_bytes());
            }
            Ok(())
        })?;
        table_state.waiting += table_state.in_batch;
        table_state.in_batch = 0;
        Ok(())
    }

    /// Removes the events of a batch that is complete, and its notes.
    pub(crate) fn complete(&self, table: &str, claimed: &ClaimedBatch) -> Result<(), SpoolError> {
        let mut state = self.state.lock();
        let Some(table_state) = state.tables.get_mut(table) else { return Ok(()) };
        let number = table_state.number;
        let end = claimed.last.next();
        self.database.write(Durability::Written, |database, batch| {
            let events = database.family(keys::EVENTS)?;
            batch.delete_range_cf(
                events,
                keys::event(number, claimed.first),
                keys::event(number, end),
            );
            batch.delete_cf(database.family(keys::BATCHES)?, keys::table(number));
            let notes = database.family(keys::NOTES)?;
            batch.delete_range_cf(notes, keys::table(number), keys::table_end(number));
            Ok(())
        })?;
        table_state.first = end;
        table_state.in_batch = 0;
        state.bytes = state.bytes.saturating_sub(claimed.bytes());
        Ok(())
    }

    /// Stores a note about the batch of a table, synced.
    pub(crate) fn put_note(&self, table: &str, key: &[u8], note: &[u8]) -> Result<(), SpoolError> {
        let Some(number) = self.number(table) else { return Ok(()) };
        self.database.write(Durability::Synced, |database, batch| {
            batch.put_cf(database.family(keys::NOTES)?, keys::note(number, key), note);
            Ok(())
        })
    }

    /// Returns the notes about the batch of a table, by key.
    pub(crate) fn notes(&self, table: &str) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, SpoolError> {
        let Some(number) = self.number(table) else { return Ok(BTreeMap::new()) };
        self.database.read(|database| {
            let prefix = keys::table(number);
            let from = IteratorMode::From(&prefix, Direction::Forward);
            let mut notes = BTreeMap::new();
            for entry in database.db.iterator_cf(database.family(keys::NOTES)?, from) {
                let (key, note) = entry.map_err(|error| database.error(error))?;
                let Some(key) = key.strip_prefix(&prefix) else { break };
                notes.insert(key.to_vec(), note.into_vec());
            }
            Ok(notes)
        })
    }

    fn number(&self, table: &str) -> Option<TableNumber> {
        self.state.lock().tables.get(table).map(|table| table.number)
    }
}

#[cfg(test)]
mod tests;
