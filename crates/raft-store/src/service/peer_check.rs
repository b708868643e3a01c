//! Decision whether a Raft message of another node may reach the group (pure).
//!
//! Raft trusts its members, and openraft also trusts every message. None of these checks is a
//! substitute for authentication: they refuse messages that no correct member sends, from a node of
//! another group, of a removed node, or of a program with a defect.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewater_common::ids::BootNumber;

use crate::types::{MAX_TERM_JUMP, StoredMembership, Vote};

/// Kind of a Raft message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// Request of a vote, or of a pre-vote.
    Vote,
    /// Append with or without entries, and a heartbeat.
    Append,
    /// Installation of a snapshot.
    Snapshot,
    /// Transfer of the leadership.
    LeaderTransfer,
}

/// The parts of a message that the decision needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerMessage {
    pub(crate) kind: MessageKind,
    /// Node in the header.
    pub(crate) source: u64,
    /// Vote of the candidate, or of the leader.
    pub(crate) vote: Vote,
}

/// The receiving replica: its vote and memberships.
#[derive(Debug, Clone)]
pub struct ReplicaView {
    /// The last vote that the replica granted or received.
    pub vote: Vote,
    /// The last membership in its log.
    pub effective: Arc<StoredMembership>,
    /// The last membership that it knows to be committed.
    pub committed: Arc<StoredMembership>,
}

impl Default for ReplicaView {
    /// The view of a new replica.
    fn default() -> Self {
        Self { vote: Vote::new(0, 0), effective: Arc::default(), committed: Arc::default() }
    }
}

/// Rule that a message breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PeerViolation {
    #[error("its header names node {header}, its vote names node {vote}")]
    SourceDiffers { header: u64, vote: u64 },
    #[error("it names its receiver as its sender")]
    NamesReceiver,
    #[error("its vote is {0}")]
    VoteKind(&'static str),
    #[error("its term {term} is too far above term {own} of this replica")]
    TermJump { term: u64, own: u64 },
    #[error("node {0} is not a member of the group")]
    NotMember(u64),
    #[error("it is of start {boot} of the node, and start {newest} has registered since")]
    Superseded { boot: BootNumber, newest: BootNumber },
}

impl PeerViolation {
    /// Value of the metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::SourceDiffers { .. } => "source_differs",
            Self::NamesReceiver => "names_receiver",
            Self::VoteKind(_) => "vote_kind",
            Self::TermJump { .. } => "term_jump",
            Self::NotMember(_) => "not_member",
            Self::Superseded { .. } => "superseded",
        }
    }
}

/// Checks a message to the replica of node `receiver`. `confirmed`: nodes that members of the group
/// named as members, when this replica did not know them.
///
/// A replica without a membership is new, and accepts every sender: only its first leader knows
/// the members. A replica whose memberships do not contain it has received a part of the log only, and
/// accepts entries and snapshots of every sender: it has no vote, and all members that it knows may have
/// left the group. A replica that missed the changes of members does not know a new leader either, so
/// that a refusal for [`PeerViolation::NotMember`] is final only once a member has been asked.
pub(crate) fn check_peer(
    message: &PeerMessage,
    receiver: u64,
    replica: &ReplicaView,
    confirmed: &BTreeSet<u64>,
) -> Result<(), PeerViolation> {
    let PeerMessage { kind, source, vote } = *message;
    if vote.leader_id.voted_for != source {
        let named = vote.leader_id.voted_for;
        return Err(PeerViolation::SourceDiffers { header: source, vote: named });
    }
    if source == receiver {
        return Err(PeerViolation::NamesReceiver);
    }
    match (kind, vote.committed) {
        (MessageKind::Vote, true) => {
            return Err(PeerViolation::VoteKind("a leader's, not a candidate's"));
        }
        (MessageKind::Vote, false) | (_, true) => {}
        (_, false) => return Err(PeerViolation::VoteKind("a candidate's, not a leader's")),
    }
    let own = replica.vote.leader_id.term;
    let term = vote.leader_id.term;
    if term > own.saturating_add(MAX_TERM_JUMP) {
        return Err(PeerViolation::TermJump { term, own });
    }
    // A leader that is being removed leads until its removal is committed, and then transfers the
    // leadership.
    let is_current_leader = replica.vote == vote && vote.committed;
    let is_catching_up = matches!(kind, MessageKind::Append | MessageKind::Snapshot)
        && !is_member(replica, receiver);
    let is_known = confirmed.contains(&source) || is_member(replica, source);
    if is_current_leader || is_catching_up || is_known {
        return Ok(());
    }
    Err(PeerViolation::NotMember(source))
}

/// Checks the start of a message's sender against the newest start of the node that this replica knows of. A
/// superseded process has another log than the newest one, and both have the same vote. 0: not counted.
pub(crate) fn check_start(boot: BootNumber, newest: BootNumber) -> Result<(), PeerViolation> {
    if boot != BootNumber(0) && boot < newest {
        return Err(PeerViolation::Superseded { boot, newest });
    }
    Ok(())
}

fn is_member(replica: &ReplicaView, node: u64) -> bool {
    let known = [&replica.effective, &replica.committed];
    let has = |stored: &&Arc<StoredMembership>| stored.membership().get_node(&node).is_some();
    let is_new = replica.effective.membership().nodes().next().is_none();
    is_new || known.iter().any(has)
}

#[cfg(test)]
mod tests;
