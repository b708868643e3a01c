//! Notes of a batch in the spool.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tidewater_events::{HandlerError, NoteStore};

use crate::spool::{ClaimedBatch, Spool, SpoolError};

/// Notes of a claimed batch. Each call of the handler has a claim of its own. A note that a call has left to a thread, and that
/// is stored after the next claim of the table, is refused.
#[derive(Debug)]
pub(crate) struct SpoolNotes {
    spool: Arc<Spool>,
    table: String,
    claim: u64,
}

impl SpoolNotes {
    pub(crate) fn new(spool: Arc<Spool>, table: &str, claimed: &ClaimedBatch) -> Self {
        Self { spool, table: table.to_owned(), claim: claimed.claim() }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Spool, &str, u64) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, HandlerError> {
        let spool = Arc::clone(&self.spool);
        let table = self.table.clone();
        let claim = self.claim;
        match tokio::task::spawn_blocking(move || work(&spool, &table, claim)).await {
            Ok(result) => result.map_err(|error| HandlerError(error.to_string())),
            Err(error) => Err(HandlerError(error.to_string())),
        }
    }
}

#[async_trait]
impl NoteStore for SpoolNotes {
    async fn all(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, HandlerError> {
        self.blocking(|spool, table, claim| spool.notes(table, claim)).await
    }

    async fn put(&self, key: &[u8], note: &[u8]) -> Result<(), HandlerError> {
        let key = key.to_vec();
        let note = note.to_vec();
        self.blocking(move |spool, table, claim| spool.put_note(table, claim, &key, &note)).await
    }
}
