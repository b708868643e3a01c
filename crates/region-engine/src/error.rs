//! The engine's error: what was attempted on what, and whether it failed or its outcome is unknown.

mod refusal;

use tidewater_common::ids::{Epoch, JobId, ManifestVersion, OwnerEpoch, RegionId};

use crate::manifest::Void;
use crate::storage::StorageError;

/// Why the engine did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The object store failed; nothing follows about a write that was under way, except that
    /// manifest commits report [`EngineError::Unknown`] instead.
    #[error(transparent)]
    Storage(#[from] StorageError),

    /// A stored object is damaged: never retried, never skipped.
    #[error("object {object} is damaged: {detail}")]
    Damaged {
        /// The object's path.
        object: String,
        /// What is wrong with it.
        detail: String,
    },

    /// A stored object was written by a newer release.
    #[error("object {object} has format {found}, this release reads up to {supported}: upgrade")]
    NewerFormat {
        /// The object's path.
        object: String,
        /// The format that the object names.
        found: u32,
        /// The newest format that this release reads.
        supported: u32,
    },

    /// A later owner has taken the region over. Only this region stops.
    #[error("region {region}: owner {own} was fenced by a later owner ({later})")]
    Fenced {
        /// The region.
        region: RegionId,
        /// Who tried.
        own: OwnerEpoch,
        /// Who owns the region now.
        later: OwnerEpoch,
    },

    /// The region has been dropped.
    #[error("region {region} has been removed")]
    Removed {
        /// The region.
        region: RegionId,
    },

    /// The manifest's rules refuse the change: definitely not committed.
    #[error("region {region}: the change was refused: {reason}")]
    Refused {
        /// The region.
        region: RegionId,
        /// Which rule.
        reason: Void,
    },

    /// A manifest delta may or may not be committed. The manager keeps it: the next `update` or
    /// `refresh` settles it first.
    #[error(
        "region {region}: whether manifest version {version} is committed is unknown: {detail}"
    )]
    Unknown {
        /// The region.
        region: RegionId,
        /// The version that was attempted.
        version: ManifestVersion,
        /// What kept us from finding out.
        detail: String,
    },

    /// Other writers took the next version again and again: definitely not committed.
    #[error("region {region}: lost the race for the next manifest version {rounds} times")]
    Contended {
        /// The region.
        region: RegionId,
        /// How many versions were lost.
        rounds: u32,
    },

    /// The manifest changed under a reader faster than it could read.
    #[error("region {region}: the manifest changed {rounds} times while it was read")]
    Unstable {
        /// The region.
        region: RegionId,
        /// How many times reading started over.
        rounds: u32,
    },

    /// The region does not know its files yet: its manifest has not been read. Try again soon.
    #[error("region {region} is loading: its manifest has not been read yet")]
    Loading {
        /// The region.
        region: RegionId,
    },

    /// Only the owner of a region flushes it or removes it.
    #[error("region {region} is not owned by this replica")]
    NotOwner {
        /// The region.
        region: RegionId,
    },

    /// A compaction was told to end: nothing was changed.
    #[error("region {region}: compaction {job} was cancelled")]
    Cancelled {
        /// The region.
        region: RegionId,
        /// The job.
        job: JobId,
    },

    /// The region has been closed on this node.
    #[error("region {region} has been closed")]
    Closed {
        /// The region.
        region: RegionId,
    },

    /// A scan lived longer than it may: what it had pinned may be collected. Nothing is wrong with
    /// what it has yielded.
    #[error("region {region}: a scan may take {} s at most: read in smaller key ranges", life.as_secs())]
    VersionExpired {
        /// The region.
        region: RegionId,
        /// Longest life of a scan.
        life: std::time::Duration,
    },

    /// The versions that a read asks for may have been merged away.
    #[error("region {region}: epoch {asked} cannot be read any more, the oldest is {since}")]
    BelowSince {
        /// The region.
        region: RegionId,
        /// The epoch asked for.
        asked: Epoch,
        /// Greatest epoch at or below which versions were merged.
        since: Epoch,
    },

    /// Memory for unflushed rows is used up: nothing was written.
    #[error("unflushed rows take {used} bytes, the limit is {limit}: try again in {retry_after:?}")]
    Overloaded {
        /// Bytes of unflushed rows.
        used: u64,
        /// The process's limit in bytes.
        limit: u64,
        /// How long to wait before trying again.
        retry_after: std::time::Duration,
    },

    /// A request names something that the region's schema does not have, or rows do not fit it.
    #[error("{detail}")]
    BadRows {
        /// What does not fit.
        detail: String,
    },

    /// Work on rows failed for a reason that neither input nor disk explains.
    #[error("internal: {detail}")]
    Internal {
        /// What failed.
        detail: String,
    },
}

impl From<arrow::error::ArrowError> for EngineError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Internal { detail: format!("rows could not be processed: {error}") }
    }
}

impl From<tidewater_common::keys::KeyError> for EngineError {
    fn from(error: tidewater_common::keys::KeyError) -> Self {
        Self::BadRows { detail: error.to_string() }
    }
}

impl From<tidewater_common::rows::NotStorable> for EngineError {
    fn from(misfit: tidewater_common::rows::NotStorable) -> Self {
        Self::BadRows { detail: misfit.to_string() }
    }
}
