use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use openraft::raft::{AppendEntriesRequest, VoteRequest, VoteResponse};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::raft_server;
use tidewater_proto::v1::{self, Reason};
use tonic::{Request, Response, Status, Streaming};

use super::dispatch::{Destination, Sender};
use super::peer_check::MessageKind;
use super::{GroupHandler, HandlerError, RaftService, heartbeats, incoming};
use crate::types::{EntryPayload, TypeConfig, wire};

/// Timeout of the first message. A live client sends it with the headers of the stream.
pub(super) const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    type AppendEntriesStream = BoxStream<'static, Result<v1::AppendEntriesResponse, Status>>;
    type HeartbeatsStream = BoxStream<'static, Result<v1::HeartbeatAnswers, Status>>;

    async fn append_entries(
        &self,
        request: Request<Streaming<v1::AppendEntriesRequest>>,
    ) -> Result<Response<Self::AppendEntriesStream>, Status> {
        let address = request.remote_addr();
        let mut messages = request.into_inner();
        let first = first_message(&mut messages).await?;
        let sender = Sender::new(first.header.as_ref(), address);
        let to = Arc::new(self.destination(first.header.as_ref())?);
        let group = to.group;
        let hosted = Arc::clone(&to.hosted);
        // A stream that ends without answering all its requests is an error for the caller. A
        // request that is not accepted therefore ends the stream; the reason is sent last.
        let (refused, refusal) = tokio::sync::oneshot::channel::<Refusal>();
        let removed = to.host.removed();
        let requests = stream::unfold(Some((messages, refused)), move |state| {
            let to = Arc::clone(&to);
            async move {
                let (mut messages, refused) = state?;
                let message = messages.message().await.ok().flatten()?;
                match accept_append(&to, sender, message).await {
                    Ok(request) => Some((request, Some((messages, refused)))),
                    Err(refusal) => {
                        let _ = refused.send(refusal);
                        None
                    }
                }
            }
        });
        let answers = hosted.handler.append(requests.boxed()).map(move |answer| match answer {
            Ok(result) => Ok(wire::append_result_to_wire(&result)),
            Err(error) => Err(Status::from(error.refusal(group))),
        });
        let last = stream::once(refusal)
            .filter_map(async |refusal| refusal.ok().map(|refusal| Err(Status::from(refusal))));
        Ok(Response::new(answers.chain(last).take_until(removed).boxed()))
    }

    async fn heartbeats(
        &self,
        request: Request<Streaming<v1::HeartbeatBatch>>,
    ) -> Result<Response<Self::HeartbeatsStream>, Status> {
        let address = request.remote_addr();
        let mut batches = request.into_inner();
        let first = first_message(&mut batches).await?;
        let host = self.host(first.header.as_ref())?;
        let sender = Sender::new(first.header.as_ref(), address);
        Ok(Response::new(heartbeats::answer(host, sender, batches)))
    }

    async fn vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteResponse>, Status> {
        self.answer_vote(request, |handler, request| handler.vote(request)).await
    }

    async fn pre_vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteResponse>, Status> {
        self.answer_vote(request, |handler, request| handler.pre_vote(request)).await
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotChunk>>,
    ) -> Result<Response<v1::SnapshotResponse>, Status> {
        let address = request.remote_addr();
        let mut chunks = request.into_inner();
        let first = first_message(&mut chunks).await?;
        let to = self.destination(first.header.as_ref())?;
        let sender = Sender::new(first.header.as_ref(), address);
        let response = incoming::install(to, sender, first, chunks).await?;
        Ok(Response::new(v1::SnapshotResponse { vote: Some(wire::vote_to_wire(&response.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderMessage>,
    ) -> Result<Response<v1::TransferLeaderAck>, Status> {
        let address = request.remote_addr();
        let message = request.into_inner();
        let to = self.destination(message.header.as_ref())?;
        let sender = Sender::new(message.header.as_ref(), address);
        let request = to.well_formed(sender, wire::transfer_from_wire(&message))?;
        to.admit(sender, MessageKind::LeaderTransfer, *request.from_leader())?;
        to.hosted.record_transfer(request.from_leader());
        let outcome = to.answer(to.hosted.handler.transfer_leader(request)).await?;
        Ok(Response::new(wire::transfer_outcome_to_wire(&outcome)))
    }

    async fn members(
        &self,
        request: Request<v1::MembersRequest>,
    ) -> Result<Response<v1::RaftStoredMembership>, Status> {
        let to = self.destination(request.get_ref().header.as_ref())?;
        let committed = to.hosted.handler.view().committed;
        Ok(Response::new(wire::stored_membership_to_wire(&committed)))
    }
}

impl RaftService {
    /// Answers a vote or a pre-vote; they differ only in the handler's method.
    async fn answer_vote(
        &self,
        request: Request<v1::VoteRequest>,
        ask: impl for<'a> FnOnce(
            &'a dyn GroupHandler,
            VoteRequest<TypeConfig>,
        ) -> HandlerFuture<'a, VoteResponse<TypeConfig>>,
    ) -> Result<Response<v1::VoteResponse>, Status> {
        let address = request.remote_addr();
        let message = request.into_inner();
        let to = self.destination(message.header.as_ref())?;
        let sender = Sender::new(message.header.as_ref(), address);
        let request = to.well_formed(sender, wire::vote_request_from_wire(&message))?;
        to.admit(sender, MessageKind::Vote, request.vote)?;
        let response = to.answer(ask(to.hosted.handler.as_ref(), request)).await?;
        Ok(Response::new(wire::vote_response_to_wire(&response)))
    }
}

/// Response of a group, as a future.
type HandlerFuture<'a, T> = BoxFuture<'a, Result<T, HandlerError>>;

impl Destination {
    /// Waits for the group's response. A failure of the group becomes an RPC error.
    async fn answer<T>(&self, response: HandlerFuture<'_, T>) -> Result<T, Status> {
        response.await.map_err(|error| error.refusal(self.group).into())
    }
}

async fn first_message<T>(messages: &mut Streaming<T>) -> Result<T, Status> {
    match tokio::time::timeout(FIRST_MESSAGE_TIMEOUT, messages.message()).await {
        Ok(Ok(Some(first))) => Ok(first),
        Ok(Ok(None)) => {
            Err(Refusal::new(Reason::InvalidArgument, "a Raft stream has no messages").into())
        }
        Ok(Err(status)) => Err(status),
        Err(_) => {
            Err(Refusal::new(Reason::DeadlineExceeded, "a Raft stream sent no header").into())
        }
    }
}

/// Checks one append of a stream, and converts it.
async fn accept_append(
    to: &Destination,
    sender: Sender,
    message: v1::AppendEntriesRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Refusal> {
    if !message.entries.is_empty() && !to.host.accepts_entries() {
        return Err(disk_full());
    }
    let request = to.well_formed(sender, wire::append_from_wire(message))?;
    to.admit(sender, MessageKind::Append, request.vote)?;
    for entry in &request.entries {
        let EntryPayload::Normal(command) = &entry.payload else { continue };
        to.hosted.handler.check_command(&command.0).map_err(|problem| {
            let text = format!("entry {} of group {}: {problem}", entry.log_id, to.group);
            to.host.note_refusal(to.group, "command", &text, sender.address);
            Refusal::new(Reason::Unsupported, text)
        })?;
    }
    to.host.check_committed(to.group, &request, sender.address).await?;
    Ok(request)
}

fn disk_full() -> Refusal {
    Refusal::new(Reason::DiskFull, "the disk is full: entries are refused until there is space")
}
