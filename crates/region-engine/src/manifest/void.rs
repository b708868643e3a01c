//! Why a delta changes nothing.

use tidewater_common::ids::{FileId, OwnerEpoch, SchemaVersion, Sequence};

use super::AreaId;

/// The rule that a delta breaks. Such a delta keeps its version and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Void {
    /// Its owner had been fenced.
    #[error("owner {own} was fenced by {later}")]
    Fenced {
        /// The delta's owner.
        own: OwnerEpoch,
        /// The owner at that point.
        later: OwnerEpoch,
    },
    /// Its owner had not fenced those before it.
    #[error("owner {own} has not committed its fence")]
    NotFenced {
        /// The delta's owner.
        own: OwnerEpoch,
    },
    /// The region was dropped.
    #[error("the region has been removed")]
    Removed,
    /// The region is sealed: its range is empty.
    #[error("the region is sealed")]
    Sealed,
    /// An author may not do this.
    #[error("{author} may not {what}")]
    NotAllowed {
        /// Who.
        author: &'static str,
        /// What.
        what: &'static str,
    },
    /// A file that it removes, truncates or indexes is not live with that clip range.
    #[error("file {file} is not live with that clip range")]
    InputsGone {
        /// The file.
        file: FileId,
    },
    /// A file that it adds is known already.
    #[error("file {file} is known already")]
    FileKnown {
        /// The file.
        file: FileId,
    },
    /// A file that it adds is older than the GC floor: its object may be gone.
    #[error("file {file} is older than the garbage collection floor of {floor_ms} ms")]
    BelowFloor {
        /// The file, or the index.
        file: FileId,
        /// The floor, milliseconds since the Unix epoch.
        floor_ms: u64,
    },
    /// What a job adds does not fit what it removes.
    #[error("file {file} does not stand for the files that the job removes: {why}")]
    NotASwap {
        /// The file added.
        file: FileId,
        /// What does not fit.
        why: &'static str,
    },
    /// The rows that it flushes were flushed or truncated before.
    #[error("everything at or below sequence {flushed} has been flushed before")]
    AlreadyFlushed {
        /// The flushed sequence at that point.
        flushed: Sequence,
    },
    /// The operation that caused it has been recorded before.
    #[error("the operation at sequence {cause} has been recorded before")]
    AlreadyDone {
        /// The operation.
        cause: Sequence,
    },
    /// A step of this procedure, or a later procedure, has been recorded before.
    #[error("step {step} of procedure {number} comes too late")]
    StaleStep {
        /// The procedure's number.
        number: u64,
        /// The step.
        step: u32,
    },
    /// The schema is not newer than the region's.
    #[error("schema version {version} is not newer than the region's")]
    SchemaNotNewer {
        /// The version.
        version: SchemaVersion,
    },
    /// An index was built under another schema than the region's.
    #[error("index of file {file} was built under another schema")]
    SchemaChanged {
        /// The data file.
        file: FileId,
    },
    /// Expiry of files where whole files may not be dropped.
    #[error("files expire only where the time column is in the key or the table is append-only")]
    NoExpiry,
    /// The staging area is not open.
    #[error("staging area {area} is not open")]
    AreaNotOpen {
        /// The area.
        area: AreaId,
    },
    /// The staging area's id was used before.
    #[error("staging area {area} was used before")]
    AreaUsed {
        /// The area.
        area: AreaId,
    },
}
