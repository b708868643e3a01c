//! Notes of a batch in the spool.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tidewater_events::{HandlerError, NoteStore};

use crate::spool::{ClaimedBatch, Spool, SpoolError};

/// Notes of a claimed batch. They end with the claim: a call that was aborted cannot note anything about a later batch.
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
        let (spool, table, claim) = (Arc::clone(&self.spool), self.table.clone(), self.claim);
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
        let (key, note) = (key.to_vec(), note.to_vec());
        self.blocking(move |spool, table, claim| spool.put_note(table, claim, &key, &note)).await
    }
}
