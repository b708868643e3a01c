//! Events of nodes: up and down.

use tidewater_cluster_events::types::{NodeDown, NodeUp};
use tidewater_common::ids::NodeId;
use tidewater_events::Event;
use tidewater_proto::v1::{NodeRole, NodeState};

use crate::catalog::{MetaState, Node, ReplacedRecords};

/// Returns the events of the nodes that a change has replaced.
pub(super) fn events(replaced: &ReplacedRecords, state: &MetaState) -> Vec<Box<dyn Event>> {
    let mut events: Vec<Box<dyn Event>> = Vec::new();
    for (id, before) in &replaced.nodes {
        let before = before.as_deref();
        let after: Option<&Node> = state.node(*id).map(AsRef::as_ref);
        let was_up = before.filter(|node| is_up(node));
        match (was_up, after.filter(|node| is_up(node))) {
            (None, Some(node)) => events.push(Box::new(up(node))),
            (Some(before), Some(node)) if is_restarted(before, node) => {
                events.push(Box::new(down(
                    before,
                    "a new process of the node has registered".into(),
                )));
                events.push(Box::new(up(node)));
            }
            (Some(node), None) => {
                let cause = cause(node, after, displacing(node, replaced, state));
                events.push(Box::new(down(node, cause)));
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
    events
}

fn is_up(node: &Node) -> bool {
    node.state == NodeState::Up
}

/// Returns whether another process of the node has registered before the node was down.
fn is_restarted(before: &Node, after: &Node) -> bool {
    (before.boot, before.start_id) != (after.boot, after.start_id)
}

/// Returns the node that was registered at the address of a node in the same change.
fn displacing(node: &Node, replaced: &ReplacedRecords, state: &MetaState) -> Option<NodeId> {
    let others = replaced.nodes.iter().filter(|(id, _)| *id != node.id);
    let mut others = others.filter_map(|(id, _)| state.node(*id));
    let other = others
        .find(|other| is_up(other) && other.role == node.role && other.address == node.address);
    other.map(|other| other.id)
}

fn cause(node: &Node, after: Option<&Node>, displacing: Option<NodeId>) -> String {
    if let Some(other) = displacing {
        return format!("node {other} was registered at its address");
    }
    match (after.map(|after| after.state), node.role) {
        (Some(NodeState::Removed), NodeRole::Meta) => "it was removed from the meta group".into(),
        (None | Some(NodeState::Removed), _) => "it was removed from the cluster".into(),
        (Some(_), NodeRole::Meta) => "it does not answer the meta leader".into(),
        (Some(_), _) => "its heartbeats have stopped".into(),
    }
}

fn up(node: &Node) -> NodeUp {
    NodeUp {
        node_id: node.id.get(),
        node_kind: kind(node.role).to_owned(),
        address: node.address.clone(),
    }
}

fn down(node: &Node, cause: String) -> NodeDown {
    NodeDown {
        node_id: node.id.get(),
        node_kind: kind(node.role).to_owned(),
        address: node.address.clone(),
        cause,
    }
}

fn kind(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Meta => "meta",
        NodeRole::Compactor => "compactor",
        NodeRole::Data | NodeRole::Unspecified => "data",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidewater_proto::v1::{self, meta_command::Kind};

    use super::*;
    use crate::catalog_events::testing::{EventLog, text, value};
    use crate::commands::testing::{
        compactor, directory, raise_to_highest, registration, set_members, with_nodes,
    };
    use crate::commands::{apply_change, members_change};

    /// Type, id, kind and cause of the events since the last call.
    fn nodes(log: &mut EventLog) -> Vec<(String, u64, String, String)> {
        let described = |event| {
            let tidewater_events::Value::UInt64(id) = value(&event, "node_id") else {
                panic!("{event:?}")
            };
            let is_down = event.event_type == "node_down";
            let cause = if is_down { text(&event, "cause") } else { String::new() };
            (event.event_type.clone(), id, text(&event, "node_kind"), cause)
        };
        log.take().into_iter().map(described).collect()
    }

    fn node_up(id: u64, kind: &str) -> (String, u64, String, String) {
        ("node_up".into(), id, kind.into(), String::new())
    }

    fn node_down(id: u64, kind: &str, cause: &str) -> (String, u64, String, String) {
        ("node_down".into(), id, kind.into(), cause.into())
    }

    fn set(node_id: u64, state: NodeState) -> v1::SetNodeState {
        v1::SetNodeState { node_id, state: state.into() }
    }

    #[test]
    fn registered_nodes_are_up() {
        let mut log = EventLog::agreed(with_nodes(1));
        assert_eq!(nodes(&mut log), []);
        log.apply(Kind::RegisterNode(registration(2)));
        log.apply(Kind::RegisterNode(compactor(3, 1)));
        assert_eq!(nodes(&mut log), [node_up(102, "data"), node_up(103, "compactor")]);
        // Again, by the same process.
        log.apply(Kind::RegisterNode(registration(2)));
        assert_eq!(nodes(&mut log), []);
        let restarted = v1::RegisterNode { boot: 2, start_id: directory(9), ..registration(2) };
        log.apply(Kind::RegisterNode(restarted.clone()));
        let ended = node_down(102, "data", "a new process of the node has registered");
        assert_eq!(nodes(&mut log), [ended, node_up(102, "data")]);
        let moved = v1::RegisterNode { address: "127.0.0.1:9".into(), ..restarted };
        log.apply(Kind::RegisterNode(moved));
        assert_eq!(nodes(&mut log), []);
    }

    #[test]
    fn observed_states_are_recorded_at_edges() {
        let mut log = EventLog::agreed(with_nodes(3));
        log.apply(Kind::SetNodeState(set(101, NodeState::Down)));
        let silent = "its heartbeats have stopped";
        assert_eq!(nodes(&mut log), [node_down(101, "data", silent)]);
        log.apply(Kind::SetNodeState(set(101, NodeState::Down)));
        assert_eq!(nodes(&mut log), []);
        let mut state = log.state.clone();
        raise_to_highest(&mut state);
        let mut log = EventLog::agreed(state);
        let observed =
            [set(101, NodeState::Up), set(102, NodeState::Down), set(999, NodeState::Up)];
        let observed = v1::RecordObservations { nodes: observed.to_vec(), ..Default::default() };
        log.apply(Kind::RecordObservations(observed));
        let expected = [node_up(101, "data"), node_down(102, "data", silent)];
        assert_eq!(nodes(&mut log), expected);
    }

    #[test]
    fn removed_and_displaced_nodes_are_down() {
        let mut log = EventLog::agreed(with_nodes(2));
        log.apply(Kind::SetNodeState(set(101, NodeState::Removed)));
        let removed = "it was removed from the cluster";
        assert_eq!(nodes(&mut log), [node_down(101, "data", removed)]);
        let at_102 = registration(2).address;
        log.apply(Kind::RegisterNode(v1::RegisterNode { address: at_102, ..registration(5) }));
        let displaced = node_down(102, "data", "node 103 was registered at its address");
        assert_eq!(nodes(&mut log), [displaced, node_up(103, "data")]);
        log.apply(Kind::RegisterNode(compactor(6, 1)));
        log.apply(Kind::RegisterNode(compactor(7, 1)));
        let displaced = node_down(104, "compactor", "node 105 was registered at its address");
        let found = nodes(&mut log);
        assert_eq!(found[0], node_up(104, "compactor"));
        assert_eq!(found[1..], [node_up(105, "compactor"), displaced]);
        // A node that was down is not down again.
        log.apply(Kind::SetNodeState(set(102, NodeState::Removed)));
        assert_eq!(nodes(&mut log), []);
    }

    fn observe(log: &mut EventLog, node_id: u64, to: NodeState, boot: u64, start_id: &str) {
        let start_id = start_id.to_owned();
        let observed = v1::ObservedNode { node_id, state: to.into(), boot, start_id };
        let observed_nodes = vec![observed];
        let observed = v1::RecordObservations { observed_nodes, ..Default::default() };
        log.apply(Kind::RecordObservations(observed));
    }

    #[test]
    fn late_observation_of_an_earlier_process_has_no_event() {
        let mut state = with_nodes(1);
        raise_to_highest(&mut state);
        let mut log = EventLog::agreed(state);
        let restarted = v1::RegisterNode { boot: 2, start_id: directory(9), ..registration(1) };
        log.apply(Kind::RegisterNode(restarted));
        let ended = node_down(101, "data", "a new process of the node has registered");
        assert_eq!(nodes(&mut log), [ended, node_up(101, "data")]);
        observe(&mut log, 101, NodeState::Down, 0, "");
        assert_eq!(nodes(&mut log), []);
        observe(&mut log, 101, NodeState::Down, 2, &directory(9));
        assert_eq!(nodes(&mut log), [node_down(101, "data", "its heartbeats have stopped")]);
    }

    #[test]
    fn silent_meta_node_is_down_until_it_answers() {
        let mut state = with_nodes(0);
        set_members(&mut state, &[1, 2]);
        raise_to_highest(&mut state);
        let mut log = EventLog::agreed(state);
        for _ in 0..2 {
            observe(&mut log, 2, NodeState::Down, 0, "");
        }
        assert_eq!(nodes(&mut log), [node_down(2, "meta", "it does not answer the meta leader")]);
        observe(&mut log, 2, NodeState::Up, 0, "");
        assert_eq!(nodes(&mut log), [node_up(2, "meta")]);
    }

    #[test]
    fn members_of_the_meta_group_are_nodes() {
        let mut state = with_nodes(1);
        set_members(&mut state, &[1, 2]);
        let members = BTreeMap::from([
            (NodeId(2), "meta-2:1".to_owned()),
            (NodeId(3), "meta-3:1".to_owned()),
        ]);
        let change = members_change(&state, &members);
        let effects = apply_change(&mut state, change).unwrap();
        let events = events(&effects.replaced, &state);
        let added = NodeUp { node_id: 3, node_kind: "meta".into(), address: "meta-3:1".into() };
        assert_eq!(events[0].as_any().downcast_ref(), Some(&added));
        let removed: &NodeDown = events[1].as_any().downcast_ref().unwrap();
        assert_eq!((removed.node_id, events.len()), (1, 2));
        assert_eq!(removed.cause, "it was removed from the meta group");
    }
}
