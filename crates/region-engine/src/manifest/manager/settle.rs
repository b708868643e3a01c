//! Finds out what became of a put.
//!
//! Only the slot tells: own content: ours; other content: lost. An empty slot settles nothing, since
//! the put may still land: the same bytes are put again. And a slot that is ours counts only if no
//! checkpoint covers it without naming us: then it had been cleaned, and what we put is a phantom,
//! void for everybody.

use super::Pending;
use crate::error::EngineError;
use crate::manifest::reader::Reader;
use crate::storage::{PutOutcome, StorageError, sleep_backoff};

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is committed.
    Committed,
    /// Another delta holds its slot, or had held it before it was cleaned: it is not and will not be.
    Lost,
}

/// One look at the slot.
enum Slot {
    Ours,
    Other,
    Unclear(StorageError),
}

/// Puts, and asks, until the outcome is known.
///
/// # Errors
/// [`EngineError::Unknown`] and no other, whatever kept us from finding out: the put has been made,
/// so nothing that is met after it says that it failed.
pub(super) async fn settle(reader: &Reader, pending: &Pending) -> Result<Settled, EngineError> {
    let mut last = match put(reader, pending).await? {
        Slot::Ours => return confirm(reader, pending).await,
        Slot::Other => return Ok(Settled::Lost),
        Slot::Unclear(error) => error,
    };
    for tried in 1..reader.options.settle_attempts.max(1) {
        wait(reader, tried).await;
        last = match put(reader, pending).await? {
            Slot::Ours => return confirm(reader, pending).await,
            Slot::Other => return Ok(Settled::Lost),
            Slot::Unclear(error) => error,
        };
    }
    Err(unknown(reader, pending, last.to_string()))
}

async fn put(reader: &Reader, pending: &Pending) -> Result<Slot, EngineError> {
    let path = reader.dir.delta(pending.delta.version);
    let doubt = match reader.storage.put_if_absent(&path, pending.bytes.clone()).await {
        PutOutcome::Created => return Ok(Slot::Ours),
        PutOutcome::Conflict(error) | PutOutcome::Unknown(error) => error,
    };
    match reader.storage.get_opt(&path).await {
        Ok(Some(bytes)) if bytes == pending.bytes => Ok(Slot::Ours),
        Ok(Some(bytes)) => {
            let found = reader
                .decode(pending.delta.version, &bytes)
                .map_err(|error| unknown(reader, pending, error.to_string()))?;
            Ok(if found.writer == pending.delta.writer { Slot::Ours } else { Slot::Other })
        }
        Ok(None) => Ok(Slot::Unclear(doubt)),
        Err(error) => Ok(Slot::Unclear(error)),
    }
}

async fn confirm(reader: &Reader, pending: &Pending) -> Result<Settled, EngineError> {
    let version = pending.delta.version;
    let mut tried = 0;
    loop {
        let detail = match reader.list(version).await {
            Ok(listing) => match listing.newest_checkpoint() {
                None => return Ok(Settled::Committed),
                Some(at) => match reader.checkpoint(at).await {
                    Ok(Some(state)) if state.names(version, pending.delta.writer) => {
                        return Ok(Settled::Committed);
                    }
                    Ok(Some(_)) => return Ok(Settled::Lost),
                    Ok(None) => format!("checkpoint {at} was cleaned while it was read"),
                    Err(error @ EngineError::Storage(_)) => error.to_string(),
                    // Damage does not pass, and asking again would not help.
                    Err(error) => return Err(unknown(reader, pending, error.to_string())),
                },
            },
            Err(error) => error.to_string(),
        };
        tried += 1;
        if tried >= reader.options.settle_attempts {
            return Err(unknown(reader, pending, detail));
        }
        wait(reader, tried).await;
    }
}

async fn wait(reader: &Reader, tried: u32) {
    sleep_backoff(reader.options.backoff, reader.options.backoff_limit, tried).await;
}

fn unknown(reader: &Reader, pending: &Pending, detail: String) -> EngineError {
    let (region, version) = (reader.dir.region_id, pending.delta.version);
    EngineError::Unknown { region, version, detail }
}
