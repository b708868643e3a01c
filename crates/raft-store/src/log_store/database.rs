//! The database of a node, which can be closed and reopened while other components use it.
//!
//! RocksDB refuses all writes after one has met a full disk, until `Resume` is called, which the
//! binding does not offer. All access therefore goes through [`Database::read`] and
//! [`LogStore::write_synced`](super::LogStore::write_synced), and no component keeps a handle.
//!
//! Opening replays RocksDB's write-ahead log into files, for which there may be no space yet. Until
//! there is, the database is open *read-only*: replication and scans continue to read the log, and
//! a failed read would end its group's Raft for good.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rocksdb::{ColumnFamilyDescriptor, DB, ErrorKind, WriteBatch, WriteOptions};

use tidewater_common::disk::is_full_text;

use super::error::StoreError;
use super::keys;
use super::options::LogStoreOptions;
use super::purge_points::PurgePoints;

/// The RocksDB database of a node.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    options: LogStoreOptions,
    purge_points: Arc<PurgePoints>,
    inner: RwLock<DatabaseHandle>,
}

#[derive(Debug)]
enum DatabaseHandle {
    Open(DB),
    /// There is no space to open it for writing.
    ReadOnly(DB),
    Closed,
}

impl DatabaseHandle {
    fn db(&self) -> Option<&DB> {
        match self {
            Self::Open(db) | Self::ReadOnly(db) => Some(db),
            Self::Closed => None,
        }
    }
}

impl Database {
    /// Opens the database, creating it if missing. Blocking.
    /// Compactions drop the entries below the purge points.
    pub(super) fn open(
        path: &Path,
        options: LogStoreOptions,
        purge_points: Arc<PurgePoints>,
    ) -> Result<Self, StoreError> {
        let db = open(path, &options, &purge_points, OpenMode::Write)?;
        let inner = RwLock::new(DatabaseHandle::Open(db));
        Ok(Self { path: path.to_owned(), options, purge_points, inner })
    }

    /// Returns the directory of the database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a read. Keep it short: recovery from a full disk waits for all readers before it can
    /// reopen the database. Blocking.
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
            DatabaseHandle::Open(db) => db,
            DatabaseHandle::ReadOnly(_) => return Err(WriteError::NoSpace),
            DatabaseHandle::Closed => return Err(WriteError::Other(self.closed())),
        };
        let mut batch = WriteBatch::default();
        fill(db, &mut batch).map_err(WriteError::Other)?;
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        db.write_opt(batch, &options).map_err(|error| {
            let message = error.into_string();
            if is_full_text(&message) {
                WriteError::NoSpace
            } else {
                WriteError::Other(StoreError::Failed(message))
            }
        })
    }

    /// Makes all earlier writes durable. Blocking.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.maintain(|db| db.flush_wal(true))
    }

    /// Runs maintenance of the database's files. Fails with [`StoreError::Full`] while the database
    /// is open read-only. Blocking.
    pub(super) fn maintain<T>(
        &self,
        maintain: impl FnOnce(&DB) -> Result<T, rocksdb::Error>,
    ) -> Result<T, StoreError> {
        let guard = self.inner.read();
        let db = match &*guard {
            DatabaseHandle::Open(db) => db,
            DatabaseHandle::ReadOnly(_) => return Err(StoreError::Full),
            DatabaseHandle::Closed => return Err(self.closed()),
        };
        maintain(db).map_err(|error| {
            let message = error.into_string();
            if is_full_text(&message) { StoreError::Full } else { StoreError::Failed(message) }
        })
    }

    /// Ends running compactions: closing waits for the users of the database.
    pub(super) fn cancel_compactions(&self) {
        if let DatabaseHandle::Open(db) = &*self.inner.read() {
            db.cancel_all_background_work(false);
        }
    }

    /// Closes the database after its readers, and reopens it; read-only when there is no space for
    /// more, which returns [`StoreError::Full`]. Blocking.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        self.cancel_compactions();
        let mut guard = self.inner.write();
        *guard = DatabaseHandle::Closed;
        let open = |mode| open(&self.path, &self.options, &self.purge_points, mode);
        let (handle, result) = match open(OpenMode::Write) {
            Ok(db) => (DatabaseHandle::Open(db), Ok(())),
            Err(StoreError::Full) => {
                let db = open(OpenMode::Read)?;
                (DatabaseHandle::ReadOnly(db), Err(StoreError::Full))
            }
            Err(error) => (DatabaseHandle::Closed, Err(error)),
        };
        *guard = handle;
        result
    }

    #[cfg(test)]
    pub(super) fn is_read_only(&self) -> bool {
        matches!(*self.inner.read(), DatabaseHandle::ReadOnly(_))
    }

    /// Closes the database for good after its readers. Blocking.
    pub(super) fn close(&self) {
        self.cancel_compactions();
        *self.inner.write() = DatabaseHandle::Closed;
    }

    fn closed(&self) -> StoreError {
        StoreError::Closed(self.path.display().to_string())
    }

    fn damaged(&self, error: rocksdb::Error) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), message: error.into_string() }
    }
}

/// Reason why a batch was not written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The disk is full.
    NoSpace,
    /// Any other error.
    Other(StoreError),
}

#[derive(Debug, Clone, Copy)]
enum OpenMode {
    Write,
    Read,
}

fn open(
    path: &Path,
    options: &LogStoreOptions,
    purge_points: &Arc<PurgePoints>,
    mode: OpenMode,
) -> Result<DB, StoreError> {
    let cache = LogStoreOptions::block_cache();
    let mut families = vec![
        ColumnFamilyDescriptor::new(
            rocksdb::DEFAULT_COLUMN_FAMILY_NAME,
            options.small_family(&cache),
        ),
        ColumnFamilyDescriptor::new(
            keys::LOG,
            options.log_family(&cache, Arc::clone(purge_points)),
        ),
        ColumnFamilyDescriptor::new(keys::STATE, options.small_family(&cache)),
    ];
    for name in &options.extra_column_families {
        families.push(ColumnFamilyDescriptor::new(name, options.small_family(&cache)));
    }
    let opened = match mode {
        OpenMode::Write => DB::open_cf_descriptors(&options.database(), path, families),
        OpenMode::Read => {
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
        } else if is_full_text(&message) {
            StoreError::Full
        } else {
            StoreError::Open { path, message }
        }
    })
}
