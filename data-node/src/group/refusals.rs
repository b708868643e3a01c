//! Conversion of errors of openraft and the engine to RPC errors. This module alone decides whether
//! a write has definitely failed or has an unknown outcome.

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

/// Approximate duration of an election: a new leader should be known by then.
const ELECTION: Duration = Duration::from_millis(300);

/// Another node leads, or no leader is known: nothing was done.
pub fn not_leader(group: GroupId, forward: &ForwardToLeader<TypeConfig>) -> Refusal {
    // During a transfer the named node does not lead yet: waiting is faster than calling it
    // immediately.
    let transfer = forward.reason == ForwardReason::LeadershipTransfer;
    let leader = forward.leader_id.map(|id| Leader {
        node_id: NodeId(id),
        address: forward.leader_node.as_ref().map(|node| node.address.clone()).unwrap_or_default(),
    });
    let message = match &leader {
        Some(leader) => format!("group {group} is led by node {}", leader.node_id),
        None => format!("group {group} has no leader at present"),
    };
    let refusal = Refusal::new(Reason::NotLeader, message);
    let refusal =
        if leader.is_none() || transfer { refusal.retry_after(ELECTION) } else { refusal };
    refusal.leader(leader)
}

/// RPC error of a write for which openraft returned an error.
pub fn write_error(group: GroupId, error: &ClientWriteError<TypeConfig>) -> Refusal {
    match error {
        ClientWriteError::ForwardToLeader(forward) => not_leader(group, forward),
        ClientWriteError::LogEntryDiscarded(_) => leadership_lost(group),
        ClientWriteError::ChangeMembershipError(error) => membership_error(group, error),
        ClientWriteError::PreconditionFailed(error) => Refusal::new(
            Reason::MembershipStale,
            format!("the members of group {group} changed after this change was decided: {error}"),
        ),
    }
}

fn membership_error<C, N>(group: GroupId, error: &ChangeMembershipError<C, N>) -> Refusal
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

/// The write was discarded from this node's log, or its outcome was never reported: it may still
/// take effect.
pub fn leadership_lost(group: GroupId) -> Refusal {
    Refusal::new(
        Reason::LeadershipLost,
        format!("group {group} changed its leader during the write: the outcome is unknown"),
    )
}

/// The deadline passed without a reply: the write may still take effect.
pub fn deadline_exceeded(what: &str, group: GroupId) -> Refusal {
    Refusal::new(Reason::DeadlineExceeded, format!("{what} on group {group} exceeded its deadline"))
}

/// The group's Raft stopped before the write was proposed.
pub fn replica_stopped(group: GroupId, fatal: &Fatal<TypeConfig>) -> Refusal {
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

/// The replica is stopping: the request was not passed to its owner.
pub fn replica_stopping(group: GroupId) -> Refusal {
    Refusal::new(
        Reason::GroupNotHosted,
        format!("the replica of group {group} on this node is stopping"),
    )
}

/// RPC error of a call that proposes and waits.
pub fn raft_error(
    group: GroupId,
    error: &RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
) -> Refusal {
    match error {
        RaftError::APIError(error) => write_error(group, error),
        // The call had been passed to Raft: its outcome is unknown.
        RaftError::Fatal(Fatal::Stopped) => leadership_lost(group),
        RaftError::Fatal(fatal) => replica_stopped(group, fatal),
    }
}

/// RPC error of a read that a quorum could not confirm.
pub fn read_error(
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
        RaftError::Fatal(fatal) => replica_stopped(group, fatal),
    }
}

/// RPC error of an adoption of files.
pub fn adopt_error(error: &AdoptError) -> Refusal {
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
