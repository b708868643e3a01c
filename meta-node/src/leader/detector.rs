//! Who is up and who is down, by the silence since the last heartbeat.

use std::time::Duration;

use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{NodeRole, NodeState};

use super::Observed;
use crate::catalog::MetaState;

/// Nodes whose state is not what their heartbeats say.
pub(crate) fn judge(
    state: &MetaState,
    observed: &Observed,
    timeout: Duration,
) -> Vec<(NodeId, NodeState)> {
    let mut verdicts = Vec::new();
    for node in state.nodes().filter(|node| node.role != NodeRole::Meta) {
        // A node that has not been heard of since this leader began gets the whole timeout anew.
        let heard = observed.silent_for.get(&node.id);
        let silent = heard.copied().unwrap_or(observed.leading_for);
        match node.state {
            NodeState::Up if silent > timeout => verdicts.push((node.id, NodeState::Down)),
            NodeState::Down if heard.is_some_and(|silent| *silent <= timeout) => {
                verdicts.push((node.id, NodeState::Up));
            }
            _ => {}
        }
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::{self, meta_command::Kind};

    use super::*;
    use crate::commands::testing::{run, with_nodes};

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn observed(leading: u64, silent: &[(u64, u64)]) -> Observed {
        Observed {
            leading_for: Duration::from_secs(leading),
            silent_for: silent
                .iter()
                .map(|(node, seconds)| (NodeId(*node), Duration::from_secs(*seconds)))
                .collect(),
            ..Observed::default()
        }
    }

    #[test]
    fn silence_takes_a_node_down_and_a_heartbeat_brings_it_back() {
        let mut state = with_nodes(3);
        let down = v1::SetNodeState { node_id: 103, state: NodeState::Down.into() };
        run(&mut state, Kind::SetNodeState(down)).unwrap();
        let cases: &[(Observed, &[(u64, NodeState)])] = &[
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
            let verdicts: Vec<_> = judge(&state, observed, TIMEOUT)
                .into_iter()
                .map(|(id, to)| (id.get(), to))
                .collect();
            assert_eq!(verdicts, *expected, "{observed:?}");
        }
    }

    #[test]
    fn removed_nodes_stay_removed() {
        let mut state = with_nodes(1);
        let removed = v1::SetNodeState { node_id: 101, state: NodeState::Removed.into() };
        run(&mut state, Kind::SetNodeState(removed)).unwrap();
        assert_eq!(judge(&state, &observed(9, &[(101, 0)]), TIMEOUT), []);
    }
}
