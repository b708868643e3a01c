//! Heartbeats of all groups to one node, over one stream.
//!
//! Openraft sends the heartbeats of each group separately, several a second. As separate RPCs they
//! are most of the cost of an idle cluster. On a *heartbeat stream*, which stays open, they are
//! cheap, and heartbeats that are queued at the same time share a message. Responses arrive one by
//! one, so that a group that is stuck does not delay the lease of another group.

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use openraft::errors::RPCError;
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use tidewater_common::ids::{GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1;
use tidewater_proto::v1::raft_client::RaftClient;
use tidewater_proto::v1::{Reason, heartbeat_answer::Outcome};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::error::CallContext;
use crate::types::{TypeConfig, wire};

/// Maximum number of heartbeats queued for the connection; more fail as if they had been lost.
const MAX_QUEUED: usize = 1_024;
/// Maximum number of heartbeats in a message.
const MAX_BATCH: usize = 256;

/// A group's response to a heartbeat, or the RPC error.
type HeartbeatResult = Result<v1::AppendEntriesResponse, Refusal>;

/// Heartbeat streams of a node, one to each other node.
#[derive(Debug, Default)]
pub(super) struct HeartbeatStreams {
    streams: Mutex<HashMap<NodeId, HeartbeatStream>>,
}

impl HeartbeatStreams {
    /// Sends a heartbeat. Calls `open` when there is no stream to that address; it returns the
    /// client and the header of a new stream.
    pub(super) fn send(
        &self,
        call: CallContext,
        address: &str,
        group: GroupId,
        request: &AppendEntriesRequest<TypeConfig>,
        open: impl FnOnce() -> Result<(RaftClient<Channel>, v1::RaftHeader), RPCError<TypeConfig>>,
    ) -> Result<oneshot::Receiver<HeartbeatResult>, RPCError<TypeConfig>> {
        let mut streams = self.streams.lock();
        if let Some(stream) =
            streams.get_mut(&call.target).filter(|stream| stream.is_open_to(address))
        {
            return stream.send(call, group, request);
        }
        let (client, header) = open()?;
        // The previous stream ends when the insertion below drops its sender.
        let mut stream = HeartbeatStream::open(address, client, header);
        let answer = stream.send(call, group, request);
        streams.insert(call.target, stream);
        answer
    }
}

/// A stream of heartbeats to a node at an address.
#[derive(Debug)]
struct HeartbeatStream {
    address: String,
    heartbeats: mpsc::Sender<v1::GroupHeartbeat>,
    pending: Arc<PendingHeartbeats>,
    next: u64,
}

impl HeartbeatStream {
    fn open(address: &str, client: RaftClient<Channel>, header: v1::RaftHeader) -> Self {
        let (heartbeats, queued) = mpsc::channel(MAX_QUEUED);
        let pending = Arc::new(PendingHeartbeats::default());
        tokio::spawn(run(client, header, queued, Arc::clone(&pending)));
        Self { address: address.to_owned(), heartbeats, pending, next: 0 }
    }

    /// Returns whether the stream is open, and leads to that address.
    fn is_open_to(&self, address: &str) -> bool {
        self.address == address && !self.pending.has_ended()
    }

    fn send(
        &mut self,
        call: CallContext,
        group: GroupId,
        request: &AppendEntriesRequest<TypeConfig>,
    ) -> Result<oneshot::Receiver<HeartbeatResult>, RPCError<TypeConfig>> {
        self.next += 1;
        let beat = v1::GroupHeartbeat {
            group_id: group.get(),
            number: self.next,
            vote: Some(wire::vote_to_wire(&request.vote)),
            prev_log_id: request.prev_log_id.as_ref().map(wire::log_id_to_wire),
            leader_commit: request.leader_commit.as_ref().map(wire::log_id_to_wire),
        };
        let answer = self.pending.register(group, self.next);
        match (answer, self.heartbeats.try_send(beat)) {
            (Some(answer), Ok(())) => Ok(answer),
            (None, _) | (_, Err(TrySendError::Closed(_))) => {
                Err(call.network_error("the stream of heartbeats has just ended"))
            }
            (_, Err(TrySendError::Full(_))) => {
                Err(call.network_error("too many heartbeats wait for the connection"))
            }
        }
    }
}

/// Callers that wait for a response: the last heartbeat of each group. A newer heartbeat replaces
/// the older one, so there are never more callers than groups.
#[derive(Debug, Default)]
struct PendingHeartbeats {
    waiting: Mutex<PendingState>,
}

#[derive(Debug, Default)]
struct PendingState {
    /// Set when the stream has ended: no response arrives any more.
    ended: bool,
    groups: HashMap<GroupId, (u64, oneshot::Sender<HeartbeatResult>)>,
}

impl PendingHeartbeats {
    fn has_ended(&self) -> bool {
        self.waiting.lock().ended
    }

    /// Registers a caller; `None` when the stream has ended.
    fn register(&self, group: GroupId, number: u64) -> Option<oneshot::Receiver<HeartbeatResult>> {
        let mut waiting = self.waiting.lock();
        if waiting.ended {
            return None;
        }
        let (answer, receiver) = oneshot::channel();
        waiting.groups.insert(group, (number, answer));
        Some(receiver)
    }

    /// Returns whether the caller still waits. It stops waiting at its deadline.
    fn is_awaited(&self, group: GroupId, number: u64) -> bool {
        let waiting = self.waiting.lock();
        let last = waiting.groups.get(&group);
        last.is_some_and(|(last, answer)| *last == number && !answer.is_closed())
    }

    fn complete(&self, group: GroupId, number: u64, answer: HeartbeatResult) {
        let mut waiting = self.waiting.lock();
        if waiting.groups.get(&group).is_some_and(|(last, _)| *last == number)
            && let Some((_, caller)) = waiting.groups.remove(&group)
        {
            // The caller may have stopped waiting.
            let _ = caller.send(answer);
        }
    }

    fn fail_all(&self, refusal: &Refusal) {
        let mut waiting = self.waiting.lock();
        waiting.ended = true;
        for (_, (_, caller)) in waiting.groups.drain() {
            let _ = caller.send(Err(refusal.clone()));
        }
    }
}

/// Runs until either side ends the stream, then returns the reason to all pending callers.
async fn run(
    mut client: RaftClient<Channel>,
    header: v1::RaftHeader,
    queued: mpsc::Receiver<v1::GroupHeartbeat>,
    pending: Arc<PendingHeartbeats>,
) {
    let hello = v1::HeartbeatBatch { header: Some(header), heartbeats: Vec::new() };
    let waiting = Arc::clone(&pending);
    let batches = ReceiverStream::new(queued).ready_chunks(MAX_BATCH).map(move |mut heartbeats| {
        // Drop heartbeats whose callers have stopped waiting.
        heartbeats.retain(|beat| waiting.is_awaited(GroupId(beat.group_id), beat.number));
        v1::HeartbeatBatch { header: None, heartbeats }
    });
    let ended = match client.heartbeats(stream::iter([hello]).chain(batches)).await {
        Ok(response) => receive(response.into_inner(), &pending).await,
        Err(status) => Refusal::from(status),
    };
    pending.fail_all(&ended);
}

/// Passes responses to their callers. Returns the reason when the stream ends.
async fn receive(
    mut answers: tonic::Streaming<v1::HeartbeatAnswers>,
    pending: &PendingHeartbeats,
) -> Refusal {
    loop {
        let message = match answers.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Refusal::new(Reason::Unavailable, "the stream of heartbeats ended"),
            Err(status) => return status.into(),
        };
        for answer in message.answers {
            let outcome = match answer.outcome {
                Some(Outcome::Result(result)) => Ok(result),
                Some(Outcome::Refusal(refused)) => {
                    let reason = Reason::try_from(refused.reason).unwrap_or(Reason::Internal);
                    Err(Refusal::new(reason, refused.message))
                }
                None => Err(Refusal::new(Reason::Internal, "an answer without outcome")),
            };
            pending.complete(GroupId(answer.group_id), answer.number, outcome);
        }
    }
}

#[cfg(test)]
mod tests;
