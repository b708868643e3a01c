//! Calls in progress on each connection, counted from the request until the response has been sent.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Bytes, Service};
use tonic::transport::server::TcpConnectInfo;

/// Connection of a call, in the extensions of its request.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionInfo {
    pub(super) local: Option<SocketAddr>,
    /// Address of the caller.
    pub(crate) peer: SocketAddr,
    pub(super) calls: CallActivity,
}

/// Calls of one connection.
#[derive(Debug, Clone)]
pub(super) struct CallActivity {
    state: Arc<Mutex<CallState>>,
}

#[derive(Debug)]
struct CallState {
    in_progress: usize,
    last_end: Instant,
}

impl CallActivity {
    pub(super) fn new(now: Instant) -> Self {
        Self { state: Arc::new(Mutex::new(CallState { in_progress: 0, last_end: now })) }
    }

    /// Time since the last call ended; `None`: a call is in progress.
    pub(super) fn unused_for(&self, now: Instant) -> Option<Duration> {
        let state = self.state.lock();
        (state.in_progress == 0).then(|| now.duration_since(state.last_end))
    }

    fn begin(&self) -> CallGuard {
        self.state.lock().in_progress += 1;
        CallGuard { calls: self.clone() }
    }
}

/// A call in progress, until it is dropped.
#[derive(Debug)]
struct CallGuard {
    calls: CallActivity,
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let mut state = self.calls.state.lock();
        state.in_progress = state.in_progress.saturating_sub(1);
        state.last_end = Instant::now();
    }
}

/// Layer that counts the calls of each connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CountCalls;

impl<S> tower_layer::Layer<S> for CountCalls {
    type Service = CountedCalls<S>;

    fn layer(&self, inner: S) -> CountedCalls<S> {
        CountedCalls { inner }
    }
}

/// Service of [`CountCalls`].
#[derive(Debug, Clone)]
pub(crate) struct CountedCalls<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for CountedCalls<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let connection = request.extensions().get::<ConnectionInfo>().cloned();
        let guard = connection.map(|connection| {
            // tonic's own type, from which `Request::remote_addr` takes the address.
            request.extensions_mut().insert(TcpConnectInfo {
                local_addr: connection.local,
                remote_addr: Some(connection.peer),
            });
            connection.calls.begin()
        });
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            Ok(response.map(|body| Body::new(CountedBody { body, _guard: guard })))
        })
    }
}

/// Body of a response, whose end is the end of its call.
struct CountedBody {
    body: Body,
    _guard: Option<CallGuard>,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connection_is_used_until_its_last_call_ends() {
        let calls = CallActivity::new(Instant::now());
        let second = Duration::from_secs(1);
        tokio::time::advance(second).await;
        assert_eq!(calls.unused_for(Instant::now()), Some(second));
        let (one, other) = (calls.begin(), calls.begin());
        drop(one);
        assert_eq!(calls.unused_for(Instant::now()), None);
        drop(other);
        tokio::time::advance(2 * second).await;
        assert_eq!(calls.unused_for(Instant::now()), Some(2 * second));
    }
}
