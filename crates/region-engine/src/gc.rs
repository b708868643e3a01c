//! Garbage collection: the only code that deletes objects of regions.
//!
//! A mark and sweep over the store, which knows no running job, and trusts no clock with a file that
//! any manifest names. Its *floor* is a
//! time well in the past: replicated time less a grace that outlasts every scan and every job. A pass
//! goes through all regions in order of id, because a reference to another region's file is only ever
//! handed on from a lower id to a higher one:
//!
//! 1. Survey: list each region's objects beside its manifest. What is older than the floor and not
//!    named is a *candidate*.
//! 2. Floor: where there are candidates, `GcFloor` goes into each manifest that has some, or that
//!    names files of others. From then on a writer that slept for longer than the grace is refused
//!    instead of naming what is about to be deleted.
//! 3. Mark: read every manifest again, and drop the candidates that it names; list regions again
//!    until none is new.
//! 4. Sweep: delete what is left. A manifest that cannot be read spares the objects of its own region
//!    and of all with lower ids.
//!
//! Only the grace of a removed file hangs on clocks: it counts from the time of the delta that removed
//! the file, which is never taken to be earlier than any delta before it, nor than the floor. It is
//! shorter than meant by what *all* the clocks that wrote to the manifest lately are behind the
//! replicated time. Scans are bounded well within it; that no named file is deleted needs none of it.
//!
//! A dry run does 1 and 3, and says what a pass would delete.
//!
//! - [`named`]: what a state names, and why (pure); [`awaited`]: what somebody has still to be told
//!   (pure); `survey`: one region's account; `collector`: the pass.

pub mod awaited;
mod collector;
pub mod named;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use object_store::path::Path;
use tidewater_common::ids::TableId;

pub use self::awaited::HookPositions;
pub use self::collector::GarbageCollector;
use crate::hooks::RemovalReason;
use crate::layout::RegionDir;

/// What a pass is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcRequest {
    /// Only objects with older ids are deleted, and only files that were removed before it.
    /// Milliseconds since the Unix epoch.
    pub floor_ms: u64,
    /// Say what would be deleted, and change nothing.
    pub dry_run: bool,
    /// Only objects of this table.
    pub table: Option<TableId>,
    /// Objects deleted at most; at least 1. What is left is found by the next pass.
    pub most: usize,
}

/// An object that goes, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// The region in whose directory it lies.
    pub dir: RegionDir,
    /// The object.
    pub path: Path,
    /// Its size.
    pub bytes: u64,
    /// Why it goes.
    pub why: GarbageReason,
}

/// Why an object goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GarbageReason {
    /// A data file, or an index of one, for this reason.
    File(RemovalReason),
    /// A delta or a checkpoint that a newer checkpoint covers.
    Covered,
}

/// Why an object stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeepReason {
    /// A manifest names it live.
    Live,
    /// A staging area names it.
    Staged,
    /// It was removed less than the grace ago: scans may still read it.
    Recent,
    /// Its id is not older than the floor: whoever wrote it may be about to name it.
    Young,
    /// The manifest itself.
    Manifest,
    /// A delta or a checkpoint that a newer checkpoint covers, and that a durable hook is still to
    /// be told.
    Awaited,
    /// It would go, but a manifest cannot be read.
    Spared,
    /// It would go, but the pass has its fill, or another table is asked for.
    Later,
    /// Nothing that a region writes.
    Unknown,
}

/// What a pass did, or would do: every object below the regions' directories, and beside them, is
/// counted once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Objects deleted; in a dry run, those that would be.
    pub deleted: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that stay.
    pub kept: BTreeMap<KeepReason, u64>,
    /// Objects that could not be deleted; the next pass tries again.
    pub failed: u64,
    /// Regions whose manifests cannot be read, and why.
    pub unreadable: Vec<(RegionDir, String)>,
}

impl GcReport {
    /// Objects that stay, for whatever reason.
    pub fn kept_objects(&self) -> u64 {
        self.kept.values().sum()
    }

    fn keep(&mut self, why: KeepReason, objects: u64) {
        if objects > 0 {
            *self.kept.entry(why).or_default() += objects;
        }
    }
}

impl GarbageReason {
    /// As operators read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File(reason) => reason.as_str(),
            Self::Covered => "covered",
        }
    }
}

impl KeepReason {
    /// As operators read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Staged => "staged",
            Self::Recent => "recent",
            Self::Young => "young",
            Self::Manifest => "manifest",
            Self::Awaited => "awaited",
            Self::Spared => "spared",
            Self::Later => "later",
            Self::Unknown => "unknown",
        }
    }
}
