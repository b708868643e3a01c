//! Placement planner: decides the next step of each data group from the state and the observations.
//! Pure.
//!
//! Each data node gets a group of which it is the *home* (the first of the first members), with
//! replicas on up to three nodes. A group with fewer replicas grows as nodes join. A replica on a
//! *lost* node (removed, or down for longer than `replace_after`) is replaced. A group has one step at
//! a time, based on the membership that its leader reported last.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewater_common::agreed_limits::REPLICAS_PER_GROUP;
use tidewater_common::ids::{GroupId, LogIndex, NodeId, Term};
use tidewater_proto::v1::{GroupState, NodeRole, NodeState};

use super::placement_step::PlacementStep;
use super::{ObservedCluster, ObservedGroup, ObservedReplica};
use crate::catalog::{Group, MetaState, Node};

/// Most groups that one round creates. Many nodes may register together: with one group in each round, 1,000
/// nodes would wait for minutes.
const MAX_NEW_GROUPS: usize = 32;
/// Target number of replicas of a group.
pub(crate) const REPLICAS: usize = REPLICAS_PER_GROUP;
/// Time after which a group that is being created without a leader is abandoned.
pub(crate) const CREATION_LIMIT: Duration = Duration::from_secs(30);
/// Time after which a replica on a node that is not a member is stopped.
const STRAY_LIMIT: Duration = Duration::from_secs(15);
/// Time that a new leader gives nodes that were down to return, before it counts the time for which they
/// were down under its predecessors.
const RETURN_LIMIT: Duration = Duration::from_secs(30);
/// Distance of a replica's last log entry from the leader's beyond which it counts as lagging, in entries: far
/// above the distance of two heartbeats.
const MAX_LAG: u64 = 10_000;
/// Maximum age of a leader's report on which a replica may be stopped: a few heartbeats, and far below
/// [`STRAY_LIMIT`].
const MAX_REPORT_AGE: Duration = Duration::from_secs(3);

/// Options of placement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlacementOptions {
    /// Delay of new groups after the last registration, so that nodes that start together get full
    /// groups.
    pub(crate) settle: Duration,
    /// Time after which a node that is down is lost.
    pub(crate) replace_after: Duration,
}

/// Returns the steps that are due: at most one for each group, and some new groups.
pub(crate) fn plan(
    state: &MetaState,
    observed: &ObservedCluster,
    options: &PlacementOptions,
) -> Vec<PlacementStep> {
    let mut load = NodeLoad::new(state, observed, options);
    let mut steps = plan_new_groups(state, observed, options, &mut load);
    for group in state.groups() {
        let step = match group.state {
            GroupState::Creating => plan_creation(group, observed),
            GroupState::Active => plan_membership(group, observed, &mut load),
            _ => None,
        };
        steps.extend(step.or_else(|| plan_stop(group, observed)));
    }
    steps
}

/// Data nodes with their numbers of replicas.
struct NodeLoad<'a> {
    nodes: BTreeMap<NodeId, &'a Node>,
    replicas: BTreeMap<NodeId, usize>,
    /// Nodes that are up, with their numbers of replicas: fewest replicas first.
    up: BTreeSet<(usize, NodeId)>,
    lost: BTreeSet<NodeId>,
}

impl<'a> NodeLoad<'a> {
    fn new(state: &'a MetaState, observed: &ObservedCluster, options: &PlacementOptions) -> Self {
        let data = state.nodes().filter(|node| node.role == NodeRole::Data);
        let nodes: BTreeMap<_, _> = data.map(|node| (node.id, node.as_ref())).collect();
        let now = state.header().time_ms;
        let is_lost = |node: &&Node| match node.state {
            NodeState::Removed => true,
            NodeState::Down => {
                let down = Duration::from_millis(now.saturating_sub(node.state_since_ms));
                let silent = observed.silent_for.get(&node.id).copied();
                is_lost(down, silent.unwrap_or(observed.leading_for), options.replace_after)
            }
            _ => false,
        };
        let lost = nodes.values().copied().filter(is_lost).map(|node| node.id).collect();
        let mut replicas: BTreeMap<NodeId, usize> = BTreeMap::new();
        for group in state.groups().filter(|group| group.state != GroupState::Abandoned) {
            for node in group.replicas() {
                *replicas.entry(node).or_default() += 1;
            }
        }
        let up = nodes.values().filter(|node| node.state == NodeState::Up);
        let up = up.map(|node| (replicas.get(&node.id).copied().unwrap_or(0), node.id)).collect();
        Self { nodes, replicas, up, lost }
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.state == NodeState::Up)
    }

    // The planner never adds unknown nodes as members: they count as lost.
    fn is_lost(&self, node: NodeId) -> bool {
        self.lost.contains(&node) || !self.nodes.contains_key(&node)
    }

    /// Nodes that are up and not excluded, fewest replicas first.
    fn candidates(&self, excluded: &BTreeSet<NodeId>) -> impl Iterator<Item = NodeId> {
        self.up.iter().map(|(_, id)| *id).filter(|id| !excluded.contains(id))
    }

    /// Counts a replica that a step will add to a node.
    fn add_replica(&mut self, node: NodeId) {
        let replicas = self.replicas.entry(node).or_default();
        if self.up.remove(&(*replicas, node)) {
            self.up.insert((*replicas + 1, node));
        }
        *replicas += 1;
    }
}

/// Returns whether a node that is down is lost. `down`: time since it went down, by replicated time, which
/// outlives a leader but may jump after an outage; `silent`: time for which this leader has waited for a
/// heartbeat.
fn is_lost(down: Duration, silent: Duration, replace_after: Duration) -> bool {
    silent >= replace_after || (down >= replace_after && silent >= RETURN_LIMIT.min(replace_after))
}

/// Plans groups for the first data nodes that are not the home of a group yet.
fn plan_new_groups(
    state: &MetaState,
    observed: &ObservedCluster,
    options: &PlacementOptions,
    load: &mut NodeLoad<'_>,
) -> Vec<PlacementStep> {
    if observed.quiet_for < options.settle {
        return Vec::new();
    }
    let live = state.groups().filter(|group| group.state != GroupState::Abandoned);
    let homes: BTreeSet<NodeId> =
        live.filter_map(|group| group.first_members.first().copied()).collect();
    let needs_group = |id: &NodeId| load.is_up(*id) && !homes.contains(id);
    let new_homes: Vec<NodeId> =
        load.nodes.keys().copied().filter(needs_group).take(MAX_NEW_GROUPS).collect();
    let create = |home: NodeId| {
        let excluded = BTreeSet::from([home]);
        let others = load.candidates(&excluded);
        let first_members: Vec<NodeId> =
            std::iter::once(home).chain(others).take(REPLICAS).collect();
        first_members.iter().for_each(|node| load.add_replica(*node));
        PlacementStep::Create { first_members }
    };
    new_homes.into_iter().map(create).collect()
}

/// Plans the next step of a group in state creating.
fn plan_creation(group: &Group, observed: &ObservedCluster) -> Option<PlacementStep> {
    if observed.groups.contains_key(&group.id) {
        return Some(PlacementStep::Activate { group: group.id });
    }
    match observed.creating_for.get(&group.id) {
        Some(age) if *age > CREATION_LIMIT => Some(PlacementStep::Abandon { group: group.id }),
        _ => Some(PlacementStep::Start { group: group.id }),
    }
}

/// Plans the next membership step of an active group.
fn plan_membership(
    group: &Group,
    observed: &ObservedCluster,
    load: &mut NodeLoad<'_>,
) -> Option<PlacementStep> {
    let report = observed.groups.get(&group.id)?;
    let is_current = observed.changed.get(&group.id).is_none_or(|at| report.membership >= *at);
    if !is_current || !report.is_settled() || !load.is_up(report.leader) {
        return None;
    }
    let id = group.id;
    let leader = report.leader;
    let on = report.membership;
    let sound = report.voters.iter().filter(|node| !load.is_lost(**node)).count();
    if let Some(step) = plan_learner(id, report, sound, load) {
        return Some(step);
    }
    if let Some(node) = surplus_voter(id, report, sound, load, observed) {
        return Some(PlacementStep::Remove { group: id, leader, node, on });
    }
    if sound < REPLICAS && report.learners.is_empty() {
        let members = report.voters.union(&report.learners).copied().collect();
        let node = load.candidates(&members).next()?;
        load.add_replica(node);
        return Some(PlacementStep::Add { group: id, leader, node, on });
    }
    None
}

/// Plans the next step of the first learner: removes it when it is lost or not needed, or when it is down
/// and another node can take its place, promotes it when it has caught up. A learner is no voter yet, so that
/// waiting for a node that is down only delays the repair of the group.
fn plan_learner(
    group: GroupId,
    report: &ObservedGroup,
    sound: usize,
    load: &NodeLoad<'_>,
) -> Option<PlacementStep> {
    let node = report.learners.first().copied()?;
    let leader = report.leader;
    let on = report.membership;
    let is_replaceable = || {
        let members = report.voters.union(&report.learners).copied().collect();
        !load.is_up(node) && load.candidates(&members).next().is_some()
    };
    if load.is_lost(node) || sound >= REPLICAS || is_replaceable() {
        return Some(PlacementStep::Remove { group, leader, node, on });
    }
    (report.caught_up.contains(&node) && load.is_up(node)).then_some(PlacementStep::Promote {
        group,
        leader,
        node,
        on,
    })
}

/// Returns a surplus voter to remove, never the leader: lost nodes first; of more than enough sound nodes,
/// those that are down, then those that lag behind, then the highest id.
fn surplus_voter(
    group: GroupId,
    report: &ObservedGroup,
    sound: usize,
    load: &NodeLoad<'_>,
    observed: &ObservedCluster,
) -> Option<NodeId> {
    if sound < REPLICAS {
        return None;
    }
    let mut others = report.voters.iter().copied().filter(|node| *node != report.leader);
    if sound < report.voters.len() {
        return others.find(|node| load.is_lost(*node));
    }
    if sound <= REPLICAS {
        return None;
    }
    let last_log = |node| observed.replica(group, node).map_or(0, |own| own.last_log.get());
    let is_lagging = |node| last_log(report.leader).saturating_sub(last_log(node)) > MAX_LAG;
    others.max_by_key(|node| (!load.is_up(*node), is_lagging(*node), *node))
}

/// Plans to stop a replica of an abandoned group, or a replica on a node that is not a member according
/// to the leader's report.
fn plan_stop(group: &Group, observed: &ObservedCluster) -> Option<PlacementStep> {
    let (members, on) = match group.state {
        // The greatest log id, so that a replica stops whatever membership it knows.
        GroupState::Abandoned => (BTreeSet::new(), (Term(u64::MAX), LogIndex(u64::MAX))),
        GroupState::Active => {
            let report = observed.groups.get(&group.id)?;
            if observed.changed.get(&group.id).is_some_and(|at| report.membership < *at) {
                return None;
            }
            // An old report may lack a member that was added since.
            let age = observed.reported_for.get(&group.id)?;
            // A leader of an older release reports members that may not be committed.
            if *age > MAX_REPORT_AGE || report.effective != Some(report.membership) {
                return None;
            }
            (report.voters.union(&report.learners).copied().collect(), report.membership)
        }
        _ => return None,
    };
    let mut hosts = observed.replicas.get(&group.id)?.iter();
    let is_stray =
        |node, own: &ObservedReplica| own.hosted_for > STRAY_LIMIT && !members.contains(node);
    let (node, _) = hosts.find(|(node, own)| is_stray(node, own))?;
    Some(PlacementStep::Stop { group: group.id, node: *node, on })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
