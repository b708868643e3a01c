//! Claim of the prefix of an export by a data node.

use std::collections::BTreeSet;
use std::time::Duration;

use tidewater_common::ids::{GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, NodeRole, NodeState, Reason};
use tokio::time::Instant;

use crate::catalog::MetaState;
use crate::leader::exports::is_transient;
use crate::services::RunningReplica;

/// Time after which no other node is called. The caller of a creation waits for a minute, and the steps before a claim and the last
/// call take a part of it.
const CLAIM_WITHIN: Duration = Duration::from_secs(30);

/// Has a data node claim a prefix: one that leads a group of the table, otherwise another one that is up.
///
/// # Errors
/// Errors of the target; [`Reason::NoDataNodes`]; [`Reason::ExportTargetUnavailable`], also if the last node did not answer.
pub(super) async fn claim(
    running: &RunningReplica,
    table: &str,
    target: v1::ExportTarget,
) -> Result<(), Refusal> {
    let nodes = {
        let observed = |group| running.observations.leader_of(group);
        claimants(&running.group.view.read(), table, observed)
    };
    let request = v1::ClaimExportTargetRequest {
        target: Some(target),
        ..v1::ClaimExportTargetRequest::default()
    };
    claim_by(nodes, |node| running.control.claim_export_target(node, request.clone())).await
}

/// Returns the data nodes that can make a claim, those first that lead a group of the table. `observed`: the leader of a group in the
/// heartbeats.
fn claimants(
    state: &MetaState,
    table: &str,
    observed: impl Fn(GroupId) -> Option<NodeId>,
) -> Vec<NodeId> {
    let Some(table) = state.table_named(table) else { return Vec::new() };
    let groups: BTreeSet<GroupId> = state.routes_of(table.id).map(|route| route.group_id).collect();
    let leader = |group: &GroupId| {
        observed(*group).or_else(|| state.group(*group).and_then(|group| group.leader))
    };
    let leaders: BTreeSet<NodeId> = groups.iter().filter_map(leader).collect();
    let up =
        state.nodes().filter(|node| node.role == NodeRole::Data && node.state == NodeState::Up);
    let others = up.map(|node| node.id).filter(|node| !leaders.contains(node));
    leaders.iter().copied().chain(others).collect()
}

/// Calls nodes in their order, until one of them claims the prefix.
async fn claim_by<F>(nodes: Vec<NodeId>, call: impl Fn(NodeId) -> F) -> Result<(), Refusal>
where
    F: Future<Output = Result<(), Refusal>>,
{
    let begun = Instant::now();
    let mut last = Refusal::new(Reason::NoDataNodes, "no data node is up: start one, and retry");
    for node in nodes {
        match call(node).await {
            Ok(()) => return Ok(()),
            Err(refusal) if is_transient(&refusal) => last = refusal,
            Err(refusal) => return Err(refusal),
        }
        if begun.elapsed() >= CLAIM_WITHIN {
            break;
        }
    }
    if last.reason != Reason::DeadlineExceeded {
        return Err(last);
    }
    // No export was created: the outcome of the creation is known. Data nodes wait for a target longer than for a claim.
    let text = format!("{last}: check that the data nodes reach the target, and that it answers");
    Err(Refusal::new(Reason::ExportTargetUnavailable, text))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::commands::procedures::testing::{begin, complete};
    use crate::commands::testing::{raise_to_highest, run, table, with_groups};

    /// Calls nodes that answer with these reasons after these numbers of seconds; `None`: the node claims the prefix. Returns the
    /// result, and the nodes that were called.
    async fn claimed(
        answers: &[(Option<Reason>, u64)],
    ) -> (Result<(), (Reason, String)>, Vec<u64>) {
        let called = RefCell::new(Vec::new());
        let nodes = (0..answers.len() as u64).map(NodeId).collect();
        let result = claim_by(nodes, |node| {
            let (reason, seconds) = answers[called.borrow().len()];
            called.borrow_mut().push(node.get());
            async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                reason.map_or(Ok(()), |reason| Err(Refusal::new(reason, format!("node {node}"))))
            }
        })
        .await;
        (result.map_err(|refusal| (refusal.reason, refusal.message)), called.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn next_node_claims_after_a_transient_error() {
        for reason in [Reason::Unavailable, Reason::ShuttingDown, Reason::NodeNotFound] {
            let answers = [(Some(reason), 0), (Some(Reason::CatalogBehind), 0), (None, 0)];
            assert_eq!(claimed(&answers).await, (Ok(()), vec![0, 1, 2]), "{reason:?}");
        }
        let refusing = [(Some(Reason::ExportPrefixInUse), 0), (None, 0)];
        let error = Err((Reason::ExportPrefixInUse, "node 0".to_owned()));
        assert_eq!(claimed(&refusing).await, (error, vec![0]));
        let stopping = [(Some(Reason::Unavailable), 0), (Some(Reason::ShuttingDown), 0)];
        let error = Err((Reason::ShuttingDown, "node 1".to_owned()));
        assert_eq!(claimed(&stopping).await, (error, vec![0, 1]));
    }

    #[tokio::test(start_paused = true)]
    async fn claim_fails_without_data_nodes() {
        let text = "no data node is up: start one, and retry".to_owned();
        assert_eq!(claimed(&[]).await, (Err((Reason::NoDataNodes, text)), vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn late_claim_names_the_target() {
        let begun = Instant::now();
        let (failed, called) = claimed(&[(Some(Reason::DeadlineExceeded), 20); 3]).await;
        assert_eq!((called, begun.elapsed()), (vec![0, 1], Duration::from_secs(40)));
        let (reason, text) = failed.unwrap_err();
        assert_eq!(reason, Reason::ExportTargetUnavailable);
        assert!(text.starts_with("node 1: check that the data nodes reach the target"), "{text}");
    }

    #[test]
    fn leaders_of_a_table_claim_first() {
        let mut state = with_groups(3, 2);
        raise_to_highest(&mut state);
        let request = v1::CreateTableRequest { regions: 2, ..table(1, "t") };
        run(&mut state, begin(v1::ProcedureKind::Create, 1, &request)).unwrap();
        complete(&mut state, 1);
        let down = v1::SetNodeState { node_id: 101, state: NodeState::Down.into() };
        run(&mut state, Kind::SetNodeState(down)).unwrap();
        let numbers = |leader: Option<u64>| -> Vec<u64> {
            let nodes = claimants(&state, "t", |_| leader.map(NodeId));
            nodes.into_iter().map(NodeId::get).collect()
        };
        assert_eq!(numbers(Some(103)), [103, 102]);
        // A leader may have registered a moment ago.
        assert_eq!(numbers(Some(101)), [101, 102, 103]);
        assert_eq!(numbers(None), [102, 103]);
        assert_eq!(claimants(&state, "gone", |_| None), []);
    }
}
