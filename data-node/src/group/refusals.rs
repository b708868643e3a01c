//! Openraft's errors and the engine's as answers to callers. The one place where it is decided
//! whether a write has definitely not happened or whether its outcome is unknown.

use std::time::Duration;

use openraft::errors::{
    ChangeMembershipError, ClientWriteError, Fatal, ForwardReason, ForwardToLeader,
    LinearizableReadError, RaftError,
};
use tidewater_common::ids::{GroupId, NodeId};
use tidewater_common::refusal::{Leader, Refusal};
use tidewater_proto::v1::Reason;
use tidewater_raft_store::TypeConfig;
use tidewater_region_engine::EngineError;
use tidewater_region_engine::bulk::{AdoptError, Unfit};
use tidewater_region_engine::manifest::Void;

#[cfg(test)]
mod tests;

/// About an election's time: when no leader is known, one should be found by then.
const ELECTION: Duration = Duration::from_millis(300);

/// Another node leads, or nobody is known to: nothing was done.
pub fn not_leader(group: GroupId, forward: &ForwardToLeader<TypeConfig>) -> Refusal {
    // During a transfer the named node does not lead yet: waiting beats going there at once.
    let transfer = forward.reason == ForwardReason::LeadershipTransfer;
    let leader = forward.leader_id.map(|id| Leader {
        node_id: NodeId(id),
        address: forward.leader_node.as_ref().map(|node| node.address.clone()).unwrap_or_default(),
    });
    let message = match &leader {
        Some(leader) => format!("group {group} is led by node {}", leader.node_id),
        None => format!("group {group} has no leader at the moment"),
    };
    let refusal = Refusal::new(Reason::NotLeader, message);
    let refusal =
        if leader.is_none() || transfer { refusal.retry_after(ELECTION) } else { refusal };
    refusal.leader(leader)
}

/// A write's outcome when openraft gave an error for it.
pub fn write_refused(group: GroupId, error: &ClientWriteError<TypeConfig>) -> Refusal {
    match error {
        ClientWriteError::ForwardToLeader(forward) => not_leader(group, forward),
        ClientWriteError::LogEntryDiscarded(_) => leadership_lost(group),
        ClientWriteError::ChangeMembershipError(error) => membership_refused(group, error),
        ClientWriteError::PreconditionFailed(error) => Refusal::new(
            Reason::MembershipStale,
            format!("group {group} has changed since this was decided: {error}"),
        ),
    }
}

fn membership_refused<C, N>(group: GroupId, error: &ChangeMembershipError<C, N>) -> Refusal
where
    C: openraft::vote::RaftCommittedLeaderId,
    N: openraft::NodeId,
{
    let message = format!("the members of group {group} cannot be changed: {error}");
    match error {
        ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_) => {
            Refusal::new(Reason::MembershipBusy, message).retry_after(ELECTION)
        }
        ChangeMembershipError::LearnerNotFound(_) => Refusal::new(Reason::MemberNotFound, message),
        ChangeMembershipError::NodeMetadataChanged(_) => {
            Refusal::new(Reason::MemberExists, message)
        }
        ChangeMembershipError::EmptyMembership(_)
        | ChangeMembershipError::UnsupportedMembershipTransition(_) => {
            Refusal::new(Reason::InvalidArgument, message)
        }
    }
}

/// The write was in this node's log and is no more, or nobody will tell: it may still happen.
pub fn leadership_lost(group: GroupId) -> Refusal {
    Refusal::new(
        Reason::LeadershipLost,
        format!(
            "group {group} changed its leader while the write was under way: its outcome is unknown"
        ),
    )
}

/// The write was not answered in time: it may still happen.
pub fn deadline(what: &str, group: GroupId) -> Refusal {
    Refusal::new(
        Reason::DeadlineExceeded,
        format!("{what} on group {group} was not answered in time"),
    )
}

/// The group's Raft has stopped. Before a write was proposed.
pub fn stopped(group: GroupId, fatal: &Fatal<TypeConfig>) -> Refusal {
    match fatal {
        Fatal::Stopped => Refusal::new(
            Reason::GroupNotHosted,
            format!("the replica of group {group} on this node was stopped"),
        ),
        Fatal::StorageError(_) | Fatal::Panicked => Refusal::new(
            Reason::Unavailable,
            format!("the replica of group {group} on this node has failed: {fatal}"),
        ),
    }
}

/// Openraft's error for a whole call.
pub fn raft_refused(
    group: GroupId,
    error: &RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
) -> Refusal {
    match error {
        RaftError::APIError(error) => write_refused(group, error),
        // The call had been handed over: whether it was carried out is not known.
        RaftError::Fatal(Fatal::Stopped) => leadership_lost(group),
        RaftError::Fatal(fatal) => stopped(group, fatal),
    }
}

/// A read that could not be confirmed with the quorum.
pub fn read_refused(
    group: GroupId,
    error: &RaftError<TypeConfig, LinearizableReadError<TypeConfig>>,
) -> Refusal {
    match error {
        RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
            not_leader(group, forward)
        }
        RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => Refusal::new(
            Reason::NotLeader,
            format!("this node cannot confirm that it still leads group {group}"),
        )
        .retry_after(ELECTION),
        RaftError::Fatal(fatal) => stopped(group, fatal),
    }
}

/// Why files were not taken over.
pub fn adopt_refused(error: &AdoptError) -> Refusal {
    let refusal = |reason| Refusal::new(reason, error.to_string());
    match error {
        AdoptError::Unfit { reason: Unfit::Range, .. } => refusal(Reason::KeyOutsideRegion),
        AdoptError::Unfit { .. } | AdoptError::TooMany { .. } => refusal(Reason::InvalidArgument),
        AdoptError::AreaTaken { .. } => refusal(Reason::InvalidArgument),
        AdoptError::Abandoned { .. } | AdoptError::Overdue { .. } => refusal(Reason::LoadEnded),
        AdoptError::Decided { .. } => refusal(Reason::TableBusy),
        AdoptError::NotShared { .. } => refusal(Reason::InvalidArgument),
        AdoptError::Engine(EngineError::Refused {
            reason: Void::AreaNotOpen { .. } | Void::AreaUsed { .. } | Void::BelowFloor { .. },
            ..
        }) => refusal(Reason::LoadEnded),
        AdoptError::Engine(error) => error.into(),
    }
}
