//! Hotspots: operations on routes that their load suggests. Pure.
//!
//! - *Hot*: a route whose score exceeds the split score in all of the last [`HOT_WINDOWS`] windows. It is split at the
//!   median of its sampled keys ([`median`]).
//! - *Uneven*: the routes led by the busiest node have far more load than the mean of the nodes. One of them moves to a group that
//!   the least busy node leads, if that lowers the greater of both loads by a part of the mean: a move back never does.
//! - *Cold*: two neighbours that a hot route was split into, with little load together in the last [`COLD_WINDOWS`] windows. They are
//!   merged, and moved into one group before.
//!
//! Windows of different nodes do not begin at the same time, and a flood of load fills parts of more windows than it
//! lasts: one of less than three windows touches four, so that a route is hot after five.

mod cold;
mod hot;
mod median;
mod uneven;

use std::collections::BTreeSet;

use bytes::Bytes;
use tidewater_common::agreed_limits::LOAD_WINDOW_MS;
use tidewater_common::ids::{GroupId, RegionId, TableId};
use tidewater_proto::v1::TableState;

pub(super) use self::cold::cold_routes;
pub(super) use self::uneven::NodeLoads;
use super::ObservedCluster;
use super::observations::{ObservedLoads, WINDOWS_KEPT};
use super::placement_step::PlacementStep;
use crate::catalog::{MetaState, RouteDescriptor, RouteState};

/// Windows in a row in which a hot route has exceeded the split score.
const HOT_WINDOWS: usize = 5;
/// Windows over which the load of a node is averaged.
const MEAN_WINDOWS: usize = 3;
/// Windows in a row in which cold routes had little load.
const COLD_WINDOWS: usize = WINDOWS_KEPT;
/// Time after the last operation from which on the loads of nodes are known.
const SETTLED_AFTER_MS: u64 = (MEAN_WINDOWS as u64 + 1) * LOAD_WINDOW_MS;
/// Longest time for which other operations precede the move that relieves a node: it needs a pause of them.
const RELIEF_WAIT_MS: u64 = 2 * 60_000;

/// An operation that the load of a route suggests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RouteAdvice {
    pub(crate) route: RegionId,
    pub(crate) table: TableId,
    pub(crate) action: RouteAction,
    /// Score of the route, or of both, per minute.
    pub(crate) score: u64,
}

/// Operations, and reasons against one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RouteAction {
    Split {
        key: Bytes,
    },
    /// A hot route whose load no key divides.
    NoSplitKey,
    /// A hot route of a table with the most routes that the settings permit.
    TooManyRoutes,
    /// A move away from the busiest node.
    Relieve {
        to: GroupId,
    },
    /// A move of a cold route to the group of its left neighbour.
    Gather {
        to: GroupId,
    },
    /// A merge of a cold route with its right neighbour.
    Merge {
        right: RegionId,
    },
}

/// Operations that the loads suggest, the most urgent ones first, and the loads of nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hotspots {
    pub(crate) advice: Vec<RouteAdvice>,
    /// Active groups whose last windows are not known.
    pub(crate) unknown: Vec<GroupId>,
    pub(crate) nodes: NodeLoads,
}

/// Finds the operations that the loads suggest. Takes time for every route.
pub(crate) fn find_hotspots(
    state: &MetaState,
    observed: &ObservedCluster,
    loads: &ObservedLoads,
) -> Hotspots {
    let nodes = NodeLoads::new(state, observed, loads);
    let resting = changed_within(state, state.balance().rest_ms);
    let mut advice = hot::hot_routes(state, loads, &resting);
    let fixed = resting.into_iter().chain(cold_routes(state, loads)).collect();
    advice.extend(uneven::relief(state, loads, &nodes, &fixed));
    advice.extend(cold::advise(state, loads, &nodes));
    let active = state.live_groups().filter(|group| group.takes_routes());
    let unknown = active.map(|group| group.id);
    let unknown = unknown.filter(|group| loads.last(*group, MEAN_WINDOWS).is_none()).collect();
    Hotspots { advice, unknown, nodes }
}

/// Returns the step to begin: the first operation that is possible, and a move that relieves a node before all others.
/// One at a time: the loads after it are not known before it has ended, and for some windows more.
pub(super) fn next_step(state: &MetaState, hotspots: &Hotspots) -> Option<PlacementStep> {
    if state.procedures().running().any(|procedure| !procedure.routes.is_empty()) {
        return None;
    }
    let relief = hotspots.advice.iter().find_map(|advice| match advice.action {
        RouteAction::Relieve { to } => Some(PlacementStep::MoveRoute { route: advice.route, to }),
        _ => None,
    });
    if relief.is_some() && is_settled(state) {
        return relief;
    }
    if relief.is_some() && !has_settled_within(state, RELIEF_WAIT_MS) {
        return None;
    }
    hotspots.advice.iter().find_map(|advice| {
        let route = advice.route;
        match &advice.action {
            RouteAction::Split { key } => {
                Some(PlacementStep::SplitRoute { route, key: key.clone() })
            }
            RouteAction::Merge { right } => {
                Some(PlacementStep::MergeRoutes { left: route, right: *right })
            }
            RouteAction::Gather { to } => Some(PlacementStep::MoveRoute { route, to: *to }),
            RouteAction::Relieve { .. } | RouteAction::NoSplitKey | RouteAction::TooManyRoutes => {
                None
            }
        }
    })
}

/// Returns whether the loads of nodes are known: all windows that they are averaged over are from after the last
/// operation.
pub(super) fn is_settled(state: &MetaState) -> bool {
    changed_within(state, SETTLED_AFTER_MS).is_empty()
}

/// Returns whether the loads of nodes were known at a moment within a time: operations paused for long enough, with the
/// pause before the first of them.
fn has_settled_within(state: &MetaState, time_ms: u64) -> bool {
    let now_ms = state.header().time_ms;
    let since_ms = now_ms.saturating_sub(time_ms);
    let mut later_ms = now_ms;
    for procedure in state.procedures().last_ended().filter(|ended| !ended.routes.is_empty()) {
        let ended_ms = procedure.ended_ms.unwrap_or(later_ms);
        if later_ms.saturating_sub(ended_ms) >= SETTLED_AFTER_MS {
            return true;
        }
        if ended_ms <= since_ms {
            return false;
        }
        later_ms = ended_ms;
    }
    true
}

/// Returns the routes of the operations that have ended within a time, with any outcome.
pub(super) fn changed_within(state: &MetaState, time_ms: u64) -> BTreeSet<RegionId> {
    let since_ms = state.header().time_ms.saturating_sub(time_ms);
    let ended = state.procedures().last_ended();
    let recent = ended.take_while(|procedure| procedure.ended_ms.is_some_and(|at| at > since_ms));
    recent.flat_map(|procedure| procedure.routes.iter().copied()).collect()
}

/// Returns whether an operation on a route can begin: nothing locks the route or its whole table.
fn is_free(state: &MetaState, table: TableId, route: &RouteDescriptor) -> bool {
    let is_active = state
        .table(table)
        .is_some_and(|table| table.state == TableState::Active && table.change.is_none());
    is_active
        && route.state == RouteState::Active
        && state.procedures().of_route(route.route_id).is_none()
        && !state.procedures().of_table(table).any(|procedure| procedure.routes.is_empty())
}

#[cfg(test)]
mod tests;
