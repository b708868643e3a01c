//! Balance of routes: moves them from groups with more routes to groups with fewer, in total and of each table. Pure.
//!
//! *Cost*: the sum of the squares of the numbers of routes of each group, and of each group and table. Each planned move
//! lowers it, so that balancing ends. A group that is retiring keeps none. A route rests after each operation on it,
//! and few moves are in progress at once, no two of them in one group.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewater_common::ids::{GroupId, NodeId, RegionId, TableId};
use tidewater_proto::v1::{NodeState, TableState};

use super::ObservedCluster;
use super::balance::BALANCE_AFTER;
use super::placement_step::PlacementStep;
use crate::catalog::{Group, MetaState, RouteDescriptor};

/// Most moves in progress: each holds up the writes of its route for a part of a second.
const MAX_MOVES: usize = 4;
/// Maximum age of the report of a group's leader: a few heartbeats.
const MAX_REPORT_AGE: Duration = Duration::from_secs(3);

/// Plans moves of routes. Takes time for every route.
pub(super) fn plan_moves(state: &MetaState, observed: &ObservedCluster) -> Vec<PlacementStep> {
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
    let mut spread = Spread::new(state, &ready);
    let mut busy = moving.groups;
    let mut steps = Vec::new();
    while steps.len() < free {
        let Some((route, to)) = spread.take_move(state, &busy) else { break };
        busy.extend([route.group_id, to]);
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
}

impl<'a> Spread<'a> {
    fn new(state: &'a MetaState, ready: &BTreeSet<GroupId>) -> Self {
        let is_open = |id: &GroupId| state.group(*id).is_some_and(|group| group.takes_routes());
        let mut spread = Self {
            open: ready.iter().copied().filter(is_open).collect(),
            totals: ready.iter().map(|group| (*group, 0)).collect(),
            of_tables: BTreeMap::new(),
            movable: BTreeMap::new(),
            is_even_wanted: state.balance().spread,
        };
        let resting = resting_routes(state);
        for table in state.tables() {
            let is_settled = table.state == TableState::Active && table.change.is_none();
            for route in state.routes_of(table.id) {
                let Some(total) = spread.totals.get_mut(&route.group_id) else { continue };
                *total += 1;
                let at = (table.id, route.group_id);
                *spread.of_tables.entry(at).or_default() += 1;
                let is_free = state.procedures().of_route(route.route_id).is_none();
                if is_settled && is_free && !resting.contains(&route.route_id) {
                    spread.movable.entry(at).or_default().push(route);
                }
            }
        }
        spread
    }

    /// Takes the move to plan next: out of a retiring group, else the one that lowers the cost most.
    fn take_move(
        &mut self,
        state: &MetaState,
        busy: &BTreeSet<GroupId>,
    ) -> Option<(&'a RouteDescriptor, GroupId)> {
        let mut best: Option<Candidate> = None;
        for (at, routes) in &self.movable {
            let (table, from) = *at;
            if routes.is_empty() || busy.contains(&from) || is_locked(state, table) {
                continue;
            }
            let retires = !self.open.contains(&from);
            if !retires && !self.is_even_wanted {
                continue;
            }
            for to in self.open.iter().filter(|to| **to != from && !busy.contains(to)) {
                let gain = self.difference(table, from, *to);
                // A move between two groups lowers the cost by twice the difference less four.
                let is_better = best.as_ref().is_none_or(|known| (retires, gain) > known.rank);
                if (retires || gain > 2) && is_better {
                    best = Some(Candidate { rank: (retires, gain), at: *at, to: *to });
                }
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

    /// Difference of two groups in routes, in total and of a table.
    fn difference(&self, table: TableId, from: GroupId, to: GroupId) -> i64 {
        let total = |group: GroupId| self.totals.get(&group).copied().unwrap_or(0);
        let of_table = |group: GroupId| self.of_tables.get(&(table, group)).copied().unwrap_or(0);
        total(from) - total(to) + of_table(from) - of_table(to)
    }
}

/// Returns whether an operation on the whole table is in progress: a move would be refused.
fn is_locked(state: &MetaState, table: TableId) -> bool {
    let mut running = state.procedures().of_table(table);
    running.any(|procedure| procedure.routes.is_empty())
}

/// Returns the routes of the operations that have ended within the rest, with any outcome.
fn resting_routes(state: &MetaState) -> BTreeSet<RegionId> {
    let since_ms = state.header().time_ms.saturating_sub(state.balance().rest_ms);
    let ended = state.procedures().last_ended();
    let recent = ended.take_while(|procedure| procedure.ended_ms.is_some_and(|at| at > since_ms));
    recent.flat_map(|procedure| procedure.routes.iter().copied()).collect()
}

#[cfg(test)]
mod tests;
