//! The object store when a node starts: it must keep its promises, and be the cluster's.

use std::time::Duration;

use tracing::warn;
use uuid::Uuid;

use super::{MarkerError, ProbeError, Storage, StorageError};

/// A store that does not answer at once may be starting too; a wrong URL should not hang for long.
const ATTEMPTS: u32 = 4;
const WAIT: Duration = Duration::from_millis(500);

/// Why the object store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL is wrong, or the directory cannot be used.
    #[error("object store {url}: {source}")]
    Open {
        /// As it was given.
        url: String,
        /// What is wrong.
        source: StorageError,
    },
    /// It does not keep its promises, or does not answer.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// Its marker cannot be had.
    #[error(transparent)]
    Marker(#[from] MarkerError),
}

impl StoreError {
    /// Whether it is the URL that cannot be used, and not the store behind it.
    #[must_use]
    pub fn is_wrong_url(&self) -> bool {
        matches!(self, Self::Open { source: StorageError::Url { .. }, .. })
    }
}

impl Storage {
    /// Opens and [probes](Storage::probe) the store of a node that starts; asks again for a few
    /// seconds when it does not answer.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::Probe`].
    pub async fn start(url: &str) -> Result<Self, StoreError> {
        let storage = Self::open(url)
            .await
            .map_err(|source| StoreError::Open { url: url.to_owned(), source })?;
        for attempt in 1.. {
            match storage.probe(Uuid::new_v4()).await {
                Ok(()) => break,
                // Without a source the store answered, and wrongly: asking again does not help.
                Err(error) if error.source.is_none() || attempt == ATTEMPTS => {
                    return Err(error.into());
                }
                Err(error) => {
                    warn!(%error, "the object store did not pass its test: trying again");
                    tokio::time::sleep(WAIT * attempt).await;
                }
            }
        }
        Ok(storage)
    }

    /// The store's id; whoever comes first makes it.
    ///
    /// # Errors
    /// [`StoreError::Marker`].
    pub async fn id(&self) -> Result<Uuid, StoreError> {
        Ok(self.mark(Uuid::new_v4()).await?.object_store_id)
    }
}
