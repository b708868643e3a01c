//! Observations of the leader about many nodes and groups, recorded as one change with one revision: after
//! an outage of all data nodes, each watcher receives few changes instead of one for each group.

use std::collections::BTreeSet;

use tidewater_common::ids::NodeId;
use tidewater_proto::v1::{self, NodeState};

use super::{CommandError, groups, nodes};
use crate::catalog::{CatalogChange, MetaState, Node};

/// Maximum number of observations in one command.
pub(crate) const MAX_OBSERVATIONS: usize = 512;

/// Records observations. They are independent: an invalid one is skipped, and so is the second valid one of
/// a node or group, since all are decided on the state before the command.
pub(super) fn record(
    state: &MetaState,
    command: &v1::RecordObservations,
) -> Result<CatalogChange, CommandError> {
    let observations = command.nodes.len() + command.observed_nodes.len() + command.groups.len();
    if observations > MAX_OBSERVATIONS {
        return Err(CommandError::TooManyObservations(observations));
    }
    let mut change = CatalogChange::default();
    let mut seen = BTreeSet::new();
    for observed in &command.nodes {
        if let Ok(one) = nodes::set_state(state, observed)
            && seen.insert(observed.node_id)
        {
            change.nodes.extend(one.nodes);
        }
    }
    for observed in &command.observed_nodes {
        if let Some(node) = observe(state, observed)
            && seen.insert(observed.node_id)
        {
            change.nodes.push(node);
        }
    }
    let mut seen = BTreeSet::new();
    for observed in &command.groups {
        if let Ok(one) = groups::report(state, observed)
            && seen.insert(observed.group_id)
        {
            change.groups.extend(one.groups);
        }
    }
    Ok(change)
}

/// Returns the record of a node with an observed state, if it differs. `None` also for an observation of an earlier process:
/// the new one would be down although it has registered.
fn observe(state: &MetaState, observed: &v1::ObservedNode) -> Option<Node> {
    let node = state.node(NodeId(observed.node_id))?;
    let Ok(new_state @ (NodeState::Up | NodeState::Down)) = NodeState::try_from(observed.state)
    else {
        return None;
    };
    let start_id = node.start_id.map_or_else(String::new, |id| id.to_string());
    let is_of_process = observed.boot == node.boot.get() && observed.start_id == start_id;
    let has_changed = node.state != NodeState::Removed && node.state != new_state;
    let state_since_ms = state.header().time_ms;
    (is_of_process && has_changed).then(|| Node {
        state: new_state,
        state_since_ms,
        ..node.as_ref().clone()
    })
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::GroupId;
    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::commands::testing::{
        directory, raise_to_highest, registration, report, run, set_members, with_groups,
    };

    fn down(node_id: u64) -> v1::SetNodeState {
        v1::SetNodeState { node_id, state: NodeState::Down.into() }
    }

    fn removed(node_id: u64) -> v1::SetNodeState {
        v1::SetNodeState { state: NodeState::Removed.into(), ..down(node_id) }
    }

    #[test]
    fn observations_are_recorded_with_one_revision() {
        let mut state = with_groups(3, 3);
        let before = state.header().revision.get();
        let command = v1::RecordObservations {
            nodes: vec![down(101), down(102)],
            groups: vec![report(1, 5, 103), report(3, 4, 103)],
            ..v1::RecordObservations::default()
        };
        let change = record(&state, &command).unwrap();
        crate::commands::apply_change(&mut state, change).unwrap();
        assert_eq!(state.header().revision.get(), before + 1);
        let node = |id| state.node(NodeId(id)).unwrap().state;
        assert_eq!([101, 102, 103].map(node), [NodeState::Down, NodeState::Down, NodeState::Up]);
        let leader = |id| state.group(GroupId(id)).unwrap().leader;
        assert_eq!([1, 2, 3].map(leader), [Some(NodeId(103)), None, Some(NodeId(103))]);
        let repeated = record(&state, &command).unwrap();
        assert_eq!(repeated, CatalogChange::default(), "a repeated command changes nothing");
    }

    #[test]
    fn invalid_observations_are_skipped() {
        let state = with_groups(3, 3);
        let unknown = v1::SetNodeState { node_id: 102, state: 99 };
        let command = v1::RecordObservations {
            nodes: vec![down(999), unknown, down(102), removed(102), down(103)],
            groups: vec![report(99, 1, 101), report(1, 5, 101), report(1, 9, 102), report(2, 5, 0)],
            ..v1::RecordObservations::default()
        };
        let change = record(&state, &command).unwrap();
        let nodes: Vec<_> = change.nodes.iter().map(|node| node.id.get()).collect();
        assert_eq!(nodes, [102, 103], "the second valid observation of node 102 is skipped");
        let groups: Vec<_> =
            change.groups.iter().map(|group| (group.id.get(), group.leader_term.get())).collect();
        assert_eq!(groups, [(1, 5)]);
    }

    #[test]
    fn number_of_observations_is_limited() {
        let state = with_groups(1, 1);
        let nodes = vec![down(101); MAX_OBSERVATIONS];
        let most = v1::RecordObservations { nodes, ..v1::RecordObservations::default() };
        assert!(record(&state, &most).is_ok());
        let groups = vec![report(1, 1, 101)];
        let observed_nodes = vec![observed(101, NodeState::Down, 0, "")];
        for more in [
            v1::RecordObservations { groups, ..most.clone() },
            v1::RecordObservations { observed_nodes, ..most },
        ] {
            let refused = record(&state, &more);
            assert_eq!(refused, Err(CommandError::TooManyObservations(MAX_OBSERVATIONS + 1)));
        }
    }

    fn observed(node_id: u64, to: NodeState, boot: u64, start_id: &str) -> v1::ObservedNode {
        v1::ObservedNode { node_id, state: to.into(), boot, start_id: start_id.to_owned() }
    }

    /// Ids and states of the nodes that observations change.
    fn changes(state: &MetaState, observed: Vec<v1::ObservedNode>) -> Vec<(u64, NodeState)> {
        let command = v1::RecordObservations {
            observed_nodes: observed,
            ..v1::RecordObservations::default()
        };
        let change = record(state, &command).unwrap();
        change.nodes.iter().map(|node| (node.id.get(), node.state)).collect()
    }

    #[test]
    fn observation_of_an_earlier_process_has_no_effect() {
        let mut state = with_groups(1, 1);
        let started = |boot, process| v1::RegisterNode {
            boot,
            start_id: directory(process),
            ..registration(1)
        };
        run(&mut state, Kind::RegisterNode(started(4, 7))).unwrap();
        let first = directory(7);
        let down = |boot, start_id: &str| vec![observed(101, NodeState::Down, boot, start_id)];
        for (boot, start_id) in [(3, &*first), (5, &*first), (4, ""), (4, &*directory(8)), (0, "")]
        {
            assert_eq!(changes(&state, down(boot, start_id)), [], "{boot} {start_id}");
        }
        assert_eq!(changes(&state, down(4, &first)), [(101, NodeState::Down)]);
        // The node was observed as silent, and its next process has registered.
        run(&mut state, Kind::RegisterNode(started(5, 8))).unwrap();
        assert_eq!(changes(&state, down(4, &first)), []);
        assert_eq!(changes(&state, down(5, &directory(8))), [(101, NodeState::Down)]);
    }

    #[test]
    fn observed_states_of_meta_nodes_are_recorded() {
        let mut state = with_groups(1, 1);
        set_members(&mut state, &[1, 2, 3]);
        set_members(&mut state, &[1, 2]);
        raise_to_highest(&mut state);
        let of = |node_id, to| observed(node_id, to, 0, "");
        let all = [(1, NodeState::Up), (2, NodeState::Down), (3, NodeState::Up)];
        let all = all.map(|(node, to)| of(node, to)).to_vec();
        assert_eq!(changes(&state, all.clone()), [(2, NodeState::Down)], "node 3 was removed");
        assert_eq!(changes(&state, vec![of(1, NodeState::Removed)]), []);
        let observed_nodes = all;
        let command =
            v1::RecordObservations { observed_nodes, ..v1::RecordObservations::default() };
        run(&mut state, Kind::RecordObservations(command)).unwrap();
        assert_eq!(changes(&state, vec![of(2, NodeState::Up)]), [(2, NodeState::Up)]);
        // The next membership entry does not bring it up.
        set_members(&mut state, &[1, 2, 4]);
        let recorded = [1, 2, 3, 4].map(|id| state.node(NodeId(id)).unwrap().state);
        let expected = [NodeState::Up, NodeState::Down, NodeState::Removed, NodeState::Up];
        assert_eq!(recorded, expected);
        // A member that was removed while it was down, and is added again.
        set_members(&mut state, &[1]);
        set_members(&mut state, &[1, 2]);
        assert_eq!(state.node(NodeId(2)).unwrap().state, NodeState::Up);
    }
}
