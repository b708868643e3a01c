//! Responses that are written at the pace of their reader.
//!
//! The HTTP/2 library takes a message as a whole, however large, before its reader has read a byte of
//! it, and keeps it until the reader reads or the connection ends. A *paced* response is passed on in
//! *pieces*, which are copies. The library takes as many as the reader's flow control admits, and up to
//! 400 KiB more for each response. The rest stays here, where it can be released: the response ends with
//! an error when its reader takes no piece for [`READER_STALLED_AFTER`], or when it waits for its reader
//! after the longest time of a scan.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::read::memory::READER_STALLED_AFTER;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use crate::meters;

/// Bytes of a piece. Pieces that the library has taken are outside of the memory budget of scans.
const PIECE_BYTES: usize = 64 << 10;
/// End of the path of calls whose responses are paced.
const SCAN: &str = "/Scan";

/// Service whose scans have paced responses.
#[derive(Debug, Clone)]
pub struct PacedScans<S> {
    calls: S,
    /// The same service, with limits of its own.
    scans: S,
    /// Longest time for which a response waits for its reader.
    longest: Duration,
}

impl<S> PacedScans<S> {
    /// Creates a service. `scan_lifetime`: longest time for which a scan reads.
    pub(super) fn new(calls: S, scans: S, scan_lifetime: Duration) -> Self {
        // Later than the scan, whose error reaches a reader that reads.
        Self { calls, scans, longest: scan_lifetime + READER_STALLED_AFTER }
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
        let end = Instant::now() + self.longest;
        Box::pin(async move {
            let response = response.await?;
            if !is_scan || response.body().is_end_stream() {
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(PacedBody::start(body, end))))
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
    fn start(body: Body, end: Instant) -> Self {
        let state =
            BodyState { body: Some(body), rest: Bytes::new(), waits_since: None, end: None };
        let state = Arc::new(Mutex::new(state));
        let watch = AbortOnDropHandle::new(tokio::spawn(watch(state.clone(), end)));
        Self { state, _watch: watch }
    }
}

/// Ends the response when its reader takes nothing, or waits for its reader at `end` or later.
async fn watch(state: Arc<Mutex<BodyState>>, end: Instant) {
    loop {
        let waits_since = state.lock().waits_since;
        let now = Instant::now();
        let stalled = waits_since.unwrap_or(now) + READER_STALLED_AFTER;
        tokio::time::sleep_until(if now < end { stalled.min(end) } else { stalled }).await;
        let ended = state.lock().end_if_overdue(end);
        if let Some(ended) = ended {
            // Outside of the lock: it stops the scan.
            drop(ended);
            return;
        }
    }
}

/// Returns the error of a response that waits for its reader since `waits_since`, if it must end.
fn overdue(waits_since: Instant, end: Instant, now: Instant) -> Option<String> {
    let stalled = READER_STALLED_AFTER.as_secs();
    if now.saturating_duration_since(waits_since) >= READER_STALLED_AFTER {
        Some(format!(
            "the reader of the scan took nothing for {stalled} s: read faster, or smaller key ranges"
        ))
    } else if now >= end {
        Some("the scan exceeded its time limit: read faster, or smaller key ranges".to_owned())
    } else {
        None
    }
}

impl BodyState {
    /// Ends the response if its reader takes nothing, or the response is open for too long. Returns the
    /// rest, which is never read.
    fn end_if_overdue(&mut self, end: Instant) -> Option<(Option<Body>, Bytes)> {
        let text = overdue(self.waits_since?, end, Instant::now())?;
        meters::count_stalled_scan();
        self.end = Some(Refusal::new(Reason::DeadlineExceeded, text).into());
        Some((self.body.take(), std::mem::take(&mut self.rest)))
    }

    fn next_piece(&mut self) -> Bytes {
        self.waits_since = Some(Instant::now());
        let bytes = self.rest.len().min(PIECE_BYTES);
        // A copy: a slice would keep all of the message in memory.
        let piece = Bytes::copy_from_slice(&self.rest[..bytes]);
        self.rest.advance(bytes);
        if self.rest.is_empty() {
            self.rest = Bytes::new();
        }
        piece
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
