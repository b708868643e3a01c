//! Batches of the tables: claimed for the handler, then released or completed.

use prost::Message;
use rocksdb::WriteBatch;
use tidewater_events::Priority;
use tidewater_proto::v1;

use super::database::{Durability, OpenDatabase};
use super::error::SpoolError;
use super::keys::{self, EventSequence, TableNumber};
use super::read::{ClaimedBatch, QueueRange, read_queue, stored_batch};
use super::state::EventTotal;
use super::{Spool, current};

impl Spool {
    /// Returns the batch of a table: the one that is not complete, or a new one of the first events of the queue.
    /// A batch has at least one event and at most `max_events`; its records have at most `max_bytes`, or it has one
    /// event. An earlier claim of the table ends, also one of the same batch: its notes are refused from then on.
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
            let evictable = database.family(keys::EVICTABLE)?;
            batch.delete_cf(database.family(keys::BATCHES)?, keys::table(number));
            for place in &claimed.places {
                let priority = place.priority.unwrap_or(Priority::Normal);
                let key = keys::evictable(priority, number, place.sequence);
                batch.put_cf(evictable, key, place.length.to_be_bytes());
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
        // Otherwise the batch was removed by a write that seemed to have failed.
        let is_counted =
            memory.spool.tables.get(table).is_some_and(|state| state.in_batch.events > 0);
        if is_counted {
            memory.spool.bytes = memory.spool.bytes.saturating_sub(total.bytes);
        }
        self.change_table(&mut memory, table, |state| {
            state.first = state.first.max(claimed.last.next());
            state.in_batch = EventTotal::default();
            state.has_notes = false;
        });
        Ok(())
    }
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
