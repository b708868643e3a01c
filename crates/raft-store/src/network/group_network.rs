use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError};
use openraft::network::{RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, RaftNetworkV2};
use tidewater_common::ids::{GroupId, NodeId, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::raft_client::RaftClient;
use tidewater_proto::v1::{self, Reason};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::answer_check::AppendRange;
use super::confirmations::Confirmations;
use super::connections::ConnectionLane;
use super::error::CallContext;
use super::{NetworkContext, append_stream, snapshot_stream};
use crate::snapshot_file::SnapshotFile;
use crate::types::{Snapshot, TypeConfig, Vote, wire};

/// Network of one group to one node.
#[derive(Debug)]
pub struct GroupNetwork {
    shared: Arc<NetworkContext>,
    group: GroupId,
    target: NodeId,
    lane: ConnectionLane,
    confirmations: Arc<Confirmations>,
}

impl GroupNetwork {
    pub(super) fn new(
        shared: Arc<NetworkContext>,
        group: GroupId,
        target: NodeId,
        lane: ConnectionLane,
        confirmations: Arc<Confirmations>,
    ) -> Self {
        Self { shared, group, target, lane, confirmations }
    }

    fn header(&self) -> v1::RaftHeader {
        v1::RaftHeader {
            cluster_id: self.shared.cluster_id.to_string(),
            source_node: self.shared.node_id.get(),
            target_node: self.target.get(),
            group_id: self.group.get(),
            source_boot: self.shared.boot.get(),
        }
    }

    fn call(&self, kind: RPCTypes) -> CallContext {
        CallContext { kind, source: self.shared.node_id, target: self.target }
    }

    fn address(&self, call: CallContext) -> Result<String, RPCError<TypeConfig>> {
        let known = self.shared.addresses.get(self.target);
        known.ok_or_else(|| call.unreachable_error("its address is not known"))
    }

    fn client(
        &self,
        lane: ConnectionLane,
        call: CallContext,
    ) -> Result<RaftClient<Channel>, RPCError<TypeConfig>> {
        self.client_at(&self.address(call)?, lane, call)
    }

    fn client_at(
        &self,
        address: &str,
        lane: ConnectionLane,
        call: CallContext,
    ) -> Result<RaftClient<Channel>, RPCError<TypeConfig>> {
        self.shared
            .connections
            .client(self.target, address, lane)
            .map_err(|refusal| call.unreachable_error(refusal))
    }

    fn rpc_error(&self, call: CallContext, refusal: Refusal) -> RPCError<TypeConfig> {
        if refusal.reason == Reason::WrongNode {
            self.shared.connections.forget(self.target);
        }
        call.rpc_error(refusal)
    }

    async fn heartbeat(
        &self,
        call: CallContext,
        request: &AppendEntriesRequest<TypeConfig>,
        deadline: Duration,
    ) -> Result<v1::AppendEntriesResponse, RPCError<TypeConfig>> {
        let address = self.address(call)?;
        let open = || Ok((self.client_at(&address, ConnectionLane::Control, call)?, self.header()));
        let answer = self.shared.heartbeats.send(call, &address, self.group, request, open)?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(answer)) => answer.map_err(|refusal| self.rpc_error(call, refusal)),
            Ok(Err(_)) => Err(call.network_error("a newer heartbeat replaced this one")),
            Err(_) => Err(call.timeout_error(deadline)),
        }
    }

    async fn unary<T>(
        &self,
        kind: RPCTypes,
        lane: ConnectionLane,
        deadline: Duration,
        send: impl AsyncFnOnce(RaftClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, RPCError<TypeConfig>> {
        let call = self.call(kind);
        let client = self.client(lane, call)?;
        match tokio::time::timeout(deadline, send(client)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.rpc_error(call, status.into())),
            Err(_) => Err(call.timeout_error(deadline)),
        }
    }

    /// Sends a vote or a pre-vote request; they differ only in the method to call.
    async fn ask_vote(
        &self,
        request: &VoteRequest<TypeConfig>,
        option: &RPCOption,
        ask: impl AsyncFnOnce(
            RaftClient<Channel>,
            v1::VoteRequest,
        ) -> Result<Response<v1::VoteResponse>, Status>,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = wire::vote_request_to_wire(self.header(), request);
        let response = self
            .unary(RPCTypes::Vote, ConnectionLane::Control, option.soft_ttl(), async |client| {
                ask(client, message).await
            })
            .await?;
        wire::vote_response_from_wire(&response, request.vote.leader_id.term)
            .map_err(|error| self.call(RPCTypes::Vote).network_error(error))
    }
}

impl RaftNetworkV2<TypeConfig> for GroupNetwork {
    type SnapshotData = SnapshotFile;

    /// Sends heartbeats only; see [`Self::stream_append`] for entries.
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let call = self.call(RPCTypes::AppendEntries);
        if !request.entries.is_empty() {
            return Err(call.network_error("a heartbeat carries no entries"));
        }
        let sent = Instant::now();
        let response = self.heartbeat(call, &request, option.soft_ttl()).await?;
        let result = wire::append_result_from_wire(response, request.vote.leader_id.term)
            .map_err(|error| call.network_error(error))?;
        if result.is_ok() && !AppendRange::of(&request).admits(&result) {
            return Err(call.network_error("it acknowledges entries that were not sent"));
        }
        if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
            self.confirmations.record(self.target, Term(request.vote.leader_id.term), sent);
        }
        Ok(match result {
            Ok(matched) => AppendEntriesResponse::PartialSuccess(matched),
            Err(StreamAppendError::Conflict(_)) if request.prev_log_id.is_none() => {
                // Openraft would panic: nothing can conflict before the first entry.
                return Err(call.network_error("it reports a conflict before the first entry"));
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
        // Openraft sends a heartbeat as a stream of one request.
        if self.lane == ConnectionLane::Control {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let call = self.call(RPCTypes::AppendEntries);
            // A process that a newer one has superseded acknowledges entries that the newer one lacks.
            let addresses = &self.shared.addresses;
            let restarted = addresses.restarted(self.target, addresses.start(self.target));
            let client = self.client(self.lane, call)?;
            let confirmations = Arc::clone(&self.confirmations);
            let header = self.header();
            let answers =
                append_stream::open(client, call, header, input, confirmations, &option).await?;
            Ok(answers.take_until(restarted).boxed())
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let ask = async |mut client: RaftClient<Channel>, message| client.vote(message).await;
        self.ask_vote(&request, &option, ask).await
    }

    // The trait's default grants the vote, and a failure must not count as a grant either: an
    // isolated node would collect a majority of grants and raise its term.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let ask = async |mut client: RaftClient<Channel>, message| client.pre_vote(message).await;
        self.ask_vote(&request, &option, ask).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let call = self.call(RPCTypes::InstallSnapshot);
        let client = self.client(ConnectionLane::Snapshot, call)?;
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
        let message = wire::transfer_to_wire(self.header(), &request);
        let ack = self
            .unary(
                RPCTypes::TransferLeader,
                ConnectionLane::Control,
                option.soft_ttl(),
                async |mut client| client.transfer_leader(message).await,
            )
            .await?;
        Ok(wire::transfer_outcome_from_wire(&request, &ack))
    }
}
