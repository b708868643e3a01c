//! State rows in the node's RocksDB, in the database of the log.

use std::io;
use std::sync::Arc;

use prost::Message;
use rocksdb::{ColumnFamily, DB, IteratorMode, WriteBatch};
use tidewater_common::ids::GroupId;
use tidewater_proto::v1;
use tidewater_raft_store::types::wire;
use tidewater_raft_store::{DiskHealth, GroupLog, LogStore, SnapshotFileError, StoreError};
use tokio::sync::watch;

use super::AppliedState;
use crate::catalog::{CatalogError, MetaState, StateRow, StateRowWrite};

/// The column family of the state; the log store must be opened with it.
pub const STATE_FAMILY: &str = "state";

const APPLIED: &[u8] = b"applied";
const MEMBERSHIP: &[u8] = b"membership";
/// Prefix of the keys of state rows. The records of the applied log id and membership are outside of it.
const ROWS: &[u8] = b"row/";
const ROWS_END: &[u8] = b"row0";

/// Approximate size of the records of the applied log id and membership, in bytes.
const APPLIED_BYTES: usize = 256;

/// Error of reading or writing the stored state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// RocksDB failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record is damaged, or records contradict each other.
    #[error("the stored catalog is damaged: {0}")]
    Catalog(CatalogError),
    /// The state has a feature level that this release does not support.
    #[error("{0}")]
    Release(CatalogError),
    /// The record of the applied log id or membership cannot be decoded.
    #[error("the record of the last applied log entry is damaged: {0}")]
    Applied(String),
    /// A snapshot file cannot be read or written.
    #[error(transparent)]
    File(#[from] SnapshotFileError),
    /// The content of a snapshot is damaged.
    #[error("a snapshot of the catalog is damaged: {0}")]
    Snapshot(String),
    /// The operating system returned an error.
    #[error("cannot access the snapshot directory: {0}")]
    Io(#[from] io::Error),
}

impl From<CatalogError> for StateError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::LevelAboveRelease(_) => Self::Release(error),
            _ => Self::Catalog(error),
        }
    }
}

impl From<StateError> for io::Error {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Store(error) => error.into(),
            StateError::File(error) => error.into(),
            StateError::Io(error) => error,
            StateError::Release(_) => Self::new(io::ErrorKind::Unsupported, error),
            StateError::Catalog(_) | StateError::Applied(_) | StateError::Snapshot(_) => {
                Self::new(io::ErrorKind::InvalidData, error)
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct StateStore {
    store: Arc<LogStore>,
    log: GroupLog,
}

impl StateStore {
    pub(super) fn new(store: Arc<LogStore>) -> Self {
        let log = store.group(GroupId::META);
        Self { store, log }
    }

    /// Health of the disk: whether it accepts writes.
    pub(super) fn disk(&self) -> watch::Receiver<DiskHealth> {
        self.store.health()
    }

    /// Loads and verifies the stored state. Blocking.
    pub(super) fn load(&self) -> Result<(MetaState, AppliedState), StateError> {
        // A missing column family means that the log store was opened with wrong options.
        let found = self.store.db().read(|db| {
            let Some(family) = db.cf_handle(STATE_FAMILY) else { return Ok(None) };
            let mut rows = Vec::new();
            let from = IteratorMode::From(ROWS, rocksdb::Direction::Forward);
            for row in db.iterator_cf(family, from) {
                let (key, bytes) = row?;
                let Some(key) = key.strip_prefix(ROWS) else { break };
                rows.push((key.to_vec(), bytes.into_vec()));
            }
            Ok(Some((rows, db.get_cf(family, APPLIED)?, db.get_cf(family, MEMBERSHIP)?)))
        })?;
        let (rows, applied, membership) =
            found.ok_or_else(|| StateError::Store(missing_family()))?;
        let applied = decode_applied(applied.as_deref(), membership.as_deref())?;
        Ok((MetaState::from_rows(rows)?, applied))
    }

    /// Writes one batch, ordered after the log's writes, which contain the same changes.
    pub(super) async fn write(
        &self,
        rows: Vec<StateRowWrite>,
        at: &AppliedState,
    ) -> Result<(), StoreError> {
        let applied = applied_rows(at);
        let bytes = rows.iter().map(|(key, bytes)| key.len() + bytes.as_ref().map_or(0, Vec::len));
        let bytes = bytes.sum::<usize>() + APPLIED_BYTES;
        let write = self.log.write_behind(bytes, move |db, batch| {
            let family = family(db)?;
            for (key, bytes) in &rows {
                match bytes {
                    Some(bytes) => batch.put_cf(family, row_key(key), bytes),
                    None => batch.delete_cf(family, row_key(key)),
                }
            }
            put_applied(batch, family, &applied);
            Ok(())
        });
        write.await
    }

    /// Replaces all rows. Durable when it returns, because the log before the snapshot is purged afterwards.
    pub(super) async fn replace(
        &self,
        rows: Vec<StateRow>,
        at: &AppliedState,
    ) -> Result<(), StoreError> {
        let applied = applied_rows(at);
        let bytes = rows.iter().map(|(key, bytes)| key.len() + bytes.len()).sum::<usize>();
        let write = self.log.write_durably(bytes + APPLIED_BYTES, move |db, batch| {
            let family = family(db)?;
            batch.delete_range_cf(family, ROWS, ROWS_END);
            for (key, bytes) in &rows {
                batch.put_cf(family, row_key(key), bytes);
            }
            put_applied(batch, family, &applied);
            Ok(())
        });
        write.await
    }
}

fn missing_family() -> StoreError {
    StoreError::Failed(format!(
        "the log store was opened without the column family {STATE_FAMILY:?}"
    ))
}

fn family(db: &DB) -> Result<&ColumnFamily, StoreError> {
    db.cf_handle(STATE_FAMILY).ok_or_else(missing_family)
}

fn row_key(key: &[u8]) -> Vec<u8> {
    [ROWS, key].concat()
}

/// Encodes the records of the applied log id and the membership.
fn applied_rows(at: &AppliedState) -> (Vec<u8>, Vec<u8>) {
    let last = at.last.as_ref().map(wire::log_id_to_wire);
    let record = v1::AppliedRecord {
        any: last.is_some(),
        term: last.as_ref().map_or(0, |id| id.term),
        index: last.as_ref().map_or(0, |id| id.index),
    };
    let membership = wire::stored_membership_to_wire(&at.membership);
    (record.encode_to_vec(), membership.encode_to_vec())
}

fn put_applied(
    batch: &mut WriteBatch,
    family: &ColumnFamily,
    (applied, membership): &(Vec<u8>, Vec<u8>),
) {
    batch.put_cf(family, APPLIED, applied);
    batch.put_cf(family, MEMBERSHIP, membership);
}

fn decode_applied(
    applied: Option<&[u8]>,
    membership: Option<&[u8]>,
) -> Result<AppliedState, StateError> {
    let damaged = |error: String| StateError::Applied(error);
    let (Some(applied), Some(membership)) = (applied, membership) else {
        return Ok(AppliedState::default());
    };
    let record = v1::AppliedRecord::decode(applied).map_err(|error| damaged(error.to_string()))?;
    let stored =
        v1::RaftStoredMembership::decode(membership).map_err(|error| damaged(error.to_string()))?;
    let id = v1::RaftLogId { term: record.term, index: record.index };
    let membership =
        wire::stored_membership_from_wire(stored).map_err(|error| damaged(error.to_string()))?;
    Ok(AppliedState { last: record.any.then(|| wire::log_id_from_wire(&id)), membership })
}
