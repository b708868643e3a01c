//! Notes of a handler about a batch.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::handler::HandlerError;

/// Notes about one batch, by key.
pub type NoteMap = BTreeMap<Vec<u8>, Vec<u8>>;

/// Durable store of the notes about one batch.
#[async_trait]
pub trait NoteStore: fmt::Debug + Send + Sync {
    /// Returns all notes.
    ///
    /// # Errors
    /// The store cannot be read, or the batch is complete, or was passed again to another call.
    async fn all(&self) -> Result<NoteMap, HandlerError>;

    /// Stores a note, durably, replacing an earlier one with the same key.
    ///
    /// # Errors
    /// The store cannot be written, or the batch is complete, or was passed again to another call.
    async fn put(&self, key: &[u8], note: &[u8]) -> Result<(), HandlerError>;
}

/// Notes of a handler about the batch that it has, kept until the batch is complete. After a crash, a handler learns from
/// them what it has begun.
#[derive(Debug, Clone)]
pub struct Notes(Arc<dyn NoteStore>);

impl Notes {
    /// Notes in a store.
    pub fn new(store: impl NoteStore + 'static) -> Self {
        Self(Arc::new(store))
    }

    /// Notes in memory, e.g. for the test of a handler.
    pub fn in_memory() -> Self {
        Self::new(MemoryNotes::default())
    }

    /// Returns all notes, by key.
    ///
    /// # Errors
    /// See [`NoteStore::all`].
    pub async fn all(&self) -> Result<NoteMap, HandlerError> {
        self.0.all().await
    }

    /// Stores a note, durably, replacing an earlier one with the same key.
    ///
    /// # Errors
    /// See [`NoteStore::put`].
    pub async fn put(&self, key: &[u8], note: &[u8]) -> Result<(), HandlerError> {
        self.0.put(key, note).await
    }
}

#[derive(Debug, Default)]
struct MemoryNotes(Mutex<NoteMap>);

#[async_trait]
impl NoteStore for MemoryNotes {
    async fn all(&self) -> Result<NoteMap, HandlerError> {
        Ok(self.0.lock().clone())
    }

    async fn put(&self, key: &[u8], note: &[u8]) -> Result<(), HandlerError> {
        self.0.lock().insert(key.to_vec(), note.to_vec());
        Ok(())
    }
}
