//! What replaying a manifest yields.

use std::collections::BTreeMap;

use tidewater_common::ids::{Epoch, GroupId, ManifestVersion, OwnerEpoch, Sequence, WriterId};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{TableOptions, TableSchema};

use super::{Action, AreaId, ClosedAreas};
use crate::file_meta::{FileMeta, FileRef};
use crate::hooks::RemovalReason;
use crate::layout::RegionDir;

/// The state of a region at one version. A pure function of the deltas up to that version.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestState {
    /// The region.
    pub dir: RegionDir,
    /// Version of the last delta, void ones included; 0: there is none.
    pub version: ManifestVersion,
    /// Greatest time of any delta, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Schema and options; `None` until the first `Alter`.
    pub table: Option<TableState>,
    /// The region's key range; `None` until the first `PartitionExprChange`.
    pub range: Option<KeyRange>,
    /// Files that reads see.
    pub live: BTreeMap<FileRef, FileMeta>,
    /// Files that reads saw once, with the time of their removal: for garbage collection.
    pub removed: BTreeMap<FileRef, RemovedFile>,
    /// Every row at or below this lies in a live file, or was truncated. Never goes back.
    pub flushed: Sequence,
    /// Every row at or below this is forgotten.
    pub truncated: Sequence,
    /// Greatest sequence of an operation that was recorded.
    pub done_through: Sequence,
    /// Greatest `since` of any compaction: reads below it are refused.
    pub since: Epoch,
    /// Time window of the last compaction that named one, in milliseconds.
    pub window_ms: Option<u64>,
    /// Who owns the region; `None` until the first fence.
    pub owner: Option<Owner>,
    /// No file of this region with an older id may be added. Milliseconds since the Unix epoch.
    pub gc_floor_ms: u64,
    /// When the region was dropped, as [`RemovedFile::at_ms`].
    pub removed_at_ms: Option<u64>,
    /// Open staging areas.
    pub areas: BTreeMap<AreaId, StagingArea>,
    /// Areas that were published or abandoned.
    pub closed_areas: ClosedAreas,
    /// Last step taken of the latest procedure.
    pub procedure: Option<super::ProcedureStep>,
    /// Who wrote each version, for all deltas that may still be there; void ones included.
    pub slots: BTreeMap<ManifestVersion, Slot>,
}

/// Schema and options.
#[derive(Debug, Clone, PartialEq)]
pub struct TableState {
    /// The schema.
    pub schema: TableSchema,
    /// The options.
    pub options: TableOptions,
}

/// Who owns a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Orders all owners.
    pub epoch: OwnerEpoch,
    /// The group that it leads.
    pub group: GroupId,
}

/// A file that reads saw once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedFile {
    /// The directory that the file lies in.
    pub origin: RegionDir,
    /// When, milliseconds since the Unix epoch: the delta's time, or that of what came before it in
    /// the manifest, the floor included, if that is later.
    pub at_ms: u64,
    /// Why.
    pub reason: RemovalReason,
    /// Its indexes, with their kinds.
    pub indexes: Vec<(uuid::Uuid, String)>,
}

/// A staging area.
#[derive(Debug, Clone, PartialEq)]
pub struct StagingArea {
    /// Whether a log entry opened it.
    pub logged: bool,
    /// Milliseconds since the Unix epoch.
    pub deadline_ms: u64,
    /// What was recorded in it, in order.
    pub actions: Vec<Action>,
}

/// Who wrote a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Names the content.
    pub writer: WriterId,
    /// The delta's time, milliseconds since the Unix epoch.
    pub time_ms: u64,
}

impl ManifestState {
    /// The state before the first delta.
    pub fn empty(dir: RegionDir) -> Self {
        Self {
            dir,
            version: ManifestVersion(0),
            time_ms: 0,
            table: None,
            range: None,
            live: BTreeMap::new(),
            removed: BTreeMap::new(),
            flushed: Sequence(0),
            truncated: Sequence(0),
            done_through: Sequence(0),
            since: Epoch(0),
            window_ms: None,
            owner: None,
            gc_floor_ms: 0,
            removed_at_ms: None,
            areas: BTreeMap::new(),
            closed_areas: ClosedAreas::default(),
            procedure: None,
            slots: BTreeMap::new(),
        }
    }

    /// The live files, in order of id.
    pub fn files(&self) -> impl Iterator<Item = &FileMeta> {
        self.live.values()
    }

    /// Whether the content of a version is known to be this writer's.
    pub fn names(&self, version: ManifestVersion, writer: WriterId) -> bool {
        self.slots.get(&version).is_some_and(|slot| slot.writer == writer)
    }

    /// Whether the region was dropped.
    pub fn is_removed(&self) -> bool {
        self.removed_at_ms.is_some()
    }

    /// Whether the region's range is empty: nothing is added any more.
    pub fn is_sealed(&self) -> bool {
        self.range.as_ref().is_some_and(KeyRange::is_empty)
    }
}
