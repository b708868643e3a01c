//! Errors of stored and proposed catalog records.

use tidewater_common::feature_level::FeatureLevel;

use super::RouteError;

/// Error of a stored or proposed catalog record; the state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// A route, a record of a route, or the routes together are invalid.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Another kind of record is damaged.
    #[error("a {kind} record is damaged: {problem}")]
    InvalidRecord {
        /// Kind of the record.
        kind: &'static str,
        /// The defect.
        problem: String,
    },
    /// A record of a kind that needs a higher feature level.
    #[error("a record needs feature level {needed}, and the cluster is at level {level}")]
    RowAboveLevel {
        /// Level of the record's kind.
        needed: FeatureLevel,
        /// Level of the state.
        level: FeatureLevel,
    },
    /// A state of a level that this release does not support.
    #[error(
        "the catalog is at feature level {0}, and this release supports levels up to {highest}: start a release \
         that supports level {0}",
        highest = FeatureLevel::HIGHEST
    )]
    LevelAboveRelease(FeatureLevel),
    /// A key that belongs to no kind of record.
    #[error("a key of {0} bytes belongs to no kind of record")]
    UnknownKey(usize),
    /// A hole in the ring of deltas.
    #[error("delta {missing} is missing in the ring of kept deltas")]
    DeltaHole {
        /// Revision of the missing delta.
        missing: u64,
    },
}
