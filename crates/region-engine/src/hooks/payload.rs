//! Arguments of hooks.

use std::sync::Arc;

use parquet::file::metadata::ParquetMetaData;
use tidewater_common::ids::{FileId, ManifestVersion, RegionId};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::TableSchema;

use crate::file_meta::{FileMeta, FileRef, IndexMeta, TimeRange};
use crate::manifest::{Action, ActionKind, Author, Delta, ManifestState, Truncate};

/// The writer's report of a data file.
#[derive(Debug, Clone)]
pub struct SstInfo {
    /// Id of the file.
    pub file_id: FileId,
    /// Least and greatest value of the time column; `None` without one.
    pub time: Option<TimeRange>,
    /// Size of the object in bytes.
    pub size: u64,
    /// Rows, deletes included.
    pub rows: u64,
    /// Number of row groups.
    pub row_groups: u32,
    /// The Parquet footer, page indexes included.
    pub footer: Arc<ParquetMetaData>,
    /// Indexes that were written along with the file.
    pub indexes: Vec<IndexMeta>,
}

/// A written data file: the writer's report, and its future manifest entry.
#[derive(Debug, Clone)]
pub struct SstFileInfo {
    /// The writer's report.
    pub sst: SstInfo,
    /// The manifest entry.
    pub meta: FileMeta,
}

/// Visibility of a manifest change to readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestKind {
    /// The change is in effect.
    Live,
    /// The change is recorded in a staging area, and invisible until that is published.
    Staging,
    /// The change does not affect rows (fence, floor, drop). Delivered to durable hooks only.
    Bookkeeping,
    /// The delta broke a rule: it keeps its version and its actions have no effect. Delivered to
    /// durable hooks only.
    Void,
}

/// The actions of one committed delta.
#[derive(Debug, Clone)]
pub struct RegionMetaActionList {
    delta: Arc<Delta>,
    schema: Option<Arc<TableSchema>>,
}

/// The content of a region at one version: the start of a durable hook whose next delta was
/// deleted.
#[derive(Debug, Clone)]
pub struct RegionSnapshot {
    state: Arc<ManifestState>,
}

/// Role of a replica in its region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionRole {
    /// Owns the region: flushes it, commits to its manifest.
    Leader,
    /// Applies the log and follows the manifest.
    Follower,
    /// Owns the region while a staging area is open.
    Staging,
    /// Owns the region and is transferring the ownership.
    Downgrading,
}

/// Reasons for deleting data objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemovalReason {
    /// Their rows are in other files.
    Compaction,
    /// Their rows were truncated, or had expired.
    Truncate,
    /// Their region was dropped.
    Drop,
    /// No manifest ever referenced them.
    Orphan,
}

/// Data objects that were deleted for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesRemoved {
    /// Ids of the files.
    pub files: Vec<FileId>,
    /// Reason of the deletion.
    pub reason: RemovalReason,
}

/// Result of a garbage collection pass over one region.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcPass {
    /// Deleted files, by reason.
    pub removed: Vec<FilesRemoved>,
    /// Freed bytes.
    pub bytes: u64,
}

impl RegionMetaActionList {
    /// `schema`: that of the region after the delta.
    pub(crate) fn new(delta: Arc<Delta>, schema: Option<Arc<TableSchema>>) -> Self {
        Self { delta, schema }
    }

    /// Returns the schema of the table after the change, as the region's manifest has it; `None` before the
    /// first version with a schema.
    pub fn schema(&self) -> Option<&TableSchema> {
        self.schema.as_deref()
    }

    /// Returns the actions, in order.
    pub fn actions(&self) -> &[Action] {
        &self.delta.actions
    }

    /// Returns the author.
    pub fn author(&self) -> Author {
        self.delta.author
    }

    /// Returns the version.
    pub fn version(&self) -> ManifestVersion {
        self.delta.version
    }

    /// Returns the time of the author's clock, milliseconds since the Unix epoch.
    pub fn time_ms(&self) -> u64 {
        self.delta.time_ms
    }

    /// Returns the regions whose files are adopted by reference: they are not new.
    pub fn by_reference(&self) -> &[RegionId] {
        &self.delta.by_reference
    }

    /// Returns the files that it adds or stages.
    pub fn files_added(&self) -> impl Iterator<Item = &FileMeta> {
        self.delta.files_added()
    }

    /// Returns the references that it removes, or whose removal it stages. A truncation up to a
    /// sequence contains none: it removes the files whose greatest sequence it covers.
    pub fn files_removed(&self) -> impl Iterator<Item = &FileRef> {
        self.actions().iter().flat_map(|action| match &action.kind {
            ActionKind::Edit(edit) => edit.remove.as_slice(),
            ActionKind::Truncate(Truncate::Files(files)) => files.as_slice(),
            _ => &[],
        })
    }
}

impl RegionSnapshot {
    /// Creates a snapshot of this state.
    pub fn new(state: Arc<ManifestState>) -> Self {
        Self { state }
    }

    /// Returns the region.
    pub fn region(&self) -> RegionId {
        self.state.dir.region_id
    }

    /// Returns the schema of the table; `None` before the first version with a schema.
    pub fn schema(&self) -> Option<&TableSchema> {
        self.state.table.as_ref().map(|table| &table.schema)
    }

    /// Returns the row keys that belong to the region; `None` before the first version with a range.
    pub fn range(&self) -> Option<&KeyRange> {
        self.state.range.as_ref()
    }

    /// Returns the version; the next delivery is the version after it.
    pub fn version(&self) -> ManifestVersion {
        self.state.version
    }

    /// Returns all live files.
    pub fn files(&self) -> impl Iterator<Item = &FileMeta> {
        self.state.files()
    }

    /// Returns `true` if the region was dropped: no further version follows.
    pub fn is_dropped(&self) -> bool {
        self.state.is_removed()
    }
}

impl ManifestKind {
    /// Returns the name for operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Staging => "staging",
            Self::Bookkeeping => "bookkeeping",
            Self::Void => "void",
        }
    }
}

impl RegionRole {
    /// Returns the name for operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Staging => "staging",
            Self::Downgrading => "downgrading",
        }
    }
}

impl RemovalReason {
    /// Returns the name for operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compaction => "compaction",
            Self::Truncate => "truncate",
            Self::Drop => "drop",
            Self::Orphan => "orphan",
        }
    }
}
