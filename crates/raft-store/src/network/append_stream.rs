//! Appends to one node, pipelined: requests go out as openraft makes them, answers come back in
//! their order, and neither waits for the other.

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
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Streaming;
use tonic::transport::Channel;

use super::confirmations::Confirmations;
use super::connections::CONNECT_TIMEOUT;
use super::error::Call;
use super::held_commit::HeldCommit;
use crate::types::{TypeConfig, wire};

/// An answer to entries comes after their sync on the other node. The option's budget is one
/// heartbeat, which a busy disk exceeds: so many of them tear the pipeline down.
const PATIENCE: u32 = 20;
/// Time between two attempts to open a stream. Openraft's own pause is in the requests, which are
/// not asked for before a stream stands: a dead node, whose machine refuses connections at once,
/// would be called thousands of times a second.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(200);

type AppendResult = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// Opens a stream and feeds it from `input`, until the answers are dropped or end.
pub(super) async fn open<S>(
    mut client: RaftClient<Channel>,
    call: Call,
    header: v1::RaftHeader,
    input: S,
    confirmations: Arc<Confirmations>,
    option: &RPCOption,
) -> Result<BoxStream<'static, AppendResult>, RPCError<TypeConfig>>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    let patience = option.hard_ttl() * PATIENCE;
    let setup = option.soft_ttl().max(CONNECT_TIMEOUT);
    let flight = Arc::new(Flight {
        state: Mutex::new(FlightState { input: Some(Box::pin(input)), ..FlightState::default() }),
        departed: Notify::new(),
    });
    let landing = Landing(Arc::clone(&flight));
    // The header goes alone: a wrong target refuses it before any entry is sent, and the set-up
    // does not wait for openraft's first request.
    let hello = v1::AppendEntriesRequest { header: Some(header), ..Default::default() };
    let departures = Departures { flight, held: HeldCommit::default() };
    let requests = stream::iter([hello]).chain(departures);
    let begun = Instant::now();
    let opened = match tokio::time::timeout(setup, client.append_entries(requests)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(call.refused(status.into())),
        Err(_) => Err(call.timeout(setup)),
    };
    let responses = match opened {
        Ok(responses) => responses,
        Err(error) => {
            tokio::time::sleep_until(begun + BETWEEN_ATTEMPTS).await;
            return Err(error);
        }
    };
    let answers = Answers { responses, landing, call, confirmations, patience };
    Ok(stream::unfold(Some(answers), |answers| async move {
        let mut answers = answers?;
        let answer = answers.next().await?;
        // Openraft starts a new stream after anything but a match.
        let goes_on = matches!(answer, Ok(Ok(_)));
        Some((answer, goes_on.then_some(answers)))
    })
    // An unfold that is asked again after its end would panic.
    .fuse()
    .boxed())
}

/// Requests that were sent and not answered, and where they come from.
struct Flight {
    state: Mutex<FlightState>,
    departed: Notify,
}

#[derive(Default)]
struct FlightState {
    /// Taken when nobody reads answers any more.
    input: Option<Pin<Box<dyn Stream<Item = AppendEntriesRequest<TypeConfig>> + Send>>>,
    waker: Option<Waker>,
    sent: VecDeque<Sent>,
}

/// A request on its way.
#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Instant,
    term: Term,
}

/// The requests, as the connection takes them.
struct Departures {
    flight: Arc<Flight>,
    held: HeldCommit,
}

impl Stream for Departures {
    type Item = v1::AppendEntriesRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let mut state = this.flight.state.lock();
        let request = loop {
            let Some(input) = &mut state.input else { return Poll::Ready(None) };
            match input.poll_next_unpin(cx) {
                Poll::Ready(Some(request)) if request.entries.is_empty() => this.held.hold(request),
                Poll::Ready(Some(request)) => {
                    // It says what a held one would have said.
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
        state.sent.push_back(Sent { at: Instant::now(), term });
        drop(state);
        this.flight.departed.notify_one();
        Poll::Ready(Some(wire::append_to_wire(&request)))
    }
}

/// Ends the requests when the answers are dropped. The connection may hold on to its side for a
/// while, and would take requests from openraft that belong to the next stream.
struct Landing(Arc<Flight>);

impl Drop for Landing {
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

struct Answers {
    responses: Streaming<v1::AppendEntriesResponse>,
    landing: Landing,
    call: Call,
    confirmations: Arc<Confirmations>,
    patience: Duration,
}

impl Answers {
    /// The next answer; `None` when all requests are answered and no more come.
    async fn next(&mut self) -> Option<AppendResult> {
        let flight = Arc::clone(&self.landing.0);
        loop {
            let oldest = flight.state.lock().sent.front().copied();
            let overdue = async {
                match oldest {
                    Some(sent) => tokio::time::sleep_until(sent.at + self.patience).await,
                    // Nothing is awaited: openraft may have nothing to send for a long time.
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                message = self.responses.message() => return self.landed(message),
                () = overdue => return Some(Err(self.call.timeout(self.patience))),
                () = flight.departed.notified(), if oldest.is_none() => {}
            }
        }
    }

    fn landed(
        &self,
        message: Result<Option<v1::AppendEntriesResponse>, tonic::Status>,
    ) -> Option<AppendResult> {
        let mut state = self.landing.0.state.lock();
        match message {
            Ok(Some(response)) => {
                let Some(sent) = state.sent.pop_front() else {
                    return Some(Err(self.call.broken("it answered what was not asked")));
                };
                let result = match wire::append_result_from_wire(response) {
                    Ok(result) => result,
                    Err(error) => return Some(Err(self.call.broken(error))),
                };
                if accepts_leader(&result) {
                    self.confirmations.note(self.call.target, sent.term, sent.at);
                }
                Some(Ok(result))
            }
            Ok(None) if state.sent.is_empty() && state.input.is_none() => None,
            Ok(None) => Some(Err(self.call.broken("it ended the stream of appends"))),
            Err(status) => Some(Err(self.call.refused(status.into()))),
        }
    }
}

/// Whether whoever answered so took the sender for its leader, wherever their logs differ.
fn accepts_leader(answer: &StreamAppendResult<TypeConfig>) -> bool {
    matches!(answer, Ok(_) | Err(StreamAppendError::Conflict(_)))
}

#[cfg(test)]
mod tests;
