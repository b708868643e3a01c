//! Pipelined appends to one node: requests are sent as openraft creates them, responses arrive in
//! the same order, and neither waits for the other.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use openraft::base::BoxStream;
use openraft::errors::RPCError;
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use parking_lot::Mutex;
use tidewater_common::ids::Term;
use tidewater_proto::v1;
use tidewater_proto::v1::raft_client::RaftClient;
use tidewater_rpc::ConnectPolicy;
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Streaming;
use tonic::transport::Channel;

use super::answer_check::AppendRange;
use super::confirmations::Confirmations;
use super::error::CallContext;
use super::held_commit::HeldCommit;
use crate::types::{TypeConfig, wire};

/// Timeout of a response, in heartbeat timeouts. The follower answers entries after its sync. The
/// option allows one heartbeat, which a busy disk exceeds; this many end the pipeline.
const RESPONSE_TIMEOUT_FACTOR: u32 = 20;
/// Minimum time between two attempts to open a stream. Openraft's own pause is in its requests,
/// which are polled only on an open stream. Without this pause a dead node, whose machine refuses
/// connections immediately, would be called thousands of times a second.
const OPEN_INTERVAL: Duration = Duration::from_millis(200);

type AppendResult = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// Opens a stream and sends `input` on it, until the responses are dropped or end.
pub(super) async fn open<S>(
    mut client: RaftClient<Channel>,
    call: CallContext,
    header: v1::RaftHeader,
    input: S,
    confirmations: Arc<Confirmations>,
    option: &RPCOption,
) -> Result<BoxStream<'static, AppendResult>, RPCError<TypeConfig>>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    let response_timeout = option.hard_ttl() * RESPONSE_TIMEOUT_FACTOR;
    let open_timeout = option.soft_ttl().max(ConnectPolicy::RAFT.connect_timeout);
    let in_flight = Arc::new(InFlightAppends {
        state: Mutex::new(InFlightState {
            input: Some(Box::pin(input)),
            ..InFlightState::default()
        }),
        request_sent: Notify::new(),
    });
    let guard = StopGuard(Arc::clone(&in_flight));
    // The header is sent alone: a wrong target refuses it before any entry is sent, and opening the
    // stream does not wait for openraft's first request.
    let hello = v1::AppendEntriesRequest { header: Some(header), ..Default::default() };
    let requests_to_send = RequestStream { in_flight, held: HeldCommit::default() };
    let requests = stream::iter([hello]).chain(requests_to_send);
    let begun = Instant::now();
    let opened = match tokio::time::timeout(open_timeout, client.append_entries(requests)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(call.rpc_error(status.into())),
        Err(_) => Err(call.timeout_error(open_timeout)),
    };
    let responses = match opened {
        Ok(responses) => responses,
        Err(error) => {
            tokio::time::sleep_until(begun + OPEN_INTERVAL).await;
            return Err(error);
        }
    };
    let answers = ResponseReader { responses, guard, call, confirmations, response_timeout };
    Ok(stream::unfold(Some(answers), |answers| async move {
        let mut answers = answers?;
        let answer = answers.next().await?;
        // Openraft opens a new stream after any response other than a match.
        let continues = matches!(answer, Ok(Ok(_)));
        Some((answer, continues.then_some(answers)))
    })
    // An unfold that is polled after its end would panic.
    .fuse()
    .boxed())
}

/// Requests that were sent and not answered, and their source.
struct InFlightAppends {
    state: Mutex<InFlightState>,
    request_sent: Notify,
}

#[derive(Default)]
struct InFlightState {
    /// `None` once the input has ended or the responses were dropped.
    input: Option<Pin<Box<dyn Stream<Item = AppendEntriesRequest<TypeConfig>> + Send>>>,
    waker: Option<Waker>,
    sent: VecDeque<SentRequest>,
}

/// A request without a response yet.
#[derive(Debug, Clone, Copy)]
struct SentRequest {
    at: Instant,
    term: Term,
    range: AppendRange,
}

/// The requests, as a stream for the connection.
struct RequestStream {
    in_flight: Arc<InFlightAppends>,
    held: HeldCommit,
}

impl Stream for RequestStream {
    type Item = v1::AppendEntriesRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let mut state = this.in_flight.state.lock();
        let request = loop {
            let Some(input) = &mut state.input else { return Poll::Ready(None) };
            match input.poll_next_unpin(cx) {
                Poll::Ready(Some(request)) if request.entries.is_empty() => this.held.hold(request),
                Poll::Ready(Some(request)) => {
                    // The entries carry the committed index, too.
                    this.held.take();
                    break request;
                }
                Poll::Ready(None) => {
                    state.input = None;
                    match this.held.take() {
                        Some(request) => break request,
                        None => return Poll::Ready(None),
                    }
                }
                Poll::Pending => match this.held.poll_due(cx) {
                    Poll::Ready(request) => break request,
                    Poll::Pending => {
                        state.waker = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                },
            }
        };
        let term = Term(request.vote.leader_id.term);
        let range = AppendRange::of(&request);
        state.sent.push_back(SentRequest { at: Instant::now(), term, range });
        drop(state);
        this.in_flight.request_sent.notify_one();
        Poll::Ready(Some(wire::append_to_wire(&request)))
    }
}

/// Ends the requests when the responses are dropped. The connection may keep its side open for a
/// while, and would consume requests from openraft that belong to the next stream.
struct StopGuard(Arc<InFlightAppends>);

impl Drop for StopGuard {
    fn drop(&mut self) {
        let (input, waker) = {
            let mut state = self.0.state.lock();
            (state.input.take(), state.waker.take())
        };
        drop(input);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

struct ResponseReader {
    responses: Streaming<v1::AppendEntriesResponse>,
    guard: StopGuard,
    call: CallContext,
    confirmations: Arc<Confirmations>,
    response_timeout: Duration,
}

impl ResponseReader {
    /// Returns the next response; `None` when all requests are answered and no more follow.
    async fn next(&mut self) -> Option<AppendResult> {
        let in_flight = Arc::clone(&self.guard.0);
        loop {
            let oldest = in_flight.state.lock().sent.front().copied();
            let overdue = async {
                match oldest {
                    Some(sent) => tokio::time::sleep_until(sent.at + self.response_timeout).await,
                    // No response is due: openraft may be idle for a long time.
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                message = self.responses.message() => return self.handle_response(message),
                () = overdue => return Some(Err(self.call.timeout_error(self.response_timeout))),
                () = in_flight.request_sent.notified(), if oldest.is_none() => {}
            }
        }
    }

    fn handle_response(
        &self,
        message: Result<Option<v1::AppendEntriesResponse>, tonic::Status>,
    ) -> Option<AppendResult> {
        let mut state = self.guard.0.state.lock();
        match message {
            Ok(Some(response)) => {
                let Some(sent) = state.sent.pop_front() else {
                    return Some(Err(self
                        .call
                        .network_error("it sent a response without a request")));
                };
                let result = match wire::append_result_from_wire(response, sent.term.get()) {
                    Ok(result) => result,
                    Err(error) => return Some(Err(self.call.network_error(error))),
                };
                if !sent.range.admits(&result) {
                    let text = "it responds to an append that was not sent";
                    return Some(Err(self.call.network_error(text)));
                }
                if accepts_leader(&result) {
                    self.confirmations.record(self.call.target, sent.term, sent.at);
                }
                Some(Ok(result))
            }
            Ok(None) if state.sent.is_empty() && state.input.is_none() => None,
            Ok(None) => Some(Err(self.call.network_error("it ended the stream of appends"))),
            Err(status) => Some(Err(self.call.rpc_error(status.into()))),
        }
    }
}

/// Returns whether the response accepts the sender as leader, even if their logs differ.
fn accepts_leader(answer: &StreamAppendResult<TypeConfig>) -> bool {
    matches!(answer, Ok(_) | Err(StreamAppendError::Conflict(_)))
}

#[cfg(test)]
mod tests;
