use std::io;
use std::path::PathBuf;

use tidewater_common::ids::GroupId;

/// Why the log store could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened; the message is RocksDB's.
    #[error("cannot open the log store at {path}: {message}", path = path.display())]
    Open {
        /// Its folder.
        path: PathBuf,
        /// RocksDB's message.
        message: String,
    },
    /// Another process, or another handle of this one, has the database open.
    #[error("the log store at {path} is in use: {message}", path = path.display())]
    InUse {
        /// Its folder.
        path: PathBuf,
        /// RocksDB's message.
        message: String,
    },
    /// What is stored is not what was written.
    #[error("the log store at {path} is damaged: {message}", path = path.display())]
    Damaged {
        /// Its folder.
        path: PathBuf,
        /// What does not fit.
        message: String,
    },
    /// A record of a group is missing or cannot be decoded.
    #[error("the log of group {group} is damaged: {message}")]
    GroupDamaged {
        /// Which group.
        group: GroupId,
        /// What does not fit.
        message: String,
    },
    /// A read failed; the message is RocksDB's.
    #[error("cannot read the log store: {0}")]
    Read(String),
    /// A write failed for good; nothing is written from now on.
    #[error("the log store takes no more writes: {0}")]
    Failed(String),
    /// The disk is full and the store is being closed.
    #[error("the disk is full")]
    Full,
    /// The store has been shut down, or the group removed from this node.
    #[error("the log store is closed for {0}")]
    Closed(String),
    /// The log was handed entries that do not follow on what it holds.
    #[error("group {group}: an entry with index {found} does not follow on index {last}")]
    NotConsecutive {
        /// Which group.
        group: GroupId,
        /// Index handed in.
        found: u64,
        /// Last index held.
        last: u64,
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
            StoreError::NotConsecutive { .. } => io::ErrorKind::InvalidInput,
            StoreError::Open { .. }
            | StoreError::Read(_)
            | StoreError::Failed(_)
            | StoreError::Closed(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Whether RocksDB says that the disk is full. The binding has no code for it.
pub(super) fn is_no_space(message: &str) -> bool {
    message.contains("No space left on device") || message.contains("Disk quota exceeded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_errors() {
        assert!(is_no_space("IO error: No space left on device: While appending to file: x"));
        assert!(!is_no_space("IO error: Input/output error: While fsync: x"));
    }
}
