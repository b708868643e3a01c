//! Garbage collection: the only code that deletes objects of regions.
//!
//! A mark and sweep over the store. It knows no running jobs and never relies on a clock to delete
//! a file that a manifest references. Its *floor* is a time well in the past: replicated time less
//! a grace period that exceeds the duration of every scan and every job. A pass visits all regions
//! in order of id, because a reference to another region's file is only ever passed from a lower id
//! to a higher one:
//!
//! 1. Survey: list each region's objects and read its manifest. An unreferenced object older than
//!    the floor is a *candidate*.
//! 2. Floor: where there are candidates, `GcFloor` is committed to each manifest that has some, or
//!    that references files of other regions. From then on the manifest refuses a writer that was
//!    paused for longer than the grace period, which would otherwise reference an object about to
//!    be deleted.
//! 3. Mark: read every manifest again, and drop the candidates that it references; list regions
//!    again until no new one appears.
//! 4. Sweep: delete the remaining candidates. A manifest that cannot be read protects the objects
//!    of its own region and of all regions with lower ids.
//!
//! Only the grace period of a removed file depends on clocks: it counts from the time of the delta
//! that removed the file, which is never earlier than any delta before it, nor than the floor. It
//! is shortened by the amount by which *all* clocks of recent writers to the manifest are behind
//! the replicated time; nodes of a cluster date their deltas by replicated time itself. Scans are
//! limited to much less than that; the protection of referenced files does not depend on it.
//!
//! A manifest that ends below the version that the group's log has recorded counts as one that cannot
//! be read: the files of its missing deltas look like orphans.
//!
//! A dry run does steps 1 and 3, and reports what a pass would delete.
//!
//! - [`named`]: the objects that a state references, with the reason (pure); [`awaited`]: the
//!   versions and files that durable hooks still need (pure); [`logged`]: the versions that the logs have
//!   recorded (pure); `survey`: the objects of one region;
//!   `collector`: the pass.

pub mod awaited;
mod collector;
pub mod logged;
pub mod named;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use object_store::path::Path;
use tidewater_common::ids::TableId;

pub use self::awaited::{HookPositions, RegionFloor};
pub use self::collector::GarbageCollector;
pub use self::logged::LoggedVersions;
use crate::hooks::RemovalReason;
use crate::layout::RegionDir;

/// Parameters of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcRequest {
    /// Only objects with older ids are deleted, and only files that were removed before it.
    /// Milliseconds since the Unix epoch.
    pub floor_ms: u64,
    /// Reports what would be deleted, and changes nothing.
    pub dry_run: bool,
    /// Limits deletion to objects of this table.
    pub table: Option<TableId>,
    /// Maximum number of deleted objects; at least 1. The next pass finds the rest.
    pub max_deletions: usize,
}

/// An object that is deleted, or would be in a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// The region directory that contains the object.
    pub dir: RegionDir,
    /// Path of the object.
    pub path: Path,
    /// Size in bytes.
    pub bytes: u64,
    /// Reason of the deletion.
    pub why: GarbageReason,
}

/// Reasons for deleting an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GarbageReason {
    /// A data file, or an index of one, removed for this reason.
    File(RemovalReason),
    /// A delta or a checkpoint that a newer checkpoint covers.
    Covered,
}

/// Reasons for keeping an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeepReason {
    /// A manifest references it as live.
    Live,
    /// A staging area references it.
    Staged,
    /// It was removed within the grace period: scans may still read it.
    Recent,
    /// Its id is not older than the floor: its writer may be about to reference it.
    Young,
    /// It belongs to the manifest.
    Manifest,
    /// A durable hook still needs it: a delta or a checkpoint that a newer checkpoint covers, or a data file
    /// removed by a version that the hook has yet to receive. Also unreferenced files as young as these.
    Awaited,
    /// It would be deleted, but a manifest cannot be read.
    Spared,
    /// It would be deleted, but the pass has reached its maximum, or another table was requested.
    Later,
    /// No region writes objects of this form.
    Unknown,
}

/// Result of a pass or a dry run: every object in or next to the regions' directories is counted
/// once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Deleted objects; in a dry run, those that would be deleted.
    pub deleted: u64,
    /// Bytes of the deleted objects.
    pub bytes: u64,
    /// Kept objects by reason.
    pub kept: BTreeMap<KeepReason, u64>,
    /// Objects whose deletion failed; the next pass retries.
    pub failed: u64,
    /// Regions whose manifests cannot be read, with the error.
    pub unreadable: Vec<(RegionDir, String)>,
}

impl GcReport {
    /// Returns the number of kept objects, for all reasons.
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
    /// Returns the name for operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File(reason) => reason.as_str(),
            Self::Covered => "covered",
        }
    }
}

impl KeepReason {
    /// Returns the name for operators.
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
