//! A fake meta service that accepts every node.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::meta_server::{Meta, MetaServer};
use tidewater_proto::v1::*;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::{CLUSTER, NODE};

/// A meta node that registers every node as node 7 and counts heartbeats.
#[derive(Default)]
pub(crate) struct FakeMeta {
    pub(crate) beats: AtomicU64,
    /// Number of heartbeats after which the node is reported as removed; 0: never.
    pub(crate) remove_after: u64,
    pub(crate) last: Mutex<HeartbeatRequest>,
}

/// The gRPC side of a [`FakeMeta`] that the test shares.
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
            cluster_id: CLUSTER.to_string(),
            node_id: NODE,
            incarnation: 1,
            ..RegisterResponse::default()
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        assert_eq!(request.get_ref().node_id, NODE);
        *self.0.last.lock() = request.into_inner();
        let beats = self.0.beats.fetch_add(1, Ordering::Relaxed) + 1;
        if self.0.remove_after > 0 && beats > self.0.remove_after {
            return Err(Refusal::new(Reason::NodeRemoved, "removed").into());
        }
        Ok(Response::new(HeartbeatResponse::default()))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Events>, Status> {
        Err(Refusal::new(Reason::Unsupported, "not supported by the fake meta service").into())
    }

    async fn get_catalog(
        &self,
        _: Request<GetCatalogRequest>,
    ) -> Result<Response<CatalogSnapshot>, Status> {
        Err(Refusal::new(Reason::Unsupported, "not supported by the fake meta service").into())
    }

    async fn get_catalog_changes(
        &self,
        _: Request<GetCatalogChangesRequest>,
    ) -> Result<Response<GetCatalogChangesResponse>, Status> {
        Err(Refusal::new(Reason::Unsupported, "not supported by the fake meta service").into())
    }

    async fn read_group(
        &self,
        _: Request<ReadGroupRequest>,
    ) -> Result<Response<ReadGroupResponse>, Status> {
        Err(Refusal::new(Reason::Unsupported, "not supported by the fake meta service").into())
    }

    async fn next_timestamps(
        &self,
        _: Request<NextTimestampsRequest>,
    ) -> Result<Response<NextTimestampsResponse>, Status> {
        Err(Refusal::new(Reason::Unsupported, "not supported by the fake meta service").into())
    }

    async fn join_cluster(
        &self,
        _: Request<JoinClusterRequest>,
    ) -> Result<Response<JoinClusterResponse>, Status> {
        Err(Refusal::new(Reason::Unsupported, "not supported by the fake meta service").into())
    }

    async fn compare_state(
        &self,
        _: Request<CompareStateRequest>,
    ) -> Result<Response<CompareStateResponse>, Status> {
        Err(Refusal::new(Reason::Unsupported, "not supported by the fake meta service").into())
    }
}

impl FakeMeta {
    /// Starts the service and returns its address.
    pub(crate) async fn serve(self: Arc<Self>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(MetaServer::new(Served(self)))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        address
    }
}
