//! RocksDB database of a spool, which is reopened after an error of its disk.
//!
//! RocksDB refuses all writes after one has failed, until it is reopened.

use std::path::{Path, PathBuf};

use parking_lot::{RwLock, RwLockReadGuard};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, ErrorKind, Options, WriteBatch, WriteOptions,
};
use tidewater_common::disk::is_full_text;

use super::error::SpoolError;
use super::keys;

const MIB: usize = 1 << 20;

const FAMILIES: [&str; 5] = [
    rocksdb::DEFAULT_COLUMN_FAMILY_NAME,
    keys::EVENTS,
    keys::EVICTABLE,
    keys::BATCHES,
    keys::NOTES,
];

/// Database of a spool.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    /// `None` after an error, until it is reopened.
    inner: RwLock<Option<DB>>,
}

/// Durability of a write when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// On disk: survives a crash of the machine.
    Synced,
    /// In the system's cache: survives a crash of the process.
    Written,
}

impl Database {
    /// Opens the database, creating it if missing. Blocking.
    pub(super) fn open(path: &Path) -> Result<Self, SpoolError> {
        let inner = RwLock::new(Some(open(path)?));
        Ok(Self { path: path.to_owned(), inner })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a read. Blocking.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&OpenDatabase<'_>) -> Result<T, SpoolError>,
    ) -> Result<T, SpoolError> {
        let guard = self.inner.read();
        read(&self.opened(&guard)?)
    }

    /// Writes one batch. After an error of the disk, the database is closed. Blocking.
    pub(super) fn write(
        &self,
        durability: Durability,
        fill: impl FnOnce(&OpenDatabase<'_>, &mut WriteBatch) -> Result<(), SpoolError>,
    ) -> Result<(), SpoolError> {
        let result = {
            let guard = self.inner.read();
            let opened = self.opened(&guard)?;
            let mut batch = WriteBatch::default();
            fill(&opened, &mut batch)?;
            let mut options = WriteOptions::default();
            options.set_sync(durability == Durability::Synced);
            opened.db.write_opt(batch, &options).map_err(|error| opened.error(error))
        };
        if matches!(result, Err(SpoolError::DiskFull { .. } | SpoolError::Disk { .. })) {
            *self.inner.write() = None;
        }
        result
    }

    /// Opens the database again if it is closed; returns whether it was. Blocking.
    pub(super) fn reopen_if_closed(&self) -> Result<bool, SpoolError> {
        if self.inner.read().is_some() {
            return Ok(false);
        }
        *self.inner.write() = Some(open(&self.path)?);
        Ok(true)
    }

    /// Closes the database, as an error of the disk does.
    #[cfg(test)]
    pub(super) fn close(&self) {
        *self.inner.write() = None;
    }

    fn opened<'a>(
        &'a self,
        guard: &'a RwLockReadGuard<'_, Option<DB>>,
    ) -> Result<OpenDatabase<'a>, SpoolError> {
        match guard.as_ref() {
            Some(db) => Ok(OpenDatabase { db, path: &self.path }),
            None => Err(SpoolError::DiskFull { path: self.path.clone() }),
        }
    }
}

/// The database while it is open.
#[derive(Debug)]
pub(super) struct OpenDatabase<'a> {
    pub(super) db: &'a DB,
    path: &'a Path,
}

impl OpenDatabase<'_> {
    /// Returns a column family.
    pub(super) fn family(&self, name: &str) -> Result<&ColumnFamily, SpoolError> {
        self.db.cf_handle(name).ok_or_else(|| SpoolError::Damaged {
            path: self.path.to_owned(),
            message: format!("column family {name} is missing"),
        })
    }

    /// The value of a key of the default family.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, SpoolError> {
        self.db.get(key).map_err(|error| self.error(error))
    }

    pub(super) fn error(&self, error: rocksdb::Error) -> SpoolError {
        classify(self.path, error)
    }

    pub(super) fn damaged(&self, message: impl ToString) -> SpoolError {
        SpoolError::Damaged { path: self.path.to_owned(), message: message.to_string() }
    }
}

fn classify(path: &Path, error: rocksdb::Error) -> SpoolError {
    const IN_USE: [&str; 3] =
        ["lock hold by current process", "While lock file", "Resource temporarily unavailable"];
    let kind = error.kind();
    let message = error.into_string();
    let path = path.to_owned();
    if is_full_text(&message) {
        SpoolError::DiskFull { path }
    } else if IN_USE.iter().any(|text| message.contains(text)) {
        SpoolError::InUse { path, message }
    } else if kind == ErrorKind::Corruption || kind == ErrorKind::InvalidArgument {
        SpoolError::Damaged { path, message }
    } else {
        SpoolError::Disk { path, message }
    }
}

/// Checks that a database has no column families of a later release.
fn check_families(options: &Options, path: &Path) -> Result<(), SpoolError> {
    // A new database has none, and a damaged one is reported when it is opened.
    let Ok(families) = DB::list_cf(options, path) else { return Ok(()) };
    match families.into_iter().find(|family| !FAMILIES.contains(&family.as_str())) {
        Some(family) => {
            let found = format!("column family {family}");
            Err(SpoolError::NewerFormat { path: path.to_owned(), found })
        }
        None => Ok(()),
    }
}

fn open(path: &Path) -> Result<DB, SpoolError> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A record that a crash cut off was never confirmed; damage anywhere else is an error.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_recycle_log_file_num(0);
    options.set_max_total_wal_size(16 * MIB as u64);
    options.set_max_background_jobs(2);
    options.set_max_open_files(64);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(MIB);
    options.set_stats_dump_period_sec(0);
    // Events stay for seconds, and are read once.
    options.set_db_write_buffer_size(8 * MIB);
    let cache = Cache::new_lru_cache(2 * MIB);
    let family = || {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&cache);
        let mut options = Options::default();
        options.set_write_buffer_size(4 * MIB);
        options.set_max_write_buffer_number(2);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_block_based_table_factory(&blocks);
        options
    };
    check_families(&options, path)?;
    let families = FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, family()));
    DB::open_cf_descriptors(&options, path, families).map_err(|error| classify(path, error))
}
