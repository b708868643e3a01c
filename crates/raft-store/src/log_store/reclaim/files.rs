//! The database's files of entries: sizes, deletion, compaction.

use std::path::Path;

use rocksdb::{CompactOptions, Range};
use tidewater_common::ids::GroupId;

use super::plan::{LogPosition, LogSpan};
use crate::log_store::database::Database;
use crate::log_store::error::StoreError;
use crate::log_store::keys::{self, log_key, split_log_key};

/// A file of entries.
#[derive(Debug, Clone)]
pub(super) struct LogFile {
    pub(super) name: String,
    pub(super) level: i32,
    pub(super) bytes: u64,
    pub(super) span: LogSpan,
}

fn key((group, index): LogPosition) -> [u8; 16] {
    log_key(group, index)
}

/// Lists the files of entries.
pub(super) fn list(database: &Database) -> Result<Vec<LogFile>, StoreError> {
    let files = database.read(|db| db.live_files())?;
    let position = |key: Option<Vec<u8>>| key.as_deref().and_then(split_log_key);
    let file = |file: rocksdb::LiveFile| {
        let span = match (position(file.start_key), position(file.end_key)) {
            (Some(first), Some(last)) => LogSpan::of_file(first, last),
            _ => LogSpan::ALL,
        };
        LogFile { name: file.name, level: file.level, bytes: file.size as u64, span }
    };
    let entries = files.into_iter().filter(|file| file.column_family_name == keys::LOG);
    Ok(entries.map(file).collect())
}

/// Returns the approximate bytes of each span in files.
pub(super) fn sizes(database: &Database, spans: &[LogSpan]) -> Result<Vec<u64>, StoreError> {
    let keys: Vec<_> = spans.iter().map(|span| (key(span.from), key(span.end))).collect();
    let ranges: Vec<_> = keys.iter().map(|(from, end)| Range::new(from, end)).collect();
    database.read(|db| {
        let Some(family) = db.cf_handle(keys::LOG) else { return Ok(vec![0; spans.len()]) };
        Ok(db.get_approximate_sizes_cf(family, &ranges))
    })
}

/// Deletes the files with entries `first..=last` of a group and no other, except for new files,
/// which are still in level 0. Entries of the range may remain.
pub(super) fn delete_within(
    database: &Database,
    group: GroupId,
    first: u64,
    last: u64,
) -> Result<(), StoreError> {
    database.maintain(|db| {
        let Some(family) = db.cf_handle(keys::LOG) else { return Ok(()) };
        // RocksDB includes the end of the range, contrary to its other functions.
        db.delete_file_in_range_cf(family, log_key(group, first), log_key(group, last))
    })
}

/// Compacts the files in a span. Returns early when the database is being closed.
pub(super) fn compact(database: &Database, span: LogSpan) -> Result<(), StoreError> {
    database.maintain(|db| {
        let Some(family) = db.cf_handle(keys::LOG) else { return Ok(()) };
        let mut options = CompactOptions::default();
        // RocksDB's own compactions continue.
        options.set_exclusive_manual_compaction(false);
        db.compact_range_cf_opt(family, Some(key(span.from)), Some(key(span.end)), &options);
        Ok(())
    })
}

/// Returns the bytes of the database's write-ahead log; 0 when the directory cannot be read.
pub(super) fn wal_bytes(database: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(database) else { return 0 };
    let is_log = |path: &Path| path.extension().is_some_and(|ending| ending == "log");
    files
        .filter_map(Result::ok)
        .filter(|file| is_log(&file.path()))
        .filter_map(|file| file.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}
