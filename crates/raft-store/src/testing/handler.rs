//! Groups without Raft behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};

use tidewater_common::ids::GroupId;

use crate::service::{GroupHandler, HandlerError, ReplicaView};
use crate::snapshot_file::SnapshotFile;
use crate::types::{
    Member, Membership, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, Vote, log_id,
};

/// Behaviour of a group for appends and votes; it answers all other calls as a stopped group.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FakeGroup {
    /// Ends the response stream without a response.
    Silent,
    /// Matches at the previous log id of the request, and grants votes.
    Matches,
    /// As `Matches`, as a follower of node 1 in term 4, with members 1 to 3.
    Member,
    /// Reports a higher vote.
    Higher(Vote),
    /// Reports a conflict at the previous log id of the request, or at index 0.
    Conflicts,
    /// Answers each request twice.
    Twice,
    /// Acknowledges entries that were not sent.
    Ahead,
    /// Never answers an append or a vote.
    Stuck,
}

#[tonic::async_trait]
impl GroupHandler for FakeGroup {
    fn view(&self) -> ReplicaView {
        if !matches!(self, Self::Member) {
            return ReplicaView::default();
        }
        let voters = BTreeSet::from([1, 2, 3]);
        let nodes: BTreeMap<u64, Member> =
            voters.iter().map(|id| (*id, Member::new("127.0.0.1:1"))).collect();
        let membership = Membership::new(vec![voters], nodes).unwrap();
        let stored = Arc::new(StoredMembership::new(Some(log_id(1, 0)), membership));
        let vote = Vote::new_committed(4, 1);
        ReplicaView { vote, effective: Arc::clone(&stored), committed: stored }
    }

    fn check_command(&self, command: &Bytes) -> Result<(), String> {
        if command.starts_with(b"newer") { Err("unknown kind".to_owned()) } else { Ok(()) }
    }

    fn check_snapshot(
        &self,
        _: GroupId,
        _: &SnapshotMeta,
        file: &SnapshotFile,
    ) -> std::io::Result<()> {
        match file.length() {
            0 => Err(std::io::ErrorKind::InvalidData.into()),
            _ => Ok(()),
        }
    }

    fn append(
        &self,
        requests: BoxStream<'static, AppendEntriesRequest<TypeConfig>>,
    ) -> BoxStream<'static, Result<StreamAppendResult<TypeConfig>, HandlerError>> {
        let fake = *self;
        match fake {
            Self::Silent => stream::empty().boxed(),
            Self::Stuck => stream::pending().boxed(),
            Self::Matches | Self::Member => {
                requests.map(|request| Ok(Ok(request.prev_log_id))).boxed()
            }
            Self::Conflicts => requests
                .map(|request| {
                    let at = request.prev_log_id.unwrap_or_else(|| log_id(0, 0));
                    Ok(Err(StreamAppendError::Conflict(at)))
                })
                .boxed(),
            Self::Twice => requests
                .flat_map(|request| stream::iter([0; 2]).map(move |_| Ok(Ok(request.prev_log_id))))
                .boxed(),
            Self::Ahead => requests.map(|_| Ok(Ok(Some(log_id(3, u64::MAX))))).boxed(),
            Self::Higher(vote) => {
                requests.map(move |_| Ok(Err(StreamAppendError::HigherVote(vote)))).boxed()
            }
        }
    }

    async fn vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, HandlerError> {
        match self {
            Self::Stuck => std::future::pending().await,
            Self::Matches | Self::Member => Ok(VoteResponse {
                vote: request.vote,
                vote_granted: true,
                last_log_id: request.last_log_id,
            }),
            _ => Err(HandlerError::Stopped),
        }
    }

    async fn pre_vote(
        &self,
        _: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, HandlerError> {
        Err(HandlerError::Stopped)
    }

    async fn install_snapshot(
        &self,
        _: Vote,
        _: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, HandlerError> {
        Err(HandlerError::Stopped)
    }

    async fn transfer_leader(
        &self,
        _: TransferLeaderRequest<TypeConfig>,
    ) -> Result<TransferLeaderResponse<TypeConfig>, HandlerError> {
        Err(HandlerError::Stopped)
    }
}
