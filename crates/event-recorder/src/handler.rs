//! Handlers: what persists events.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use crate::options::EventHandlerOptions;
use crate::recorded::RecordedEvent;
use crate::spool::{Spool, SpoolError};

/// Persists events.
#[async_trait]
pub trait EventHandler: fmt::Debug + Send + Sync + 'static {
    /// Persists a batch of events of one table. A batch that fails is passed again with the same events, also after a
    /// restart of the process: [`EventBatch::notes`] has what earlier calls noted.
    ///
    /// # Errors
    /// [`HandlerError`] when the batch shall be passed again. An event that can never be persisted is no error:
    /// it is set aside.
    async fn handle(&self, batch: &EventBatch) -> Result<Handled, HandlerError>;

    /// Options of the table that has the events of a type.
    fn options(&self, _event_type: &str) -> EventHandlerOptions {
        EventHandlerOptions::default()
    }
}

/// Batch of events of one table.
#[derive(Debug, Clone)]
pub struct EventBatch {
    table: String,
    events: Vec<RecordedEvent>,
    notes: Notes,
}

/// Notes of a handler about the batch that it has, kept until the batch is complete. After a crash, a handler learns
/// from them what it has begun.
#[derive(Clone)]
pub struct Notes {
    table: String,
    store: NoteStore,
}

#[derive(Clone)]
enum NoteStore {
    Spool(Arc<Spool>),
    Memory(Arc<parking_lot::Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>),
}

/// Outcome of a batch: all of its events are persisted, or set aside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handled {
    /// Events that can never be persisted, with the reasons.
    pub set_aside: Vec<(Uuid, String)>,
}

/// Reason why a batch shall be passed again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HandlerError(pub String);

impl EventBatch {
    /// Creates a batch that is in no spool, e.g. for the test of a handler.
    pub fn new(table: &str, events: Vec<RecordedEvent>) -> Self {
        let notes = Notes { table: table.to_owned(), store: NoteStore::Memory(Arc::default()) };
        Self { table: table.to_owned(), events, notes }
    }

    pub(crate) fn spooled(table: &str, events: Vec<RecordedEvent>, spool: Arc<Spool>) -> Self {
        let notes = Notes { table: table.to_owned(), store: NoteStore::Spool(spool) };
        Self { table: table.to_owned(), events, notes }
    }

    /// Table of the events.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The events, in the order in which they were recorded.
    pub fn events(&self) -> &[RecordedEvent] {
        &self.events
    }

    /// Notes of earlier calls with this batch.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }
}

impl Notes {
    /// Returns all notes, by key.
    ///
    /// # Errors
    /// [`HandlerError`] if the spool cannot be read.
    pub async fn all(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, HandlerError> {
        match &self.store {
            NoteStore::Memory(notes) => Ok(notes.lock().clone()),
            NoteStore::Spool(spool) => {
                let (spool, table) = (spool.clone(), self.table.clone());
                blocking(move || spool.notes(&table)).await
            }
        }
    }

    /// Stores a note, durably, replacing an earlier one with the same key.
    ///
    /// # Errors
    /// [`HandlerError`] if the spool cannot be written.
    pub async fn put(&self, key: &[u8], note: &[u8]) -> Result<(), HandlerError> {
        match &self.store {
            NoteStore::Memory(notes) => {
                notes.lock().insert(key.to_vec(), note.to_vec());
                Ok(())
            }
            NoteStore::Spool(spool) => {
                let (spool, table) = (spool.clone(), self.table.clone());
                let (key, note) = (key.to_vec(), note.to_vec());
                blocking(move || spool.put_note(&table, &key, &note)).await
            }
        }
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notes").field("table", &self.table).finish_non_exhaustive()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, HandlerError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| HandlerError(error.to_string())),
        Err(error) => Err(HandlerError(error.to_string())),
    }
}
