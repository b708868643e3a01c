use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::backoff::Jitter;
use tidewater_proto::v1::hook_cursors_server::{HookCursors, HookCursorsServer};
use tidewater_proto::v1::{self, AdvanceCursorsResponse};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::*;

const CLUSTER: ClusterId = ClusterId(Uuid::from_u128(1));
const FIRST_PAGE: u64 = 9;
const SECOND_PAGE: u64 = 10;

/// First region and known fingerprint of a request.
type Requested = (u64, Option<u64>);

/// A meta node with two pages of cursors: the list changes between them.
#[derive(Debug, Clone, Default)]
struct FakeCursors {
    /// Earlier releases know no fingerprints.
    is_earlier: bool,
    requests: Arc<Mutex<Vec<Requested>>>,
}

#[tonic::async_trait]
impl HookCursors for FakeCursors {
    async fn list_cursors(
        &self,
        request: Request<ListCursorsRequest>,
    ) -> Result<Response<ListCursorsResponse>, Status> {
        let request = request.into_inner();
        self.requests.lock().push((request.from_region_id, request.known_fingerprint));
        let (fingerprint, next) = match request.from_region_id {
            0 => (FIRST_PAGE, Some(5)),
            _ => (SECOND_PAGE, None),
        };
        if !self.is_earlier && request.known_fingerprint == Some(fingerprint) {
            let response = ListCursorsResponse { unchanged: true, ..Default::default() };
            return Ok(Response::new(response));
        }
        let cursor = v1::HookCursor { region_id: request.from_region_id, ..Default::default() };
        Ok(Response::new(ListCursorsResponse {
            cursors: vec![ListedCursor { cursor: Some(cursor), dropped: false }],
            next_region_id: next,
            fingerprint: (!self.is_earlier).then_some(fingerprint),
            unchanged: false,
        }))
    }

    async fn advance_cursors(
        &self,
        _: Request<AdvanceCursorsRequest>,
    ) -> Result<Response<AdvanceCursorsResponse>, Status> {
        Err(Status::unimplemented("no cursor is moved"))
    }
}

async fn link_to(fake: FakeCursors) -> MetaLink {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tonic::transport::Server::builder()
        .add_service(HookCursorsServer::new(fake))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    MetaLink::new([address], Jitter::system())
}

async fn list(link: &MetaLink, known: Option<u64>) -> Option<(usize, Option<u64>)> {
    let list = link.list_cursors(CLUSTER, &[GroupId(1)], known).await.unwrap();
    list.map(|list| (list.cursors.len(), list.fingerprint))
}

#[tokio::test]
async fn list_has_the_fingerprint_of_its_first_page() {
    let fake = FakeCursors::default();
    let link = link_to(fake.clone()).await;
    assert_eq!(list(&link, None).await, Some((2, Some(FIRST_PAGE))));
    assert_eq!(list(&link, Some(SECOND_PAGE)).await, Some((2, Some(FIRST_PAGE))));
    assert_eq!(list(&link, Some(FIRST_PAGE)).await, None);
    let known = Some(SECOND_PAGE);
    let expected = [(0, None), (5, None), (0, known), (5, None), (0, Some(FIRST_PAGE))];
    assert_eq!(*fake.requests.lock(), expected);
}

#[tokio::test]
async fn list_of_an_earlier_release_is_always_whole() {
    let link = link_to(FakeCursors { is_earlier: true, ..FakeCursors::default() }).await;
    for known in [None, Some(FIRST_PAGE)] {
        assert_eq!(list(&link, known).await, Some((2, None)));
    }
}
