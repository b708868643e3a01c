//! Responses to the heartbeats of all groups that another node leads, on one stream.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason, heartbeat_answer::Outcome};
use tonic::{Status, Streaming};

use super::HandlerError;
use super::dispatch::{Destination, Sender};
use super::host::RaftHost;
use super::peer_check::MessageKind;
use crate::types::wire;

/// Maximum number of unanswered heartbeats; the stream is not read beyond it.
const MAX_UNANSWERED: usize = 1_024;
/// Timeout of a group's response. The leader has stopped waiting by then.
const GROUP_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum number of responses in a message.
const MAX_BATCH: usize = 256;

/// Answers each heartbeat as soon as its group does.
pub(super) fn answer(
    host: Arc<RaftHost>,
    sender: Sender,
    batches: Streaming<v1::HeartbeatBatch>,
) -> BoxStream<'static, Result<v1::HeartbeatAnswers, Status>> {
    // The end of the stream is enough of a signal: the caller opens another one.
    let batches = batches.scan((), |(), batch| std::future::ready(batch.ok()));
    let removed = host.removed();
    batches
        .flat_map(|batch| stream::iter(batch.heartbeats))
        .map(move |beat| answer_heartbeat(Arc::clone(&host), sender, beat))
        .buffer_unordered(MAX_UNANSWERED)
        .ready_chunks(MAX_BATCH)
        .map(|answers| Ok(v1::HeartbeatAnswers { answers }))
        .take_until(removed)
        .boxed()
}

async fn answer_heartbeat(
    host: Arc<RaftHost>,
    sender: Sender,
    beat: v1::GroupHeartbeat,
) -> v1::HeartbeatAnswer {
    let group_id = beat.group_id;
    let number = beat.number;
    let response = tokio::time::timeout(GROUP_TIMEOUT, append_heartbeat(&host, sender, beat));
    let outcome = match response.await {
        Ok(Ok(result)) => Outcome::Result(result),
        Ok(Err(refusal)) => refused(refusal),
        Err(_) => refused(Refusal::new(
            Reason::DeadlineExceeded,
            format!("group {group_id} did not respond within {GROUP_TIMEOUT:?}"),
        )),
    };
    v1::HeartbeatAnswer { group_id, number, outcome: Some(outcome) }
}

async fn append_heartbeat(
    host: &Arc<RaftHost>,
    sender: Sender,
    beat: v1::GroupHeartbeat,
) -> Result<v1::AppendEntriesResponse, Refusal> {
    let group = GroupId(beat.group_id);
    let to = Destination { group, host: Arc::clone(host), hosted: host.find_group(group)? };
    let request = to.well_formed(sender, wire::heartbeat_from_wire(beat))?;
    to.admit(sender, MessageKind::Append, request.vote)?;
    let mut answers = to.hosted.handler.append(stream::iter([request]).boxed());
    match answers.next().await {
        Some(Ok(result)) => Ok(wire::append_result_to_wire(&result)),
        Some(Err(error)) => Err(error.refusal(group)),
        None => Err(HandlerError::Stopped.refusal(group)),
    }
}

fn refused(refusal: Refusal) -> Outcome {
    let reason = refusal.reason.into();
    Outcome::Refusal(v1::HeartbeatRefusal { reason, message: refusal.message })
}
