//! The vocabulary of a manifest: authors, deltas and actions.

use std::fmt;

use tidewater_common::ids::{
    Epoch, GroupId, JobId, ManifestVersion, OwnerEpoch, RegionId, Sequence, WriterId,
};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{TableOptions, TableSchema};
use uuid::Uuid;

use super::ExpiryMark;
use crate::file_meta::{FileMeta, FileRef, IndexMeta};

/// Author of a delta. Only owners are fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// The region's owner.
    Owner(OwnerEpoch),
    /// A compaction or an index build: may only swap live files for others, or add an index.
    Job(JobId),
    /// Garbage collection, which raises the floor, or the first delta of a split's or merge's
    /// child.
    System,
}

/// A step of a procedure of the meta group. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcedureStep {
    /// The procedure's number on this route; grows.
    pub number: u64,
    /// The step within the procedure; grows.
    pub step: u32,
}

/// A staging area of a region; its id is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AreaId(pub Uuid);

/// One committed change of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Delta {
    /// The region of the delta.
    pub region: RegionId,
    /// The slot that the delta was made for.
    pub version: ManifestVersion,
    /// The committer, whose permissions apply.
    pub author: Author,
    /// Identifies this content; fresh for each delta.
    pub writer: WriterId,
    /// The author's clock, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Sequence of the causing log entry; `None` for flushes, compactions and bookkeeping.
    pub cause: Option<Sequence>,
    /// The causing procedure step.
    pub procedure: Option<ProcedureStep>,
    /// The regions whose files a child's first delta adopts by reference.
    pub by_reference: Vec<RegionId>,
    /// The changes, in order.
    pub actions: Vec<Action>,
}

/// A requested change: a delta without the fields that the commit itself fills in.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The committer, whose permissions apply.
    pub author: Author,
    /// Sequence of the causing log entry.
    pub cause: Option<Sequence>,
    /// The causing procedure step.
    pub procedure: Option<ProcedureStep>,
    /// The regions whose files a child's first delta adopts by reference.
    pub by_reference: Vec<RegionId>,
    /// The changes, in order.
    pub actions: Vec<Action>,
}

/// One action of a delta.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// `Some`: recorded in this staging area and invisible until the area is published.
    pub staged: Option<AreaId>,
    /// Content of the action.
    pub kind: ActionKind,
}

/// Kinds of actions.
#[derive(Debug, Clone, PartialEq)]
pub enum ActionKind {
    /// Sets schema and options.
    Alter {
        /// The new schema.
        schema: Box<TableSchema>,
        /// The new options.
        options: TableOptions,
    },
    /// Sets the region's key range; the empty range seals the region.
    PartitionExprChange {
        /// The new range.
        range: KeyRange,
    },
    /// Adds and removes files.
    Edit(Edit),
    /// Drops rows, or expired files.
    Truncate(Truncate),
    /// Drops the region; final.
    Remove,
    /// Records a new owner.
    Fence {
        /// The new owner.
        owner: OwnerEpoch,
        /// The group that the owner leads.
        group: GroupId,
        /// Least progress of the manifest.
        required: RequiredProgress,
    },
    /// Garbage collection floor: from now on no file of this region with an older id may be added.
    GcFloor {
        /// Milliseconds since the Unix epoch.
        floor_ms: u64,
    },
    /// Bookkeeping of a staging area.
    Area {
        /// Id of the area.
        area: AreaId,
        /// The transition of the area.
        step: AreaStep,
    },
}

/// Files to add and remove, and the watermarks that the edit raises.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// Files to add.
    pub add: Vec<FileMeta>,
    /// Live references to remove.
    pub remove: Vec<FileRef>,
    /// Indexes to add to live files.
    pub add_indexes: Vec<(FileRef, IndexMeta)>,
    /// Set by a flush: every row at or below this sequence is now in a live file.
    pub flushed: Option<Sequence>,
    /// Set by a compaction: versions at or below this epoch may have been compacted away.
    pub since: Option<Epoch>,
    /// Set by a compaction: the time window in use, in milliseconds.
    pub window_ms: Option<u64>,
    /// Rows that the edit expires for good, and those that were expired where its files come from.
    pub expired: Vec<ExpiryMark>,
}

/// Least progress that the manifest must have for a fence: of a region that moves from another group, all of whose rows
/// are in files. Zero for other fences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequiredProgress {
    /// Every row at or below this sequence is in files.
    pub flushed: Sequence,
    /// Every decision of the log at or below this sequence is recorded.
    pub done: Sequence,
}

/// Scope of a truncation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Truncate {
    /// Every row at or below this sequence.
    UpTo(Sequence),
    /// These files, all of them live: for expiry only.
    Files(Vec<FileRef>),
}

/// Steps in the life of a staging area.
#[derive(Debug, Clone, PartialEq)]
pub enum AreaStep {
    /// Opens the area.
    Open {
        /// `true` if a log entry opened the area; such an area outlives its owner.
        logged: bool,
        /// Milliseconds since the Unix epoch.
        deadline_ms: u64,
    },
    /// All file actions and the schema change of its content are in the same delta, live.
    Publish,
    /// Drops the content.
    Abandon,
    /// The combined actions of the area, for the record: replay takes nothing from it.
    Merged(Vec<Action>),
}

impl Change {
    /// Returns a change with the given author and live actions, caused by no log entry.
    pub fn new(author: Author, actions: Vec<ActionKind>) -> Self {
        Self {
            author,
            cause: None,
            procedure: None,
            by_reference: Vec::new(),
            actions: actions.into_iter().map(Action::live).collect(),
        }
    }
}

impl Action {
    /// Returns an action that takes effect immediately.
    pub fn live(kind: ActionKind) -> Self {
        Self { staged: None, kind }
    }

    /// Returns an action that is invisible until its area is published.
    pub fn staged(area: AreaId, kind: ActionKind) -> Self {
        Self { staged: Some(area), kind }
    }
}

impl Delta {
    /// Returns the files that the delta adds or stages.
    pub fn files_added(&self) -> impl Iterator<Item = &FileMeta> {
        self.actions.iter().flat_map(|action| match &action.kind {
            ActionKind::Edit(edit) => edit.add.as_slice(),
            _ => &[],
        })
    }

    /// Returns the change that the committer requested.
    pub fn change(&self) -> Change {
        Change {
            author: self.author,
            cause: self.cause,
            procedure: self.procedure,
            by_reference: self.by_reference.clone(),
            actions: self.actions.clone(),
        }
    }
}

impl fmt::Display for AreaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(epoch) => write!(f, "owner {epoch}"),
            Self::Job(job) => write!(f, "job {job}"),
            Self::System => f.write_str("system"),
        }
    }
}
