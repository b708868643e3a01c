//! Loads of nodes, and the move that relieves the busiest one.

use std::collections::{BTreeMap, BTreeSet};

use tidewater_common::ids::{GroupId, NodeId, RegionId};
use tidewater_common::keys::split_global_key;
use tidewater_proto::v1::{NodeRole, NodeState};

use super::{MEAN_WINDOWS, RouteAction, RouteAdvice, is_free};
use crate::catalog::{MetaState, RouteDescriptor};
use crate::leader::ObservedCluster;
use crate::leader::observations::ObservedLoads;

/// Load of the busiest node from which on it is relieved, as a part of the mean, in percent.
const UNEVEN: u64 = 125;
/// Least part of the mean by which a move lowers the load of the busiest node, in percent.
const MIN_RELIEF: u64 = 10;
/// A busiest node with less than this part of the split score is not relieved: moves cost more than they bring.
const IDLE_PART: u64 = 4;

/// Loads of the nodes that lead groups, and of their routes.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeLoads {
    scores: BTreeMap<NodeId, u64>,
    leaders: BTreeMap<GroupId, NodeId>,
    routes: BTreeMap<RegionId, u64>,
}

impl NodeLoads {
    /// Loads of the data nodes that are up, without those that lead a group with unknown load.
    pub(super) fn new(
        state: &MetaState,
        observed: &ObservedCluster,
        loads: &ObservedLoads,
    ) -> Self {
        let usable = state.nodes().filter(|node| {
            node.role == NodeRole::Data && node.state == NodeState::Up && !node.draining
        });
        let mut of_nodes =
            Self { scores: usable.map(|node| (node.id, 0)).collect(), ..Self::default() };
        for group in state.live_groups() {
            let Some(report) = observed.groups.get(&group.id) else { continue };
            let Some(windows) = loads.last(group.id, MEAN_WINDOWS) else {
                of_nodes.scores.remove(&report.leader);
                continue;
            };
            of_nodes.leaders.insert(group.id, report.leader);
            for (route, load) in windows.iter().flat_map(|window| &window.routes) {
                let is_here = state.route(*route).is_some_and(|of| of.group_id == group.id);
                let mean = load.score / MEAN_WINDOWS as u64;
                if let Some(score) = of_nodes.scores.get_mut(&report.leader).filter(|_| is_here) {
                    *score = score.saturating_add(mean);
                    *of_nodes.routes.entry(*route).or_default() += mean;
                }
            }
        }
        of_nodes
    }

    /// Score of the busiest node, and the mean; 0 without nodes.
    pub(crate) fn busiest_and_mean(&self) -> (u64, u64) {
        let total = self.scores.values().fold(0_u64, |sum, score| sum.saturating_add(*score));
        let busiest = self.scores.values().max().copied().unwrap_or(0);
        (busiest, total / self.scores.len().max(1) as u64)
    }

    /// Score of a route per minute; 0 if it is not known.
    pub(crate) fn route(&self, route: RegionId) -> u64 {
        self.routes.get(&route).copied().unwrap_or(0)
    }

    /// Returns whether a move of a route between two groups makes the loads of their nodes not more uneven. Of groups with
    /// unknown load, it is not known.
    pub(crate) fn permits(&self, route: RegionId, from: GroupId, to: GroupId) -> bool {
        let (Some(source), Some(target)) = (self.leaders.get(&from), self.leaders.get(&to)) else {
            return false;
        };
        let (Some(from), Some(to)) = (self.scores.get(source), self.scores.get(target)) else {
            return false;
        };
        let (slack, of_route) = (self.busiest_and_mean().1 / 100, self.route(route));
        source == target
            || of_route <= slack
            || from.saturating_add(slack) >= to.saturating_add(of_route)
    }

    /// Returns whether the node that leads a group would not be the busiest one with a route more.
    pub(super) fn has_room(&self, route: RegionId, to: GroupId) -> bool {
        let of_node = self.leaders.get(&to).and_then(|node| self.scores.get(node));
        let (busiest, mean) = self.busiest_and_mean();
        let of_route = self.route(route);
        of_node.is_some_and(|of_node| {
            of_route <= mean / 100 || of_node.saturating_add(of_route) <= busiest
        })
    }
}

/// Returns the move that lowers the load of the busiest node most. `fixed`: routes that rest, and cold ones, which are left
/// to the merges.
pub(super) fn relief(
    state: &MetaState,
    loads: &ObservedLoads,
    nodes: &NodeLoads,
    fixed: &BTreeSet<RegionId>,
) -> Option<RouteAdvice> {
    let (busiest, mean) = nodes.busiest_and_mean();
    let by_score = |(_, score): &(&NodeId, &u64)| **score;
    let (source, _) = nodes.scores.iter().max_by_key(by_score)?;
    let takes_routes =
        |group: &GroupId| state.group(*group).is_some_and(|group| group.takes_routes());
    // A node without such a group, which has just joined, gets its leaderships first.
    let open = nodes.leaders.iter().filter(|(group, _)| takes_routes(group));
    let open: BTreeSet<NodeId> = open.map(|(_, leader)| *leader).collect();
    let targets = nodes.scores.iter().filter(|(node, _)| open.contains(node));
    let (target, least) = targets.min_by_key(by_score)?;
    let is_uneven = u128::from(busiest) * 100 > u128::from(mean) * u128::from(UNEVEN);
    if !is_uneven || busiest < state.balance().split_score / IDLE_PART {
        return None;
    }
    let led_by = |node: &NodeId| {
        let groups = nodes.leaders.iter().filter(move |(_, leader)| *leader == node);
        groups.map(|(group, _)| *group).collect::<Vec<_>>()
    };
    let to = led_by(target).into_iter().filter(takes_routes);
    let to = to.min_by_key(|group| (state.routes_in(*group), *group))?;
    let listed = led_by(source).into_iter().filter_map(|group| {
        let windows = loads.last(group, MEAN_WINDOWS)?;
        Some(windows[0].routes.keys().filter_map(|route| state.route(*route)).collect::<Vec<_>>())
    });
    let after = |score: u64| busiest.saturating_sub(score).max(least.saturating_add(score));
    let candidate = |route: &RouteDescriptor| {
        let (table, _) = split_global_key(&route.start)?;
        let score = nodes.routes.get(&route.route_id).copied()?;
        let is_possible = !fixed.contains(&route.route_id) && is_free(state, table, route);
        is_possible.then_some((after(score), route.route_id, table, score))
    };
    let candidates = listed.flatten().filter_map(|route| candidate(route));
    let (most, route, table, score) = candidates.min()?;
    let relief = u128::from(busiest.saturating_sub(most)) * 100;
    let is_enough = relief >= u128::from(mean) * u128::from(MIN_RELIEF);
    is_enough.then_some(RouteAdvice { route, table, action: RouteAction::Relieve { to }, score })
}
