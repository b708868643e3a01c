//! Checkpoints: any committer writes one when enough deltas have come since the last.

use bytes::Bytes;

use super::RegionManifestManager;
use crate::manifest::codec;
use crate::storage::{PutOutcome, StorageError};

impl RegionManifestManager {
    /// Writes a checkpoint of the current state if it is due. A failure only makes the next open
    /// longer: the next commit tries again.
    pub(super) async fn checkpoint_if_due(&mut self) {
        let version = self.state.version;
        let since = version.get().saturating_sub(self.checkpointed.get());
        if since < self.reader.options.checkpoint_every.max(1) {
            return;
        }
        if let Err(error) = self.write_checkpoint().await {
            tracing::warn!(
                region = %self.reader.dir.region_id,
                %version,
                %error,
                "a manifest checkpoint could not be written; the next commit tries again"
            );
            return;
        }
        self.checkpointed = version;
    }

    async fn write_checkpoint(&self) -> Result<(), StorageError> {
        let (storage, dir) = (&self.reader.storage, &self.reader.dir);
        let version = self.state.version;
        let path = dir.checkpoint(version);
        let bytes = codec::encode_checkpoint(&self.state);
        match storage.put_if_absent(&path, bytes).await {
            PutOutcome::Created => {}
            // Whoever was first wrote the same state. Without an object the next commit tries again.
            PutOutcome::Conflict(error) | PutOutcome::Unknown(error) => {
                if storage.get_opt(&path).await?.is_none() {
                    return Err(error);
                }
            }
        }
        storage.put(&dir.last_checkpoint(), Bytes::from(version.to_string())).await
    }
}
