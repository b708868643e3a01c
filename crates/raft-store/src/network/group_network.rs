use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError};
use openraft::network::{RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, RaftNetworkV2};
use tidewater_common::ids::{GroupId, NodeId};
use tidewater_proto::v1;
use tidewater_proto::v1::raft_client::RaftClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::connections::Lane;
use super::error::Call;
use super::{Shared, append_stream, snapshot_stream};
use crate::snapshot_file::SnapshotFile;
use crate::types::{Snapshot, TypeConfig, Vote, wire};

/// One group's calls to one node.
#[derive(Debug)]
pub struct GroupNetwork {
    shared: Arc<Shared>,
    group: GroupId,
    target: NodeId,
    lane: Lane,
}

impl GroupNetwork {
    pub(super) fn new(shared: Arc<Shared>, group: GroupId, target: NodeId, lane: Lane) -> Self {
        Self { shared, group, target, lane }
    }

    fn header(&self) -> v1::RaftHeader {
        v1::RaftHeader {
            cluster_id: self.shared.cluster_id.to_string(),
            source_node: self.shared.node_id.get(),
            target_node: self.target.get(),
            group_id: self.group.get(),
        }
    }

    fn call(&self, kind: RPCTypes) -> Call {
        Call { kind, source: self.shared.node_id, target: self.target }
    }

    fn client(&self, lane: Lane, call: Call) -> Result<RaftClient<Channel>, RPCError<TypeConfig>> {
        let address = self
            .shared
            .addresses
            .get(self.target)
            .ok_or_else(|| call.unreachable("its address is not known"))?;
        self.shared
            .connections
            .client(self.target, &address, lane)
            .map_err(|error| call.unreachable(format!("bad address {address:?}: {error}")))
    }

    async fn unary<T>(
        &self,
        kind: RPCTypes,
        lane: Lane,
        deadline: Duration,
        send: impl AsyncFnOnce(RaftClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, RPCError<TypeConfig>> {
        let call = self.call(kind);
        let client = self.client(lane, call)?;
        match tokio::time::timeout(deadline, send(client)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(call.refused(&status)),
            Err(_) => Err(call.timeout(deadline)),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for GroupNetwork {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = v1::AppendEntriesRequest {
            header: Some(self.header()),
            ..wire::append_to_wire(&request)
        };
        let response = self
            .unary(RPCTypes::AppendEntries, self.lane, option.soft_ttl(), async |mut client| {
                client.append(message).await
            })
            .await?;
        let result = wire::append_result_from_wire(response)
            .map_err(|error| self.call(RPCTypes::AppendEntries).broken(error))?;
        Ok(match result {
            Ok(matched) => AppendEntriesResponse::PartialSuccess(matched),
            Err(StreamAppendError::Conflict(_)) if request.prev_log_id.is_none() => {
                // Openraft would panic: nothing conflicts with the beginning of the log.
                let call = self.call(RPCTypes::AppendEntries);
                return Err(call.broken("it reports a conflict before the first entry"));
            }
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        // A heartbeat is a stream of one request: a single call costs less.
        if self.lane == Lane::Control {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let call = self.call(RPCTypes::AppendEntries);
            let client = self.client(self.lane, call)?;
            append_stream::open(client, call, self.header(), input, &option).await
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = wire::vote_request_to_wire(self.header(), &request);
        let response = self
            .unary(RPCTypes::Vote, Lane::Control, option.soft_ttl(), async |mut client| {
                client.vote(message).await
            })
            .await?;
        wire::vote_response_from_wire(&response)
            .map_err(|error| self.call(RPCTypes::Vote).broken(error))
    }

    // The trait's default grants, and so would a failure answered with a grant: an isolated node
    // would collect a majority of them and raise its term.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = wire::vote_request_to_wire(self.header(), &request);
        let response = self
            .unary(RPCTypes::Vote, Lane::Control, option.soft_ttl(), async |mut client| {
                client.pre_vote(message).await
            })
            .await?;
        wire::vote_response_from_wire(&response)
            .map_err(|error| self.call(RPCTypes::Vote).broken(error))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let call = self.call(RPCTypes::InstallSnapshot);
        let client = self.client(Lane::Snapshot, call)?;
        let send = snapshot_stream::send(client, call, self.header(), vote, snapshot, &option);
        tokio::select! {
            sent = send => sent,
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = v1::TransferLeaderMessage {
            header: Some(self.header()),
            from_leader: Some(wire::vote_to_wire(request.from_leader())),
            to_node: *request.to_node_id(),
            last_log_id: request.last_log_id().map(wire::log_id_to_wire),
        };
        let ack = self
            .unary(
                RPCTypes::TransferLeader,
                Lane::Control,
                option.soft_ttl(),
                async |mut client| client.transfer_leader(message).await,
            )
            .await?;
        if ack.accepted {
            return Ok(Ok(()));
        }
        Ok(Err(match ack.actual_vote {
            Some(actual) => TransferLeaderError::VoteChanged {
                expected: *request.from_leader(),
                actual: wire::vote_from_wire(&actual),
            },
            None => TransferLeaderError::LogNotFlushed {
                expected: request.last_log_id().copied(),
                actual: ack.flushed.as_ref().map(wire::log_id_from_wire),
            },
        }))
    }
}
