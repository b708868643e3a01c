//! What can be wrong with stored or proposed catalog records.

use tidewater_common::ids::{RegionId, TableId};

/// Why catalog records are refused; nothing is changed by any of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// The catalog version cannot grow any more.
    #[error("the catalog version has reached its end")]
    VersionOverflow,
    /// The next route id cannot grow any more.
    #[error("route ids are used up")]
    RouteIdOverflow,
    /// A route with id 0.
    #[error("a route needs an id other than 0")]
    RouteIdRequired,
    /// A route without a group.
    #[error("route {0} needs a group id other than 0")]
    GroupIdRequired(RegionId),
    /// Two routes with one id.
    #[error("route {0} is there twice")]
    DuplicateRouteId(RegionId),
    /// An end that is not above its start.
    #[error("route {0} has an end that is not above its start")]
    InvalidRange(RegionId),
    /// The record of the catalog version is damaged.
    #[error("the record of the catalog version is damaged: {0}")]
    InvalidVersionRecord(&'static str),
    /// The record of the next route id is damaged.
    #[error("the record of the next route id is damaged: {0}")]
    InvalidNextRouteIdRecord(&'static str),
    /// The record of a route is damaged.
    #[error("a route record is damaged: {0}")]
    InvalidRouteRecord(&'static str),
    /// A route state that this release does not know.
    #[error("a route record has the unknown state {0}")]
    InvalidState(u8),
    /// A key that is not that of a route.
    #[error("a key of {0} bytes is not a route's key")]
    InvalidRouteKey(usize),
    /// Key and record name different routes.
    #[error("the key of route {key} holds a record of route {record}")]
    RouteKeyMismatch {
        /// Id in the key.
        key: RegionId,
        /// Id in the record.
        record: RegionId,
    },
    /// Two routes serve a common key.
    #[error("routes {0} and {1} overlap")]
    Overlap(RegionId, RegionId),
    /// Not sorted by start, a start used twice, or an unbounded route that is not the last.
    #[error("routes {0} and {1} are out of order")]
    Order(RegionId, RegionId),
    /// Keys of a live table without a route.
    #[error("table {0} has keys without a route")]
    Gap(TableId),
    /// A route outside every live table.
    #[error("route {0} lies outside every live table")]
    OutsideLiveTable(RegionId),
    /// Another kind of record is damaged.
    #[error("a {kind} record is damaged: {problem}")]
    InvalidRecord {
        /// Which kind.
        kind: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A key that belongs to no kind of record.
    #[error("a key of {0} bytes belongs to no kind of record")]
    UnknownKey(usize),
    /// A hole in the ring of deltas.
    #[error("delta {missing} is missing from what is kept")]
    DeltaHole {
        /// The revision that is not there.
        missing: u64,
    },
}
