//! Requests to the owner of a group's regions.
//!
//! Calls and other tasks of the node put them into the two bounded queues of their replica. The
//! leader's tasks take them. A replica that does not lead drops them: the dropped reply channel shows
//! the caller that it has to find the leader.

use tidewater_common::ids::{FileId, GroupId, ManifestVersion, NodeId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::CompactionPlace;
use tidewater_region_engine::compaction::{Attempt, Scope};
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::manifest::{AreaId, ProcedureStep, RequiredProgress};
use tidewater_region_engine::{CompactionReport, FlushReport};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Capacity of each request queue of a replica.
pub const REQUEST_QUEUE: usize = 64;

/// Request to the owner of a group's regions.
#[derive(Debug)]
pub enum OwnerRequest {
    /// Flush one region and return the report.
    Flush(RegionId, oneshot::Sender<Result<FlushReport, Refusal>>),
    /// Flush large memtables: a snapshot is due.
    FlushLarge,
    /// Flush this many bytes: a follower is short of memory.
    FreeMemory(u64),
    /// Record in the region's manifest what the log has decided.
    Settle(RegionId, oneshot::Sender<Result<(), Refusal>>),
    /// Fence the manifest of a region that another group has fenced for its move. The reply is the version of the fence.
    TakeOver(TakeOver, oneshot::Sender<Result<ManifestVersion, Refusal>>),
    /// Work of a region's split, merge or move.
    Route(RegionId, RouteWork, oneshot::Sender<Result<ManifestVersion, Refusal>>),
    /// Commit `Remove` to the region's manifest.
    Remove(RegionId, oneshot::Sender<Result<(), Refusal>>),
    /// Adopt existing files; the reply is their number.
    Adopt(Adoption, oneshot::Sender<Result<u32, Refusal>>),
}

/// Work of the owner in a split, merge or move. Each is idempotent; the reply is the manifest version that has it.
#[derive(Debug, Clone)]
pub enum RouteWork {
    /// Seal the manifest of a held region.
    Seal(ProcedureStep),
    /// Restore the key range of a region that is no longer held.
    Unseal(ProcedureStep),
    /// Restore the key range of a region that is sealed and not held. It may have taken other steps since, which its
    /// manifest has yet to record.
    Restore,
    /// Commit the first delta of a child.
    Begin,
    /// Flush the children that have replaced the region, and remove it.
    Remove(Vec<RegionId>),
    /// Fence the manifest for an abandoned move of this number: the target group cannot take it over any more.
    Reclaim(u64),
    /// Check that the manifest belongs to this group, by the move of this number.
    CheckOwner(GroupId, u64),
}

/// A region that this group receives from another one.
#[derive(Debug, Clone, Copy)]
pub struct TakeOver {
    /// Directory of the region.
    pub region: RegionDir,
    /// Number of the move.
    pub move_epoch: u64,
    /// Rows and decisions that the manifest must have.
    pub required: RequiredProgress,
}

/// Existing files to be adopted by a region.
#[derive(Debug)]
pub struct Adoption {
    /// The adopting region.
    pub region: RegionId,
    /// The files, and the moment when they become live.
    pub source: AdoptionSource,
    /// Permit of the call, held until the adoption ends, even when the caller disconnects before.
    pub slot: Option<OwnedSemaphorePermit>,
}

/// Origin of adopted files, and the moment when they become live.
#[derive(Debug, Clone)]
pub enum AdoptionSource {
    /// Files in a staging area of their own, live immediately.
    Files {
        /// A new staging area.
        area: AreaId,
        /// In the order in which their rows count.
        files: Vec<FileId>,
    },
    /// Files for an open staging area, live when the area is published.
    Staged {
        /// The open staging area.
        area: AreaId,
        /// In the order in which their rows count.
        files: Vec<FileId>,
    },
    /// Another region's live files, live immediately as a step of a procedure.
    Copies {
        /// Directory of the other region.
        source: RegionDir,
        /// The step; the log knows it once it is carried out.
        step: ProcedureStep,
    },
}

/// Request to compact a region.
#[derive(Debug)]
pub struct CompactionRequest {
    /// The region.
    pub region: RegionId,
    /// All files, or only those that are due.
    pub scope: Scope,
    /// Local, on a compactor, or either.
    pub place: CompactionPlace,
    /// Progress, watched by the caller; its token cancels the compaction.
    pub attempt: Attempt,
    /// Receives the outcome; `None`: there was nothing to compact.
    pub reply: oneshot::Sender<Result<Option<CompactionResult>, Refusal>>,
}

/// Result of a compaction whose outputs are in the manifest.
#[derive(Debug, Clone)]
pub struct CompactionResult {
    /// Inputs, outputs and progress.
    pub report: CompactionReport,
    /// The compactor; `None`: this node.
    pub node: Option<NodeId>,
}
