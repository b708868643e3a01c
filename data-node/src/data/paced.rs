//! Responses that are written at the pace of their reader.
//!
//! The HTTP/2 library takes a message as a whole, however large, before its reader has read a byte of
//! it, and keeps it until the reader reads or the connection ends. A *paced* response is passed on in
//! *pieces*, of which the library holds one or two. The rest stays here, where it can be released:
//! when the reader has taken no piece for a minute, the response ends with an error.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use crate::meters;

/// Bytes of a piece. Two are outside of the memory budget of scans.
const PIECE_BYTES: usize = 64 << 10;
/// Longest time for which a reader may take nothing.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// End of the path of calls whose responses are paced.
const SCAN: &str = "/Scan";

/// Service whose scans have paced responses.
#[derive(Debug, Clone)]
pub struct PacedScans<S> {
    calls: S,
    /// The same service, with limits of its own.
    scans: S,
}

impl<S> PacedScans<S> {
    pub(super) fn new(calls: S, scans: S) -> Self {
        Self { calls, scans }
    }
}

impl<S: NamedService> NamedService for PacedScans<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for PacedScans<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        ready!(self.calls.poll_ready(context))?;
        self.scans.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let is_scan = request.uri().path().ends_with(SCAN);
        let service = if is_scan { &mut self.scans } else { &mut self.calls };
        let response = service.call(request);
        Box::pin(async move {
            let response = response.await?;
            if !is_scan || response.body().is_end_stream() {
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(PacedBody::start(body, STALLED_AFTER))))
        })
    }
}

/// Body of a paced response.
struct PacedBody {
    state: Arc<Mutex<BodyState>>,
    _watch: AbortOnDropHandle<()>,
}

struct BodyState {
    /// The rest of the response; `None` after its end.
    body: Option<Body>,
    /// Rest of a frame.
    rest: Bytes,
    /// Time when a piece was passed on, until the next one is requested.
    waits_since: Option<Instant>,
    /// Error with which the response ends.
    end: Option<Status>,
}

impl PacedBody {
    fn start(body: Body, stalled_after: Duration) -> Self {
        let state =
            BodyState { body: Some(body), rest: Bytes::new(), waits_since: None, end: None };
        let state = Arc::new(Mutex::new(state));
        let watch = AbortOnDropHandle::new(tokio::spawn(watch(state.clone(), stalled_after)));
        Self { state, _watch: watch }
    }
}

/// Ends the response when its reader takes nothing.
async fn watch(state: Arc<Mutex<BodyState>>, stalled_after: Duration) {
    loop {
        let waits_since = state.lock().waits_since;
        let until = waits_since.unwrap_or_else(Instant::now) + stalled_after;
        tokio::time::sleep_until(until).await;
        let ended = state.lock().end_if_stalled(waits_since, stalled_after);
        if let Some(ended) = ended {
            // Outside of the lock: it stops the scan.
            drop(ended);
            return;
        }
    }
}

impl BodyState {
    /// Ends the response if its reader has taken nothing since `waited_since`. Returns the rest, which
    /// is never read.
    fn end_if_stalled(
        &mut self,
        waited_since: Option<Instant>,
        stalled_after: Duration,
    ) -> Option<(Option<Body>, Bytes)> {
        let waits_since = self.waits_since?;
        if Some(waits_since) != waited_since || waits_since.elapsed() < stalled_after {
            return None;
        }
        meters::count_stalled_scan();
        let text = format!(
            "the reader of the scan took nothing for {} s: read faster, or smaller key ranges",
            stalled_after.as_secs()
        );
        self.end = Some(Refusal::new(Reason::DeadlineExceeded, text).into());
        Some((self.body.take(), std::mem::take(&mut self.rest)))
    }

    fn next_piece(&mut self) -> Bytes {
        let rest = self.rest.len();
        if rest > PIECE_BYTES && rest <= 2 * PIECE_BYTES {
            // The last pieces of a message are copies: they would keep all of it in memory.
            self.rest = Bytes::copy_from_slice(&self.rest);
        }
        self.waits_since = Some(Instant::now());
        self.rest.split_to(rest.min(PIECE_BYTES))
    }
}

impl HttpBody for PacedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut state = self.state.lock();
        state.waits_since = None;
        if let Some(status) = state.end.take() {
            let mut trailers = http::HeaderMap::new();
            return Poll::Ready(Some(match status.add_header(&mut trailers) {
                Ok(()) => Ok(Frame::trailers(trailers)),
                Err(status) => Err(status),
            }));
        }
        if !state.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(state.next_piece()))));
        }
        let Some(body) = &mut state.body else { return Poll::Ready(None) };
        let frame = match ready!(Pin::new(body).poll_frame(context)) {
            None => None,
            Some(Err(status)) => Some(Err(status)),
            Some(Ok(frame)) => Some(Ok(match frame.into_data() {
                Ok(data) => {
                    state.rest = data;
                    Frame::data(state.next_piece())
                }
                Err(frame) => frame,
            })),
        };
        Poll::Ready(frame)
    }
}

#[cfg(test)]
mod tests;
