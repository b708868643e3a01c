//! Recording of observations in the catalog: states of nodes, and the reports of group leaders.

use std::sync::Arc;

use futures::stream::{self, StreamExt};
use tidewater_common::feature_level::FeatureLevel;
use tidewater_proto::v1::{self, NodeState, meta_command::Kind};
use tokio::task::JoinSet;

use super::leader_term::LeaderTerm;
use super::{ObservedCluster, ObservedGroup};
use crate::catalog::{Group, MetaState};
use crate::commands::{MAX_OBSERVATIONS, command_level};

/// Maximum number of concurrent commands that record observations.
const MAX_CONCURRENT_COMMANDS: usize = 64;

impl LeaderTerm {
    /// Starts a task that records observations in the catalog, unless one is already running.
    pub(super) fn start_recording(
        self: &Arc<Self>,
        nodes: Vec<v1::ObservedNode>,
        reports: Vec<v1::ReportGroup>,
        tasks: &mut JoinSet<()>,
    ) {
        if std::mem::replace(&mut self.busy.lock().recording, true) {
            return;
        }
        let this = Arc::clone(self);
        tasks.spawn(async move {
            for observed in &nodes {
                let node = observed.node_id;
                match observed.state() {
                    NodeState::Down => tracing::warn!(node, "node is down: it is silent"),
                    _ => tracing::info!(node, "node is up again"),
                }
            }
            let level = this.group.view.read().header().feature_level;
            // Each is of other nodes and groups. Raft writes and replicates concurrent commands together.
            stream::iter(commands(level, nodes, reports))
                .for_each_concurrent(MAX_CONCURRENT_COMMANDS, |kind| this.try_command(kind))
                .await;
            this.busy.lock().recording = false;
        });
    }

    /// Proposes a command that records an observation. After a failure, a later round proposes it again.
    async fn try_command(&self, kind: Kind) {
        if let Err(error) = self.command(kind).await {
            tracing::debug!(%error, "failed to record an observation");
        }
    }
}

/// Returns commands that record observations: few large ones, and those of nodes with their starts, once the cluster's level
/// allows them.
fn commands(
    level: FeatureLevel,
    nodes: Vec<v1::ObservedNode>,
    groups: Vec<v1::ReportGroup>,
) -> Vec<Kind> {
    let without_start = |observed: &v1::ObservedNode| v1::SetNodeState {
        node_id: observed.node_id,
        state: observed.state,
    };
    if command_level(&Kind::RecordObservations(v1::RecordObservations::default())) > level {
        let nodes = nodes.iter().map(without_start).map(Kind::SetNodeState);
        return nodes.chain(groups.into_iter().map(Kind::ReportGroup)).collect();
    }
    let has_starts = level >= FeatureLevel::EXACT_EVENTS;
    let of_nodes = nodes.chunks(MAX_OBSERVATIONS).map(|nodes| {
        if has_starts {
            let observed_nodes = nodes.to_vec();
            return v1::RecordObservations { observed_nodes, ..v1::RecordObservations::default() };
        }
        let nodes = nodes.iter().map(without_start).collect();
        v1::RecordObservations { nodes, ..v1::RecordObservations::default() }
    });
    let of_groups = groups.chunks(MAX_OBSERVATIONS).map(|groups| v1::RecordObservations {
        groups: groups.to_vec(),
        ..v1::RecordObservations::default()
    });
    of_nodes.chain(of_groups).map(Kind::RecordObservations).collect()
}

/// Returns the reports of group leaders that the catalog does not have yet.
pub(super) fn due_reports(state: &MetaState, observed: &ObservedCluster) -> Vec<v1::ReportGroup> {
    let mut due = Vec::new();
    for (id, report) in observed.groups.iter() {
        let Some(known) = state.group(*id) else { continue };
        if known.is_live() && !report.voters.is_empty() {
            due.extend(due_group_report(known, report, observed));
        }
    }
    due
}

/// Returns the report that brings a group's record in line with its leader's report, if they differ.
///
/// The term orders reports. An older report replaces the record only when the node that the record
/// names as leader has reported otherwise since: the record is wrong, and would never be replaced.
fn due_group_report(
    known: &Group,
    report: &ObservedGroup,
    observed: &ObservedCluster,
) -> Option<v1::ReportGroup> {
    let is_contradicted = known
        .leader
        .is_some_and(|leader| leader == report.leader || observed.is_follower(known.id, leader));
    let is_older = report.term < known.leader_term;
    let has_older_members = report.membership < known.membership;
    let corrects = is_contradicted && report.is_settled() && (is_older || has_older_members);
    let takes_members = corrects || !has_older_members;
    let differs = known.leader != Some(report.leader)
        || known.leader_term != report.term
        || (takes_members
            && (known.membership != report.membership
                || known.voters != report.voters
                || known.learners != report.learners));
    if !differs || (is_older && !corrects) {
        return None;
    }
    Some(v1::ReportGroup {
        group_id: known.id.get(),
        term: report.term.get(),
        leader: report.leader.get(),
        voters: report.voters.iter().map(|id| id.get()).collect(),
        learners: report.learners.iter().map(|id| id.get()).collect(),
        membership_term: report.membership.0.get(),
        membership_index: report.membership.1.get(),
        replaces_term: corrects.then_some(known.leader_term.get()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::commands::testing::{run, with_groups};
    use crate::leader::ObservedReplica;
    use tidewater_common::ids::{GroupId, LogIndex, NodeId, Term};

    fn observed(leader: u64, term: u64, index: u64) -> ObservedGroup {
        let at = (Term(1), LogIndex(index));
        ObservedGroup {
            term: Term(term),
            leader: NodeId(leader),
            voters: [101, 102].map(NodeId).into(),
            learners: [].into(),
            membership: at,
            effective: Some(at),
            caught_up: [].into(),
        }
    }

    #[test]
    fn observations_are_recorded_together_from_level_2_on() {
        let nodes = vec![v1::ObservedNode::default(); 3];
        let groups = vec![v1::ReportGroup::default(); MAX_OBSERVATIONS + 1];
        let of = |level, nodes: &[_], groups: &[_]| -> Vec<(usize, usize)> {
            let count = |kind| match kind {
                Kind::RecordObservations(all) => (all.nodes.len(), all.groups.len()),
                Kind::SetNodeState(_) => (1, 0),
                Kind::ReportGroup(_) => (0, 1),
                other => panic!("{other:?}"),
            };
            let level = FeatureLevel::new(level);
            commands(level, nodes.to_vec(), groups.to_vec()).into_iter().map(count).collect()
        };
        assert_eq!(of(1, &nodes, &groups[..2]), [(1, 0), (1, 0), (1, 0), (0, 1), (0, 1)]);
        assert_eq!(of(2, &nodes, &groups), [(3, 0), (0, MAX_OBSERVATIONS), (0, 1)]);
        assert_eq!(of(2, &[], &[]), []);
    }

    #[test]
    fn observations_name_starts_from_their_level_on() {
        let down = v1::ObservedNode {
            node_id: 101,
            state: NodeState::Down.into(),
            boot: 4,
            start_id: "a".to_owned(),
        };
        let without_start = v1::SetNodeState { node_id: 101, state: NodeState::Down.into() };
        let level = FeatureLevel::EXACT_EVENTS;
        let recorded = |level| {
            let mut commands = commands(level, vec![down.clone()], Vec::new());
            match commands.pop() {
                Some(Kind::RecordObservations(recorded)) => recorded,
                other => panic!("{other:?}"),
            }
        };
        let expected = v1::RecordObservations { nodes: vec![without_start], ..Default::default() };
        assert_eq!(recorded(level.previous()), expected);
        let observed_nodes = vec![down.clone()];
        let expected = v1::RecordObservations { observed_nodes, ..Default::default() };
        assert_eq!(recorded(level), expected);
    }

    #[test]
    fn leader_corrects_a_wrong_group_record() {
        let mut state = with_groups(3, 1);
        let group = |state: &MetaState| Group::clone(state.group(GroupId(1)).unwrap());
        let none = ObservedCluster::default();
        let first = due_group_report(&group(&state), &observed(101, 5, 9), &none).unwrap();
        run(&mut state, Kind::ReportGroup(first)).unwrap();
        let known = group(&state);
        let due = |report: ObservedGroup, followers: &[(u64, u64)]| {
            let replica = |(node, group): &(u64, u64)| {
                let follower = BTreeMap::from([(NodeId(*node), ObservedReplica::default())]);
                (GroupId(*group), follower)
            };
            let replicas = followers.iter().map(replica).collect();
            let cluster = ObservedCluster { replicas, ..ObservedCluster::default() };
            due_group_report(&known, &report, &cluster).map(|report| report.replaces_term)
        };
        assert_eq!(due(observed(101, 5, 9), &[]), None, "nothing differs");
        assert_eq!(due(observed(102, 6, 9), &[]), Some(None), "a new leader");
        assert_eq!(due(observed(102, 6, 3), &[]), Some(None), "one that knows older members");
        assert_eq!(due(observed(102, 4, 9), &[]), None, "a deposed leader");
        assert_eq!(due(observed(102, 4, 9), &[(103, 1)]), None);
        assert_eq!(due(observed(102, 4, 9), &[(101, 1)]), Some(Some(5)), "101 denies it");
        assert_eq!(due(observed(101, 4, 9), &[]), Some(Some(5)), "its own later report");
        assert_eq!(due(observed(101, 5, 3), &[]), Some(Some(5)), "its own later members");
        let changing = ObservedGroup { effective: None, ..observed(101, 4, 9) };
        assert!(due(changing, &[]).is_some());
    }
}
