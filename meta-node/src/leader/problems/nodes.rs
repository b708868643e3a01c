//! Problems of data nodes and compactors: those that they report, and those that only the leader sees.

use std::time::Duration;

use tidewater_common::ids::NodeId;
use tidewater_common::problem::Problem;
use tidewater_proto::v1::{self, GroupState, HookState, NodeRole, NodeState, ProblemKind};

use super::ClusterKnowledge;
use crate::catalog::{MetaState, Node};

pub(super) fn problems(known: &ClusterKnowledge<'_>) -> Vec<Problem> {
    let nodes = known.state.nodes().filter(|node| node.role != NodeRole::Meta);
    let mut problems = Vec::new();
    for node in nodes {
        match node.state {
            NodeState::Down if hosts_replica(known.state, node.id) => {
                problems.push(down(known.state, node));
            }
            NodeState::Removed | NodeState::Down => {}
            // The last report of a node that is silent is no longer true.
            _ if is_silent(known, node.id) => {}
            _ => problems.extend(of_live_node(known, node)),
        }
    }
    problems
}

fn down(state: &MetaState, node: &Node) -> Problem {
    let age = state.header().time_ms.saturating_sub(node.state_since_ms);
    let detail = format!(
        "{} node {} at {} is down: it sends no heartbeats",
        role(node.role),
        node.id,
        node.address
    );
    Problem::new(ProblemKind::NodeDown, detail).of_node(node.id).lasting(Duration::from_millis(age))
}

fn of_live_node(known: &ClusterKnowledge<'_>, node: &Node) -> Vec<Problem> {
    let observed = known.observed;
    let mut problems = observed.conditions.get(&node.id).cloned().unwrap_or_default();
    if let Some((age, error)) = observed.unreachable.get(&node.id) {
        let detail = format!(
            "{} node {} at {} sends heartbeats, but answers no new connections: {error}",
            role(node.role),
            node.id,
            node.address
        );
        let problem = Problem::new(ProblemKind::NodeUnreachable, detail).of_node(node.id);
        problems.push(problem.lasting(*age));
    }
    if known.differing_clocks.contains(&node.id) {
        let detail = format!("node {}: its clock differs from the cluster's clocks", node.id);
        problems.push(Problem::new(ProblemKind::ClockDiffers, detail).of_node(node.id));
    }
    let hooks = observed.hooks.get(&node.id).into_iter().flat_map(|hooks| hooks.iter());
    problems.extend(hooks.filter_map(|hook| of_hook(node.id, hook)));
    problems
}

fn of_hook(node: NodeId, hook: &v1::HookReport) -> Option<Problem> {
    let state = match hook.state() {
        HookState::Suspended => "is suspended after repeated failures",
        HookState::Broken => "cannot be created",
        _ => return None,
    };
    let name = &hook.name;
    let detail = format!("node {node}: hook {name:?} {state}: {}", hook.last_error);
    Some(Problem::new(ProblemKind::HookSuspended, detail).of_node(node).of_hook(name))
}

/// Returns whether the last report of a node is older than the failure timeout, and may be wrong.
pub(super) fn is_silent(known: &ClusterKnowledge<'_>, node: NodeId) -> bool {
    let silent = known.observed.silent_for.get(&node);
    silent.is_some_and(|silent| *silent > known.failure_timeout)
}

/// Returns whether an active group has a replica on the node. Other nodes are not a problem when they
/// are down: a compactor keeps no state, and a node with a lost data directory rejoins as a new node,
/// which replaces the old one.
fn hosts_replica(state: &MetaState, node: NodeId) -> bool {
    state
        .groups()
        .filter(|group| group.state == GroupState::Active)
        .any(|group| group.replicas().contains(&node))
}

fn role(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Data => "data",
        NodeRole::Compactor => "compactor",
        NodeRole::Meta => "meta",
        NodeRole::Unspecified => "unknown",
    }
}
