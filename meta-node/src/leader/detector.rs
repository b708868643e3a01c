//! Failure detector: nodes are up or down by the time since their last heartbeat. Pure.

use std::time::Duration;

use tidewater_proto::v1::{self, NodeRole, NodeState};

use super::ObservedCluster;
use crate::catalog::{MetaState, Node};

/// Returns the data nodes and compactors whose recorded state contradicts their heartbeats, with the observed state.
pub(crate) fn detect(
    state: &MetaState,
    observed: &ObservedCluster,
    timeout: Duration,
) -> Vec<v1::ObservedNode> {
    let nodes = state.nodes().filter(|node| node.role != NodeRole::Meta);
    let changed = nodes.filter_map(|node| {
        let silent_for = observed.silent_for.get(&node.id).copied();
        // A node without a heartbeat in this leader's term gets a complete new timeout.
        let to = contradiction(node.state, silent_for, observed.leading_for, timeout)?;
        let is_wrong = to == NodeState::Down && is_registering(node, observed);
        (!is_wrong).then(|| observation(node, to))
    });
    changed.collect()
}

/// Returns the state of a node that contradicts the recorded one. `silent_for`: time since its last sign of life in this term;
/// without one, the time counts for which the leader has known the node.
pub(super) fn contradiction(
    recorded: NodeState,
    silent_for: Option<Duration>,
    known_for: Duration,
    timeout: Duration,
) -> Option<NodeState> {
    let is_silent = silent_for.unwrap_or(known_for) > timeout;
    match recorded {
        NodeState::Up if is_silent => Some(NodeState::Down),
        NodeState::Down if silent_for.is_some() && !is_silent => Some(NodeState::Up),
        _ => None,
    }
}

/// Returns the observation of a state. It names the start that the catalog has: a process that registers before the observation
/// is applied was not observed.
pub(super) fn observation(node: &Node, to: NodeState) -> v1::ObservedNode {
    v1::ObservedNode {
        node_id: node.id.get(),
        state: to.into(),
        boot: node.boot.get(),
        start_id: node.start_id.map_or_else(String::new, |id| id.to_string()),
    }
}

/// Returns whether the node's process registers now: its silence is that of an earlier process.
fn is_registering(node: &Node, observed: &ObservedCluster) -> bool {
    node.start_id.is_some_and(|start_id| observed.registering.contains(&start_id))
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::NodeId;
    use tidewater_proto::v1::meta_command::Kind;
    use uuid::Uuid;

    use super::*;
    use crate::commands::testing::{registration, run, with_nodes};

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn observed(leading: u64, silent: &[(u64, u64)]) -> ObservedCluster {
        ObservedCluster {
            leading_for: Duration::from_secs(leading),
            silent_for: silent
                .iter()
                .map(|(node, seconds)| (NodeId(*node), Duration::from_secs(*seconds)))
                .collect(),
            ..ObservedCluster::default()
        }
    }

    /// Ids and observed states.
    fn changes(state: &MetaState, observed: &ObservedCluster) -> Vec<(u64, NodeState)> {
        let changed = detect(state, observed, TIMEOUT);
        changed.iter().map(|of| (of.node_id, of.state())).collect()
    }

    #[test]
    fn silent_node_goes_down_and_heartbeat_brings_it_up() {
        let mut state = with_nodes(3);
        let down = v1::SetNodeState { node_id: 103, state: NodeState::Down.into() };
        run(&mut state, Kind::SetNodeState(down)).unwrap();
        let cases: &[(ObservedCluster, &[(u64, NodeState)])] = &[
            (observed(9, &[(101, 1), (102, 5), (103, 6)]), &[]),
            (
                observed(9, &[(101, 6), (102, 1), (103, 1)]),
                &[(101, NodeState::Down), (103, NodeState::Up)],
            ),
            // A new leader restarts every timer.
            (observed(5, &[]), &[]),
            (observed(6, &[(101, 1)]), &[(102, NodeState::Down)]),
        ];
        for (observed, expected) in cases {
            assert_eq!(changes(&state, observed), *expected, "{observed:?}");
        }
    }

    // The catalog has the new process as up before its registration counts as a sign of life.
    #[test]
    fn node_is_up_while_its_process_registers() {
        let mut state = with_nodes(0);
        let start_id = Uuid::from_u128(7);
        let register = v1::RegisterNode { start_id: start_id.to_string(), ..registration(1) };
        run(&mut state, Kind::RegisterNode(register)).unwrap();
        let silent = observed(9, &[(101, 6)]);
        assert_eq!(changes(&state, &silent), [(101, NodeState::Down)]);
        let registering = ObservedCluster { registering: [start_id].into(), ..silent };
        assert_eq!(changes(&state, &registering), []);
        let other = ObservedCluster { registering: [Uuid::nil()].into(), ..registering };
        assert_eq!(changes(&state, &other), [(101, NodeState::Down)]);
    }

    #[test]
    fn observation_names_the_start_in_the_catalog() {
        let mut state = with_nodes(1);
        let start = |state: &MetaState| {
            let observed = detect(state, &observed(9, &[(101, 6)]), TIMEOUT).remove(0);
            (observed.boot, observed.start_id)
        };
        assert_eq!(start(&state), (0, String::new()));
        let start_id = Uuid::from_u128(7).to_string();
        let register = v1::RegisterNode { boot: 4, start_id: start_id.clone(), ..registration(1) };
        run(&mut state, Kind::RegisterNode(register)).unwrap();
        assert_eq!(start(&state), (4, start_id));
    }

    #[test]
    fn removed_node_stays_removed_after_a_heartbeat() {
        let mut state = with_nodes(1);
        let removed = v1::SetNodeState { node_id: 101, state: NodeState::Removed.into() };
        run(&mut state, Kind::SetNodeState(removed)).unwrap();
        assert_eq!(detect(&state, &observed(9, &[(101, 0)]), TIMEOUT), []);
    }
}
