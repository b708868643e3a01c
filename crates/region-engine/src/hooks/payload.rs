//! What hooks are given.

use std::sync::Arc;

use parquet::file::metadata::ParquetMetaData;
use tidewater_common::ids::{FileId, ManifestVersion, RegionId};

use crate::file_meta::{FileMeta, FileRef, IndexMeta, TimeRange};
use crate::manifest::{Action, ActionKind, Author, Delta, ManifestState, Truncate};

/// What the writer of a data file reports.
#[derive(Debug, Clone)]
pub struct SstInfo {
    /// The file.
    pub file_id: FileId,
    /// Least and greatest value of the time column; `None` without one.
    pub time: Option<TimeRange>,
    /// Size of the object in bytes.
    pub size: u64,
    /// Rows, deletes included.
    pub rows: u64,
    /// Row groups.
    pub row_groups: u32,
    /// The Parquet footer, page indexes included.
    pub footer: Arc<ParquetMetaData>,
    /// Indexes that were written along with the file.
    pub indexes: Vec<IndexMeta>,
}

/// A data file that was written: the writer's report, and what the manifest will say.
#[derive(Debug, Clone)]
pub struct SstFileInfo {
    /// The writer's report.
    pub sst: SstInfo,
    /// What will enter the manifest.
    pub meta: FileMeta,
}

/// Whether a change of the manifest is seen by readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestKind {
    /// It is in force.
    Live,
    /// It is recorded in a staging area, and invisible until that is published.
    Staging,
    /// It changes nothing that rows depend on (fence, floor, drop). Told to durable hooks only.
    Bookkeeping,
    /// It broke a rule: it keeps its version and its actions count for nothing. Told to durable
    /// hooks only.
    Void,
}

/// The actions of one committed delta.
#[derive(Debug, Clone)]
pub struct RegionMetaActionList {
    delta: Arc<Delta>,
}

/// What a region consists of at one version: where a durable hook begins whose next delta is gone.
#[derive(Debug, Clone)]
pub struct RegionSnapshot {
    state: Arc<ManifestState>,
}

/// The part of a replica in its region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionRole {
    /// Owns the region: flushes it, commits to its manifest.
    Leader,
    /// Applies the log and follows the manifest.
    Follower,
    /// Owns the region while a staging area is open.
    Staging,
    /// Owns the region and is handing it over.
    Downgrading,
}

/// Why data objects were deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemovalReason {
    /// Their rows lie in other files.
    Compaction,
    /// Their rows were truncated, or had expired.
    Truncate,
    /// Their region was dropped.
    Drop,
    /// No manifest ever named them.
    Orphan,
}

/// Data objects that were deleted for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesRemoved {
    /// The files.
    pub files: Vec<FileId>,
    /// Why.
    pub reason: RemovalReason,
}

/// What a garbage collection pass over one region did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcPass {
    /// What it deleted, by reason.
    pub removed: Vec<FilesRemoved>,
    /// Bytes that this freed.
    pub bytes: u64,
}

impl RegionMetaActionList {
    pub(crate) fn new(delta: Arc<Delta>) -> Self {
        Self { delta }
    }

    /// What changed, in order.
    pub fn actions(&self) -> &[Action] {
        &self.delta.actions
    }

    /// Who committed it.
    pub fn author(&self) -> Author {
        self.delta.author
    }

    /// Its version.
    pub fn version(&self) -> ManifestVersion {
        self.delta.version
    }

    /// The author's clock, milliseconds since the Unix epoch.
    pub fn time_ms(&self) -> u64 {
        self.delta.time_ms
    }

    /// The region whose files are taken over by reference: they are not new.
    pub fn by_reference(&self) -> Option<RegionId> {
        self.delta.by_reference
    }

    /// Files that it adds, or stages.
    pub fn files_added(&self) -> impl Iterator<Item = &FileMeta> {
        self.delta.files_added()
    }

    /// References that it removes, or stages the removal of. A truncation up to a sequence names
    /// none: the files are those whose greatest sequence it covers.
    pub fn files_removed(&self) -> impl Iterator<Item = &FileRef> {
        self.actions().iter().flat_map(|action| match &action.kind {
            ActionKind::Edit(edit) => edit.remove.as_slice(),
            ActionKind::Truncate(Truncate::Files(files)) => files.as_slice(),
            _ => &[],
        })
    }
}

impl RegionSnapshot {
    /// Of this state.
    pub fn new(state: Arc<ManifestState>) -> Self {
        Self { state }
    }

    /// The region.
    pub fn region(&self) -> RegionId {
        self.state.dir.region_id
    }

    /// The version; what is delivered next is the one after it.
    pub fn version(&self) -> ManifestVersion {
        self.state.version
    }

    /// Every live file.
    pub fn files(&self) -> impl Iterator<Item = &FileMeta> {
        self.state.files()
    }

    /// Whether the region was dropped: nothing follows.
    pub fn is_dropped(&self) -> bool {
        self.state.is_removed()
    }
}

impl ManifestKind {
    /// As operators read it.
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
    /// As operators read it.
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
    /// As operators read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compaction => "compaction",
            Self::Truncate => "truncate",
            Self::Drop => "drop",
            Self::Orphan => "orphan",
        }
    }
}
