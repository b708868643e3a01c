use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use openraft::raft::{TransferLeaderError, TransferLeaderRequest};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::raft_server;
use tidewater_proto::v1::{self, Reason};
use tonic::{Request, Response, Status, Streaming};

use super::dispatch::Destination;
use super::{RaftService, incoming};
use crate::types::wire::{self, WireError};

/// The first message of a stream comes with its headers, or its sender is gone.
pub(super) const FIRST_MESSAGE: Duration = Duration::from_secs(5);

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    type AppendEntriesStream = BoxStream<'static, Result<v1::AppendEntriesResponse, Status>>;

    async fn append_entries(
        &self,
        request: Request<Streaming<v1::AppendEntriesRequest>>,
    ) -> Result<Response<Self::AppendEntriesStream>, Status> {
        let mut messages = request.into_inner();
        let first = first_message(&mut messages).await?;
        let Destination { group, host, hosted } = self.destination(first.header.as_ref())?;
        // A stream that ends without answering all its requests is an error to the caller, so what
        // cannot be taken just ends it; the reason goes last.
        let (refused, refusal) = tokio::sync::oneshot::channel::<Refusal>();
        let requests = stream::unfold(Some((messages, refused)), move |state| {
            let host = std::sync::Arc::clone(&host);
            async move {
                let (mut messages, refused) = state?;
                let message = messages.message().await.ok().flatten()?;
                if !message.entries.is_empty() && !host.takes_entries() {
                    let _ = refused.send(disk_full());
                    return None;
                }
                match wire::append_from_wire(message) {
                    Ok(request) => Some((request, Some((messages, refused)))),
                    Err(error) => {
                        let _ = refused.send(malformed(&error));
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
        Ok(Response::new(answers.chain(last).boxed()))
    }

    async fn append(
        &self,
        request: Request<v1::AppendEntriesRequest>,
    ) -> Result<Response<v1::AppendEntriesResponse>, Status> {
        let message = request.into_inner();
        let to = self.destination(message.header.as_ref())?;
        if !message.entries.is_empty() && !to.host.takes_entries() {
            return Err(disk_full().into());
        }
        let request = wire::append_from_wire(message).map_err(|error| malformed(&error))?;
        let requests = stream::once(std::future::ready(request)).boxed();
        match to.hosted.handler.append(requests).next().await {
            Some(Ok(result)) => Ok(Response::new(wire::append_result_to_wire(&result))),
            Some(Err(error)) => Err(error.refusal(to.group).into()),
            None => Err(super::HandlerError::Stopped.refusal(to.group).into()),
        }
    }

    async fn vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteResponse>, Status> {
        let message = request.into_inner();
        let to = self.destination(message.header.as_ref())?;
        let request = wire::vote_request_from_wire(&message).map_err(|error| malformed(&error))?;
        let response =
            to.hosted.handler.vote(request).await.map_err(|error| error.refusal(to.group))?;
        Ok(Response::new(wire::vote_response_to_wire(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteResponse>, Status> {
        let message = request.into_inner();
        let to = self.destination(message.header.as_ref())?;
        let request = wire::vote_request_from_wire(&message).map_err(|error| malformed(&error))?;
        let response =
            to.hosted.handler.pre_vote(request).await.map_err(|error| error.refusal(to.group))?;
        Ok(Response::new(wire::vote_response_to_wire(&response)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotChunk>>,
    ) -> Result<Response<v1::SnapshotResponse>, Status> {
        let mut chunks = request.into_inner();
        let first = first_message(&mut chunks).await?;
        let to = self.destination(first.header.as_ref())?;
        let response = incoming::install(to, first, chunks).await?;
        Ok(Response::new(v1::SnapshotResponse { vote: Some(wire::vote_to_wire(&response.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderMessage>,
    ) -> Result<Response<v1::TransferLeaderAck>, Status> {
        let message = request.into_inner();
        let to = self.destination(message.header.as_ref())?;
        let from =
            wire::required_vote(message.from_leader.as_ref()).map_err(|error| malformed(&error))?;
        let last = message.last_log_id.as_ref().map(wire::log_id_from_wire);
        let request = TransferLeaderRequest::new(from, message.to_node, last);
        let outcome = to
            .hosted
            .handler
            .transfer_leader(request)
            .await
            .map_err(|error| error.refusal(to.group))?;
        Ok(Response::new(match outcome {
            Ok(()) => v1::TransferLeaderAck { accepted: true, ..Default::default() },
            Err(error) => {
                let reason = error.to_string();
                let (actual_vote, flushed) = match error {
                    TransferLeaderError::VoteChanged { actual, .. } => {
                        (Some(wire::vote_to_wire(&actual)), None)
                    }
                    TransferLeaderError::LogNotFlushed { actual, .. } => {
                        (None, actual.as_ref().map(wire::log_id_to_wire))
                    }
                };
                v1::TransferLeaderAck { accepted: false, reason, actual_vote, flushed }
            }
        }))
    }
}

async fn first_message<T>(messages: &mut Streaming<T>) -> Result<T, Status> {
    match tokio::time::timeout(FIRST_MESSAGE, messages.message()).await {
        Ok(Ok(Some(first))) => Ok(first),
        Ok(Ok(None)) => {
            Err(Refusal::new(Reason::InvalidArgument, "a Raft stream came without messages").into())
        }
        Ok(Err(status)) => Err(status),
        Err(_) => {
            Err(Refusal::new(Reason::DeadlineExceeded, "a Raft stream came without header").into())
        }
    }
}

pub(super) fn malformed(error: &WireError) -> Refusal {
    Refusal::new(Reason::InvalidArgument, error.to_string())
}

fn disk_full() -> Refusal {
    Refusal::new(Reason::DiskFull, "the disk is full: no entries are taken until there is room")
}
