//! Data nodes that leave: a draining node gets no replicas and loses those that it has, a removed one is refused from
//! then on.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewater_common::agreed_limits::REPLICAS_PER_GROUP;
use tidewater_common::ids::{GroupId, NodeId};
use tidewater_proto::v1::{self, NodeRole, NodeState};

use super::{CommandError, NodeCommandError};
use crate::catalog::{CatalogChange, Group, MetaState, Node};

/// Marks a data node as draining, or takes that back.
pub(super) fn set_draining(
    state: &MetaState,
    command: &v1::SetNodeDraining,
) -> Result<CatalogChange, CommandError> {
    let node = data_node(state, NodeId(command.node_id))?;
    let named = (command.replacement_id != 0).then_some(NodeId(command.replacement_id));
    // A drain that has begun keeps its replacement until another one is named.
    let replacement = named.or(node.replacement).filter(|_| command.draining);
    if (node.draining, node.replacement) == (command.draining, replacement) {
        return Ok(CatalogChange::default());
    }
    if let Some(replacement) = named.filter(|_| command.draining) {
        check_replacement(state, node, replacement)?;
    }
    if command.draining && !node.draining {
        check_room(state, node)?;
    }
    Ok(changed(Node { draining: command.draining, replacement, ..node.as_ref().clone() }))
}

/// Checks that a node can have the replicas of another one.
fn check_replacement(
    state: &MetaState,
    node: &Node,
    replacement: NodeId,
) -> Result<(), CommandError> {
    let refused = |why| {
        Err(CommandError::Node(NodeCommandError::Replacement { node: node.id, replacement, why }))
    };
    let other = match data_node(state, replacement) {
        // `NodeAlreadyRemoved` would be understood as the end of the replacement.
        Err(CommandError::Node(NodeCommandError::NodeAlreadyRemoved(_))) => {
            return refused("that node was removed");
        }
        other => other?,
    };
    let why = if other.id == node.id {
        "it is the same node"
    } else if other.draining {
        "that node is draining itself: `tidewater node drain --cancel` takes it back"
    } else if other.state != NodeState::Up {
        "that node is down: start it first"
    } else {
        return Ok(());
    };
    refused(why)
}

/// Removes a data node that hosts nothing.
pub(super) fn remove(
    state: &MetaState,
    command: &v1::RemoveNode,
) -> Result<CatalogChange, CommandError> {
    let node = data_node(state, NodeId(command.node_id))?;
    let groups: Vec<GroupId> = groups_on(state, node.id).map(|group| group.id).collect();
    if !groups.is_empty() {
        return Err(NodeCommandError::NodeInUse { node: node.id, groups }.into());
    }
    // The planner may be about to give it a replica.
    if !node.draining && node.state == NodeState::Up {
        return Err(NodeCommandError::NodeNotDraining(node.id).into());
    }
    Ok(changed(Node {
        state: NodeState::Removed,
        state_since_ms: state.header().time_ms,
        ..node.as_ref().clone()
    }))
}

fn changed(node: Node) -> CatalogChange {
    CatalogChange { nodes: vec![node], ..CatalogChange::default() }
}

fn data_node(state: &MetaState, id: NodeId) -> Result<&Arc<Node>, CommandError> {
    let node = state.node(id).ok_or(CommandError::Node(NodeCommandError::NodeNotFound(id)))?;
    match (node.role, node.state) {
        (NodeRole::Data, NodeState::Removed) => {
            Err(CommandError::Node(NodeCommandError::NodeAlreadyRemoved(id)))
        }
        (NodeRole::Data, _) => Ok(node),
        (role, _) => Err(CommandError::Node(NodeCommandError::NotADataNode { node: id, role })),
    }
}

/// Returns the groups with a replica on a node.
pub(crate) fn groups_on(state: &MetaState, node: NodeId) -> impl Iterator<Item = &Arc<Group>> {
    state.live_groups().filter(move |group| group.replicas().contains(&node))
}

/// Checks that each group of the node can have all its replicas on other nodes: it never has fewer on the way.
fn check_room(state: &MetaState, node: &Node) -> Result<(), CommandError> {
    let others: BTreeSet<NodeId> = state
        .nodes()
        .filter(|other| other.role == NodeRole::Data && other.state != NodeState::Removed)
        .filter(|other| other.id != node.id && !other.draining)
        .map(|other| other.id)
        .collect();
    let groups: Vec<GroupId> = groups_on(state, node.id).map(|group| group.id).collect();
    if groups.is_empty() || others.len() >= REPLICAS_PER_GROUP {
        return Ok(());
    }
    Err(CommandError::Node(NodeCommandError::NoRoomForGroups {
        node: node.id,
        groups,
        others: others.len(),
    }))
}

#[cfg(test)]
mod tests {
    use tidewater_common::reason::{Effect, RetryAction, facts};
    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::commands::testing::{compactor, raise_to_highest, registration, run, with_nodes};

    fn drain(state: &mut MetaState, node_id: u64, draining: bool) -> Result<(), CommandError> {
        run(
            state,
            Kind::SetNodeDraining(v1::SetNodeDraining { node_id, draining, replacement_id: 0 }),
        )
        .map(drop)
    }

    fn removed(state: &mut MetaState, node_id: u64) -> Result<(), CommandError> {
        run(state, Kind::RemoveNode(v1::RemoveNode { node_id })).map(drop)
    }

    /// Four data nodes; group 1 has replicas on the first three.
    fn cluster() -> MetaState {
        let mut state = with_nodes(4);
        let first_members = vec![101, 102, 103];
        run(&mut state, Kind::CreateGroup(v1::CreateGroup { first_members, home_groups: 0 }))
            .unwrap();
        raise_to_highest(&mut state);
        state
    }

    fn is_draining(state: &MetaState, node: u64) -> bool {
        state.node(NodeId(node)).unwrap().draining
    }

    #[test]
    fn node_is_drained_and_removed_when_it_is_empty() {
        let mut state = cluster();
        drain(&mut state, 103, true).unwrap();
        assert!(is_draining(&state, 103));
        assert_eq!(MetaState::from_rows(state.rows().unwrap()).unwrap(), state);
        let after = state.clone();
        drain(&mut state, 103, true).unwrap();
        assert_eq!(state, after);
        let (node, groups) = (NodeId(103), vec![GroupId(1)]);
        assert_eq!(
            removed(&mut state, 103),
            Err(CommandError::Node(NodeCommandError::NodeInUse { node, groups }))
        );
        drain(&mut state, 103, false).unwrap();
        assert!(!is_draining(&state, 103));
        let idle = Err(CommandError::Node(NodeCommandError::NodeNotDraining(NodeId(104))));
        assert_eq!(removed(&mut state, 104), idle);
        drain(&mut state, 104, true).unwrap();
        removed(&mut state, 104).unwrap();
        assert_eq!(state.node(NodeId(104)).unwrap().state, NodeState::Removed);
        for again in [removed(&mut state, 104), drain(&mut state, 104, true)] {
            assert_eq!(
                again,
                Err(CommandError::Node(NodeCommandError::NodeAlreadyRemoved(NodeId(104))))
            );
        }
        let returned = run(&mut state, Kind::RegisterNode(registration(4)));
        assert_eq!(returned, Err(CommandError::Node(NodeCommandError::NodeRemoved(NodeId(104)))));
    }

    #[test]
    fn drain_without_room_names_the_groups() {
        let mut state = cluster();
        drain(&mut state, 104, true).unwrap();
        let refused = drain(&mut state, 103, true).unwrap_err();
        let (node, groups) = (NodeId(103), vec![GroupId(1)]);
        assert_eq!(
            refused,
            CommandError::Node(NodeCommandError::NoRoomForGroups { node, groups, others: 2 })
        );
        assert!(refused.to_string().contains("group 1"), "{refused}");
        drain(&mut state, 104, false).unwrap();
        drain(&mut state, 103, true).unwrap();
    }

    fn replace(state: &mut MetaState, node_id: u64, by: u64) -> Result<(), CommandError> {
        let command = v1::SetNodeDraining { node_id, draining: true, replacement_id: by };
        run(state, Kind::SetNodeDraining(command)).map(drop)
    }

    fn replacement_of(state: &MetaState, node: u64) -> Option<u64> {
        state.node(NodeId(node)).unwrap().replacement.map(NodeId::get)
    }

    #[test]
    fn drain_keeps_its_replacement_until_it_is_taken_back() {
        let mut state = cluster();
        replace(&mut state, 103, 104).unwrap();
        assert_eq!(replacement_of(&state, 103), Some(104));
        assert_eq!(MetaState::from_rows(state.rows().unwrap()).unwrap(), state);
        let before = state.clone();
        drain(&mut state, 103, true).unwrap();
        replace(&mut state, 103, 104).unwrap();
        assert_eq!(state, before);
        replace(&mut state, 103, 102).unwrap();
        assert_eq!(replacement_of(&state, 103), Some(102));
        drain(&mut state, 103, false).unwrap();
        assert_eq!((is_draining(&state, 103), replacement_of(&state, 103)), (false, None));
    }

    #[test]
    fn invalid_replacement_is_refused() {
        let mut state = cluster();
        let refused = |state: &mut MetaState, by| replace(state, 101, by).unwrap_err().to_string();
        assert!(refused(&mut state, 101).contains("the same node"));
        assert_eq!(refused(&mut state, 999), "node 999 does not exist");
        let down = v1::SetNodeState { node_id: 104, state: NodeState::Down.into() };
        run(&mut state, Kind::SetNodeState(down)).unwrap();
        assert!(refused(&mut state, 104).contains("start it first"));
        let up = v1::SetNodeState { node_id: 104, state: NodeState::Up.into() };
        run(&mut state, Kind::SetNodeState(up)).unwrap();
        drain(&mut state, 104, true).unwrap();
        assert!(refused(&mut state, 104).contains("draining itself"));
        removed(&mut state, 104).unwrap();
        assert!(refused(&mut state, 104).contains("was removed"));
    }

    #[test]
    fn commands_on_removed_node_are_not_retried() {
        let mut state = cluster();
        drain(&mut state, 104, true).unwrap();
        removed(&mut state, 104).unwrap();
        let refused = [
            drain(&mut state, 104, true),
            drain(&mut state, 104, false),
            replace(&mut state, 104, 101),
            replace(&mut state, 101, 104),
            removed(&mut state, 104),
        ];
        for error in refused.map(Result::unwrap_err) {
            let facts = facts(error.reason());
            assert_eq!((facts.effect, facts.retry), (Effect::None, RetryAction::Stop), "{error}");
            assert!(error.to_string().contains("removed"), "{error}");
        }
    }

    #[test]
    fn only_data_nodes_are_drained_and_removed() {
        let mut state = cluster();
        run(&mut state, Kind::RegisterNode(compactor(200, 1))).unwrap();
        let node = state.nodes().find(|node| node.role == NodeRole::Compactor).unwrap().id;
        let role = NodeRole::Compactor;
        for refused in [drain(&mut state, node.get(), true), removed(&mut state, node.get())] {
            assert_eq!(
                refused,
                Err(CommandError::Node(NodeCommandError::NotADataNode { node, role }))
            );
        }
        for unknown in [drain(&mut state, 999, true), removed(&mut state, 999)] {
            assert_eq!(
                unknown,
                Err(CommandError::Node(NodeCommandError::NodeNotFound(NodeId(999))))
            );
        }
    }
}
