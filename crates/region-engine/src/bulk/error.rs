//! Reasons why files are not adopted.

use tidewater_common::ids::{FileId, RegionId, Sequence};

use crate::EngineError;
use crate::manifest::AreaId;

/// Reason why files are not adopted. None of the files is live.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AdoptError {
    /// A file is not one that the region could have written.
    #[error("file {file} cannot be adopted: {reason}")]
    Unfit {
        /// Id of the file.
        file: FileId,
        /// The problem with the file.
        reason: Unfit,
    },
    /// Too many files in one call.
    #[error("too many files: {files} (maximum {})", super::MAX_FILES)]
    TooMany {
        /// Number of files in the call.
        files: usize,
    },
    /// The staging area holds other files already.
    #[error("staging area {area} holds other files already")]
    AreaTaken {
        /// Id of the staging area.
        area: AreaId,
    },
    /// The staging area was abandoned: its files are not the region's.
    #[error("staging area {area} was abandoned: its files were not adopted")]
    Abandoned {
        /// Id of the staging area.
        area: AreaId,
    },
    /// The deadline of the staging area has passed: it is about to be abandoned.
    #[error("the deadline of staging area {area} has passed")]
    Overdue {
        /// Id of the staging area.
        area: AreaId,
    },
    /// The publication of the staging area is committed to the log: it cannot be abandoned.
    #[error("staging area {area} is being published")]
    Decided {
        /// Id of the staging area.
        area: AreaId,
    },
    /// Another region's files cannot be shared.
    #[error("files of region {from} cannot be adopted: {reason}")]
    NotShared {
        /// Id of the other region.
        from: RegionId,
        /// The reason.
        reason: NotShared,
    },
    /// Error of the store or the manifest.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Problem with a file that the region could not have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The object does not exist in the region's directory.
    #[error("it is not in the region's directory")]
    Missing,
    /// Its name contains no time, which garbage collection needs.
    #[error("its name is not a UUIDv7")]
    Name,
    /// The object differs from what its writer recorded.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Its columns are not the table's.
    #[error("{0}")]
    Columns(String),
    /// Its rows are not in key order, or a key of an upsert table occurs twice.
    #[error("row {row} is not above the previous row")]
    Order {
        /// Number of the row in the file, from 0.
        row: u64,
    },
    /// Some of its rows do not belong to the region.
    #[error("some of its keys are outside of the region's range")]
    Range,
    /// It contains deletes, which only the region's own writes may create.
    #[error("it contains deletes")]
    Deletes,
    /// It has no rows.
    #[error("it contains no rows")]
    Empty,
    /// It was passed twice, or the region's manifest contains it.
    #[error("it was already adopted or is listed twice")]
    Known,
}

/// Reason why another region's files cannot be shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotShared {
    /// References go from lower ids to higher ones only, the order in which garbage is marked.
    #[error("its id is not lower than that of the adopting region")]
    NotLower,
    /// Columns, keys or options differ.
    #[error("its columns, keys or options differ")]
    OtherTable,
    /// The adopting region has rows already, or an obligation.
    #[error("the adopting region is not empty")]
    NotEmpty,
    /// A file's rows are newer than the adopting region allows.
    #[error("its sequence {found} is above the base {base}")]
    AboveBase {
        /// Highest sequence found.
        found: Sequence,
        /// Base of the adopting region.
        base: Sequence,
    },
    /// It does not have all rows of the adopting region's range: it is sealed for a split or a merge, or was
    /// divided.
    #[error("its range does not contain that of the adopting region")]
    OtherRange,
    /// It was never written to the store.
    #[error("its manifest is empty")]
    ManifestEmpty,
}
