//! Problems of drains: replicas that no other node can have.

use std::collections::BTreeSet;

use tidewater_common::ids::{GroupId, NodeId};
use tidewater_common::problem::Problem;
use tidewater_proto::v1::{NodeRole, NodeState, ProblemKind};

use super::ClusterKnowledge;
use crate::catalog::{Group, Node};
use crate::commands::drains::groups_on;
use crate::leader::REPLICAS;

/// Most groups that a problem names.
const MAX_NAMED: usize = 10;

pub(super) fn problems(known: &ClusterKnowledge<'_>) -> Vec<Problem> {
    let data = || known.state.nodes().filter(|node| node.role == NodeRole::Data);
    let usable: BTreeSet<NodeId> = data()
        .filter(|node| node.state == NodeState::Up && !node.draining)
        .map(|node| node.id)
        .collect();
    let draining = data().filter(|node| node.draining && node.state != NodeState::Removed);
    draining.filter_map(|node| waiting(known, node, &usable)).collect()
}

/// Returns the problem of a draining node with groups that cannot move on.
fn waiting(
    known: &ClusterKnowledge<'_>,
    node: &Node,
    usable: &BTreeSet<NodeId>,
) -> Option<Problem> {
    let groups = || groups_on(known.state, node.id);
    let leaderless = groups().filter(|group| !has_leader(known, group)).map(|group| group.id);
    let homeless = groups().filter(|group| !has_room(group, usable)).map(|group| group.id);
    let reasons = [
        (leaderless.collect::<Vec<_>>(), "without a leader"),
        (homeless.collect(), "whose replicas no other data node that is up can have"),
    ];
    let reasons = reasons.iter().filter(|(groups, _)| !groups.is_empty());
    let reasons: Vec<String> =
        reasons.map(|(groups, why)| format!("{} {why}", listed(groups))).collect();
    (!reasons.is_empty()).then(|| {
        let detail = format!("the drain of node {} waits for {}", node.id, reasons.join(", and "));
        Problem::new(ProblemKind::DrainWaits, detail).of_node(node.id)
    })
}

fn has_leader(known: &ClusterKnowledge<'_>, group: &Group) -> bool {
    let observed = known.observed;
    let silent = observed.reported_for.get(&group.id).copied().unwrap_or(observed.leading_for);
    silent <= known.failure_timeout
}

/// Returns whether the group has enough replicas on nodes that stay, or a node can take one.
fn has_room(group: &Group, usable: &BTreeSet<NodeId>) -> bool {
    let replicas = group.replicas();
    usable.intersection(&replicas).count() >= REPLICAS || !usable.is_subset(&replicas)
}

fn listed(groups: &[GroupId]) -> String {
    let named: Vec<String> = groups.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    let more = groups.len().saturating_sub(named.len());
    let noun = if groups.len() == 1 { "group" } else { "groups" };
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{noun} {}{rest}", named.join(", "))
}
