//! Conversions between Raft's types and their prost messages.
//!
//! Commands pass as [`bytes::Bytes`] in both directions, without a copy.

use std::collections::{BTreeMap, BTreeSet};

use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tidewater_proto::v1;

use super::{
    Command, Entry, EntryPayload, LogId, LogIdError, MAX_TERM_JUMP, Member, Membership,
    SnapshotMeta, StoredMembership, TypeConfig, Vote, check_append, log_id,
};

/// A message without a required field, or with an invalid one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A required field is absent.
    #[error("a Raft message lacks {0}")]
    Missing(&'static str),
    /// A membership without voters, or with a voter that has no address.
    #[error("a Raft message holds an invalid membership: {0}")]
    Membership(String),
    /// A response with a term that no member has.
    #[error("a response names term {term}, too far above term {sent} of its request")]
    TermJump {
        /// Term in the response.
        term: u64,
        /// Term of the request.
        sent: u64,
    },
    /// A log id that no leader sends.
    #[error("a Raft message is invalid: {0}")]
    LogId(#[from] LogIdError),
}

/// Converts a log id to the wire.
pub fn log_id_to_wire(id: &LogId) -> v1::RaftLogId {
    v1::RaftLogId { term: id.leader_id.term, index: id.index }
}

/// Converts a log id from the wire.
pub fn log_id_from_wire(id: &v1::RaftLogId) -> LogId {
    log_id(id.term, id.index)
}

/// Converts a vote to the wire.
pub fn vote_to_wire(vote: &Vote) -> v1::RaftVote {
    v1::RaftVote {
        term: vote.leader_id.term,
        node_id: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

/// Converts a vote from the wire.
pub fn vote_from_wire(vote: &v1::RaftVote) -> Vote {
    if vote.committed {
        Vote::new_committed(vote.term, vote.node_id)
    } else {
        Vote::new(vote.term, vote.node_id)
    }
}

/// Converts a membership to the wire.
pub fn membership_to_wire(membership: &Membership) -> v1::RaftMembership {
    v1::RaftMembership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|set| v1::RaftNodeSet { node_ids: set.iter().copied().collect() })
            .collect(),
        members: membership
            .nodes()
            .map(|(id, member)| v1::RaftMember { node_id: *id, address: member.address.clone() })
            .collect(),
    }
}

/// Converts a membership from the wire.
pub fn membership_from_wire(membership: v1::RaftMembership) -> Result<Membership, WireError> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|set| set.node_ids.into_iter().collect()).collect();
    let members: BTreeMap<u64, Member> =
        membership.members.into_iter().map(|m| (m.node_id, Member::new(m.address))).collect();
    if configs.is_empty() && members.is_empty() {
        // The initial, empty membership: the snapshot of an empty group carries it.
        return Ok(Membership::default());
    }
    Membership::new(configs, members).map_err(|error| WireError::Membership(error.to_string()))
}

/// Converts a stored membership to the wire.
pub fn stored_membership_to_wire(stored: &StoredMembership) -> v1::RaftStoredMembership {
    v1::RaftStoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

/// Converts a stored membership from the wire. An absent membership is the empty one.
pub fn stored_membership_from_wire(
    stored: v1::RaftStoredMembership,
) -> Result<StoredMembership, WireError> {
    let membership = membership_from_wire(stored.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(stored.log_id.as_ref().map(log_id_from_wire), membership))
}

/// Converts an entry to the wire. The command is shared, not copied.
pub fn entry_to_wire(entry: &Entry) -> v1::RaftEntry {
    use v1::raft_entry::Payload;
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank(true),
        EntryPayload::Normal(command) => Payload::Command(command.0.clone()),
        EntryPayload::Membership(membership) => Payload::Membership(membership_to_wire(membership)),
    };
    v1::RaftEntry { log_id: Some(log_id_to_wire(&entry.log_id)), payload: Some(payload) }
}

/// Converts an entry from the wire. The command is shared, not copied.
pub fn entry_from_wire(entry: v1::RaftEntry) -> Result<Entry, WireError> {
    use v1::raft_entry::Payload;
    let log_id = entry.log_id.as_ref().ok_or(WireError::Missing("an entry's log id"))?;
    let payload = match entry.payload.ok_or(WireError::Missing("an entry's payload"))? {
        Payload::Blank(_) => EntryPayload::Blank,
        Payload::Command(bytes) => EntryPayload::Normal(Command(bytes)),
        Payload::Membership(membership) => {
            EntryPayload::Membership(membership_from_wire(membership)?)
        }
    };
    Ok(Entry { log_id: log_id_from_wire(log_id), payload })
}

/// Converts snapshot metadata to the wire.
pub fn snapshot_meta_to_wire(meta: &SnapshotMeta) -> v1::SnapshotMeta {
    v1::SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_to_wire),
        last_membership: Some(stored_membership_to_wire(&meta.last_membership)),
    }
}

/// Converts snapshot metadata from the wire.
pub fn snapshot_meta_from_wire(meta: v1::SnapshotMeta) -> Result<SnapshotMeta, WireError> {
    Ok(SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_from_wire),
        last_membership: stored_membership_from_wire(meta.last_membership.unwrap_or_default())?,
    })
}

/// Converts an append request to the wire, without a header.
pub fn append_to_wire(request: &AppendEntriesRequest<TypeConfig>) -> v1::AppendEntriesRequest {
    v1::AppendEntriesRequest {
        header: None,
        vote: Some(vote_to_wire(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to_wire),
        entries: request.entries.iter().map(entry_to_wire).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_wire),
    }
}

/// Converts an append request from the wire. Ignores its header.
///
/// # Errors
/// [`WireError`], also for entries that do not follow on each other.
pub fn append_from_wire(
    request: v1::AppendEntriesRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let request = AppendEntriesRequest {
        vote: required_vote(request.vote.as_ref())?,
        prev_log_id: request.prev_log_id.as_ref().map(log_id_from_wire),
        entries: request.entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.as_ref().map(log_id_from_wire),
    };
    check_append(&request)?;
    Ok(request)
}

/// Converts a heartbeat from the wire.
///
/// # Errors
/// As [`append_from_wire`].
pub fn heartbeat_from_wire(
    beat: v1::GroupHeartbeat,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    append_from_wire(v1::AppendEntriesRequest {
        header: None,
        vote: beat.vote,
        prev_log_id: beat.prev_log_id,
        entries: Vec::new(),
        leader_commit: beat.leader_commit,
    })
}

/// Converts an append result to the wire.
pub fn append_result_to_wire(result: &StreamAppendResult<TypeConfig>) -> v1::AppendEntriesResponse {
    use v1::append_entries_response::Result as Wire;
    let result = match result {
        Ok(matched) => {
            Wire::Matched(v1::RaftMatched { log_id: matched.as_ref().map(log_id_to_wire) })
        }
        Err(StreamAppendError::Conflict(at)) => Wire::Conflict(log_id_to_wire(at)),
        Err(StreamAppendError::HigherVote(vote)) => Wire::HigherVote(vote_to_wire(vote)),
    };
    v1::AppendEntriesResponse { result: Some(result) }
}

/// Refuses a vote in a response whose term is too far above that of its request: the sender would
/// determine the term.
pub fn plausible_vote(vote: Vote, sent: u64) -> Result<Vote, WireError> {
    let term = vote.leader_id.term;
    if term > sent.saturating_add(MAX_TERM_JUMP) {
        return Err(WireError::TermJump { term, sent });
    }
    Ok(vote)
}

/// Converts an append result from the wire. `sent`: term of the request.
pub fn append_result_from_wire(
    response: v1::AppendEntriesResponse,
    sent: u64,
) -> Result<StreamAppendResult<TypeConfig>, WireError> {
    use v1::append_entries_response::Result as Wire;
    Ok(match response.result.ok_or(WireError::Missing("an append's result"))? {
        Wire::Matched(matched) => Ok(matched.log_id.as_ref().map(log_id_from_wire)),
        Wire::Conflict(at) => Err(StreamAppendError::Conflict(log_id_from_wire(&at))),
        Wire::HigherVote(vote) => {
            let vote = plausible_vote(vote_from_wire(&vote), sent)?;
            Err(StreamAppendError::HigherVote(vote))
        }
    })
}

/// Converts a vote request to the wire, with its header.
pub fn vote_request_to_wire(
    header: v1::RaftHeader,
    request: &VoteRequest<TypeConfig>,
) -> v1::VoteRequest {
    v1::VoteRequest {
        header: Some(header),
        vote: Some(vote_to_wire(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to_wire),
        leadership_transfer: request.leadership_transfer,
    }
}

/// Converts a vote request from the wire. Ignores its header.
pub fn vote_request_from_wire(
    request: &v1::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, WireError> {
    Ok(VoteRequest {
        vote: required_vote(request.vote.as_ref())?,
        last_log_id: request.last_log_id.as_ref().map(log_id_from_wire),
        leadership_transfer: request.leadership_transfer,
    })
}

/// Converts a vote response to the wire.
pub fn vote_response_to_wire(response: &VoteResponse<TypeConfig>) -> v1::VoteResponse {
    v1::VoteResponse {
        vote: Some(vote_to_wire(&response.vote)),
        last_log_id: response.last_log_id.as_ref().map(log_id_to_wire),
        granted: response.vote_granted,
    }
}

/// Converts a vote response from the wire. `sent`: term of the request.
pub fn vote_response_from_wire(
    response: &v1::VoteResponse,
    sent: u64,
) -> Result<VoteResponse<TypeConfig>, WireError> {
    Ok(VoteResponse {
        vote: plausible_vote(required_vote(response.vote.as_ref())?, sent)?,
        vote_granted: response.granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_from_wire),
    })
}

/// Converts a leader transfer to the wire, with its header.
pub fn transfer_to_wire(
    header: v1::RaftHeader,
    request: &TransferLeaderRequest<TypeConfig>,
) -> v1::TransferLeaderMessage {
    v1::TransferLeaderMessage {
        header: Some(header),
        from_leader: Some(vote_to_wire(request.from_leader())),
        to_node: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_to_wire),
    }
}

/// Converts a leader transfer from the wire. Ignores its header.
pub fn transfer_from_wire(
    message: &v1::TransferLeaderMessage,
) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    let from = required_vote(message.from_leader.as_ref())?;
    let last = message.last_log_id.as_ref().map(log_id_from_wire);
    Ok(TransferLeaderRequest::new(from, message.to_node, last))
}

/// Converts the response to a leader transfer to the wire.
pub fn transfer_outcome_to_wire(
    outcome: &TransferLeaderResponse<TypeConfig>,
) -> v1::TransferLeaderAck {
    let Err(error) = outcome else {
        return v1::TransferLeaderAck { accepted: true, ..Default::default() };
    };
    let (actual_vote, flushed) = match error {
        TransferLeaderError::VoteChanged { actual, .. } => (Some(vote_to_wire(actual)), None),
        TransferLeaderError::LogNotFlushed { actual, .. } => {
            (None, actual.as_ref().map(log_id_to_wire))
        }
    };
    v1::TransferLeaderAck { accepted: false, reason: error.to_string(), actual_vote, flushed }
}

/// Converts the response to this leader transfer from the wire.
pub fn transfer_outcome_from_wire(
    request: &TransferLeaderRequest<TypeConfig>,
    ack: &v1::TransferLeaderAck,
) -> TransferLeaderResponse<TypeConfig> {
    if ack.accepted {
        return Ok(());
    }
    Err(match &ack.actual_vote {
        Some(actual) => TransferLeaderError::VoteChanged {
            expected: *request.from_leader(),
            actual: vote_from_wire(actual),
        },
        None => TransferLeaderError::LogNotFlushed {
            expected: request.last_log_id().copied(),
            actual: ack.flushed.as_ref().map(log_id_from_wire),
        },
    })
}

/// Returns the vote that a message must carry.
pub fn required_vote(vote: Option<&v1::RaftVote>) -> Result<Vote, WireError> {
    vote.map(vote_from_wire).ok_or(WireError::Missing("a vote"))
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
