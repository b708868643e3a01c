//! Problems of data groups and their replicas.

use tidewater_common::ids::{GroupId, NodeId};
use tidewater_common::problem::Problem;
use tidewater_proto::v1::{GroupState, NodeRole, NodeState, ProblemKind};

use super::ClusterKnowledge;
use super::nodes::is_silent;
use crate::catalog::{Group, MetaState};
use crate::leader::{CREATION_LIMIT, REPLICAS};

pub(super) fn problems(known: &ClusterKnowledge<'_>) -> Vec<Problem> {
    let state = known.state;
    let mut problems = Vec::new();
    let data_nodes = state
        .nodes()
        .filter(|node| node.role == NodeRole::Data && node.state != NodeState::Removed)
        .count();
    if data_nodes > 0 && !state.groups().any(|group| group.state == GroupState::Active) {
        let detail = "no data group is active yet: tables accept no writes";
        problems.push(Problem::new(ProblemKind::NoActiveGroup, detail));
    }
    for group in state.groups() {
        match group.state {
            GroupState::Creating => problems.extend(not_created(known, group)),
            GroupState::Active => {
                let without_leader = without_leader(known, group);
                // A group without a leader applies no barriers either.
                problems.extend(without_leader.or_else(|| without_barriers(known, group.id)));
                problems.extend(missing_replicas(state, group, data_nodes));
                problems.extend(unhosted_voters(known, group));
            }
            _ => {}
        }
    }
    problems
}

fn not_created(known: &ClusterKnowledge<'_>, group: &Group) -> Option<Problem> {
    let id = group.id;
    let age = known.observed.creating_for.get(&id).copied().unwrap_or_default();
    (age > CREATION_LIMIT / 3).then(|| {
        let detail = format!("group {id} has been in state creating for {} s", age.as_secs());
        Problem::new(ProblemKind::GroupNotCreated, detail).of_group(id).lasting(age)
    })
}

/// A leader counts while its node is up and it reports to lead: a replica that is cut off from its group
/// keeps sending heartbeats.
fn without_leader(known: &ClusterKnowledge<'_>, group: &Group) -> Option<Problem> {
    let id = group.id;
    let observed = known.observed;
    let is_up =
        |node: NodeId| known.state.node(node).is_some_and(|node| node.state == NodeState::Up);
    let silent = observed.reported_for.get(&id).copied().unwrap_or(observed.leading_for);
    if group.leader.is_some_and(is_up) && silent <= known.failure_timeout {
        return None;
    }
    let last = group.leader.map(|node| format!(" (last leader: node {node})")).unwrap_or_default();
    let detail = format!("group {id} has no leader: its regions accept no writes{last}");
    Some(Problem::new(ProblemKind::GroupWithoutLeader, detail).of_group(id).lasting(silent))
}

fn without_barriers(known: &ClusterKnowledge<'_>, id: GroupId) -> Option<Problem> {
    let age = known.observed.lagging.get(&id)?;
    let detail = format!("group {id} has applied no barrier for {} s", age.as_secs());
    Some(Problem::new(ProblemKind::BarriersLate, detail).of_group(id).lasting(*age))
}

/// Returns the voters of a group. A group without a report has its first members.
fn voters(group: &Group) -> Vec<NodeId> {
    if group.voters.is_empty() {
        group.first_members.clone()
    } else {
        group.voters.iter().copied().collect()
    }
}

/// Describes a group with fewer replicas than possible, and the progress of adding them.
fn missing_replicas(state: &MetaState, group: &Group, data_nodes: usize) -> Option<Problem> {
    let id = group.id;
    let members = voters(group).len();
    let target = REPLICAS.min(data_nodes);
    if members >= target {
        return None;
    }
    let learners = group.learners.len();
    let of = if target == REPLICAS {
        format!("{REPLICAS} replicas")
    } else {
        format!("the {target} replicas that {target} data nodes can host")
    };
    let missing = (target - members).saturating_sub(learners);
    let hosts = group.replicas();
    let free = state
        .nodes()
        .filter(|node| node.role == NodeRole::Data && node.state == NodeState::Up)
        .filter(|node| !hosts.contains(&node.id))
        .count();
    let mut progress = Vec::new();
    if learners > 0 {
        progress.push(format!("{learners} catching up"));
    }
    if missing.min(free) > 0 {
        progress.push(format!("{} to be added", missing.min(free)));
    }
    match missing.saturating_sub(free) {
        0 => {}
        1 => progress.push("1 waiting for a data node to come up".to_owned()),
        nodes => progress.push(format!("{nodes} waiting for data nodes to come up")),
    }
    let detail = format!("group {id} has {members} of {of}: {}", progress.join(", "));
    Some(Problem::new(ProblemKind::GroupLacksReplicas, detail).of_group(id))
}

/// Returns a problem for each voter whose node is up and does not list a replica of the group in its
/// heartbeats: the group has fewer copies than its members suggest.
fn unhosted_voters(known: &ClusterKnowledge<'_>, group: &Group) -> Vec<Problem> {
    let observed = known.observed;
    let id = group.id;
    let is_unhosted = |node: &NodeId| {
        observed.beating.contains(node)
            && !is_silent(known, *node)
            && observed.replica(id, *node).is_none()
    };
    let problem = |node: NodeId| {
        let detail = format!("node {node} is a voter of group {id} and hosts no replica of it");
        Problem::new(ProblemKind::ReplicaMissing, detail).of_group(id).of_node(node)
    };
    voters(group).into_iter().filter(is_unhosted).map(problem).collect()
}
