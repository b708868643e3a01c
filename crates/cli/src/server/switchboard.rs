//! Services that are installed while the port is open.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::RwLock;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tonic::Status;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Body as HttpBody, Bytes, Future, Pin, Service};
use tonic::service::Routes;

type Body = tonic::body::Body;

/// Routes each call to the services installed last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switchboard {
    routes: Arc<RwLock<Option<Routes>>>,
}

impl Switchboard {
    /// Replaces the installed services. No others follow.
    pub(crate) fn install(&self, routes: Routes) {
        *self.routes.write() = Some(routes.prepare());
    }

    /// Replaces the installed services while those of other roles are not installed yet. Calls of the latter
    /// are rejected as temporarily unavailable, not as unimplemented: the meta node of a standalone
    /// process places groups on its data node before the services of the data node are installed.
    pub(crate) fn install_first(&self, routes: Routes) {
        let router = routes.into_axum_router().fallback_service(Self::default());
        self.install(Routes::from(router));
    }
}

impl<B> Service<Request<B>> for Switchboard
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let routes = self.routes.read().clone();
        match routes {
            Some(mut routes) => Box::pin(routes.call(request)),
            None => Box::pin(std::future::ready(Ok(starting()))),
        }
    }
}

fn starting() -> Response<Body> {
    let refusal = Refusal::new(Reason::Unavailable, "the node is starting: retry")
        .retry_after(std::time::Duration::from_millis(200));
    Status::from(refusal).into_http()
}
