//! The cluster marker: an object that identifies a store.

use bytes::Bytes;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{PutOutcome, Storage, StorageError};

/// Name of the marker object, at the store's root.
pub const CLUSTER_MARKER: &str = "tidewater-cluster.json";
/// Maximum bytes of the marker object.
const MAX_MARKER_BYTES: u64 = 4 << 10;

/// Content of the marker. Nodes that see different stores under one URL see different ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMarker {
    /// Id of the store, created by its first writer.
    pub object_store_id: Uuid,
}

/// Error of reading or writing the marker.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MarkerError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The object is not a marker.
    #[error("object {object} is not a cluster marker: {detail}")]
    Damaged {
        /// Name of the object.
        object: String,
        /// The problem.
        detail: String,
    },
}

impl Storage {
    /// Writes the marker with `proposed` unless there is one, and returns the stored marker.
    pub async fn mark(&self, proposed: Uuid) -> Result<ClusterMarker, MarkerError> {
        if let Some(found) = self.marker().await? {
            return Ok(found);
        }
        let path = Path::from(CLUSTER_MARKER);
        let body = serde_json::json!({ "object_store_id": proposed }).to_string();
        let outcome = self.put_if_absent(&path, Bytes::from(body)).await;
        // Whatever the outcome: the stored object is the marker.
        match (self.marker().await?, outcome) {
            (Some(found), _) => Ok(found),
            (None, PutOutcome::Conflict(error) | PutOutcome::Unknown(error)) => Err(error.into()),
            (None, PutOutcome::Created) => Err(MarkerError::Damaged {
                object: self.name(&path),
                detail: "it was written but does not exist".to_owned(),
            }),
        }
    }

    /// Returns the marker, if the store has one.
    pub async fn marker(&self) -> Result<Option<ClusterMarker>, MarkerError> {
        let path = Path::from(CLUSTER_MARKER);
        let Some(bytes) = self.get_opt_within(&path, MAX_MARKER_BYTES).await? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| MarkerError::Damaged {
            object: self.name(&path),
            detail: error.to_string(),
        })
    }
}
