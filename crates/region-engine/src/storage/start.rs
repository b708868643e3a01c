//! Start-up check of the object store: it must keep its guarantees, and belong to the cluster.

use std::time::Duration;

use tidewater_common::backoff::Backoff;
use tracing::warn;
use uuid::Uuid;

use super::{MarkerError, ProbeError, Storage, StorageError};

/// Number of probes. A store that does not answer may be starting too, but a wrong URL must not
/// block the start for long.
const ATTEMPTS: u32 = 4;
/// Backoff between probes.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(500), longest: Duration::from_millis(1_500) };

/// Reason why the object store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL is wrong, or the directory cannot be used.
    #[error("object store {url}: {source}")]
    Open {
        /// The URL as given.
        url: String,
        /// The problem.
        source: StorageError,
    },
    /// The store breaks a guarantee, or does not answer.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The store's marker cannot be read or written.
    #[error(transparent)]
    Marker(#[from] MarkerError),
}

impl StoreError {
    /// Returns whether the URL is unusable, rather than the store behind it.
    #[must_use]
    pub fn is_wrong_url(&self) -> bool {
        matches!(self, Self::Open { source: StorageError::Url { .. }, .. })
    }
}

impl Storage {
    /// Opens and [probes](Storage::probe) the store of a starting node; retries for a few seconds
    /// when it does not answer.
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
                // Without a source, the store answered, but wrongly: a retry does not help.
                Err(error) if error.source.is_none() || attempt == ATTEMPTS => {
                    return Err(error.into());
                }
                Err(error) => {
                    warn!(%error, "object store probe failed; retrying");
                    storage.back_off(BACKOFF, attempt).await;
                }
            }
        }
        Ok(storage)
    }

    /// Returns the store's id; the first caller creates it.
    ///
    /// # Errors
    /// [`StoreError::Marker`].
    pub async fn id(&self) -> Result<Uuid, StoreError> {
        Ok(self.mark(Uuid::new_v4()).await?.object_store_id)
    }
}
