//! Opening of a spool: its format, and its state from the records.

use prost::Message;
use rocksdb::{Direction, IteratorMode};
use tidewater_proto::v1;

use super::database::{Database, Durability, OpenDatabase};
use super::error::SpoolError;
use super::keys::{self, EventSequence, TableNumber};
use super::read::{for_each_event, record_bytes, stored_batch};
use super::state::{SpoolState, TableState};
use crate::queue::PriorityCounts;

/// Version of the format that this release writes, and the latest that it reads.
const FORMAT: u32 = 1;

/// Checks the format of a database, writing it to a new one, and reads its state.
pub(super) fn load(database: &Database) -> Result<SpoolState, SpoolError> {
    match database.read(format)? {
        Some(found) if found > FORMAT => {
            let path = database.path().to_owned();
            return Err(SpoolError::NewerFormat { path, found: format!("format {found}") });
        }
        Some(_) => {}
        None => database.write(Durability::Synced, |_, batch| {
            batch.put(keys::FORMAT, FORMAT.to_be_bytes());
            Ok(())
        })?,
    }
    forget_empty_tables(database)?;
    database.read(state)
}

/// Removes tables without events, so that tables that are no longer used do not count.
fn forget_empty_tables(database: &Database) -> Result<(), SpoolError> {
    let state = database.read(state)?;
    let empty = state.tables.iter().filter(|(_, table)| table.waiting.events == 0);
    let empty: Vec<&String> =
        empty.filter(|(_, table)| table.in_batch.events == 0).map(|(name, _)| name).collect();
    if empty.is_empty() {
        return Ok(());
    }
    database.write(Durability::Written, |_, batch| {
        for name in &empty {
            batch.delete([keys::TABLE, name.as_bytes()].concat());
        }
        Ok(())
    })
}

fn format(database: &OpenDatabase<'_>) -> Result<Option<u32>, SpoolError> {
    let Some(stored) = database.get(keys::FORMAT)? else { return Ok(None) };
    match <[u8; 4]>::try_from(stored.as_slice()) {
        Ok(bytes) => Ok(Some(u32::from_be_bytes(bytes))),
        Err(_) => Err(database.damaged("the version of its format")),
    }
}

/// Reads the state.
pub(super) fn state(database: &OpenDatabase<'_>) -> Result<SpoolState, SpoolError> {
    let mut state = SpoolState::default();
    if let Some(stored) = database.get(keys::DROPPED)? {
        let stored = v1::DroppedEvents::decode(stored.as_slice())
            .map_err(|error| database.damaged(format!("the count of dropped events: {error}")))?;
        state.dropped = PriorityCounts::new(stored.low, stored.normal, stored.high);
        state.dropped_since_ms = stored.since_ms;
    }
    let from = IteratorMode::From(keys::TABLE, Direction::Forward);
    for entry in database.db.iterator(from) {
        let (key, number) = entry.map_err(|error| database.error(error))?;
        let Some(name) = key.strip_prefix(keys::TABLE) else { break };
        let parts = std::str::from_utf8(name).ok().zip(<[u8; 4]>::try_from(&*number).ok());
        let (name, number) = parts.ok_or_else(|| database.damaged("the number of a table"))?;
        let number = TableNumber(u32::from_be_bytes(number));
        let table = table(database, number, &mut state)?;
        state.tables.insert(name.to_owned(), table);
    }
    Ok(state)
}

/// Reads the state of a table, and adds its events to that of the spool.
fn table(
    database: &OpenDatabase<'_>,
    number: TableNumber,
    state: &mut SpoolState,
) -> Result<TableState, SpoolError> {
    let batch = stored_batch(database, number)?;
    let is_in_batch =
        |sequence| batch.as_ref().is_some_and(|batch| sequence <= EventSequence(batch.last));
    let mut table = TableState::new(number, EventSequence::default());
    table.has_notes = batch.is_some();
    let mut first = None;
    for_each_event(database, number, EventSequence(0), |sequence, record| {
        first.get_or_insert(sequence);
        let bytes = record_bytes(record.len());
        state.bytes = state.bytes.saturating_add(bytes);
        state.next = state.next.max(sequence.next());
        let total = if is_in_batch(sequence) { &mut table.in_batch } else { &mut table.waiting };
        total.add(bytes);
        true
    })?;
    // Sequences of events that were removed may be used again: nothing refers to them.
    table.first = first.unwrap_or_default();
    Ok(table)
}
