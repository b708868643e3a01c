//! Error type of the engine: names the attempted operation and its object, and distinguishes a failed
//! operation from one whose outcome is unknown.

mod refusal;

use tidewater_common::clock::ClockDifference;
use tidewater_common::ids::{ColumnId, Epoch, JobId, ManifestVersion, OwnerEpoch, RegionId};

use crate::compaction::admission::AdmissionError;
use crate::manifest::Void;
use crate::read::memory::BudgetName;
use crate::region::ParentProblem;
use crate::storage::StorageError;

/// Error of an engine operation.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The object store failed. The outcome of a write in progress is unknown; manifest commits report
    /// [`EngineError::Unknown`] instead.
    #[error(transparent)]
    Storage(#[from] StorageError),

    /// A stored object is damaged. The error is never retried, the object never skipped.
    #[error("object {object} is damaged: {detail}")]
    Damaged {
        /// Path of the object.
        object: String,
        /// Description of the damage.
        detail: String,
    },

    /// A stored object was written by a newer release.
    #[error("object {object} has format {found}, this release reads up to {supported}: upgrade")]
    NewerFormat {
        /// Path of the object.
        object: String,
        /// Format version of the object.
        found: u32,
        /// Newest format version that this release reads.
        supported: u32,
    },

    /// A later owner exists. Only this region is affected.
    #[error("region {region}: owner {own} was fenced by a later owner ({later})")]
    Fenced {
        /// Id of the region.
        region: RegionId,
        /// Epoch of the fenced owner.
        own: OwnerEpoch,
        /// Epoch of the current owner.
        later: OwnerEpoch,
    },

    /// The region has been dropped.
    #[error("region {region} has been removed")]
    Removed {
        /// Id of the region.
        region: RegionId,
    },

    /// The manifest's rules reject the change: it is definitely not committed.
    #[error("region {region}: the manifest rejected the change: {reason}")]
    Refused {
        /// Id of the region.
        region: RegionId,
        /// Rule that the change violates.
        reason: Void,
    },

    /// It is unknown whether a manifest delta is committed. The manager keeps it: the next `update` or
    /// `refresh` resolves its outcome first.
    #[error("region {region}: the outcome of manifest version {version} is unknown: {detail}")]
    Unknown {
        /// Id of the region.
        region: RegionId,
        /// Version of the attempted commit.
        version: ManifestVersion,
        /// Reason why the outcome could not be resolved.
        detail: String,
    },

    /// Other writers committed the next version in every attempt: the change is definitely not committed.
    #[error("region {region}: lost the race for the next manifest version {rounds} times")]
    Contended {
        /// Id of the region.
        region: RegionId,
        /// Number of lost versions.
        rounds: u32,
    },

    /// The manifest changed faster than a reader could read it.
    #[error("region {region}: the manifest changed {rounds} times while it was read")]
    Unstable {
        /// Id of the region.
        region: RegionId,
        /// Number of restarted reads.
        rounds: u32,
    },

    /// The manifest has not been read, so that the region does not know its files yet. Retry soon.
    #[error("region {region} is loading: its manifest has not been read yet")]
    Loading {
        /// Id of the region.
        region: RegionId,
    },

    /// The region has no manifest yet and cannot begin with the files of a parent.
    #[error("region {region} cannot begin with the files of region {parent}: {problem}")]
    NotBorn {
        /// Id of the region.
        region: RegionId,
        /// Id of the parent.
        parent: RegionId,
        /// Reason why the parent does not fit.
        problem: ParentProblem,
    },

    /// A region is not removed while another one has yet to begin with its files.
    #[error("region {region} is not removed: the manifest of its child {child} does not exist yet")]
    ChildUnborn {
        /// Id of the region.
        region: RegionId,
        /// Id of the child.
        child: RegionId,
    },

    /// The operation requires ownership of the region, for example a flush or a removal.
    #[error("region {region} is not owned by this replica")]
    NotOwner {
        /// Id of the region.
        region: RegionId,
    },

    /// A compaction was cancelled: nothing was changed.
    #[error("region {region}: compaction {job} was cancelled")]
    Cancelled {
        /// Id of the region.
        region: RegionId,
        /// Id of the job.
        job: JobId,
    },

    /// This node has too little memory or disk for a compaction: nothing was changed.
    #[error("region {region}: the compaction was not started: {why}")]
    NotAdmitted {
        /// Id of the region.
        region: RegionId,
        /// The resource that is short.
        why: AdmissionError,
    },

    /// The region has been closed on this node.
    #[error("region {region} has been closed")]
    Closed {
        /// Id of the region.
        region: RegionId,
    },

    /// The region was split or merged: its children hold its rows, and take its writes.
    #[error("region {region} has been divided: its children serve its keys")]
    Divided {
        /// Id of the region.
        region: RegionId,
    },

    /// A scan exceeded its maximum duration: the files that it has pinned may be garbage collected. The
    /// rows that it has yielded are valid.
    #[error("region {region}: scan exceeded {} s: read smaller key ranges", life.as_secs())]
    VersionExpired {
        /// Id of the region.
        region: RegionId,
        /// Maximum duration of a scan.
        life: std::time::Duration,
    },

    /// A read with an earlier version of the schema names a column that has been dropped since, and rows
    /// have no value of it any more.
    #[error("column {column} has been dropped from the table: refresh the catalog")]
    ColumnDropped {
        /// Id of the column.
        column: ColumnId,
    },

    /// Compaction may have dropped the versions of the requested epoch.
    #[error(
        "region {region}: epoch {requested} can no longer be read: it is below since {since} (upper is {upper})"
    )]
    BelowSince {
        /// Id of the region.
        region: RegionId,
        /// Epoch of the read.
        requested: Epoch,
        /// Oldest readable epoch: versions below it may have been dropped.
        since: Epoch,
        /// First epoch that is not complete.
        upper: Epoch,
    },

    /// Rows may still be written in the requested epoch.
    #[error(
        "region {region}: epoch {requested} is not complete yet: read an epoch below {upper}, or repeat the read later"
    )]
    EpochIncomplete {
        /// Id of the region.
        region: RegionId,
        /// Epoch of the read.
        requested: Epoch,
        /// First epoch that is not complete.
        upper: Epoch,
    },

    /// The memory budget for unflushed rows is exhausted: nothing was written.
    #[error("unflushed rows take {used} bytes, the limit is {limit}: retry in {retry_after:?}")]
    Overloaded {
        /// Bytes of unflushed rows.
        used: u64,
        /// The process's limit in bytes.
        limit: u64,
        /// Backoff before a retry.
        retry_after: std::time::Duration,
    },

    /// A memory budget of scans or of point reads is exhausted.
    #[error(
        "no memory for the read: it needs {needed} bytes, and {budget} may take {limit}: retry in \
         {retry_after:?}, {}, or raise --scan-memory",
        .budget.remedy()
    )]
    ScanMemory {
        /// Bytes that the scan needs.
        needed: u64,
        /// Limit of the budget in bytes.
        limit: u64,
        /// The exhausted budget.
        budget: BudgetName,
        /// Backoff before a retry.
        retry_after: std::time::Duration,
    },

    /// A scan needs far more memory at once than a budget of scans has.
    #[error(
        "the read needs {needed} bytes at once, and {budget} may take {limit}: {}, or raise \
         --scan-memory",
        .budget.remedy()
    )]
    ScanTooLarge {
        /// Bytes that the scan needs.
        needed: u64,
        /// Limit of the budget in bytes.
        limit: u64,
        /// The budget.
        budget: BudgetName,
    },

    /// A request names a column that the schema lacks, or its rows do not match the schema.
    #[error("{detail}")]
    BadRows {
        /// Description of the mismatch.
        detail: String,
    },

    /// This node's clock differs too much from the cluster's clocks: nothing was changed.
    #[error(
        "region {region}: nothing is committed, because this node's clock is {difference}: synchronize \
         it (NTP)"
    )]
    ClockDiffers {
        /// Id of the region.
        region: RegionId,
        /// The difference and its bound.
        difference: ClockDifference,
    },

    /// An internal error that neither input nor storage explains.
    #[error("internal error: {detail}")]
    Internal {
        /// Description of the failure.
        detail: String,
    },
}

impl From<arrow::error::ArrowError> for EngineError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Internal { detail: format!("failed to process rows: {error}") }
    }
}

impl From<tidewater_common::keys::KeyError> for EngineError {
    fn from(error: tidewater_common::keys::KeyError) -> Self {
        Self::BadRows { detail: error.to_string() }
    }
}

impl From<tidewater_common::rows::NotStorable> for EngineError {
    fn from(error: tidewater_common::rows::NotStorable) -> Self {
        Self::BadRows { detail: error.to_string() }
    }
}
