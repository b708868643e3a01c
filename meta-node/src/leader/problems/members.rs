//! Problems of the meta group.

use std::time::Duration;

use tidewater_common::ids::{GroupId, NodeId};
use tidewater_common::problem::Problem;
use tidewater_proto::v1::ProblemKind;
use tidewater_raft_store::DiskHealth;

use super::ClusterKnowledge;
use crate::leader::MemberDifference;

/// Number of log entries that a member may lack: as many as a learner that is promoted.
pub(super) const MAX_LAG: u64 = 1_000;

/// Health of a member of group 0, as known to the leader.
#[derive(Debug, Clone)]
pub(crate) struct MemberHealth {
    pub(crate) node: NodeId,
    /// Time since the member last answered; `None`: it has never answered.
    pub(crate) silent_for: Option<Duration>,
    /// Number of entries of the leader's log that the member lacks.
    pub(crate) lag: u64,
}

pub(super) fn problems(known: &ClusterKnowledge<'_>) -> Vec<Problem> {
    let mut problems: Vec<Problem> =
        known.members.iter().flat_map(|member| of_member(known, member)).collect();
    if let Some(difference) = known.observed.own_difference {
        let age = known.state.header().time_ms.saturating_sub(difference.since_ms);
        let detail = format!("the meta leader's clock is {difference}: synchronize it (NTP)");
        let problem = Problem::new(ProblemKind::ClockDiffers, detail).of_node(known.leader);
        problems.push(problem.lasting(Duration::from_millis(age)));
    }
    problems.extend(differing_catalogs(known));
    problems.extend(waiting_replacement(known));
    problems
}

/// Returns the problem of this node's disk. The detail does not name the node.
pub(super) fn unusable_disk(health: &DiskHealth) -> Option<Problem> {
    match health {
        DiskHealth::Ok => None,
        DiskHealth::Full => Some(Problem::new(
            ProblemKind::DiskFull,
            "its disk is full: it accepts no changes of the catalog until there is room",
        )),
        DiskHealth::Failed(error) => {
            let detail = format!("its disk has failed: {error}");
            Some(Problem::new(ProblemKind::DiskFailed, detail))
        }
    }
}

/// Returns the problem of a replacement without progress.
fn waiting_replacement(known: &ClusterKnowledge<'_>) -> Option<Problem> {
    let replacement = known.state.member_replacement()?;
    let (age, error) = known.observed.replacement_failing.as_ref()?;
    let (old, new) = (replacement.old, replacement.new);
    let detail = format!("the replacement of meta node {old} by node {new} waits: {error}");
    let problem = Problem::new(ProblemKind::MemberReplacementWaits, detail);
    Some(problem.of_group(GroupId::META).of_node(old).lasting(*age))
}

/// Returns the members whose catalogs differ from the leader's. The leader's is the other one if more than
/// half of the members differ from it.
fn differing_catalogs(known: &ClusterKnowledge<'_>) -> Vec<Problem> {
    let differences = &known.observed.member_differences;
    let differing: Vec<_> = known
        .members
        .iter()
        .filter_map(|member| Some((member.node, differences.get(&member.node)?)))
        .collect();
    let of = |node: NodeId, since_ms: u64, detail: String| {
        let age = known.state.header().time_ms.saturating_sub(since_ms);
        let problem = Problem::new(ProblemKind::MetaStateDiffers, detail).of_group(GroupId::META);
        problem.of_node(node).lasting(Duration::from_millis(age))
    };
    let members = known.members.len() + 1;
    if differing.len() * 2 > members {
        let since_ms = differing.iter().map(|(_, difference)| difference.since_ms).min();
        let detail = format!(
            "the catalog of meta node {}, which leads, differs from those of {} of the {} other members",
            known.leader,
            differing.len(),
            known.members.len(),
        );
        return vec![of(known.leader, since_ms.unwrap_or_default(), detail)];
    }
    let problem = |(node, difference): (NodeId, &MemberDifference)| {
        let detail = format!(
            "the catalog of meta node {node} differs from the meta leader's since log index {}",
            difference.first
        );
        of(node, difference.since_ms, detail)
    };
    differing.into_iter().map(problem).collect()
}

/// Returns the problems of a member. The conditions of one that does not answer may be over.
fn of_member(known: &ClusterKnowledge<'_>, member: &MemberHealth) -> Vec<Problem> {
    let node = member.node;
    let problem =
        |kind, detail: String| Problem::new(kind, detail).of_group(GroupId::META).of_node(node);
    let silent = member.silent_for.unwrap_or(known.observed.leading_for);
    if member.silent_for.is_none() || silent > known.failure_timeout {
        let detail = format!("meta node {node} does not answer the meta leader");
        return vec![problem(ProblemKind::MetaMemberSilent, detail).lasting(silent)];
    }
    if let Some((age, error)) = known.observed.unreachable.get(&node) {
        let detail = format!("meta node {node} answers no new connections: {error}");
        return vec![problem(ProblemKind::NodeUnreachable, detail).lasting(*age)];
    }
    let mut problems = known.observed.member_conditions.get(&node).cloned().unwrap_or_default();
    if member.lag > MAX_LAG {
        let detail =
            format!("meta node {node} lacks {} entries of the meta leader's log", member.lag);
        problems.push(problem(ProblemKind::MetaMemberLags, detail));
    }
    problems
}
