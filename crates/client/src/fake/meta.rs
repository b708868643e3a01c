//! Fake meta node, which is always the leader.

use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};
use parking_lot::Mutex;
use tidewater_proto::v1::{self, meta_server::Meta, watch_event::Event};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::state::State;

pub(super) struct MetaNode {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) changed: watch::Receiver<u64>,
}

#[tonic::async_trait]
impl Meta for MetaNode {
    type WatchStream = BoxStream<'static, Result<v1::WatchEvent, Status>>;

    async fn watch(
        &self,
        _request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let state = self.state.clone();
        let events = WatchStream::new(self.changed.clone()).map(move |_| {
            let snapshot = state.lock().catalog.clone();
            Ok(v1::WatchEvent { event: Some(Event::Snapshot(snapshot)) })
        });
        Ok(Response::new(events.boxed()))
    }

    async fn get_catalog(
        &self,
        _request: Request<v1::GetCatalogRequest>,
    ) -> Result<Response<v1::CatalogSnapshot>, Status> {
        let mut state = self.state.lock();
        match state.meta_refusals.pop_front() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(Response::new(state.catalog.clone())),
        }
    }

    async fn register(
        &self,
        _request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        Err(Status::unimplemented("not for clients"))
    }

    async fn heartbeat(
        &self,
        _request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        Err(Status::unimplemented("not for clients"))
    }

    async fn read_group(
        &self,
        _request: Request<v1::ReadGroupRequest>,
    ) -> Result<Response<v1::ReadGroupResponse>, Status> {
        Err(Status::unimplemented("not for clients"))
    }

    async fn join_cluster(
        &self,
        _request: Request<v1::JoinClusterRequest>,
    ) -> Result<Response<v1::JoinClusterResponse>, Status> {
        Err(Status::unimplemented("not for clients"))
    }

    async fn compare_state(
        &self,
        _request: Request<v1::CompareStateRequest>,
    ) -> Result<Response<v1::CompareStateResponse>, Status> {
        Err(Status::unimplemented("not for clients"))
    }
}
