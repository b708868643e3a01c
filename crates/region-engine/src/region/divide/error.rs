//! Reasons why regions are not divided or merged.

use tidewater_common::ids::{RegionId, Sequence};

use crate::EngineError;

/// Error of a division: no region was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DivideError {
    /// A parent has a change that its manifest does not record. The children would not record it.
    #[error(
        "region {region} cannot be divided: its manifest does not record the change of sequence {sequence}"
    )]
    ObligationPending {
        /// Id of the parent.
        region: RegionId,
        /// Sequence of the first change.
        sequence: Sequence,
    },
    /// The ranges of at least two regions do not add up to the range of the other.
    #[error("region {region} cannot be divided or merged: the ranges do not add up to its range")]
    Ranges {
        /// Id of the region with the whole range.
        region: RegionId,
    },
    /// Parent and child have different tables, keys or write modes.
    #[error("region {child} cannot have rows of region {parent}: its table or keys differ")]
    OtherTable {
        /// Id of the child.
        child: RegionId,
        /// Id of the parent.
        parent: RegionId,
    },
    /// A parent of a merge has rows in memory that would count as flushed, because the other parent is
    /// flushed up to a greater sequence.
    #[error(
        "region {region} cannot be merged before its rows up to sequence {through} are flushed"
    )]
    Unflushed {
        /// Id of the parent.
        region: RegionId,
        /// Sequence up to which the rows of the child count as flushed.
        through: Sequence,
    },
    /// A region is closed, removed or divided, or a key could not be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
