//! Notes of a handler about the batch of a table.

use std::collections::BTreeMap;

use rocksdb::{Direction, IteratorMode};

use super::database::Durability;
use super::error::SpoolError;
use super::keys::{self, TableNumber};
use super::{Spool, current};

/// Notes of a batch, at most.
const MAX_NOTES: usize = 1_024;

/// Bytes of a note and its key, at most.
const MAX_NOTE_BYTES: usize = 1 << 20;

impl Spool {
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
        let is_large = key.len() + note.len() > MAX_NOTE_BYTES;
        if is_large || self.read_notes(number)?.len() >= MAX_NOTES {
            return Err(SpoolError::TooManyNotes(MAX_NOTES, MAX_NOTE_BYTES));
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
}
