//! Why files are not taken over.

use tidewater_common::ids::{FileId, RegionId, Sequence};

use crate::EngineError;
use crate::manifest::AreaId;

/// Why files are not taken over: nothing of them is live.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AdoptError {
    /// A file is not one that the region could have written.
    #[error("file {file} is refused: {reason}")]
    Unfit {
        /// The file.
        file: FileId,
        /// Why.
        reason: Unfit,
    },
    /// Too many files at once.
    #[error("{files} files at once are too many, {} are the most", super::MOST_FILES)]
    TooMany {
        /// How many were named.
        files: usize,
    },
    /// The area holds something else already.
    #[error("staging area {area} holds other files already")]
    AreaTaken {
        /// The area.
        area: AreaId,
    },
    /// The area was given up before: its files are not the region's.
    #[error("staging area {area} was given up: its files were not taken over")]
    GivenUp {
        /// The area.
        area: AreaId,
    },
    /// The area's deadline has passed: it is about to be abandoned.
    #[error("the deadline of staging area {area} has passed")]
    Overdue {
        /// The area.
        area: AreaId,
    },
    /// The log has decided that the area is published: it cannot be taken back.
    #[error("staging area {area} is being published")]
    Decided {
        /// The area.
        area: AreaId,
    },
    /// Another region's files cannot be shared.
    #[error("files of region {from} cannot be taken over: {reason}")]
    NotShared {
        /// The other region.
        from: RegionId,
        /// Why.
        reason: NotShared,
    },
    /// The store or the manifest.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Why a file is not one that the region could have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// There is no such object in the region's directory.
    #[error("it is not in the region's directory")]
    Missing,
    /// Its name carries no time, by which garbage collection would know it.
    #[error("its name is no UUIDv7")]
    Name,
    /// The object is not what its writer says.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Its columns are not the table's.
    #[error("{0}")]
    Columns(String),
    /// Its rows are not in the order of their keys, or a key of an upsert table comes twice.
    #[error("row {row} is not above the one before it")]
    Order {
        /// Number of the row in the file, from 0.
        row: u64,
    },
    /// Rows of it do not belong to the region.
    #[error("some of its keys lie outside of the region's range")]
    Range,
    /// It holds deletes, which only a region's own writes make.
    #[error("it holds deletes")]
    Deletes,
    /// It has no rows.
    #[error("it holds no rows")]
    Empty,
    /// It was named twice, or the region's manifest knows it.
    #[error("it was named before")]
    Known,
}

/// Why another region's files cannot be shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotShared {
    /// References go from lower ids to higher ones only, the order in which garbage is marked.
    #[error("its id is not lower")]
    NotLower,
    /// Columns, keys or options differ.
    #[error("its columns, keys or options are others")]
    OtherTable,
    /// The region that takes has rows already, or an obligation.
    #[error("the region that takes them is not empty")]
    NotEmpty,
    /// A file's rows are newer than what the region that takes may hold.
    #[error("its sequence {found} lies above the base {base}")]
    AboveBase {
        /// Greatest sequence found.
        found: Sequence,
        /// The base of the region that takes.
        base: Sequence,
    },
    /// It still takes rows: what is read of it may change.
    #[error("it is not sealed")]
    NotSealed,
    /// It has never been written to the store.
    #[error("its manifest is empty")]
    Unborn,
}
