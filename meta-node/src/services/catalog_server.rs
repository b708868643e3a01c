//! The proto service `Meta` on the wire. Calls that return the catalog send the shared pieces of
//! [`CatalogFeed`](crate::feed::CatalogFeed) as they are; the generated server handles all other calls.
//!
//! The generated server would encode the catalog again for each watcher, and keep a copy in the buffer of each
//! connection. Here a response is a queue of pieces, which HTTP/2 takes as the watcher reads them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http_body::Frame;
use prost::Message;
use tidewater_proto::v1::GetCatalogRequest;
use tidewater_proto::v1::meta_server::MetaServer;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Streaming};
use tonic::codegen::http::{HeaderMap, Request, Response, header};
use tonic::codegen::{BoxFuture, Service};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_prost::ProstDecoder;

use super::MAX_REQUEST_BYTES;
use super::meta::MetaService;

const WATCH: &str = "/tidewater.v1.Meta/Watch";
const GET_CATALOG: &str = "/tidewater.v1.Meta/GetCatalog";

/// Pieces of the messages of a response, and its end.
pub(super) type Pieces = BoxStream<'static, Result<Bytes, Status>>;

/// Server of the service `Meta`.
#[derive(Debug, Clone)]
pub(crate) struct CatalogServer {
    generated: MetaServer<MetaService>,
    service: MetaService,
}

impl CatalogServer {
    pub(super) fn new(generated: MetaServer<MetaService>, service: MetaService) -> Self {
        Self { generated, service }
    }
}

impl NamedService for CatalogServer {
    const NAME: &'static str = <MetaServer<MetaService> as NamedService>::NAME;
}

impl Service<Request<Body>> for CatalogServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.service.clone();
        match request.uri().path() {
            WATCH => Box::pin(async move {
                let pieces = async { service.watch_pieces(decode(request).await?).await };
                Ok(respond(pieces.await))
            }),
            GET_CATALOG => Box::pin(async move {
                let pieces = async {
                    let GetCatalogRequest {} = decode(request).await?;
                    let frame = service.catalog().await?;
                    Ok(stream::iter(frame.into_iter().map(Ok)).boxed())
                };
                Ok(respond(pieces.await))
            }),
            _ => self.generated.call(request),
        }
    }
}

/// Decodes the message of a request.
async fn decode<M: Message + Default + 'static>(request: Request<Body>) -> Result<M, Status> {
    let decoder = ProstDecoder::new(BufferSettings::default());
    let body = request.into_body();
    let mut messages = Streaming::new_request(decoder, body, None, Some(MAX_REQUEST_BYTES));
    let message = messages.message().await?;
    message.ok_or_else(|| Status::internal("the request has no message"))
}

fn respond(pieces: Result<Pieces, Status>) -> Response<Body> {
    match pieces {
        Ok(pieces) => {
            let mut response = Response::new(Body::new(CatalogBody { pieces, has_ended: false }));
            response.headers_mut().insert(header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
            response
        }
        Err(status) => status.into_http(),
    }
}

/// Body of a response: its pieces, then its status as trailers.
struct CatalogBody {
    pieces: Pieces,
    has_ended: bool,
}

impl http_body::Body for CatalogBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let status = match ready!(self.pieces.poll_next_unpin(context)) {
            Some(Ok(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
            Some(Err(status)) => status,
            None => Status::new(Code::Ok, ""),
        };
        self.has_ended = true;
        let mut trailers = HeaderMap::new();
        let added = status.add_header(&mut trailers);
        Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))))
    }
}
