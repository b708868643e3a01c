//! The state that replaying a manifest yields.

use std::collections::BTreeMap;

use tidewater_common::ids::{
    Epoch, GroupId, ManifestVersion, OwnerEpoch, RegionId, Sequence, WriterId,
};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{TableOptions, TableSchema};

use super::{Action, AreaId, ClosedAreas, ExpiryMarks};
use crate::file_meta::{FileMeta, FileRef};
use crate::hooks::RemovalReason;
use crate::layout::RegionDir;

/// The state of a region at one version: a pure function of the deltas up to that version.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestState {
    /// Directory of the region.
    pub dir: RegionDir,
    /// Version of the last delta, void ones included; 0: no delta exists.
    pub version: ManifestVersion,
    /// Greatest time of any delta, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Schema and options; `None` until the first `Alter`.
    pub table: Option<TableState>,
    /// The region's key range; `None` until the first `PartitionExprChange`.
    pub range: Option<KeyRange>,
    /// Version since which the range is empty; `None`: the region is not sealed. From then on its content
    /// stays the same until it has a range again or is dropped.
    pub sealed_at: Option<ManifestVersion>,
    /// Regions whose files the first delta adopted by reference; empty for most regions.
    pub parents: Vec<RegionId>,
    /// Files visible to reads.
    pub live: BTreeMap<FileRef, FileMeta>,
    /// Files formerly visible to reads, with the time of their removal: for garbage collection.
    pub removed: BTreeMap<FileRef, RemovedFile>,
    /// Every row at or below this is in a live file, or was truncated. Never decreases.
    pub flushed: Sequence,
    /// Every row at or below this was truncated.
    pub truncated: Sequence,
    /// Greatest sequence of an operation that was recorded.
    pub done_through: Sequence,
    /// Greatest `since` of any compaction: reads below it are refused.
    pub since: Epoch,
    /// Time window of the last compaction that named one, in milliseconds.
    pub window_ms: Option<u64>,
    /// Rows that commits have expired for good.
    pub expired: ExpiryMarks,
    /// Owner of the region; `None` until the first fence.
    pub owner: Option<RegionOwner>,
    /// Deadline, milliseconds since the Unix epoch.
    pub gc_floor_ms: u64,
    /// Time when the region was dropped, as [`RemovedFile::at_ms`].
    pub removed_at_ms: Option<u64>,
    /// Open staging areas.
    pub areas: BTreeMap<AreaId, StagingArea>,
    /// Areas that were published or abandoned.
    pub closed_areas: ClosedAreas,
    /// Last step taken of the latest procedure.
    pub procedure: Option<super::ProcedureStep>,
    /// Writer of each version, for all deltas that may still exist, void ones included.
    pub slots: BTreeMap<ManifestVersion, VersionSlot>,
}

/// Schema and options of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableState {
    /// Columns and keys.
    pub schema: TableSchema,
    /// Write mode, distribution, time to live.
    pub options: TableOptions,
}

/// Owner of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionOwner {
    /// Epoch of the owner; orders all owners.
    pub epoch: OwnerEpoch,
    /// The group that the owner leads.
    pub group: GroupId,
}

/// A file formerly visible to reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedFile {
    /// The directory of the file.
    pub origin: RegionDir,
    /// Removal time, milliseconds since the Unix epoch: the delta's time, or that of an earlier
    /// entry of the manifest, the floor included, if that is later.
    pub at_ms: u64,
    /// Reason of the removal.
    pub reason: RemovalReason,
    /// Its indexes, with their kinds.
    pub indexes: Vec<(uuid::Uuid, String)>,
}

/// A staging area.
#[derive(Debug, Clone, PartialEq)]
pub struct StagingArea {
    /// `true` if a log entry opened the area.
    pub logged: bool,
    /// Milliseconds since the Unix epoch.
    pub deadline_ms: u64,
    /// The staged actions, in order.
    pub actions: Vec<Action>,
}

/// Writer of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionSlot {
    /// Identifies the content.
    pub writer: WriterId,
    /// The delta's time, milliseconds since the Unix epoch.
    pub time_ms: u64,
}

impl ManifestState {
    /// Returns the state before the first delta.
    pub fn empty(dir: RegionDir) -> Self {
        Self {
            dir,
            version: ManifestVersion(0),
            time_ms: 0,
            table: None,
            range: None,
            sealed_at: None,
            parents: Vec::new(),
            live: BTreeMap::new(),
            removed: BTreeMap::new(),
            flushed: Sequence(0),
            truncated: Sequence(0),
            done_through: Sequence(0),
            since: Epoch(0),
            window_ms: None,
            expired: ExpiryMarks::default(),
            owner: None,
            gc_floor_ms: 0,
            removed_at_ms: None,
            areas: BTreeMap::new(),
            closed_areas: ClosedAreas::default(),
            procedure: None,
            slots: BTreeMap::new(),
        }
    }

    /// Returns the live files, in order of id.
    pub fn files(&self) -> impl Iterator<Item = &FileMeta> {
        self.live.values()
    }

    /// Returns `true` if the content of a version is known to be this writer's.
    pub fn names(&self, version: ManifestVersion, writer: WriterId) -> bool {
        self.slots.get(&version).is_some_and(|slot| slot.writer == writer)
    }

    /// Returns `true` if the region was dropped.
    pub fn is_removed(&self) -> bool {
        self.removed_at_ms.is_some()
    }

    /// Returns `true` if the region's range is empty: nothing can be added or removed.
    pub fn is_sealed(&self) -> bool {
        self.range.as_ref().is_some_and(KeyRange::is_empty)
    }
}
