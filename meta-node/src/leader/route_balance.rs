//! Balance of routes: moves them from groups with more routes to groups with fewer, in total and of each table. Pure.
//!
//! *Cost*: the sum of the squares of the numbers of routes of each group, and of each group and table. Each planned move
//! lowers it, so that balancing ends: totals then differ by at most one, and the routes of one table by at most three. A group that is retiring keeps none. A route rests after each operation on it,
//! and few moves are in progress at once, no two of them in one group. While routes follow the load ([`super::hotspots`]), no
//! move makes the loads of nodes more uneven.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewater_common::ids::{GroupId, NodeId, RegionId, TableId};
use tidewater_proto::v1::{NodeState, TableState};

use super::ObservedCluster;
use super::balance::BALANCE_AFTER;
use super::hotspots::{NodeLoads, changed_within};
use super::placement_step::PlacementStep;
use crate::catalog::{Group, MetaState, RouteDescriptor};

/// Most moves in progress: each holds up the writes of its route for a part of a second.
const MAX_MOVES: usize = 4;
/// Maximum age of the report of a group's leader: a few heartbeats.
const MAX_REPORT_AGE: Duration = Duration::from_secs(3);

/// Limits of the moves while routes follow the load.
pub(super) struct LoadLimits<'a> {
    /// Loads of the nodes: no move makes them more uneven.
    pub(super) nodes: &'a NodeLoads,
    /// Cold neighbours: they are moved into one group and merged.
    pub(super) gathered: BTreeSet<RegionId>,
    /// The loads of nodes are those after the last operation, and none is in progress. Otherwise, routes only leave
    /// groups that retire.
    pub(super) is_settled: bool,
}

/// Plans moves of routes. Takes time for every route.
pub(super) fn plan_moves(
    state: &MetaState,
    observed: &ObservedCluster,
    limits: Option<&LoadLimits<'_>>,
) -> Vec<PlacementStep> {
    let is_quiet = observed.quiet_for >= BALANCE_AFTER && observed.leading_for >= BALANCE_AFTER;
    if !is_quiet {
        return Vec::new();
    }
    let moving = GroupsInUse::new(state);
    let Some(free) = MAX_MOVES.checked_sub(moving.moves).filter(|free| *free > 0) else {
        return Vec::new();
    };
    let ready: BTreeSet<GroupId> = state
        .live_groups()
        .filter(|group| is_ready(state, observed, group))
        .map(|group| group.id)
        .collect();
    let mut spread = Spread::new(state, &ready, limits);
    let mut busy = moving.groups;
    let mut steps = Vec::new();
    while steps.len() < free {
        let Some((route, to)) = spread.take_move(state, &busy) else { break };
        busy.extend([route.group_id, to]);
        // The loads after a move are not known before it has ended.
        spread.is_even_wanted &= limits.is_none();
        steps.push(PlacementStep::MoveRoute { route: route.route_id, to });
    }
    steps
}

/// Returns whether a group can give and take routes: its leader is up and has reported.
fn is_ready(state: &MetaState, observed: &ObservedCluster, group: &Group) -> bool {
    let reported = observed.reported_for.get(&group.id);
    let is_up = |node: NodeId| state.node(node).is_some_and(|node| node.state == NodeState::Up);
    reported.is_some_and(|age| *age <= MAX_REPORT_AGE)
        && observed.groups.get(&group.id).is_some_and(|report| is_up(report.leader))
}

/// Groups of the moves in progress.
struct GroupsInUse {
    moves: usize,
    groups: BTreeSet<GroupId>,
}

impl GroupsInUse {
    fn new(state: &MetaState) -> Self {
        let mut groups = BTreeSet::new();
        let mut moves = 0;
        for procedure in state.procedures().running() {
            let Some(receiver) = procedure.receiver() else { continue };
            moves += 1;
            let routes = procedure.routes.iter().filter_map(|route| state.route(*route));
            groups.extend(routes.map(|route| route.group_id));
            groups.insert(receiver);
        }
        Self { moves, groups }
    }
}

/// A move that may be planned.
struct Candidate {
    /// The source group retires; difference of the groups.
    rank: (bool, i64),
    /// Table, and source group.
    at: (TableId, GroupId),
    to: GroupId,
}

/// Numbers of routes by group, and the routes that may move.
struct Spread<'a> {
    /// Groups that take routes.
    open: BTreeSet<GroupId>,
    totals: BTreeMap<GroupId, i64>,
    of_tables: BTreeMap<(TableId, GroupId), i64>,
    movable: BTreeMap<(TableId, GroupId), Vec<&'a RouteDescriptor>>,
    is_even_wanted: bool,
    limits: Option<&'a LoadLimits<'a>>,
}

impl<'a> Spread<'a> {
    fn new(
        state: &'a MetaState,
        ready: &BTreeSet<GroupId>,
        limits: Option<&'a LoadLimits<'a>>,
    ) -> Self {
        let is_open = |id: &GroupId| state.group(*id).is_some_and(|group| group.takes_routes());
        let mut spread = Self {
            open: ready.iter().copied().filter(is_open).collect(),
            totals: ready.iter().map(|group| (*group, 0)).collect(),
            of_tables: BTreeMap::new(),
            movable: BTreeMap::new(),
            is_even_wanted: state.balance().spread && limits.is_none_or(|limits| limits.is_settled),
            limits,
        };
        let resting = changed_within(state, state.balance().rest_ms);
        let is_gathered =
            |route: RegionId| limits.is_some_and(|limits| limits.gathered.contains(&route));
        for table in state.tables() {
            let is_settled = table.state == TableState::Active && table.change.is_none();
            for route in state.routes_of(table.id) {
                let Some(total) = spread.totals.get_mut(&route.group_id) else { continue };
                *total += 1;
                let at = (table.id, route.group_id);
                *spread.of_tables.entry(at).or_default() += 1;
                let is_free = state.procedures().of_route(route.route_id).is_none();
                let is_retiring = !spread.open.contains(&route.group_id);
                let is_left = is_gathered(route.route_id) && !is_retiring;
                let is_fixed = resting.contains(&route.route_id) || is_left;
                if is_settled && is_free && !is_fixed {
                    spread.movable.entry(at).or_default().push(route);
                }
            }
        }
        if let Some(limits) = limits {
            // The last one moves first: that with the least load.
            let by_load = |route: &&RouteDescriptor| Reverse(limits.nodes.route(route.route_id));
            spread.movable.values_mut().for_each(|routes| routes.sort_by_key(by_load));
        }
        spread
    }

    /// Takes the move to plan next: out of a retiring group, else the one that lowers the cost most.
    fn take_move(
        &mut self,
        state: &MetaState,
        busy: &BTreeSet<GroupId>,
    ) -> Option<(&'a RouteDescriptor, GroupId)> {
        let free = self.open.iter().filter(|group| !busy.contains(group));
        let mut targets: Vec<(i64, GroupId)> =
            free.map(|group| (self.total(*group), *group)).collect();
        targets.sort_unstable();
        let mut best: Option<Candidate> = None;
        let mut of_table: Option<(TableId, Vec<(i64, GroupId)>)> = None;
        for (at, routes) in &self.movable {
            let (table, from) = *at;
            let Some(route) = routes.last() else { continue };
            let retires = !self.open.contains(&from);
            if busy.contains(&from) || !(retires || self.is_even_wanted) {
                continue;
            }
            if of_table.as_ref().is_none_or(|(known, _)| *known != table) {
                let is_locked = is_locked(state, table);
                let targets = if is_locked { Vec::new() } else { self.targets(table, &targets) };
                of_table = Some((table, targets));
            }
            let least = of_table.iter().flat_map(|(_, targets)| targets);
            let Some((cost, to)) = least.copied().find(|(_, to)| *to != from) else { continue };
            // A move between two groups lowers the cost by twice the difference less four.
            let gain = self.total(from) + self.of_table(table, from) - cost;
            let is_better = best.as_ref().is_none_or(|known| (retires, gain) > known.rank);
            let permits = |limits: &LoadLimits<'_>| limits.nodes.permits(route.route_id, from, to);
            let is_permitted = retires || self.limits.is_none_or(permits);
            if (retires || gain > 2) && is_better && is_permitted {
                best = Some(Candidate { rank: (retires, gain), at: *at, to });
            }
        }
        let Candidate { at, to, .. } = best?;
        let route = self.movable.get_mut(&at)?.pop()?;
        for (group, by) in [(at.1, -1), (to, 1)] {
            *self.totals.entry(group).or_default() += by;
            *self.of_tables.entry((at.0, group)).or_default() += by;
        }
        Some((route, to))
    }

    /// Returns the two groups with the fewest routes in total and of a table, fewest first. `targets`: free groups by their
    /// numbers of routes. Takes time for the groups that have routes of the table, not for all.
    fn targets(&self, table: TableId, targets: &[(i64, GroupId)]) -> Vec<(i64, GroupId)> {
        let (first, last) = ((table, GroupId(0)), (table, GroupId(u64::MAX)));
        let with_routes = self.of_tables.range(first..=last).map(|((_, group), _)| *group);
        let is_free =
            |group: &GroupId| targets.binary_search(&(self.total(*group), *group)).is_ok();
        let with_routes = with_routes.filter(is_free);
        let with_routes =
            with_routes.map(|group| (self.total(group) + self.of_table(table, group), group));
        let without = targets.iter().copied();
        let without = without.filter(|(_, group)| !self.of_tables.contains_key(&(table, *group)));
        let mut least: Vec<(i64, GroupId)> = with_routes.chain(without.take(2)).collect();
        least.sort_unstable();
        least.truncate(2);
        least
    }

    fn total(&self, group: GroupId) -> i64 {
        self.totals.get(&group).copied().unwrap_or(0)
    }

    fn of_table(&self, table: TableId, group: GroupId) -> i64 {
        self.of_tables.get(&(table, group)).copied().unwrap_or(0)
    }
}

/// Returns whether an operation on the whole table is in progress: a move would be refused.
fn is_locked(state: &MetaState, table: TableId) -> bool {
    let mut running = state.procedures().of_table(table);
    running.any(|procedure| procedure.routes.is_empty())
}

#[cfg(test)]
mod tests;
