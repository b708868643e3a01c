//! Heartbeats of all groups to one node, over one stream.
//!
//! Openraft sends each group's heartbeats by themselves, several a second. As calls of their own they
//! are most of what an idle cluster costs; on a *line*, a stream that stays open, they cost little,
//! and those that wait at the same time go in one message. Answers come back one by one, so that a
//! group that is stuck holds up no other's lease.

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

use super::error::Call;
use crate::types::{TypeConfig, wire};

/// Heartbeats that wait for the connection; more are refused, as if they had been lost.
const WAITING: usize = 1_024;
/// Heartbeats of one message.
const TOGETHER: usize = 256;

/// What a group says to a heartbeat, or why it cannot.
type Answer = Result<v1::AppendEntriesResponse, Refusal>;

/// The lines of a node, one to each other node.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    lines: Mutex<HashMap<NodeId, Line>>,
}

impl Heartbeats {
    /// Sends a heartbeat. `open` is called when there is no line to that address; it answers the
    /// client and the header for a new one.
    pub(super) fn send(
        &self,
        call: Call,
        address: &str,
        group: GroupId,
        request: &AppendEntriesRequest<TypeConfig>,
        open: impl FnOnce() -> Result<(RaftClient<Channel>, v1::RaftHeader), RPCError<TypeConfig>>,
    ) -> Result<oneshot::Receiver<Answer>, RPCError<TypeConfig>> {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.get_mut(&call.target).filter(|line| line.leads_to(address)) {
            return line.send(call, group, request);
        }
        let (client, header) = open()?;
        // The former line ends when its sender is dropped here.
        let mut line = Line::open(address, client, header);
        let answer = line.send(call, group, request);
        lines.insert(call.target, line);
        answer
    }
}

/// A stream of heartbeats to a node at an address.
#[derive(Debug)]
struct Line {
    address: String,
    beats: mpsc::Sender<v1::GroupHeartbeat>,
    pending: Arc<Pending>,
    next: u64,
}

impl Line {
    fn open(address: &str, client: RaftClient<Channel>, header: v1::RaftHeader) -> Self {
        let (beats, queued) = mpsc::channel(WAITING);
        let pending = Arc::new(Pending::default());
        tokio::spawn(run(client, header, queued, Arc::clone(&pending)));
        Self { address: address.to_owned(), beats, pending, next: 0 }
    }

    /// Whether it is open, and to that address.
    fn leads_to(&self, address: &str) -> bool {
        self.address == address && !self.pending.has_ended()
    }

    fn send(
        &mut self,
        call: Call,
        group: GroupId,
        request: &AppendEntriesRequest<TypeConfig>,
    ) -> Result<oneshot::Receiver<Answer>, RPCError<TypeConfig>> {
        self.next += 1;
        let beat = v1::GroupHeartbeat {
            group_id: group.get(),
            number: self.next,
            vote: Some(wire::vote_to_wire(&request.vote)),
            prev_log_id: request.prev_log_id.as_ref().map(wire::log_id_to_wire),
            leader_commit: request.leader_commit.as_ref().map(wire::log_id_to_wire),
        };
        let answer = self.pending.expect(group, self.next);
        match (answer, self.beats.try_send(beat)) {
            (Some(answer), Ok(())) => Ok(answer),
            (None, _) | (_, Err(TrySendError::Closed(_))) => {
                Err(call.broken("the stream of heartbeats has just ended"))
            }
            (_, Err(TrySendError::Full(_))) => {
                Err(call.broken("too many heartbeats wait for the connection"))
            }
        }
    }
}

/// Who waits for an answer: for each group its last heartbeat. One that a newer one has replaced is
/// not waited for any more, so there are never more than groups.
#[derive(Debug, Default)]
struct Pending {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// No answer comes any more.
    ended: bool,
    groups: HashMap<GroupId, (u64, oneshot::Sender<Answer>)>,
}

impl Pending {
    fn has_ended(&self) -> bool {
        self.waiting.lock().ended
    }

    /// `None` when no answer comes any more.
    fn expect(&self, group: GroupId, number: u64) -> Option<oneshot::Receiver<Answer>> {
        let mut waiting = self.waiting.lock();
        if waiting.ended {
            return None;
        }
        let (answer, receiver) = oneshot::channel();
        waiting.groups.insert(group, (number, answer));
        Some(receiver)
    }

    /// Whether the caller still waits: it gives up after its deadline.
    fn expects(&self, group: GroupId, number: u64) -> bool {
        let waiting = self.waiting.lock();
        let last = waiting.groups.get(&group);
        last.is_some_and(|(last, answer)| *last == number && !answer.is_closed())
    }

    fn answer(&self, group: GroupId, number: u64, answer: Answer) {
        let mut waiting = self.waiting.lock();
        if waiting.groups.get(&group).is_some_and(|(last, _)| *last == number)
            && let Some((_, caller)) = waiting.groups.remove(&group)
        {
            // The caller may have given up.
            let _ = caller.send(answer);
        }
    }

    fn end(&self, refusal: &Refusal) {
        let mut waiting = self.waiting.lock();
        waiting.ended = true;
        for (_, (_, caller)) in waiting.groups.drain() {
            let _ = caller.send(Err(refusal.clone()));
        }
    }
}

/// Until either side ends the stream. Who waits then is told why.
async fn run(
    mut client: RaftClient<Channel>,
    header: v1::RaftHeader,
    queued: mpsc::Receiver<v1::GroupHeartbeat>,
    pending: Arc<Pending>,
) {
    let hello = v1::HeartbeatBatch { header: Some(header), heartbeats: Vec::new() };
    let waiting = Arc::clone(&pending);
    let batches = ReceiverStream::new(queued).ready_chunks(TOGETHER).map(move |mut heartbeats| {
        // What was not sent in time is of no use to anybody.
        heartbeats.retain(|beat| waiting.expects(GroupId(beat.group_id), beat.number));
        v1::HeartbeatBatch { header: None, heartbeats }
    });
    let ended = match client.heartbeats(stream::iter([hello]).chain(batches)).await {
        Ok(response) => receive(response.into_inner(), &pending).await,
        Err(status) => Refusal::from(status),
    };
    pending.end(&ended);
}

/// Passes answers on; gives the reason when no more come.
async fn receive(
    mut answers: tonic::Streaming<v1::HeartbeatAnswers>,
    pending: &Pending,
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
            pending.answer(GroupId(answer.group_id), answer.number, outcome);
        }
    }
}

#[cfg(test)]
mod tests;
