//! Reasons why a delta is void.

use tidewater_common::ids::{FileId, GroupId, OwnerEpoch, SchemaVersion, Sequence};

use super::AreaId;

/// The rule that a delta breaks. A void delta keeps its version and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Void {
    /// Its owner was fenced.
    #[error("owner {own} was fenced by {later}")]
    Fenced {
        /// The delta's owner.
        own: OwnerEpoch,
        /// The owner at that point.
        later: OwnerEpoch,
    },
    /// Another group has fenced the same move, or owns the region without one: terms of different groups are not
    /// compared.
    #[error("owner {own} is superseded: group {group} owns the region")]
    OwnedByGroup {
        /// The delta's owner.
        own: OwnerEpoch,
        /// The group at that point.
        group: GroupId,
    },
    /// Rows or decisions of the region's earlier group are not in the manifest.
    #[error(
        "the manifest is behind the region's earlier group: rows are flushed to {flushed}, decisions recorded to {done}"
    )]
    ProgressMissing {
        /// The flushed sequence at that point.
        flushed: Sequence,
        /// Sequence up to which decisions are recorded.
        done: Sequence,
    },
    /// Its owner had not fenced the earlier owners.
    #[error("owner {own} has not committed its fence")]
    NotFenced {
        /// The delta's owner.
        own: OwnerEpoch,
    },
    /// The region was dropped.
    #[error("the region has been removed")]
    Removed,
    /// The region is sealed: its range is empty, and its content does not change.
    #[error("the region is sealed for a split or a merge")]
    Sealed,
    /// The region is not sealed while the log may publish the area.
    #[error("staging area {area} is open: the region cannot be sealed")]
    AreaOpen {
        /// Id of the area.
        area: AreaId,
    },
    /// The author lacks the permission.
    #[error("{author} may not {what}")]
    NotAllowed {
        /// Kind of the author.
        author: &'static str,
        /// The forbidden action.
        what: &'static str,
    },
    /// A file that it removes, truncates or indexes is not live with that clip range.
    #[error("file {file} is not live with that clip range")]
    InputsGone {
        /// Id of the file that is not live.
        file: FileId,
    },
    /// A file that it adds is already recorded.
    #[error("file {file} is already recorded")]
    FileKnown {
        /// Id of the duplicate file, or of the duplicate index.
        file: FileId,
    },
    /// A file that it adds is older than the GC floor: its object may be deleted.
    #[error("file {file} is older than the garbage collection floor of {floor_ms} ms")]
    BelowFloor {
        /// Id of the file or of the index.
        file: FileId,
        /// The floor, in milliseconds since the Unix epoch.
        floor_ms: u64,
    },
    /// The outputs of a job do not match its inputs.
    #[error("file {file} cannot replace the inputs of the job: {why}")]
    NotASwap {
        /// Id of the output.
        file: FileId,
        /// Reason of the mismatch.
        why: &'static str,
    },
    /// The rows that it flushes were flushed or truncated before.
    #[error("rows at or below sequence {flushed} are already flushed")]
    AlreadyFlushed {
        /// The flushed sequence at that point.
        flushed: Sequence,
    },
    /// The operation that caused it is already recorded.
    #[error("the operation at sequence {cause} is already recorded")]
    AlreadyDone {
        /// Sequence of the operation.
        cause: Sequence,
    },
    /// A step of this procedure, or a later procedure, is already recorded.
    #[error("step {step} of procedure {number} is stale: a later step is recorded")]
    StaleStep {
        /// The procedure's number.
        number: u64,
        /// The stale step.
        step: u32,
    },
    /// The schema is not newer than the region's.
    #[error("schema version {version} is not newer than the region's")]
    SchemaNotNewer {
        /// The refused schema version.
        version: SchemaVersion,
    },
    /// An index was built under another schema than the region's.
    #[error("the index of file {file} was built under another schema")]
    SchemaChanged {
        /// Id of the data file.
        file: FileId,
    },
    /// Whole files of this table may not expire.
    #[error("files expire only if the time column is in the key or the table is append-only")]
    NoExpiry,
    /// The staging area is not open.
    #[error("staging area {area} is not open")]
    AreaNotOpen {
        /// Id of the area.
        area: AreaId,
    },
    /// The staging area's id was used before.
    #[error("the id of staging area {area} was used before")]
    AreaUsed {
        /// Id of the area.
        area: AreaId,
    },
}
