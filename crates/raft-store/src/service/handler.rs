use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{Fatal, RaftError};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::RaftStateMachine;
use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use super::peer_check::ReplicaView;
use crate::snapshot_file::SnapshotFile;
use crate::types::{Raft, Snapshot, SnapshotMeta, TypeConfig, Vote};

/// Reason why a group does not respond.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// The group's Raft was shut down.
    #[error("it was shut down")]
    Stopped,
    /// The group's Raft has failed, and needs a restart of the node.
    #[error("it has failed: {0}")]
    Failed(String),
}

impl HandlerError {
    pub(super) fn refusal(&self, group: GroupId) -> Refusal {
        let reason = match self {
            Self::Stopped => Reason::GroupNotHosted,
            Self::Failed(_) => Reason::Internal,
        };
        Refusal::new(reason, format!("group {group} does not respond on this node: {self}"))
    }
}

impl From<Fatal<TypeConfig>> for HandlerError {
    fn from(fatal: Fatal<TypeConfig>) -> Self {
        match fatal {
            Fatal::Stopped => Self::Stopped,
            Fatal::StorageError(_) | Fatal::Panicked => Self::Failed(fatal.to_string()),
        }
    }
}

impl From<RaftError<TypeConfig>> for HandlerError {
    fn from(error: RaftError<TypeConfig>) -> Self {
        match error {
            RaftError::Fatal(fatal) => fatal.into(),
            RaftError::APIError(never) => match never {},
        }
    }
}

/// Validation of the input of other nodes, before it reaches openraft. A state machine that fails on
/// its input stops its Raft, and with it the node, at every start again.
pub trait PeerInput {
    /// Checks a command that another node appends.
    ///
    /// # Errors
    /// The reason why this release cannot apply the command and a later one may. A command that no
    /// release can apply passes: applying it refuses it on every replica.
    fn check_command(command: &Bytes) -> Result<(), String>;

    /// Reads a received snapshot of a group to its end. Blocking.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] or [`io::ErrorKind::UnexpectedEof`] when the content is not a
    /// snapshot of the group with this metadata.
    fn check_snapshot(group: GroupId, meta: &SnapshotMeta, file: &SnapshotFile) -> io::Result<()>;
}

/// A group's responses to other nodes. Implemented for every [`Raft`] whose snapshots are files.
#[tonic::async_trait]
pub trait GroupHandler: Send + Sync + 'static {
    /// Returns the replica's vote and memberships.
    fn view(&self) -> ReplicaView;

    /// See [`PeerInput::check_command`].
    fn check_command(&self, command: &Bytes) -> Result<(), String>;

    /// See [`PeerInput::check_snapshot`].
    fn check_snapshot(
        &self,
        group: GroupId,
        meta: &SnapshotMeta,
        file: &SnapshotFile,
    ) -> io::Result<()>;

    /// Processes a stream of appends. Responses are in order, and end after the first that is not
    /// a match.
    fn append(
        &self,
        requests: BoxStream<'static, AppendEntriesRequest<TypeConfig>>,
    ) -> BoxStream<'static, Result<StreamAppendResult<TypeConfig>, HandlerError>>;

    /// Processes a vote request.
    async fn vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, HandlerError>;

    /// Returns whether the group would grant a vote, without changing its state.
    async fn pre_vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, HandlerError>;

    /// Installs a snapshot that was received completely.
    async fn install_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, HandlerError>;

    /// Processes a leader transfer.
    async fn transfer_leader(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> Result<TransferLeaderResponse<TypeConfig>, HandlerError>;
}

#[tonic::async_trait]
impl<SM> GroupHandler for Raft<SM>
where
    SM: RaftStateMachine<TypeConfig, SnapshotData = SnapshotFile> + PeerInput,
{
    fn view(&self) -> ReplicaView {
        let metrics = self.server_metrics();
        let metrics = metrics.borrow_watched();
        ReplicaView {
            vote: metrics.vote,
            effective: Arc::clone(&metrics.membership_config),
            committed: Arc::clone(&metrics.committed_membership_config),
        }
    }

    fn check_command(&self, command: &Bytes) -> Result<(), String> {
        SM::check_command(command)
    }

    fn check_snapshot(
        &self,
        group: GroupId,
        meta: &SnapshotMeta,
        file: &SnapshotFile,
    ) -> io::Result<()> {
        SM::check_snapshot(group, meta, file)
    }

    fn append(
        &self,
        requests: BoxStream<'static, AppendEntriesRequest<TypeConfig>>,
    ) -> BoxStream<'static, Result<StreamAppendResult<TypeConfig>, HandlerError>> {
        self.stream_append(requests).map(|answer| answer.map_err(HandlerError::from)).boxed()
    }

    async fn vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, HandlerError> {
        Ok(Raft::vote(self, request).await?)
    }

    async fn pre_vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, HandlerError> {
        Ok(Raft::pre_vote(self, request).await?)
    }

    async fn install_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, HandlerError> {
        Ok(self.install_full_snapshot(vote, snapshot).await?)
    }

    async fn transfer_leader(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> Result<TransferLeaderResponse<TypeConfig>, HandlerError> {
        Ok(self.handle_transfer_leader(request).await?)
    }
}
