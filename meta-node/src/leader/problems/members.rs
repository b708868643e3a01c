//! Problems of the meta group.

use std::time::Duration;

use tidewater_common::ids::{GroupId, NodeId};
use tidewater_common::problem::Problem;
use tidewater_proto::v1::ProblemKind;

use super::ClusterKnowledge;

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
        known.members.iter().filter_map(|member| of_member(known, member)).collect();
    if let Some(difference) = known.observed.own_difference {
        let age = known.state.header().time_ms.saturating_sub(difference.since_ms);
        let detail = format!("the meta leader's clock is {difference}: synchronize it (NTP)");
        let problem = Problem::new(ProblemKind::ClockDiffers, detail).of_node(known.leader);
        problems.push(problem.lasting(Duration::from_millis(age)));
    }
    problems
}

fn of_member(known: &ClusterKnowledge<'_>, member: &MemberHealth) -> Option<Problem> {
    let node = member.node;
    let problem =
        |kind, detail: String| Problem::new(kind, detail).of_group(GroupId::META).of_node(node);
    let silent = member.silent_for.unwrap_or(known.observed.leading_for);
    if member.silent_for.is_none() || silent > known.failure_timeout {
        let detail = format!("meta node {node} does not answer the meta leader");
        return Some(problem(ProblemKind::MetaMemberSilent, detail).lasting(silent));
    }
    if let Some((age, error)) = known.observed.unreachable.get(&node) {
        let detail = format!("meta node {node} answers no new connections: {error}");
        return Some(problem(ProblemKind::NodeUnreachable, detail).lasting(*age));
    }
    (member.lag > MAX_LAG).then(|| {
        let detail =
            format!("meta node {node} lacks {} entries of the meta leader's log", member.lag);
        problem(ProblemKind::MetaMemberLags, detail)
    })
}
