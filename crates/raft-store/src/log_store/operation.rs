//! Operations of the queue: changes of groups on their way to the disk, and their completion.

use std::io;
use std::sync::Arc;

use openraft::storage::IOFlushed;
use prost::Message;
use rocksdb::{DB, WriteBatch};
use tokio::sync::oneshot;

use super::error::StoreError;
use super::keys::{self, StateKind, log_key, state_key};
use super::state::GroupState;
use crate::types::{Entry, LogId, TypeConfig, Vote, wire};

/// Puts a state machine's rows into a batch. Runs again after a full disk.
pub(super) type Fill = Box<dyn Fn(&DB, &mut WriteBatch) -> Result<(), StoreError> + Send>;

/// A write operation of a group.
pub(super) struct WriteOp {
    pub(super) group: Arc<GroupState>,
    pub(super) kind: WriteKind,
    /// Approximate size; bounds the queue and batches.
    pub(super) bytes: usize,
}

pub(super) enum WriteKind {
    Append {
        epoch: u64,
        entries: Vec<Entry>,
        callback: IOFlushed<TypeConfig>,
    },
    Vote {
        vote: Vote,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    Committed(Option<LogId>),
    /// Removes the entries with indexes `from..end`. Has a waiting caller: a snapshot that
    /// contradicts these entries may be stored right after it.
    Truncate {
        from: u64,
        end: u64,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Records the purge point. The entries up to it stay in the database until the reclaimer
    /// releases their space.
    Purge(LogId),
    /// Rows of the group's state machine, with or without a caller that waits for durability.
    State {
        fill: Fill,
        done: Option<oneshot::Sender<Result<(), StoreError>>>,
    },
    RemoveGroup {
        done: oneshot::Sender<Result<(), StoreError>>,
    },
}

impl WriteKind {
    /// Returns whether a caller waits for durability. Other operations become durable with the next
    /// one that needs a sync, since the order is kept.
    pub(super) fn needs_sync(&self) -> bool {
        match self {
            Self::Append { .. }
            | Self::Vote { .. }
            | Self::Truncate { .. }
            | Self::RemoveGroup { .. } => true,
            Self::State { done, .. } => done.is_some(),
            Self::Committed(_) | Self::Purge(_) => false,
        }
    }
}

/// Puts an operation into a batch. Returns its number of entries.
pub(super) fn fill(
    db: &DB,
    batch: &mut WriteBatch,
    op: &WriteOp,
    scratch: &mut Vec<u8>,
) -> Result<u64, StoreError> {
    let family = |name: &str| {
        db.cf_handle(name)
            .ok_or_else(|| StoreError::Failed(format!("column family {name} is missing")))
    };
    let group = op.group.id;
    let state = family(keys::STATE)?;
    match &op.kind {
        WriteKind::Append { entries, .. } => {
            let log = family(keys::LOG)?;
            for entry in entries {
                scratch.clear();
                wire::entry_to_wire(entry).encode_raw(scratch);
                batch.put_cf(log, log_key(group, entry.log_id.index), &scratch);
            }
            return Ok(entries.len() as u64);
        }
        WriteKind::Vote { vote, .. } => {
            let value = wire::vote_to_wire(vote).encode_to_vec();
            batch.put_cf(state, state_key(group, StateKind::Vote), value);
        }
        WriteKind::Committed(committed) => match committed {
            Some(id) => {
                let value = wire::log_id_to_wire(id).encode_to_vec();
                batch.put_cf(state, state_key(group, StateKind::Committed), value);
            }
            None => batch.delete_cf(state, state_key(group, StateKind::Committed)),
        },
        WriteKind::Truncate { from, end, .. } => {
            batch.delete_range_cf(family(keys::LOG)?, log_key(group, *from), log_key(group, *end));
        }
        WriteKind::Purge(upto) => {
            let value = wire::log_id_to_wire(upto).encode_to_vec();
            batch.put_cf(state, state_key(group, StateKind::Purged), value);
        }
        WriteKind::State { fill, .. } => fill(db, batch)?,
        WriteKind::RemoveGroup { .. } => {
            let from = log_key(group, 0);
            let end = log_key(group, u64::MAX);
            batch.delete_range_cf(family(keys::LOG)?, from, end);
            for kind in [StateKind::Vote, StateKind::Committed, StateKind::Purged] {
                batch.delete_cf(state, state_key(group, kind));
            }
        }
    }
    Ok(0)
}

/// Completes operations that are durable.
pub(super) fn complete_ops(ops: Vec<WriteOp>) {
    for op in ops {
        match op.kind {
            WriteKind::Append { epoch, entries, callback } => {
                if let Some(last) = entries.last() {
                    op.group.log.lock().tail.mark_flushed(epoch, last.log_id.index + 1);
                }
                callback.io_completed(Ok(()));
            }
            WriteKind::Vote { done, .. }
            | WriteKind::Truncate { done, .. }
            | WriteKind::RemoveGroup { done }
            | WriteKind::State { done: Some(done), .. } => {
                // The caller may have disconnected.
                let _ = done.send(Ok(()));
            }
            WriteKind::State { done: None, .. } | WriteKind::Committed(_) | WriteKind::Purge(_) => {
            }
        }
    }
}

/// Completes operations that will not be written.
pub(super) fn fail_ops(ops: Vec<WriteOp>, error: &StoreError) {
    for op in ops {
        match op.kind {
            WriteKind::Append { callback, .. } => {
                callback.io_completed(Err(io::Error::from(error.clone())));
            }
            WriteKind::Vote { done, .. }
            | WriteKind::Truncate { done, .. }
            | WriteKind::RemoveGroup { done }
            | WriteKind::State { done: Some(done), .. } => {
                let _ = done.send(Err(error.clone()));
            }
            WriteKind::State { done: None, .. } | WriteKind::Committed(_) | WriteKind::Purge(_) => {
            }
        }
    }
}
