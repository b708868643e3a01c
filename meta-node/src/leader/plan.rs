//! The next step for each group, decided from the state and what was observed. Pure.
//!
//! Each data node gets a group that it is the *home* of (the first of its first members), with
//! replicas on up to three nodes. A group that has fewer grows as nodes join; a replica whose node
//! is *lost* (removed, or down for long) is replaced. One step at a time per group, each on the
//! membership that its leader reported last.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewater_common::ids::{GroupId, LogIndex, NodeId, Term};
use tidewater_proto::v1::{GroupState, NodeRole, NodeState};

use super::{Observed, ObservedGroup};
use crate::catalog::{Group, MetaState, Node};

/// Replicas that a group should have.
pub(crate) const REPLICAS: usize = 3;
/// A group that has no leader so long after its creation is given up.
pub(crate) const CREATION_LIMIT: Duration = Duration::from_secs(30);
/// A replica of a group that it is no member of is stopped after so long.
const STRAY_LIMIT: Duration = Duration::from_secs(15);
/// What a group's leader has said of its members holds for so long where a replica is to be stopped:
/// a few heartbeats, and far below [`STRAY_LIMIT`].
const FRESH: Duration = Duration::from_secs(3);

/// One step. Those with a membership are refused by the group's leader on any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Fix a new group's first membership.
    Create { first_members: Vec<NodeId> },
    /// Start the replicas of a group that is being created, and initialize it.
    Start { group: GroupId },
    /// The group has a leader.
    Activate { group: GroupId },
    /// The group never got a leader.
    Abandon { group: GroupId },
    /// Start a replica on a node and add it as a learner.
    Add { group: GroupId, leader: NodeId, node: NodeId, on: (Term, LogIndex) },
    /// Make a learner that has caught up a voter.
    Promote { group: GroupId, leader: NodeId, node: NodeId, on: (Term, LogIndex) },
    /// Take a member out.
    Remove { group: GroupId, leader: NodeId, node: NodeId, on: (Term, LogIndex) },
    /// Stop a replica that is no member.
    Stop { group: GroupId, node: NodeId, on: (Term, LogIndex) },
}

impl Step {
    /// The group that is busy with it; `None` for a group that is still to be made.
    pub(crate) fn group(&self) -> Option<GroupId> {
        match self {
            Self::Create { .. } => None,
            Self::Start { group }
            | Self::Activate { group }
            | Self::Abandon { group }
            | Self::Add { group, .. }
            | Self::Promote { group, .. }
            | Self::Remove { group, .. }
            | Self::Stop { group, .. } => Some(*group),
        }
    }
}

/// How placement behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlacementOptions {
    /// Nodes that start together get full groups: wait so long after the last registration.
    pub(crate) settle: Duration,
    /// A node that is down for longer is lost.
    pub(crate) replace_after: Duration,
}

/// The steps that are due; at most one new group, and at most one step for each other group.
pub(crate) fn plan(
    state: &MetaState,
    observed: &Observed,
    options: &PlacementOptions,
) -> Vec<Step> {
    let mut load = Load::of(state, options);
    let mut steps: Vec<Step> = Vec::new();
    steps.extend(create(state, observed, options, &load));
    for group in state.groups() {
        let step = match group.state {
            GroupState::Creating => creating(group, observed),
            GroupState::Active => membership(group, observed, &mut load),
            _ => None,
        };
        steps.extend(step.or_else(|| stray(group, observed)));
    }
    steps
}

/// Data nodes, and how many replicas each has.
struct Load<'a> {
    nodes: BTreeMap<NodeId, &'a Node>,
    replicas: BTreeMap<NodeId, usize>,
    lost: BTreeSet<NodeId>,
}

impl<'a> Load<'a> {
    fn of(state: &'a MetaState, options: &PlacementOptions) -> Self {
        let data = state.nodes().filter(|node| node.role == NodeRole::Data);
        let nodes: BTreeMap<_, _> = data.map(|node| (node.id, node.as_ref())).collect();
        let now = state.header().time_ms;
        let is_lost = |node: &&Node| match node.state {
            NodeState::Removed => true,
            NodeState::Down => {
                let down = now.saturating_sub(node.state_since_ms);
                Duration::from_millis(down) >= options.replace_after
            }
            _ => false,
        };
        let lost = nodes.values().copied().filter(is_lost).map(|node| node.id).collect();
        let mut replicas = BTreeMap::new();
        for group in state.groups().filter(|group| group.state != GroupState::Abandoned) {
            for node in group.replicas() {
                *replicas.entry(node).or_default() += 1;
            }
        }
        Self { nodes, replicas, lost }
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.state == NodeState::Up)
    }

    // Nodes unknown here were never members by our doing: they count as lost.
    fn is_lost(&self, node: NodeId) -> bool {
        self.lost.contains(&node) || !self.nodes.contains_key(&node)
    }

    /// Nodes that are up and not excluded, those with the fewest replicas first.
    fn candidates(&self, excluded: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = self
            .nodes
            .keys()
            .copied()
            .filter(|id| self.is_up(*id) && !excluded.contains(id))
            .collect();
        ids.sort_by_key(|id| (self.replicas.get(id).copied().unwrap_or(0), *id));
        ids
    }
}

/// A group for the first data node that is not yet the home of one.
fn create(
    state: &MetaState,
    observed: &Observed,
    options: &PlacementOptions,
    load: &Load<'_>,
) -> Option<Step> {
    if observed.quiet_for < options.settle {
        return None;
    }
    let live = state.groups().filter(|group| group.state != GroupState::Abandoned);
    let homes: BTreeSet<NodeId> =
        live.filter_map(|group| group.first_members.first().copied()).collect();
    let home = load.nodes.keys().copied().find(|id| load.is_up(*id) && !homes.contains(id))?;
    let others = load.candidates(&BTreeSet::from([home]));
    let first_members = std::iter::once(home).chain(others).take(REPLICAS).collect();
    Some(Step::Create { first_members })
}

fn creating(group: &Group, observed: &Observed) -> Option<Step> {
    if observed.groups.contains_key(&group.id) {
        return Some(Step::Activate { group: group.id });
    }
    match observed.creating_for.get(&group.id) {
        Some(age) if *age > CREATION_LIMIT => Some(Step::Abandon { group: group.id }),
        _ => Some(Step::Start { group: group.id }),
    }
}

fn membership(group: &Group, observed: &Observed, load: &mut Load<'_>) -> Option<Step> {
    let report = observed.groups.get(&group.id)?;
    let settled = observed.changed.get(&group.id).is_none_or(|at| report.membership >= *at);
    if !settled || !load.is_up(report.leader) {
        return None;
    }
    let (id, leader, on) = (group.id, report.leader, report.membership);
    let sound = report.voters.iter().filter(|node| !load.is_lost(**node)).count();
    if let Some(step) = learner(id, report, sound, load) {
        return Some(step);
    }
    if let Some(node) = superfluous(report, sound, load) {
        return Some(Step::Remove { group: id, leader, node, on });
    }
    if sound < REPLICAS && report.learners.is_empty() {
        let members = report.voters.union(&report.learners).copied().collect();
        let node = load.candidates(&members).first().copied()?;
        *load.replicas.entry(node).or_default() += 1;
        return Some(Step::Add { group: id, leader, node, on });
    }
    None
}

/// What to do with a learner: promote it when it is needed and has caught up.
fn learner(group: GroupId, report: &ObservedGroup, sound: usize, load: &Load<'_>) -> Option<Step> {
    let node = report.learners.first().copied()?;
    let (leader, on) = (report.leader, report.membership);
    if load.is_lost(node) || sound >= REPLICAS {
        return Some(Step::Remove { group, leader, node, on });
    }
    (report.caught_up.contains(&node) && load.is_up(node)).then_some(Step::Promote {
        group,
        leader,
        node,
        on,
    })
}

/// A voter that is there beyond need: first one whose node is lost, never the leader.
fn superfluous(report: &ObservedGroup, sound: usize, load: &Load<'_>) -> Option<NodeId> {
    if sound < REPLICAS {
        return None;
    }
    let mut others = report.voters.iter().copied().filter(|node| *node != report.leader);
    if sound < report.voters.len() {
        return others.find(|node| load.is_lost(*node));
    }
    if sound > REPLICAS { others.next_back() } else { None }
}

/// A replica on a node that is no member, as of the leader's report, or of a group given up.
fn stray(group: &Group, observed: &Observed) -> Option<Step> {
    let (members, on) = match group.state {
        // No membership of it counts.
        GroupState::Abandoned => (BTreeSet::new(), (Term(u64::MAX), LogIndex(u64::MAX))),
        GroupState::Active => {
            let report = observed.groups.get(&group.id)?;
            if observed.changed.get(&group.id).is_some_and(|at| report.membership < *at) {
                return None;
            }
            // An old report may miss a member that has joined since.
            let age = observed.reported_for.get(&group.id)?;
            if *age > FRESH {
                return None;
            }
            (report.voters.union(&report.learners).copied().collect(), report.membership)
        }
        _ => return None,
    };
    let mut hosts = observed.hosted_for.iter().filter(|((node, id), age)| {
        *id == group.id && **age > STRAY_LIMIT && !members.contains(node)
    });
    hosts.next().map(|((node, id), _)| Step::Stop { group: *id, node: *node, on })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
