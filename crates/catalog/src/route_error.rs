//! Errors of routes and of their stored records.

use tidewater_common::ids::{RegionId, TableId};

/// Error of a stored, received or proposed route, or of the counters of the routes. An operation that returns one
/// has changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The catalog version is at its maximum.
    #[error("the catalog version is at its maximum")]
    VersionOverflow,
    /// The next route id is at its maximum.
    #[error("all route ids are used")]
    RouteIdOverflow,
    /// A route with id 0.
    #[error("a route id must not be 0")]
    RouteIdRequired,
    /// A route without a group.
    #[error("the group id of route {0} must not be 0")]
    GroupIdRequired(RegionId),
    /// Two routes with the same id.
    #[error("route id {0} is not unique")]
    DuplicateRouteId(RegionId),
    /// A range whose end is not above its start.
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
    InvalidState(i32),
    /// A key that is not a route's key.
    #[error("a key of {0} bytes is not a route key")]
    InvalidRouteKey(usize),
    /// Key and record name different routes.
    #[error("the key of route {key} holds a record of route {record}")]
    RouteKeyMismatch {
        /// Id in the key.
        key: RegionId,
        /// Id in the record.
        record: RegionId,
    },
    /// Two routes that share a key.
    #[error("routes {0} and {1} overlap")]
    Overlap(RegionId, RegionId),
    /// Routes not sorted by start, two routes with one start, or an unbounded route that is not the last.
    #[error("routes {0} and {1} are out of order")]
    Order(RegionId, RegionId),
    /// Keys of a live table without a route.
    #[error("table {0} has keys without a route")]
    Gap(TableId),
    /// A route outside every table that has routes, or outside the table that a save names.
    #[error("route {0} is outside of every table")]
    OutsideTable(RegionId),
}
