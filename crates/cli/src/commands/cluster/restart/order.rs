//! The order of a rolling restart. Pure.

use serde::Serialize;
use tidewater_proto::v1::{Node, NodeRole, NodeState};

/// A node to restart. The JSON field names are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RestartedNode {
    pub(super) node_id: u64,
    pub(super) role: &'static str,
    pub(super) address: String,
}

impl RestartedNode {
    pub(super) fn node_role(&self) -> NodeRole {
        match self.role {
            "meta" => NodeRole::Meta,
            "data" => NodeRole::Data,
            _ => NodeRole::Compactor,
        }
    }
}

/// Returns the nodes that are up, in the order of an upgrade: meta nodes, their leader after the others, then data nodes, then
/// compactors; each by id.
pub(super) fn restart_order(nodes: &[Node], meta_leader: u64) -> Vec<RestartedNode> {
    let rank = |node: &Node| match node.role() {
        NodeRole::Meta if node.node_id != meta_leader => 0,
        NodeRole::Meta => 1,
        NodeRole::Data => 2,
        NodeRole::Compactor | NodeRole::Unspecified => 3,
    };
    let is_up =
        |node: &&Node| node.state() == NodeState::Up && node.role() != NodeRole::Unspecified;
    let mut up: Vec<&Node> = nodes.iter().filter(is_up).collect();
    up.sort_by_key(|node| (rank(node), node.node_id));
    let named = up.into_iter().map(|node| RestartedNode {
        node_id: node.node_id,
        role: match node.role() {
            NodeRole::Meta => "meta",
            NodeRole::Data => "data",
            NodeRole::Compactor | NodeRole::Unspecified => "compactor",
        },
        address: node.address.clone(),
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_restart_in_the_order_of_upgrades() {
        let node = |node_id, role: NodeRole, state: NodeState| Node {
            node_id,
            role: role.into(),
            state: state.into(),
            address: format!("n{node_id}:1"),
            ..Node::default()
        };
        let up = NodeState::Up;
        let nodes = [
            node(1, NodeRole::Meta, up),
            node(2, NodeRole::Meta, up),
            node(102, NodeRole::Data, up),
            node(101, NodeRole::Data, up),
            node(103, NodeRole::Data, NodeState::Down),
            node(104, NodeRole::Data, NodeState::Removed),
            node(201, NodeRole::Compactor, up),
        ];
        let order = restart_order(&nodes, 1);
        let ids: Vec<u64> = order.iter().map(|node| node.node_id).collect();
        assert_eq!(ids, [2, 1, 101, 102, 201]);
        let roles: Vec<NodeRole> = order.iter().map(RestartedNode::node_role).collect();
        assert_eq!(
            (roles[0], roles[2], roles[4]),
            (NodeRole::Meta, NodeRole::Data, NodeRole::Compactor)
        );
        assert_eq!(
            serde_json::to_string(&order[2]).unwrap(),
            r#"{"node_id":101,"role":"data","address":"n101:1"}"#
        );
    }
}
