use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::meta_server::{Meta, MetaServer};
use tidewater_proto::v1::*;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::*;

/// A meta node that registers everybody as node 7 and counts heartbeats.
#[derive(Default)]
struct FakeMeta {
    beats: AtomicU64,
    remove_after: u64,
}

/// The same meta node behind the port and in the test's hand.
struct Served(Arc<FakeMeta>);

type Events = Pin<Box<dyn tokio_stream::Stream<Item = Result<WatchEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Meta for Served {
    type WatchStream = Events;

    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        assert_eq!(request.get_ref().role(), NodeRole::Compactor);
        Ok(Response::new(RegisterResponse {
            cluster_id: Uuid::from_u128(1).to_string(),
            node_id: 7,
            incarnation: 1,
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        assert_eq!(request.get_ref().node_id, 7);
        let beats = self.0.beats.fetch_add(1, Ordering::Relaxed) + 1;
        if self.0.remove_after > 0 && beats > self.0.remove_after {
            return Err(Refusal::new(Reason::NodeRemoved, "removed").into());
        }
        Ok(Response::new(HeartbeatResponse::default()))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Events>, Status> {
        Err(Refusal::new(Reason::Unsupported, "not here").into())
    }

    async fn get_catalog(
        &self,
        _: Request<GetCatalogRequest>,
    ) -> Result<Response<CatalogSnapshot>, Status> {
        Err(Refusal::new(Reason::Unsupported, "not here").into())
    }

    async fn join_cluster(
        &self,
        _: Request<JoinClusterRequest>,
    ) -> Result<Response<JoinClusterResponse>, Status> {
        Err(Refusal::new(Reason::Unsupported, "not here").into())
    }
}

async fn serve(meta: Arc<FakeMeta>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(MetaServer::new(Served(meta)))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    address
}

fn options(meta: String) -> CompactorOptions {
    CompactorOptions {
        heartbeat: Duration::from_millis(5),
        ..CompactorOptions::new("127.0.0.1:1", vec![meta])
    }
}

#[tokio::test]
async fn it_registers_beats_and_drains() {
    let meta = Arc::new(FakeMeta::default());
    let node = CompactorNode::start(options(serve(meta.clone()).await)).await.unwrap();
    assert_eq!(node.node_id(), NodeId(7));
    tokio::time::timeout(Duration::from_secs(10), async {
        while meta.beats.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    tokio::time::timeout(Duration::from_secs(10), node.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_removed_node_says_that_it_must_exit() {
    let meta = Arc::new(FakeMeta { remove_after: 1, ..FakeMeta::default() });
    let node = CompactorNode::start(options(serve(meta).await)).await.unwrap();
    let reason = tokio::time::timeout(Duration::from_secs(10), node.failed()).await.unwrap();
    assert!(reason.contains("removed"), "{reason}");
    node.shutdown().await;
}
