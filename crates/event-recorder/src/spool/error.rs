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
    #[error("the event spool {} is of a later release ({found}): start that release, or move the directory away (its events are lost)", path.display())]
    NewerFormat {
        /// Directory of the spool.
        path: PathBuf,
        /// The part of it that this release does not know.
        found: String,
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
    /// The batch of a note is complete, or was passed again.
    #[error("the batch is complete, or was passed again to another call")]
    BatchEnded,
    /// A batch has too many notes, or too large ones.
    #[error("a batch has at most {0} notes of {1} bytes")]
    TooManyNotes(usize, usize),
}
