//! Spool: the events of a node that their tables do not have yet, on the node's disk.
//!
//! Each table has a queue of events in the order in which they were recorded. The handler receives a *batch*: the
//! first events of a queue. A batch with notes keeps its events until it is complete, also over restarts. An event
//! that is in no batch may be evicted for one of higher priority when the spool is full.
//!
//! The functions that return a [`SpoolError`] block: the recorder calls them on threads of their own. Sizes are published, and
//! are read without waiting for the disk.

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

use parking_lot::{Mutex, MutexGuard};
use prost::Message;
use rocksdb::{Direction, IteratorMode, WriteBatch};
use tidewater_events::{Priority, RecordedEvent};
use tidewater_proto::v1;
use tokio::sync::watch;

use self::append::{Room, append_one, encode_dropped};
use self::database::{Database, Durability, OpenDatabase};
pub use self::error::SpoolError;
use self::keys::{EventSequence, TableNumber};
pub(crate) use self::read::ClaimedBatch;
use self::read::{QueueRange, read_queue, stored_batch};
pub(crate) use self::state::{Appended, DroppedSummary, EventTotal, SpoolSizes};
use self::state::{SpoolState, TableState};
use crate::queue::PriorityCounts;

/// Tables of one spool, at most.
pub(crate) const MAX_TABLES: usize = 64;

/// Bytes above its limit that a spool takes for summaries.
const SUMMARY_BYTES: u64 = 64 << 10;

/// Notes of a batch, at most, and bytes of one of them.
const MAX_NOTES: (usize, usize) = (1_024, 1 << 20);

/// Spool of a node.
#[derive(Debug)]
pub(crate) struct Spool {
    database: Database,
    limit: u64,
    state: Mutex<Memory>,
    sizes: watch::Sender<SpoolSizes>,
}

/// State of the spool and of its claims in this process.
#[derive(Debug, Default)]
struct Memory {
    spool: SpoolState,
    /// Current claim of each table.
    claims: BTreeMap<String, u64>,
    last_claim: u64,
}

impl Spool {
    /// Opens the spool of a directory, creating it if missing. `limit`: bytes of the events, at most.
    pub(crate) fn open(path: &Path, limit: u64) -> Result<Self, SpoolError> {
        let database = Database::open(path)?;
        let spool = open::load(&database)?;
        let (sizes, _) = watch::channel(spool.sizes());
        let state = Mutex::new(Memory { spool, ..Memory::default() });
        Ok(Self { database, limit, state, sizes })
    }

    /// Sizes of the spool, which change with each call. Does not block.
    pub(crate) fn sizes(&self) -> watch::Receiver<SpoolSizes> {
        self.sizes.subscribe()
    }

    /// Error of a task that works on the spool.
    pub(crate) fn disk_error(&self, error: &dyn Display) -> SpoolError {
        SpoolError::Disk { path: self.database.path().to_owned(), message: error.to_string() }
    }

    /// Appends events. In a full spool, the oldest events of the lowest priority are evicted for those of a higher one.
    /// `dropped`: events that found no room in the queue.
    pub(crate) fn append(
        &self,
        events: &[RecordedEvent],
        dropped: PriorityCounts,
        now_ms: u64,
    ) -> Result<Appended, SpoolError> {
        let mut memory = self.lock()?;
        let mut next = memory.spool.clone();
        next.count_dropped(dropped, now_ms);
        let before = next.dropped.total();
        let mut accepted = Vec::with_capacity(events.len());
        self.database.write(Durability::Synced, |database, batch| {
            let mut room = Room::new(self.limit);
            for event in events {
                let is_accepted = append_one(database, batch, &mut next, &mut room, event)?;
                if !is_accepted {
                    next.dropped.add(event.priority, 1);
                }
                accepted.push(is_accepted);
            }
            if memory.spool.dropped.total() == 0 && next.dropped.total() > 0 {
                next.dropped_since_ms = now_ms;
            }
            batch.put(keys::DROPPED, encode_dropped(&next));
            Ok(())
        })?;
        let dropped = next.dropped.total().saturating_sub(before);
        self.publish(&mut memory, next);
        Ok(Appended { accepted, dropped })
    }

    /// Appends the summary of the events that were dropped, which replaces their count. Returns false if the count has
    /// changed, or if there is no room: the summaries of a full spool take little, and are not added without limit.
    pub(crate) fn append_summary(
        &self,
        summary: &DroppedSummary,
        event: &RecordedEvent,
    ) -> Result<bool, SpoolError> {
        let mut memory = self.lock()?;
        if memory.spool.dropped != summary.counts {
            return Ok(false);
        }
        let mut next = memory.spool.clone();
        next.dropped = PriorityCounts::default();
        let mut is_accepted = false;
        self.database.write(Durability::Synced, |database, batch| {
            let mut room = Room::new(self.limit.saturating_add(SUMMARY_BYTES));
            is_accepted = append_one(database, batch, &mut next, &mut room, event)?;
            if is_accepted {
                batch.put(keys::DROPPED, encode_dropped(&next));
            }
            Ok(())
        })?;
        if is_accepted {
            self.publish(&mut memory, next);
        }
        Ok(is_accepted)
    }

    /// Returns the events that were dropped and that no summary has reported.
    pub(crate) fn dropped(&self) -> Option<DroppedSummary> {
        let spool = &self.state.lock().spool;
        (spool.dropped.total() > 0)
            .then_some(DroppedSummary { counts: spool.dropped, since_ms: spool.dropped_since_ms })
    }

    /// Returns the batch of a table: the one that is not complete, or a new one of the first events of the queue.
    /// A batch has at least one event and at most `max_events`; its records have at most `max_bytes`, or it has one
    /// event. An earlier claim of the table ends.
    pub(crate) fn claim(
        &self,
        table: &str,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<Option<ClaimedBatch>, SpoolError> {
        let mut memory = self.lock()?;
        let Some(known) = memory.spool.tables.get(table).copied() else { return Ok(None) };
        let number = known.number;
        let stored = self.database.read(|database| stored_batch(database, number))?;
        let is_stored = stored.is_some();
        let range = match stored {
            Some(stored) => QueueRange {
                number,
                first: EventSequence(stored.first),
                last: EventSequence(stored.last),
                max_events: usize::MAX,
                max_bytes: usize::MAX,
            },
            None => {
                let last = EventSequence(u64::MAX);
                QueueRange { number, first: known.first, last, max_events, max_bytes }
            }
        };
        let claimed = self.database.read(|database| read_queue(database, table, range))?;
        let Some(mut claimed) = claimed else { return Ok(None) };
        if !is_stored {
            self.database.write(Durability::Written, |database, batch| {
                let record = v1::SpooledBatch { first: claimed.first.0, last: claimed.last.0 };
                let batches = database.family(keys::BATCHES)?;
                batch.put_cf(batches, keys::table(number), record.encode_to_vec());
                remove_evictable(database, batch, number, &claimed)
            })?;
            let total = claimed.total();
            self.change_table(&mut memory, table, |state| {
                state.first = claimed.first;
                state.waiting = state.waiting.minus(total);
                state.in_batch = total;
            });
        }
        memory.last_claim += 1;
        claimed.claim = memory.last_claim;
        memory.claims.insert(table.to_owned(), claimed.claim);
        Ok(Some(claimed))
    }

    /// Ends a batch without an effect: its events wait again. Returns false for a batch with notes, which stays.
    pub(crate) fn release(&self, table: &str, claimed: &ClaimedBatch) -> Result<bool, SpoolError> {
        let mut memory = self.lock()?;
        let Some(number) = current(&memory, table, claimed.claim) else { return Ok(false) };
        if memory.spool.tables.get(table).is_none_or(|state| state.has_notes) {
            return Ok(false);
        }
        self.database.write(Durability::Written, |database, batch| {
            let families = (database.family(keys::BATCHES)?, database.family(keys::EVICTABLE)?);
            batch.delete_cf(families.0, keys::table(number));
            for place in &claimed.places {
                let priority = place.priority.unwrap_or(Priority::Normal);
                let key = keys::evictable(priority, number, place.sequence);
                batch.put_cf(families.1, key, place.length.to_be_bytes());
            }
            Ok(())
        })?;
        memory.claims.remove(table);
        self.change_table(&mut memory, table, |state| {
            state.waiting = state.waiting.plus(state.in_batch);
            state.in_batch = EventTotal::default();
        });
        Ok(true)
    }

    /// Removes the events of a batch that is complete, and its notes.
    pub(crate) fn complete(&self, table: &str, claimed: &ClaimedBatch) -> Result<(), SpoolError> {
        let mut memory = self.lock()?;
        let Some(number) = current(&memory, table, claimed.claim) else { return Ok(()) };
        let has_notes = memory.spool.tables.get(table).is_some_and(|state| state.has_notes);
        self.database.write(Durability::Written, |database, batch| {
            let events = database.family(keys::EVENTS)?;
            for place in &claimed.places {
                batch.delete_cf(events, keys::event(number, place.sequence));
            }
            batch.delete_cf(database.family(keys::BATCHES)?, keys::table(number));
            if has_notes {
                let notes = database.family(keys::NOTES)?;
                batch.delete_range_cf(notes, keys::table(number), keys::table_end(number));
            }
            Ok(())
        })?;
        memory.claims.remove(table);
        let total = claimed.total();
        memory.spool.bytes = memory.spool.bytes.saturating_sub(total.bytes);
        self.change_table(&mut memory, table, |state| {
            state.first = claimed.last.next();
            state.in_batch = EventTotal::default();
            state.has_notes = false;
        });
        Ok(())
    }

    /// Stores a note about the batch of a claim, synced.
    pub(crate) fn put_note(
        &self,
        table: &str,
        claim: u64,
        key: &[u8],
        note: &[u8],
    ) -> Result<(), SpoolError> {
        let mut memory = self.lock()?;
        let number = current(&memory, table, claim).ok_or(SpoolError::BatchEnded)?;
        let (most, most_bytes) = MAX_NOTES;
        if key.len() + note.len() > most_bytes || self.read_notes(number)?.len() >= most {
            return Err(SpoolError::TooManyNotes(most, most_bytes));
        }
        self.database.write(Durability::Synced, |database, batch| {
            batch.put_cf(database.family(keys::NOTES)?, keys::note(number, key), note);
            Ok(())
        })?;
        self.change_table(&mut memory, table, |state| state.has_notes = true);
        Ok(())
    }

    /// Returns the notes about the batch of a claim, by key.
    pub(crate) fn notes(
        &self,
        table: &str,
        claim: u64,
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, SpoolError> {
        let memory = self.lock()?;
        let number = current(&memory, table, claim).ok_or(SpoolError::BatchEnded)?;
        self.read_notes(number)
    }

    fn read_notes(&self, number: TableNumber) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, SpoolError> {
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

    /// Locks the state. After an error of the disk, the database is opened again, and the state read from it: the write
    /// that failed may be in it. Claims and their batches stay.
    fn lock(&self) -> Result<MutexGuard<'_, Memory>, SpoolError> {
        let mut memory = self.state.lock();
        if self.database.reopen_if_closed()? {
            let spool = self.database.read(open::state)?;
            self.publish(&mut memory, spool);
        }
        Ok(memory)
    }

    fn change_table(&self, memory: &mut Memory, table: &str, change: impl FnOnce(&mut TableState)) {
        if let Some(state) = memory.spool.tables.get_mut(table) {
            change(state);
        }
        self.sizes.send_replace(memory.spool.sizes());
    }

    fn publish(&self, memory: &mut Memory, spool: SpoolState) {
        self.sizes.send_replace(spool.sizes());
        memory.spool = spool;
    }
}

/// Returns the number of a table of which a claim is the current one.
fn current(memory: &Memory, table: &str, claim: u64) -> Option<TableNumber> {
    let is_current = memory.claims.get(table) == Some(&claim);
    let table = memory.spool.tables.get(table).filter(|_| is_current)?;
    Some(table.number)
}

/// Removes the events of a batch from those that may be evicted.
fn remove_evictable(
    database: &OpenDatabase<'_>,
    batch: &mut WriteBatch,
    number: TableNumber,
    claimed: &ClaimedBatch,
) -> Result<(), SpoolError> {
    let evictable = database.family(keys::EVICTABLE)?;
    for place in &claimed.places {
        // The priority of a record that cannot be read is unknown.
        for priority in Priority::ALL {
            if place.priority.is_none_or(|known| known == priority) {
                let key = keys::evictable(priority, number, place.sequence);
                batch.delete_cf(evictable, key);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
