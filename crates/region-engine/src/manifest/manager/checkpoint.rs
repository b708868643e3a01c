//! Checkpoints: any committer writes one when enough deltas have been committed since the last.

use bytes::Bytes;

use super::RegionManifestManager;
use crate::manifest::codec;
use crate::storage::{MAX_OBJECT_BYTES, PutOutcome, StorageError};

impl RegionManifestManager {
    /// Writes a checkpoint of the current state if one is due. A failure only makes the next open
    /// slower: the next commit retries.
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
                "failed to write manifest checkpoint; the next commit retries"
            );
            return;
        }
        self.checkpointed = version;
    }

    async fn write_checkpoint(&self) -> Result<(), StorageError> {
        let storage = &self.reader.storage;
        let dir = &self.reader.dir;
        let version = self.state.version;
        let path = dir.checkpoint(version);
        let bytes = codec::encode_checkpoint(&self.state);
        // It could not be read back.
        if bytes.len() as u64 > MAX_OBJECT_BYTES {
            let (object, size) = (storage.name(&path), bytes.len() as u64);
            return Err(StorageError::TooLarge { object, size, limit: MAX_OBJECT_BYTES });
        }
        match storage.put_if_absent(&path, bytes).await {
            PutOutcome::Created => {}
            // The first writer wrote the same state. Without an object the next commit retries.
            PutOutcome::Conflict(error) | PutOutcome::Unknown(error) => {
                if storage.get_opt(&path).await?.is_none() {
                    return Err(error);
                }
            }
        }
        storage.put(&dir.last_checkpoint(), Bytes::from(version.to_string())).await
    }
}
