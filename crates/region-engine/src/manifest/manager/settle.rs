//! Resolves the outcome of a put.
//!
//! Only the slot decides: own content means committed, other content means lost. An empty slot
//! decides nothing, since the put may still take effect: the same bytes are put again. And a slot
//! with own content is valid only if no checkpoint covers it without naming its writer: then the
//! slot had been cleaned, and the put created a phantom, which is void for every reader.

use super::PendingDelta;
use crate::error::EngineError;
use crate::manifest::reader::ManifestReader;
use crate::storage::{PutOutcome, StorageError};

/// Outcome of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommitOutcome {
    /// The delta is committed.
    Committed,
    /// Another delta holds its slot, or held it before it was cleaned: the delta is not committed
    /// and will not be.
    Lost,
}

/// Content of the slot after one attempt.
enum SlotContent {
    Ours,
    Other,
    Unclear(StorageError),
}

/// Puts and reads until the outcome is known.
///
/// # Errors
/// Only [`EngineError::Unknown`], whatever the cause: the put has been made, so no later error
/// proves that it failed.
pub(super) async fn resolve(
    reader: &ManifestReader,
    pending: &PendingDelta,
) -> Result<CommitOutcome, EngineError> {
    let mut last = match put(reader, pending).await? {
        SlotContent::Ours => return confirm(reader, pending).await,
        SlotContent::Other => return Ok(CommitOutcome::Lost),
        SlotContent::Unclear(error) => error,
    };
    for attempts in 1..reader.options.settle_attempts.max(1) {
        wait(reader, attempts).await;
        last = match put(reader, pending).await? {
            SlotContent::Ours => return confirm(reader, pending).await,
            SlotContent::Other => return Ok(CommitOutcome::Lost),
            SlotContent::Unclear(error) => error,
        };
    }
    Err(unknown(reader, pending, last.to_string()))
}

async fn put(reader: &ManifestReader, pending: &PendingDelta) -> Result<SlotContent, EngineError> {
    let path = reader.dir.delta(pending.delta.version);
    let unclear = match reader.storage.put_if_absent(&path, pending.bytes.clone()).await {
        PutOutcome::Created => return Ok(SlotContent::Ours),
        PutOutcome::Conflict(error) | PutOutcome::Unknown(error) => error,
    };
    match reader.storage.get_opt(&path).await {
        Ok(Some(bytes)) if bytes == pending.bytes => Ok(SlotContent::Ours),
        Ok(Some(bytes)) => {
            let found = reader
                .decode(pending.delta.version, &bytes)
                .map_err(|error| unknown(reader, pending, error.to_string()))?;
            Ok(if found.writer == pending.delta.writer {
                SlotContent::Ours
            } else {
                SlotContent::Other
            })
        }
        Ok(None) => Ok(SlotContent::Unclear(unclear)),
        Err(error) => Ok(SlotContent::Unclear(error)),
    }
}

async fn confirm(
    reader: &ManifestReader,
    pending: &PendingDelta,
) -> Result<CommitOutcome, EngineError> {
    let version = pending.delta.version;
    let mut attempts = 0;
    loop {
        let detail = match reader.list(version).await {
            Ok(listing) => match listing.newest_checkpoint() {
                None => return Ok(CommitOutcome::Committed),
                Some(at) => match reader.checkpoint(at).await {
                    Ok(Some(state)) if state.names(version, pending.delta.writer) => {
                        return Ok(CommitOutcome::Committed);
                    }
                    Ok(Some(_)) => return Ok(CommitOutcome::Lost),
                    Ok(None) => format!("checkpoint {at} was cleaned while it was read"),
                    Err(error @ EngineError::Storage(_)) => error.to_string(),
                    // Damage is permanent: a retry would not help.
                    Err(error) => return Err(unknown(reader, pending, error.to_string())),
                },
            },
            Err(error) => error.to_string(),
        };
        attempts += 1;
        if attempts >= reader.options.settle_attempts {
            return Err(unknown(reader, pending, detail));
        }
        wait(reader, attempts).await;
    }
}

async fn wait(reader: &ManifestReader, attempts: u32) {
    reader.storage.back_off(reader.options.backoff, attempts).await;
}

fn unknown(reader: &ManifestReader, pending: &PendingDelta, detail: String) -> EngineError {
    let region = reader.dir.region_id;
    let version = pending.delta.version;
    EngineError::Unknown { region, version, detail }
}
