//! Data nodes as the planner sees them: which are lost or draining, and their numbers of replicas.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{NodeRole, NodeState};

use super::ObservedCluster;
use super::plan::PlacementOptions;
use crate::catalog::{Group, MetaState, Node};

/// Time that a new leader gives nodes that were down to return, before it counts the time for which they
/// were down under its predecessors.
pub(super) const RETURN_LIMIT: Duration = Duration::from_secs(30);

/// Data nodes with their numbers of replicas.
pub(super) struct NodeLoad<'a> {
    nodes: BTreeMap<NodeId, &'a Node>,
    replicas: BTreeMap<NodeId, usize>,
    /// Nodes that are up and not draining, with their numbers of replicas: fewest replicas first.
    up: BTreeSet<(usize, NodeId)>,
    lost: BTreeSet<NodeId>,
}

impl<'a> NodeLoad<'a> {
    pub(super) fn new(
        state: &'a MetaState,
        observed: &ObservedCluster,
        options: &PlacementOptions,
    ) -> Self {
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
        for group in state.live_groups() {
            for node in group.replicas() {
                *replicas.entry(node).or_default() += 1;
            }
        }
        let up = nodes.values().filter(|node| node.state == NodeState::Up && !node.draining);
        let up = up.map(|node| (replicas.get(&node.id).copied().unwrap_or(0), node.id)).collect();
        Self { nodes, replicas, up, lost }
    }

    /// Ids of all data nodes that are neither removed nor draining, ascending.
    pub(super) fn lasting(&self) -> impl Iterator<Item = NodeId> {
        let lasting = |node: &&&Node| node.state != NodeState::Removed && !node.draining;
        self.nodes.values().filter(lasting).map(|node| node.id)
    }

    /// The usable node that is to get the replicas of a draining one among these members.
    pub(super) fn replacement(&self, members: &BTreeSet<NodeId>) -> Option<NodeId> {
        let draining = members.iter().filter_map(|node| self.nodes.get(node));
        let mut replacements =
            draining.filter(|node| node.draining).filter_map(|node| node.replacement);
        replacements.find(|node| self.is_usable(*node) && !members.contains(node))
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.state == NodeState::Up)
    }

    /// Returns whether a node is lost. The planner never adds unknown nodes as members: they count as lost.
    pub(super) fn is_lost(&self, node: NodeId) -> bool {
        self.lost.contains(&node) || !self.nodes.contains_key(&node)
    }

    pub(super) fn is_draining(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.draining)
    }

    /// Returns whether a node is up and not draining.
    pub(super) fn is_usable(&self, node: NodeId) -> bool {
        self.is_up(node) && !self.is_draining(node)
    }

    /// Returns whether a node keeps its replicas: it is neither lost nor draining.
    pub(super) fn stays(&self, node: NodeId) -> bool {
        !self.is_lost(node) && !self.is_draining(node)
    }

    /// Number of replicas of other groups on a node.
    pub(super) fn replicas_without(&self, group: &Group, node: NodeId) -> usize {
        let all = self.replicas.get(&node).copied().unwrap_or(0);
        all - usize::from(group.replicas().contains(&node)).min(all)
    }

    /// Nodes that are up and not draining, with their numbers of replicas: fewest replicas first.
    pub(super) fn usable(&self) -> impl DoubleEndedIterator<Item = (usize, NodeId)> {
        self.up.iter().copied()
    }

    /// Nodes that are up, not draining and not excluded, fewest replicas first.
    pub(super) fn candidates(&self, excluded: &BTreeSet<NodeId>) -> impl Iterator<Item = NodeId> {
        self.up.iter().map(|(_, id)| *id).filter(|id| !excluded.contains(id))
    }

    /// Counts a replica that a step will add to a node.
    pub(super) fn add_replica(&mut self, node: NodeId) {
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
pub(super) fn is_lost(down: Duration, silent: Duration, replace_after: Duration) -> bool {
    silent >= replace_after || (down >= replace_after && silent >= RETURN_LIMIT.min(replace_after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Repairs do not depend on the progress of replicated time.
    #[test]
    fn node_is_lost_after_silence_under_any_leader() {
        // Seconds since it went down by replicated time, seconds of silence towards this leader.
        let cases = [
            (0, 599, false),
            (0, 600, true),
            (600, 600, true),
            (599, 30, false),
            (600, 30, true),
            // Replicated time has just caught up after an outage: the node may be starting.
            (600, 29, false),
            (86_400, 0, false),
        ];
        let seconds = Duration::from_secs;
        for (down, silent, lost) in cases {
            assert_eq!(
                is_lost(seconds(down), seconds(silent), seconds(600)),
                lost,
                "{down} {silent}"
            );
        }
        assert!(is_lost(seconds(5), seconds(5), seconds(5)), "a delay below the limit of returns");
    }
}
