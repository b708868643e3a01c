//! Observations of the leader about many nodes and groups, recorded as one change with one revision: after
//! an outage of all data nodes, each watcher receives few changes instead of one for each group.

use std::collections::BTreeSet;

use tidewater_proto::v1;

use super::{CommandError, groups, nodes};
use crate::catalog::{CatalogChange, MetaState};

/// Maximum number of observations in one command.
pub(crate) const MAX_OBSERVATIONS: usize = 512;

/// Records observations. They are independent: an invalid one is skipped, and so is the second valid one of
/// a node or group, since all are decided on the state before the command.
pub(super) fn record(
    state: &MetaState,
    command: &v1::RecordObservations,
) -> Result<CatalogChange, CommandError> {
    let observations = command.nodes.len() + command.groups.len();
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

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{GroupId, NodeId};
    use tidewater_proto::v1::NodeState;

    use super::*;
    use crate::commands::testing::{report, with_groups};

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
        let most = v1::RecordObservations { nodes, groups: Vec::new() };
        assert!(record(&state, &most).is_ok());
        let groups = vec![report(1, 1, 101)];
        let refused = record(&state, &v1::RecordObservations { groups, ..most });
        assert_eq!(refused, Err(CommandError::TooManyObservations(MAX_OBSERVATIONS + 1)));
    }
}
