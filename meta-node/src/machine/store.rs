//! Rows of the state in the node's RocksDB, beside the log.

use std::io;
use std::sync::Arc;

use prost::Message;
use rocksdb::{ColumnFamily, DB, IteratorMode, WriteBatch};
use tidewater_common::ids::GroupId;
use tidewater_proto::v1;
use tidewater_raft_store::types::wire;
use tidewater_raft_store::{DiskHealth, GroupLog, LogStore, SnapshotFileError, StoreError};
use tokio::sync::watch;

use super::Applied;
use crate::catalog::{CatalogError, MetaState, Row, RowWrite};

/// The column family of the state; the log store must be opened with it.
pub const STATE_FAMILY: &str = "state";

const APPLIED: &[u8] = b"applied";
const MEMBERSHIP: &[u8] = b"membership";
/// Rows of the state lie behind this prefix, how far it is beside it.
const ROWS: &[u8] = b"row/";
const ROWS_END: &[u8] = b"row0";

/// About what the record of how far the state is takes.
const APPLIED_BYTES: usize = 256;

/// Why the stored state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// RocksDB failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record is damaged, or records contradict each other.
    #[error("the stored catalog is damaged: {0}")]
    Catalog(#[from] CatalogError),
    /// The record of how far the state is cannot be decoded.
    #[error("the record of what was applied last is damaged: {0}")]
    Applied(String),
    /// A snapshot file cannot be read or written.
    #[error(transparent)]
    File(#[from] SnapshotFileError),
    /// A snapshot's content is not what it should be.
    #[error("a snapshot of the catalog is damaged: {0}")]
    Snapshot(String),
    /// The operating system refused.
    #[error("cannot use the folder of snapshots: {0}")]
    Io(#[from] io::Error),
}

impl From<StateError> for io::Error {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Store(error) => error.into(),
            StateError::File(error) => error.into(),
            StateError::Io(error) => error,
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

    /// Whether its disk takes writes.
    pub(super) fn disk(&self) -> watch::Receiver<DiskHealth> {
        self.store.health()
    }

    /// Everything that is stored, checked. Blocking.
    pub(super) fn load(&self) -> Result<(MetaState, Applied), StateError> {
        // A missing family is reported by the write path too; here it means a wrong set-up.
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

    /// One batch, behind the log that has it all.
    pub(super) async fn write(&self, rows: Vec<RowWrite>, at: &Applied) -> Result<(), StoreError> {
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

    /// Everything anew, durable when it returns: the log before it will be purged.
    pub(super) async fn replace(&self, rows: Vec<Row>, at: &Applied) -> Result<(), StoreError> {
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
    StoreError::Failed(format!("it was opened without the column family {STATE_FAMILY:?}"))
}

fn family(db: &DB) -> Result<&ColumnFamily, StoreError> {
    db.cf_handle(STATE_FAMILY).ok_or_else(missing_family)
}

fn row_key(key: &[u8]) -> Vec<u8> {
    [ROWS, key].concat()
}

/// How far the state is, as the values of two records.
fn applied_rows(at: &Applied) -> (Vec<u8>, Vec<u8>) {
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
) -> Result<Applied, StateError> {
    let damaged = |error: String| StateError::Applied(error);
    let (Some(applied), Some(membership)) = (applied, membership) else {
        return Ok(Applied::default());
    };
    let record = v1::AppliedRecord::decode(applied).map_err(|error| damaged(error.to_string()))?;
    let stored =
        v1::RaftStoredMembership::decode(membership).map_err(|error| damaged(error.to_string()))?;
    let id = v1::RaftLogId { term: record.term, index: record.index };
    let membership =
        wire::stored_membership_from_wire(stored).map_err(|error| damaged(error.to_string()))?;
    Ok(Applied { last: record.any.then(|| wire::log_id_from_wire(&id)), membership })
}
