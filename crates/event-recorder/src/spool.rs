//! Spool: the events of a node that their tables do not have yet, on the node's disk.
//!
//! Each table has a queue of events in the order in which they were recorded. The handler receives a *batch*: the
//! first events of a queue. A batch with notes keeps its events until it is complete, also over restarts. An event
//! that is in no batch may be evicted when the spool is full: for one of higher priority, or of a table that uses less than
//! its share (`shares`).
//!
//! The functions that return a [`SpoolError`] block: the recorder calls them on threads of their own. Sizes are published, and
//! are read without waiting for the disk.

mod append;
mod batches;
mod database;
mod error;
mod keys;
mod notes;
mod open;
mod read;
mod shares;
mod state;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use parking_lot::{Mutex, MutexGuard};
use tidewater_events::RecordedEvent;
use tokio::sync::watch;

use self::append::{Room, append_one, encode_dropped};
use self::database::{Database, Durability};
pub use self::error::SpoolError;
use self::keys::TableNumber;
pub(crate) use self::read::ClaimedBatch;
pub(crate) use self::state::{Appended, DroppedSummary, EventTotal, SpoolSizes};
use self::state::{SpoolState, TableState};
use crate::meters;
use crate::queue::PriorityCounts;

/// Tables of one spool, at most.
pub(crate) const MAX_TABLES: usize = 64;

/// Bytes above its limit that a spool takes for summaries.
const SUMMARY_BYTES: u64 = 64 << 10;

/// Spool of a node.
#[derive(Debug)]
pub(crate) struct Spool {
    database: Database,
    limit: u64,
    state: Mutex<Memory>,
    /// Closed when the spool is. Declared last, so that it is dropped after the database.
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
        let (sizes, _) = watch::channel(SpoolSizes::default());
        let opened = Self { database, limit, state: Mutex::default(), sizes };
        opened.publish(&mut opened.state.lock(), spool);
        Ok(opened)
    }

    /// Sizes of the spool, which change with each call. Does not block.
    pub(crate) fn sizes(&self) -> watch::Receiver<SpoolSizes> {
        self.sizes.subscribe()
    }

    /// Error of a task that works on the spool.
    pub(crate) fn disk_error(&self, error: &dyn Display) -> SpoolError {
        SpoolError::Disk { path: self.database.path().to_owned(), message: error.to_string() }
    }

    /// Appends events. In a full spool, others are evicted for them (`shares`), or they are dropped. `dropped`: events that
    /// found no room in the queue.
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

    /// Locks the state. After an error of the disk, the database is opened again, and the state read from it: the write
    /// that failed may be in it. Claims and their batches stay.
    fn lock(&self) -> Result<MutexGuard<'_, Memory>, SpoolError> {
        let mut memory = self.state.lock();
        if self.database.reopen_if_closed()? {
            let mut spool = self.database.read(open::state)?;
            // A claimed batch may be removed already: later events must not get its sequences.
            spool.next = spool.next.max(memory.spool.next);
            self.publish(&mut memory, spool);
        }
        Ok(memory)
    }

    /// Runs a test while the disk hangs: all calls wait.
    #[cfg(test)]
    pub(crate) fn while_hanging<T>(&self, test: impl FnOnce() -> T) -> T {
        let _held = self.state.lock();
        test()
    }

    fn change_table(&self, memory: &mut Memory, table: &str, change: impl FnOnce(&mut TableState)) {
        if let Some(state) = memory.spool.tables.get_mut(table) {
            change(state);
        }
        self.publish_sizes(memory);
    }

    fn publish(&self, memory: &mut Memory, spool: SpoolState) {
        memory.spool = spool;
        self.publish_sizes(memory);
    }

    fn publish_sizes(&self, memory: &Memory) {
        let sizes = memory.spool.sizes();
        meters::set_spool(sizes.total);
        self.sizes.send_replace(sizes);
    }
}

/// Returns the number of a table of which a claim is the current one.
fn current(memory: &Memory, table: &str, claim: u64) -> Option<TableNumber> {
    let is_current = memory.claims.get(table) == Some(&claim);
    let table = memory.spool.tables.get(table).filter(|_| is_current)?;
    Some(table.number)
}

#[cfg(test)]
mod tests;
