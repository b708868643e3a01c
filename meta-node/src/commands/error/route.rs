//! Errors of commands on routes: saves, splits, merges and moves.

use tidewater_common::ids::{CatalogVersion, GroupId, RegionId};
use tidewater_common::quote::quoted;
use tidewater_common::rows::MAX_KEY_BYTES;

use crate::catalog::{RouteError, RouteState};

/// Error of a rejected command; the state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteCommandError {
    /// No route has this id.
    #[error("route {0} does not exist")]
    RouteNotFound(RegionId),
    /// The state of the route does not permit the command.
    #[error("route {route} is {}: retry when it is active", state.name())]
    RouteNotActive {
        /// Id of the route.
        route: RegionId,
        /// Current state of the route.
        state: RouteState,
    },
    /// A key that no row of the route can have.
    #[error("the split key is not in the range of route {0}: `tidewater route list` shows it")]
    KeyOutsideRoute(RegionId),
    /// A key longer than any row key.
    #[error(
        "a split key of {0} bytes is above the limit of {MAX_KEY_BYTES}: a prefix divides as well"
    )]
    SplitKeyTooLong(usize),
    /// A split that would leave one child without keys.
    #[error("the split key is the first key of route {0}: choose a later one")]
    KeyOnBoundary(RegionId),
    /// Routes that no region can replace.
    #[error("routes {} and {} cannot be merged: {why}", routes[0], routes[1])]
    NotMergeable {
        /// Ids of the routes, in key order.
        routes: [RegionId; 2],
        /// Reason, with the remedy.
        why: &'static str,
    },
    /// The route cannot be moved to the group.
    #[error("route {route} cannot be moved to group {target}: {why}")]
    NotMovable {
        /// Id of the route.
        route: RegionId,
        /// Id of the group.
        target: GroupId,
        /// Reason, with the remedy.
        why: &'static str,
    },
    /// A save of routes that are served.
    #[error(
        "the routes of table {name} are live: `tidewater route split` and `route merge` change them; save the routes of a \
         table that is reserved",
        name = quoted(.0)
    )]
    RouteLive(String),
    /// A save with the id of a route that exists elsewhere, or has existed.
    #[error(
        "route id {0} is used: save the route with id 0, or with one from the next route id on"
    )]
    RouteIdUsed(RegionId),
    /// A save with an id far above those that exist: few others would be left.
    #[error("route id {id} is too high: ids below {bound} can be saved")]
    RouteIdTooHigh {
        /// Id of the route.
        id: RegionId,
        /// Upper bound, exclusive.
        bound: u64,
    },
    /// A save with a bound longer than any key.
    #[error(
        "a bound of {0} bytes is longer than any key: row keys have at most {MAX_KEY_BYTES} bytes"
    )]
    BoundTooLong(usize),
    /// A save with too many routes, or none.
    #[error("a save has 1 to {max} routes, not {routes}")]
    SavedRoutes {
        /// Number of routes.
        routes: usize,
        /// Maximum number of routes.
        max: usize,
    },
    /// Routes that a reserved table cannot have, or cannot be opened with.
    #[error("the routes of a reserved table are invalid: {0}")]
    SavedRoute(RouteError),
    /// The caller has decided on another version of the routes.
    #[error("the catalog has version {version}, not {expected}: list the routes again")]
    VersionMismatch {
        /// Version of the caller.
        expected: u64,
        /// Current version.
        version: CatalogVersion,
    },
}
