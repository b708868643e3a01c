//! The database of a node, which can be closed and opened again while others hold it.
//!
//! RocksDB refuses all writes after one has met a full disk, until it is told to resume, which the
//! binding cannot. So everybody reaches the database through [`Database::read`] and
//! [`Database::write`], and nobody keeps a handle.
//!
//! Opening replays RocksDB's log into files, for which there may be no room yet. Until there is, the
//! database stands open *for reading*: replication and scans go on reading the log, and a read that
//! failed would end its group's Raft for good.

use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use rocksdb::{ColumnFamilyDescriptor, DB, ErrorKind, WriteBatch, WriteOptions};

use super::error::StoreError;
use super::keys;
use super::options::LogStoreOptions;

/// The database of a node.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    options: LogStoreOptions,
    inner: RwLock<Handle>,
}

#[derive(Debug)]
enum Handle {
    Open(DB),
    /// There is no room to open it.
    ForReading(DB),
    Closed,
}

impl Handle {
    fn db(&self) -> Option<&DB> {
        match self {
            Self::Open(db) | Self::ForReading(db) => Some(db),
            Self::Closed => None,
        }
    }
}

impl Database {
    /// Opens it, and makes it when it is missing. Blocking.
    pub(super) fn open(path: &Path, options: LogStoreOptions) -> Result<Self, StoreError> {
        let db = open(path, &options, Access::Write)?;
        Ok(Self { path: path.to_owned(), options, inner: RwLock::new(Handle::Open(db)) })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads. Keep it short, or the database cannot be opened again when the disk has room: a full
    /// disk's recovery waits for all readers. Blocking.
    pub fn read<T>(
        &self,
        read: impl FnOnce(&DB) -> Result<T, rocksdb::Error>,
    ) -> Result<T, StoreError> {
        let guard = self.inner.read();
        let db = guard.db().ok_or_else(|| self.closed())?;
        read(db).map_err(|error| match error.kind() {
            ErrorKind::Corruption => self.damaged(error),
            _ => StoreError::Read(error.into_string()),
        })
    }

    /// Writes one batch, synced or not. Blocking.
    pub(super) fn write_once(
        &self,
        sync: bool,
        fill: impl FnOnce(&DB, &mut WriteBatch) -> Result<(), StoreError>,
    ) -> Result<(), WriteError> {
        let guard = self.inner.read();
        let db = match &*guard {
            Handle::Open(db) => db,
            Handle::ForReading(_) => return Err(WriteError::NoSpace),
            Handle::Closed => return Err(WriteError::Other(self.closed())),
        };
        let mut batch = WriteBatch::default();
        fill(db, &mut batch).map_err(WriteError::Other)?;
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        db.write_opt(batch, &options).map_err(|error| {
            let message = error.into_string();
            if super::error::is_no_space(&message) {
                WriteError::NoSpace
            } else {
                WriteError::Other(StoreError::Failed(message))
            }
        })
    }

    /// Closes it, waiting for readers, and opens it again; for reading only when there is no room
    /// for more, which is [`StoreError::Full`]. Blocking.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        let mut guard = self.inner.write();
        *guard = Handle::Closed;
        let (handle, result) = match open(&self.path, &self.options, Access::Write) {
            Ok(db) => (Handle::Open(db), Ok(())),
            Err(StoreError::Full) => {
                let db = open(&self.path, &self.options, Access::Read)?;
                (Handle::ForReading(db), Err(StoreError::Full))
            }
            Err(error) => (Handle::Closed, Err(error)),
        };
        *guard = handle;
        result
    }

    #[cfg(test)]
    pub(super) fn is_for_reading(&self) -> bool {
        matches!(*self.inner.read(), Handle::ForReading(_))
    }

    /// Closes it for good, waiting for readers. Blocking.
    pub(super) fn close(&self) {
        *self.inner.write() = Handle::Closed;
    }

    fn closed(&self) -> StoreError {
        StoreError::Closed(self.path.display().to_string())
    }

    fn damaged(&self, error: rocksdb::Error) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), message: error.into_string() }
    }
}

/// Why a batch was not written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The disk is full.
    NoSpace,
    /// Anything else.
    Other(StoreError),
}

#[derive(Debug, Clone, Copy)]
enum Access {
    Write,
    Read,
}

fn open(path: &Path, options: &LogStoreOptions, access: Access) -> Result<DB, StoreError> {
    let cache = LogStoreOptions::block_cache();
    let mut families = vec![
        ColumnFamilyDescriptor::new(
            rocksdb::DEFAULT_COLUMN_FAMILY_NAME,
            options.small_family(&cache),
        ),
        ColumnFamilyDescriptor::new(keys::LOG, options.log_family(&cache)),
        ColumnFamilyDescriptor::new(keys::STATE, options.small_family(&cache)),
    ];
    for name in &options.extra_column_families {
        families.push(ColumnFamilyDescriptor::new(name, options.small_family(&cache)));
    }
    let opened = match access {
        Access::Write => DB::open_cf_descriptors(&options.database(), path, families),
        Access::Read => {
            DB::open_cf_descriptors_read_only(&options.database(), path, families, false)
        }
    };
    opened.map_err(|error| {
        let kind = error.kind();
        let message = error.into_string();
        let path = path.to_owned();
        if kind == ErrorKind::Corruption {
            StoreError::Damaged { path, message }
        } else if message.contains("lock") || message.contains("Resource temporarily unavailable") {
            StoreError::InUse { path, message }
        } else if super::error::is_no_space(&message) {
            StoreError::Full
        } else {
            StoreError::Open { path, message }
        }
    })
}
