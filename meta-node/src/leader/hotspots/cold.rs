//! Cold neighbours that a hot route was split into.
//!
//! *Chain*: neighbours none of which is known to be warm. All of them move to the group of the first one: if each moved
//! to the group of its own neighbour, which moves as well, they would never meet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidewater_common::agreed_limits::LOAD_WINDOW_MS;
use tidewater_common::ids::{RegionId, TableId};
use tidewater_common::keys::split_global_key;

use super::{COLD_WINDOWS, NodeLoads, RouteAction, RouteAdvice, changed_within, is_free};
use crate::catalog::{MetaState, RouteDescriptor};
use crate::leader::observations::ObservedLoads;

/// Part of the split score below which two neighbours together are cold: far below, so that a merged route is not
/// split again soon.
const COLD_PART: u64 = 4;

/// Two neighbours whose boundary is a split of a hot route, and which are not known to be warm.
struct Pair<'a> {
    left: &'a RouteDescriptor,
    right: &'a RouteDescriptor,
    table: TableId,
    /// Score of both in the window with the greatest one; `None`: not known for long enough.
    score: Option<u64>,
}

/// Returns the routes of all pairs: they are left to the merges.
pub(in crate::leader) fn cold_routes(
    state: &MetaState,
    loads: &ObservedLoads,
) -> BTreeSet<RegionId> {
    let pairs = pairs(state, loads).into_values();
    pairs.flat_map(|pair| [pair.left.route_id, pair.right.route_id]).collect()
}

/// Returns the operations on cold neighbours: a merge, or a move into one group.
pub(super) fn advise(
    state: &MetaState,
    loads: &ObservedLoads,
    nodes: &NodeLoads,
) -> Vec<RouteAdvice> {
    let pairs = pairs(state, loads);
    let advice = |pair: &Pair<'_>| {
        let Pair { left, right, table, score } = *pair;
        let score = score?;
        if left.group_id == right.group_id {
            let action = RouteAction::Merge { right: right.route_id };
            return Some(RouteAdvice { route: left.route_id, table, action, score });
        }
        let to = first_of_chain(&pairs, left).group_id;
        let is_movable = right.group_id != to
            && state.group(to).is_some_and(|group| group.takes_routes())
            && nodes.has_room(right.route_id, to);
        let action = RouteAction::Gather { to };
        is_movable.then_some(RouteAdvice { route: right.route_id, table, action, score })
    };
    pairs.values().filter_map(advice).collect()
}

/// Returns the pairs by their right routes.
fn pairs<'a>(state: &'a MetaState, loads: &ObservedLoads) -> BTreeMap<RegionId, Pair<'a>> {
    // Windows of a group from before an operation do not list the route.
    let known_after_ms = (COLD_WINDOWS as u64 + 1) * LOAD_WINDOW_MS;
    let recent = changed_within(state, known_after_ms.max(state.balance().rest_ms));
    let pair = |id: RegionId| {
        let right = state.route(id)?;
        let (table, _) = split_global_key(&right.start)?;
        let left = left_of(state, table, right)?;
        let is_known = |route: &&RouteDescriptor| {
            !recent.contains(&route.route_id) && is_free(state, table, route)
        };
        let threshold = state.balance().split_score / COLD_PART;
        let is_warm = |route| greatest_known(loads, route) >= threshold;
        if [left, right].into_iter().any(is_warm) {
            return None;
        }
        let unknown = Some((id, Pair { left, right, table, score: None }));
        if ![left, right].iter().all(is_known) {
            return unknown;
        }
        let (Some(of_left), Some(of_right)) = (greatest(loads, left), greatest(loads, right))
        else {
            return unknown;
        };
        let score = of_left.saturating_add(of_right);
        let is_cold = score < threshold;
        is_cold.then_some((id, Pair { left, right, table, score: Some(score) }))
    };
    state.soft_starts().filter_map(pair).collect()
}

/// Returns the first route of the chain of a route.
fn first_of_chain<'a>(
    pairs: &BTreeMap<RegionId, Pair<'a>>,
    route: &'a RouteDescriptor,
) -> &'a RouteDescriptor {
    let mut first = route;
    // Each step is to the left.
    while let Some(pair) = pairs.get(&first.route_id) {
        first = pair.left;
    }
    first
}

/// Greatest score of a route in the cold windows; `None`: it is not known.
fn greatest(loads: &ObservedLoads, route: &RouteDescriptor) -> Option<u64> {
    let windows = loads.last(route.group_id, COLD_WINDOWS)?;
    windows.iter().map(|window| window.at_most(route.route_id)).max()
}

/// Greatest score of a route in the windows that list it, however few they are.
fn greatest_known(loads: &ObservedLoads, route: &RouteDescriptor) -> u64 {
    let windows = loads.groups.get(&route.group_id).into_iter().flatten();
    let scores = windows.filter_map(|window| window.routes.get(&route.route_id));
    scores.map(|load| load.score).max().unwrap_or(0)
}

/// Returns the route that ends where this one begins.
fn left_of<'a>(
    state: &'a MetaState,
    table: TableId,
    right: &RouteDescriptor,
) -> Option<&'a RouteDescriptor> {
    let ends_there = |route: &&Arc<RouteDescriptor>| route.end.as_ref() == Some(&right.start);
    state.routes_of(table).find(ends_there).map(AsRef::as_ref)
}
