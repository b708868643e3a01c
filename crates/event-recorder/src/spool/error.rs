//! Errors of the spool.

use std::path::PathBuf;

/// Reason why the spool cannot be opened, read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// Another process, or another recorder of this one, has the directory open.
    #[error("the event spool {} is in use by another process: {message}; give each process a spool directory of its own", path.display())]
    InUse {
        /// Directory of the spool.
        path: PathBuf,
        /// Text of the database.
        message: String,
    },
    /// The directory is damaged, or is no spool.
    #[error("the event spool {} is damaged: {message}; move the directory away to begin with an empty spool (its events are lost)", path.display())]
    Damaged {
        /// Directory of the spool.
        path: PathBuf,
        /// The damage.
        message: String,
    },
    /// A later release has written the spool.
    #[error("the event spool {} has format {found}, this release reads formats up to {supported}: start the later release, or move the directory away", path.display())]
    NewerFormat {
        /// Directory of the spool.
        path: PathBuf,
        /// Version of its format.
        found: u32,
        /// Latest version that this release reads.
        supported: u32,
    },
    /// The disk of the spool is full.
    #[error("the disk of the event spool {} is full", path.display())]
    DiskFull {
        /// Directory of the spool.
        path: PathBuf,
    },
    /// Any other error of the disk.
    #[error("the event spool {} cannot be used: {message}", path.display())]
    Disk {
        /// Directory of the spool.
        path: PathBuf,
        /// Text of the database.
        message: String,
    },
    /// Events of too many tables.
    #[error("the event spool has events of {0} tables, the most that it takes")]
    TooManyTables(usize),
}
