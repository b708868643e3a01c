//! Options of a table, in addition to its columns.

use std::time::Duration;

use super::{SchemaError, TableSchema};
use crate::ids::ColumnId;

/// Default number of vnodes of a hash-distributed table.
pub const DEFAULT_VNODES: u32 = 256;

/// The greatest vnode count; a vnode takes two bytes in every row key.
pub const MAX_VNODES: u32 = 32_768;

/// The shortest window that a table can be given: each window has files of its own, and 90 days have 2,160 of an hour.
pub const MIN_NEW_COMPACTION_WINDOW: Duration = Duration::from_secs(60 * 60);

/// The shortest window of a table of the catalog, which may be older than [`MIN_NEW_COMPACTION_WINDOW`].
pub const MIN_COMPACTION_WINDOW: Duration = Duration::from_secs(60);

/// Treatment of several versions of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// The newest version wins; deletes exist.
    Upsert,
    /// Keys are not checked: every row stays.
    AppendOnly,
}

impl WriteMode {
    /// Returns whether rows can be deleted by key. In an append-only table a delete would be a row
    /// without values, which either shows up in results or fits into no file.
    pub fn has_deletes(self) -> bool {
        self == Self::Upsert
    }
}

/// Placement of rows by a hash of some key columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashDistribution {
    /// Primary key columns whose bytes are hashed.
    pub columns: Vec<ColumnId>,
    /// 1 to [`MAX_VNODES`].
    pub vnode_count: u32,
}

/// Options of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableOptions {
    /// Upsert or append-only.
    pub write_mode: WriteMode,
    /// `None`: distributed by ranges of the row key.
    pub hash: Option<HashDistribution>,
    /// Rows older than this, by the time column, expire. Milliseconds.
    pub ttl_ms: Option<u64>,
    /// The table mirrors a source: only its refreshes write, and reads are as of its published epoch.
    pub refreshable: bool,
    /// Length of the windows of time whose rows are compacted together: whole seconds, at least
    /// [`MIN_COMPACTION_WINDOW`]. `None`: the length of the windows follows from the files.
    pub compaction_window: Option<Duration>,
    /// The table is made for events: nodes record no events about it. Fixed at creation.
    pub holds_events: bool,
    /// The oldest readable epoch of the table is its own, and follows its holds and its policy. Never taken back.
    pub explicit_since: bool,
    /// The table was dropped while holds keep its rows: its regions refuse writes. Never taken back.
    pub dropped: bool,
}

impl TableOptions {
    /// Upsert, distributed by range, without expiry.
    pub fn upsert() -> Self {
        Self {
            write_mode: WriteMode::Upsert,
            hash: None,
            ttl_ms: None,
            refreshable: false,
            compaction_window: None,
            holds_events: false,
            explicit_since: false,
            dropped: false,
        }
    }

    /// Append-only, distributed by range, without expiry.
    pub fn append_only() -> Self {
        Self { write_mode: WriteMode::AppendOnly, ..Self::upsert() }
    }

    /// Returns the compaction window in milliseconds.
    pub fn compaction_window_ms(&self) -> Option<u64> {
        self.compaction_window.map(|window| u64::try_from(window.as_millis()).unwrap_or(u64::MAX))
    }

    /// Returns whether all versions of a key have the same time, so that they are in one window of time
    /// and expire together. `false` without a time column.
    pub fn has_one_time_per_key(&self, schema: &TableSchema) -> bool {
        schema.time_column().is_some_and(|column| {
            self.write_mode == WriteMode::AppendOnly || schema.primary_key().contains(&column)
        })
    }

    /// Checks a compaction window that a table is to be given. A table of the catalog may have a shorter one.
    ///
    /// # Errors
    /// [`SchemaError::BadCompactionWindow`].
    pub fn check_new_window(window: Duration) -> Result<(), SchemaError> {
        if window < MIN_NEW_COMPACTION_WINDOW || window.subsec_nanos() != 0 {
            return Err(SchemaError::BadCompactionWindow(window));
        }
        Ok(())
    }

    /// Checks the options against the columns they name.
    pub fn validate(&self, schema: &TableSchema) -> Result<(), SchemaError> {
        if self.ttl_ms.is_some() && schema.time_column().is_none() {
            return Err(SchemaError::BadTimeColumn("(needed for a time to live)".to_owned()));
        }
        self.check_compaction_window(schema)?;
        // Reads of a refreshable table are as of its published epochs, which the log of its groups has.
        let is_mirror =
            self.write_mode.has_deletes() && self.ttl_ms.is_none() && !self.holds_events;
        if self.refreshable && !is_mirror {
            return Err(SchemaError::BadRefreshable);
        }
        let Some(hash) = &self.hash else { return Ok(()) };
        if hash.columns.is_empty() {
            return Err(SchemaError::BadDistribution("name at least one column".to_owned()));
        }
        if !(1..=MAX_VNODES).contains(&hash.vnode_count) {
            return Err(SchemaError::BadDistribution(format!(
                "the vnode count must be 1 to {MAX_VNODES}, not {}",
                hash.vnode_count
            )));
        }
        for (position, id) in hash.columns.iter().enumerate() {
            if !schema.primary_key().contains(id) {
                let name = schema.column(*id).map_or("?", |column| column.name.as_str());
                return Err(SchemaError::BadDistribution(format!(
                    "column {name:?} is not part of the primary key"
                )));
            }
            if hash.columns[..position].contains(id) {
                return Err(SchemaError::BadDistribution("a column is named twice".to_owned()));
            }
        }
        Ok(())
    }

    fn check_compaction_window(&self, schema: &TableSchema) -> Result<(), SchemaError> {
        let Some(window) = self.compaction_window else { return Ok(()) };
        if window < MIN_COMPACTION_WINDOW || window.subsec_nanos() != 0 {
            return Err(SchemaError::BadCompactionWindow(window));
        }
        if schema.time_column().is_none() {
            return Err(SchemaError::BadTimeColumn("(needed for a compaction window)".to_owned()));
        }
        if !self.has_one_time_per_key(schema) {
            return Err(SchemaError::WindowTimeNotInKey);
        }
        Ok(())
    }
}
