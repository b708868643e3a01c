//! Heartbeats of all groups that another node leads and this one follows, on one stream.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason, heartbeat_answer::Outcome};
use tonic::{Status, Streaming};

use super::HandlerError;
use super::host::RaftHost;
use super::rpc::malformed;
use crate::types::wire;

/// Heartbeats that groups have not answered yet; the stream is not read on meanwhile.
const UNANSWERED: usize = 1_024;
/// A group that takes longer answers for nobody: its leader has given up by then.
const PATIENCE: Duration = Duration::from_millis(500);
/// Answers of one message.
const TOGETHER: usize = 256;

/// Answers each heartbeat as soon as its group does.
pub(super) fn answer(
    host: Arc<RaftHost>,
    batches: Streaming<v1::HeartbeatBatch>,
) -> BoxStream<'static, Result<v1::HeartbeatAnswers, Status>> {
    // What breaks the stream is told by its end: the caller opens another one.
    let batches = batches.scan((), |(), batch| std::future::ready(batch.ok()));
    let gone = host.gone();
    batches
        .flat_map(|batch| stream::iter(batch.heartbeats))
        .map(move |beat| answer_one(Arc::clone(&host), beat))
        .buffer_unordered(UNANSWERED)
        .ready_chunks(TOGETHER)
        .map(|answers| Ok(v1::HeartbeatAnswers { answers }))
        .take_until(gone)
        .boxed()
}

async fn answer_one(host: Arc<RaftHost>, beat: v1::GroupHeartbeat) -> v1::HeartbeatAnswer {
    let (group_id, number) = (beat.group_id, beat.number);
    let asked = tokio::time::timeout(PATIENCE, ask(&host, beat));
    let outcome = match asked.await {
        Ok(Ok(result)) => Outcome::Result(result),
        Ok(Err(refusal)) => refused(refusal),
        Err(_) => refused(Refusal::new(
            Reason::DeadlineExceeded,
            format!("group {group_id} did not answer within {PATIENCE:?}"),
        )),
    };
    v1::HeartbeatAnswer { group_id, number, outcome: Some(outcome) }
}

async fn ask(
    host: &RaftHost,
    beat: v1::GroupHeartbeat,
) -> Result<v1::AppendEntriesResponse, Refusal> {
    let group = GroupId(beat.group_id);
    let hosted = host.answering(group)?;
    let request = AppendEntriesRequest {
        vote: wire::required_vote(beat.vote.as_ref()).map_err(|error| malformed(&error))?,
        prev_log_id: beat.prev_log_id.as_ref().map(wire::log_id_from_wire),
        entries: Vec::new(),
        leader_commit: beat.leader_commit.as_ref().map(wire::log_id_from_wire),
    };
    let mut answers = hosted.handler.append(stream::iter([request]).boxed());
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
