//! The words of a manifest: who commits (author), what (delta), and of what it consists (actions).

use std::fmt;

use tidewater_common::ids::{
    Epoch, GroupId, JobId, ManifestVersion, OwnerEpoch, RegionId, Sequence, WriterId,
};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{TableOptions, TableSchema};
use uuid::Uuid;

use crate::file_meta::{FileMeta, FileRef, IndexMeta};

/// Who commits a delta. Only owners are fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// The region's owner.
    Owner(OwnerEpoch),
    /// A compaction or an index build: may only swap live files for others, or add an index.
    Job(JobId),
    /// Garbage collection's floor, or the first delta of a split's or merge's child.
    System,
}

/// A step of a procedure of the meta group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// The region that it belongs to.
    pub region: RegionId,
    /// The slot that it was made for.
    pub version: ManifestVersion,
    /// Who commits it.
    pub author: Author,
    /// Names this content: fresh for each.
    pub writer: WriterId,
    /// The author's clock, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Sequence of the log entry that caused it; `None` for flushes, compactions, bookkeeping.
    pub cause: Option<Sequence>,
    /// The procedure's step that caused it.
    pub procedure: Option<ProcedureStep>,
    /// The region whose files a child's first delta takes over by reference.
    pub by_reference: Option<RegionId>,
    /// What changes, in order.
    pub actions: Vec<Action>,
}

/// What a committer asks for: a delta without the fields that the commit itself fills in.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Who commits it.
    pub author: Author,
    /// Sequence of the log entry that caused it.
    pub cause: Option<Sequence>,
    /// The procedure's step that caused it.
    pub procedure: Option<ProcedureStep>,
    /// The region whose files a child's first delta takes over by reference.
    pub by_reference: Option<RegionId>,
    /// What changes, in order.
    pub actions: Vec<Action>,
}

/// One action of a delta.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// Set: recorded, and invisible until that area is published.
    pub staged: Option<AreaId>,
    /// What it does.
    pub kind: ActionKind,
}

/// What an action does.
#[derive(Debug, Clone, PartialEq)]
pub enum ActionKind {
    /// Sets schema and options.
    Alter {
        /// The schema from here on.
        schema: Box<TableSchema>,
        /// The options from here on.
        options: TableOptions,
    },
    /// Sets the region's key range; the empty range seals the region.
    PartitionExprChange {
        /// The range from here on.
        range: KeyRange,
    },
    /// Adds and removes files.
    Edit(Edit),
    /// Forgets rows.
    Truncate(Truncate),
    /// The region is dropped; final.
    Remove,
    /// A new owner.
    Fence {
        /// The owner from here on.
        owner: OwnerEpoch,
        /// The group that it leads.
        group: GroupId,
    },
    /// No file of this region with an id older than this may be added from here on.
    GcFloor {
        /// Milliseconds since the Unix epoch.
        floor_ms: u64,
    },
    /// Bookkeeping of a staging area.
    Area {
        /// The area.
        area: AreaId,
        /// What happens to it.
        step: AreaStep,
    },
}

/// Files to add and remove, and what became true by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// Files to add.
    pub add: Vec<FileMeta>,
    /// Live references to remove.
    pub remove: Vec<FileRef>,
    /// Indexes to add to live files.
    pub add_indexes: Vec<(FileRef, IndexMeta)>,
    /// A flush: every row at or below this sequence now lies in a live file.
    pub flushed: Option<Sequence>,
    /// A compaction: versions at or below this epoch may have been merged away.
    pub since: Option<Epoch>,
    /// A compaction: the time window in use, in milliseconds.
    pub window_ms: Option<u64>,
}

/// What a truncation forgets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Truncate {
    /// Every row at or below this sequence.
    UpTo(Sequence),
    /// These files, all of them live: for expiry only.
    Files(Vec<FileRef>),
}

/// What happens to a staging area.
#[derive(Debug, Clone, PartialEq)]
pub enum AreaStep {
    /// It begins.
    Open {
        /// Whether a log entry opened it; such an area outlives its owner.
        logged: bool,
        /// Milliseconds since the Unix epoch.
        deadline_ms: u64,
    },
    /// All file actions and the schema change of its content stand in the same delta, live.
    Publish,
    /// Its content is dropped.
    Abandon,
    /// The merge of all its actions, for the record: replay takes nothing from it.
    Merged(Vec<Action>),
}

impl Change {
    /// A change with the given author and live actions, caused by no log entry.
    pub fn new(author: Author, actions: Vec<ActionKind>) -> Self {
        Self {
            author,
            cause: None,
            procedure: None,
            by_reference: None,
            actions: actions.into_iter().map(Action::live).collect(),
        }
    }
}

impl Action {
    /// An action that takes effect at once.
    pub fn live(kind: ActionKind) -> Self {
        Self { staged: None, kind }
    }

    /// An action that is invisible until its area is published.
    pub fn staged(area: AreaId, kind: ActionKind) -> Self {
        Self { staged: Some(area), kind }
    }
}

impl Delta {
    /// Files that it adds, or stages.
    pub fn files_added(&self) -> impl Iterator<Item = &FileMeta> {
        self.actions.iter().flat_map(|action| match &action.kind {
            ActionKind::Edit(edit) => edit.add.as_slice(),
            _ => &[],
        })
    }

    /// What the committer had asked for.
    pub fn change(&self) -> Change {
        Change {
            author: self.author,
            cause: self.cause,
            procedure: self.procedure,
            by_reference: self.by_reference,
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
