//! Temporary files with the content of remote objects.
//!
//! They are on the disk of the node's data directory. A node whose disk has less free space than its reserve refuses all
//! writes, so that a file must leave more than that.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::blocking;
use super::listing::size_text;
use crate::SourceError;

/// Maximum size of an object in bytes.
const MAX_OBJECT_BYTES: u64 = 4 << 30;
/// Bytes of a file between two checks of the free space: other writers of the disk, and other files, need it as well.
pub(super) const CHECK_EVERY_BYTES: u64 = 64 << 20;

/// Place of temporary files.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    directory: PathBuf,
    /// Bytes that the files leave free on their disk.
    reserve: u64,
    /// Maximum size of an object in bytes.
    pub(super) max_bytes: u64,
    /// Returns the free bytes of the file system of a directory.
    pub(super) free_bytes: fn(&Path) -> io::Result<u64>,
}

impl Spool {
    /// Creates the place. The directory is created when it is used. `reserve`: bytes that the files leave free.
    pub(super) fn new(directory: PathBuf, reserve: u64) -> Self {
        Self { directory, reserve, max_bytes: MAX_OBJECT_BYTES, free_bytes }
    }

    /// Checks the size of an object.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`].
    pub(super) fn check_size(&self, name: &str, size: u64) -> Result<(), SourceError> {
        if size <= self.max_bytes {
            return Ok(());
        }
        Err(SourceError::Unreadable(format!(
            "{name} has {}, the maximum of an object is {}: write smaller objects",
            size_text(size),
            size_text(self.max_bytes)
        )))
    }

    /// Checks that the disk has space for bytes of an object that are not yet written.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`].
    pub(super) async fn check_space(&self, name: &str, bytes: u64) -> Result<(), SourceError> {
        let spool = self.clone();
        let name = name.to_owned();
        blocking(move || spool.check_space_blocking(&name, bytes)).await
    }

    fn check_space_blocking(&self, name: &str, bytes: u64) -> Result<(), SourceError> {
        let free = (self.free_bytes)(&self.directory).map_err(|error| self.error(&error))?;
        if bytes.saturating_add(self.reserve) <= free {
            return Ok(());
        }
        Err(SourceError::Unreadable(format!(
            "{name}: no space for {} more in {}, whose disk has {} free and keeps {}: free disk space \
             of the data node, or write smaller objects",
            size_text(bytes),
            self.directory.display(),
            size_text(free),
            size_text(self.reserve)
        )))
    }

    /// Creates a file for an object of this size, without a name: it disappears with its last handle, also if the process
    /// is killed.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`], also without enough disk space.
    pub(super) async fn create(&self, name: &str, size: u64) -> Result<File, SourceError> {
        let spool = self.clone();
        let name = name.to_owned();
        blocking(move || {
            std::fs::create_dir_all(&spool.directory).map_err(|error| spool.error(&error))?;
            spool.check_space_blocking(&name, size)?;
            tempfile::tempfile_in(&spool.directory).map_err(|error| spool.error(&error))
        })
        .await
    }

    /// Returns the error of a file.
    pub(super) fn error(&self, error: &io::Error) -> SourceError {
        SourceError::Unreadable(format!(
            "an object cannot be copied to a temporary file in {}: {error}",
            self.directory.display()
        ))
    }
}

fn free_bytes(directory: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(directory)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_need_their_size_and_the_reserve() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("new");
        let mut spool = Spool::new(directory.clone(), 3 << 20);
        spool.free_bytes = |_| Ok(10 << 20);
        spool.create("x", 7 << 20).await.unwrap();
        spool.check_space("x", 7 << 20).await.unwrap();
        let expected = format!(
            "x: no space for 7.0 MiB more in {}, whose disk has 10.0 MiB free and keeps 3.0 MiB: free \
             disk space of the data node, or write smaller objects",
            directory.display()
        );
        for error in [
            spool.create("x", (7 << 20) + 1).await.map(drop).unwrap_err(),
            spool.check_space("x", (7 << 20) + 1).await.unwrap_err(),
        ] {
            assert_eq!(error, SourceError::Unreadable(expected.clone()));
        }
    }

    #[tokio::test]
    async fn reserve_beyond_the_disk_refuses_all_files() {
        let dir = tempfile::tempdir().unwrap();
        Spool::new(dir.path().to_owned(), 0).create("x", 1).await.unwrap();
        let full = Spool::new(dir.path().to_owned(), u64::MAX);
        let error = full.create("x", 1).await.map(drop).unwrap_err();
        assert!(error.to_string().contains("no space for 1 B more"), "{error}");
    }
}
