//! Failure detector: nodes are up or down by the time since their last heartbeat. Pure.

use std::time::Duration;

use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{NodeRole, NodeState};

use super::ObservedCluster;
use crate::catalog::{MetaState, Node};

/// Returns the nodes whose recorded state contradicts their heartbeats, with the new state.
pub(crate) fn detect(
    state: &MetaState,
    observed: &ObservedCluster,
    timeout: Duration,
) -> Vec<(NodeId, NodeState)> {
    let mut changes = Vec::new();
    for node in state.nodes().filter(|node| node.role != NodeRole::Meta) {
        // A node without a heartbeat in this leader's term gets a complete new timeout.
        let since_heartbeat = observed.silent_for.get(&node.id);
        let silent = since_heartbeat.copied().unwrap_or(observed.leading_for);
        match node.state {
            NodeState::Up if silent > timeout && !is_registering(node, observed) => {
                changes.push((node.id, NodeState::Down))
            }
            NodeState::Down if since_heartbeat.is_some_and(|silent| *silent <= timeout) => {
                changes.push((node.id, NodeState::Up));
            }
            _ => {}
        }
    }
    changes
}

/// Returns whether the node's process registers now: its silence is that of an earlier process.
fn is_registering(node: &Node, observed: &ObservedCluster) -> bool {
    node.start_id.is_some_and(|start_id| observed.registering.contains(&start_id))
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::{self, meta_command::Kind};
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
            let changes: Vec<_> = detect(&state, observed, TIMEOUT)
                .into_iter()
                .map(|(id, to)| (id.get(), to))
                .collect();
            assert_eq!(changes, *expected, "{observed:?}");
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
        assert_eq!(detect(&state, &silent, TIMEOUT), [(NodeId(101), NodeState::Down)]);
        let registering = ObservedCluster { registering: [start_id].into(), ..silent };
        assert_eq!(detect(&state, &registering, TIMEOUT), []);
        let other = ObservedCluster { registering: [Uuid::nil()].into(), ..registering };
        assert_eq!(detect(&state, &other, TIMEOUT), [(NodeId(101), NodeState::Down)]);
    }

    #[test]
    fn removed_node_stays_removed_after_a_heartbeat() {
        let mut state = with_nodes(1);
        let removed = v1::SetNodeState { node_id: 101, state: NodeState::Removed.into() };
        run(&mut state, Kind::SetNodeState(removed)).unwrap();
        assert_eq!(detect(&state, &observed(9, &[(101, 0)]), TIMEOUT), []);
    }
}
