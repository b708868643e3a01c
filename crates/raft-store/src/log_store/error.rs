use std::io;
use std::path::PathBuf;

use tidewater_common::ids::GroupId;

use crate::types::LogId;

/// Error of the log store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened.
    #[error("cannot open the log store at {path}: {message}", path = path.display())]
    Open {
        /// Directory of the database.
        path: PathBuf,
        /// RocksDB's message.
        message: String,
    },
    /// Another process, or another handle of this one, has the database open.
    #[error("the log store at {path} is in use: {message}", path = path.display())]
    InUse {
        /// Directory of the database.
        path: PathBuf,
        /// RocksDB's message.
        message: String,
    },
    /// The stored data is damaged.
    #[error("the log store at {path} is damaged: {message}", path = path.display())]
    Damaged {
        /// Directory of the database.
        path: PathBuf,
        /// Description of the damage.
        message: String,
    },
    /// A record of a group is missing or cannot be decoded.
    #[error("the log of group {group} is damaged: {message}")]
    GroupDamaged {
        /// Id of the group.
        group: GroupId,
        /// Description of the damage.
        message: String,
    },
    /// A read failed, with RocksDB's message.
    #[error("cannot read the log store: {0}")]
    Read(String),
    /// A write failed permanently. The store accepts no more writes.
    #[error("the log store accepts no more writes: {0}")]
    Failed(String),
    /// The disk is full and the store is being closed.
    #[error("the disk is full")]
    Full,
    /// The store has been shut down, or the group removed from this node.
    #[error("the log store is closed for {0}")]
    Closed(String),
    /// The appended entries do not follow the last entry of the log.
    #[error("group {group}: an entry with index {found} does not follow index {last}")]
    NotConsecutive {
        /// Id of the group.
        group: GroupId,
        /// Index of the appended entry.
        found: u64,
        /// Last index of the log.
        last: u64,
    },
    /// Entries that are known to be committed would be removed.
    #[error(
        "group {group}: entries from index {from} would be removed, but the log is committed up to \
         {committed}: its leader has lost committed entries, or is no leader"
    )]
    TruncatesCommitted {
        /// Id of the group.
        group: GroupId,
        /// First index that would be removed.
        from: u64,
        /// Committed index.
        committed: u64,
    },
    /// An entry of another log has the place of one that is known to be committed.
    #[error(
        "group {group}: entry {found} contradicts the committed entry {local}: its sender has lost \
         committed entries, or is no leader of the group"
    )]
    ContradictsCommitted {
        /// Id of the group.
        group: GroupId,
        /// Id of the entry.
        found: LogId,
        /// Id of the committed entry, or of the last committed one.
        local: LogId,
    },
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Full => io::ErrorKind::StorageFull,
            StoreError::Damaged { .. } | StoreError::GroupDamaged { .. } => {
                io::ErrorKind::InvalidData
            }
            StoreError::InUse { .. } => io::ErrorKind::ResourceBusy,
            StoreError::NotConsecutive { .. }
            | StoreError::TruncatesCommitted { .. }
            | StoreError::ContradictsCommitted { .. } => io::ErrorKind::InvalidInput,
            StoreError::Open { .. }
            | StoreError::Read(_)
            | StoreError::Failed(_)
            | StoreError::Closed(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Returns whether RocksDB reports a full disk. The binding has no code for it.
pub(super) fn is_no_space(message: &str) -> bool {
    message.contains("No space left on device") || message.contains("Disk quota exceeded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_is_distinguished_from_other_errors() {
        assert!(is_no_space("IO error: No space left on device: While appending to file: x"));
        assert!(!is_no_space("IO error: Input/output error: While fsync: x"));
    }
}
