//! The object that tells one store from another.

use bytes::Bytes;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{PutOutcome, Storage, StorageError};

/// Name of the object, at the store's root.
pub const CLUSTER_MARKER: &str = "tidewater-cluster.json";

/// What the object says. Nodes that see different stores under one URL see different ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMarker {
    /// Made by whoever wrote to the store first.
    pub object_store_id: Uuid,
}

/// Why the marker cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MarkerError {
    /// The store did not answer.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Something else stands under its name.
    #[error("object {object} is no cluster marker: {detail}")]
    Damaged {
        /// The object.
        object: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl Storage {
    /// Writes the marker with `proposed` unless there is one, and returns the one that stands.
    pub async fn mark(&self, proposed: Uuid) -> Result<ClusterMarker, MarkerError> {
        if let Some(found) = self.marker().await? {
            return Ok(found);
        }
        let path = Path::from(CLUSTER_MARKER);
        let body = serde_json::json!({ "object_store_id": proposed }).to_string();
        let outcome = self.put_if_absent(&path, Bytes::from(body)).await;
        // Whatever the outcome: what stands there now is the marker.
        match (self.marker().await?, outcome) {
            (Some(found), _) => Ok(found),
            (None, PutOutcome::Conflict(error) | PutOutcome::Unknown(error)) => Err(error.into()),
            (None, PutOutcome::Created) => Err(MarkerError::Damaged {
                object: self.name(&path),
                detail: "it was written and cannot be read".to_owned(),
            }),
        }
    }

    /// The marker, if the store has one.
    pub async fn marker(&self) -> Result<Option<ClusterMarker>, MarkerError> {
        let path = Path::from(CLUSTER_MARKER);
        let Some(bytes) = self.get_opt(&path).await? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| MarkerError::Damaged {
            object: self.name(&path),
            detail: error.to_string(),
        })
    }
}
