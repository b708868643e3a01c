//! Fake meta node, which is always the leader.

use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};
use parking_lot::Mutex;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason, meta_server::Meta, watch_event::Event};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::state::{ChangesAnswer, State, WatchMode};

pub(super) struct MetaNode {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) changed: watch::Receiver<u64>,
}

/// Returns the event that follows a change.
fn event(state: &State) -> Option<Result<v1::WatchEvent, Status>> {
    let event = match state.watch_mode {
        WatchMode::Snapshots => Some(Event::Snapshot(state.catalog.clone())),
        WatchMode::Deltas => state.deltas.last().cloned().map(Event::Delta),
        WatchMode::KeepAlive => Some(Event::CurrentRevision(state.catalog.revision)),
        WatchMode::Silent => None,
        WatchMode::Broken => return Some(Err(Status::unavailable("connection reset"))),
    };
    event.map(|event| Ok(v1::WatchEvent { event: Some(event) }))
}

#[tonic::async_trait]
impl Meta for MetaNode {
    type WatchStream = BoxStream<'static, Result<v1::WatchEvent, Status>>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let state = self.state.clone();
        let request = request.get_ref();
        {
            let mut state = state.lock();
            state.watches += 1;
            let catalog = &state.catalog;
            let known = (request.incarnation, request.from_revision);
            if known > (catalog.incarnation, catalog.revision) {
                state.watches_ahead += 1;
                return Err(Refusal::new(Reason::CatalogBehind, "the watcher is ahead").into());
            }
        }
        let events = WatchStream::new(self.changed.clone())
            .filter_map(move |_| std::future::ready(event(&state.lock())));
        Ok(Response::new(events.boxed()))
    }

    async fn get_catalog(
        &self,
        _request: Request<v1::GetCatalogRequest>,
    ) -> Result<Response<v1::CatalogSnapshot>, Status> {
        let mut state = self.state.lock();
        state.snapshots_read += 1;
        match state.meta_refusals.pop_front() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(Response::new(state.catalog.clone())),
        }
    }

    async fn get_catalog_changes(
        &self,
        request: Request<v1::GetCatalogChangesRequest>,
    ) -> Result<Response<v1::GetCatalogChangesResponse>, Status> {
        let request = request.into_inner();
        let answer = {
            let mut state = self.state.lock();
            state.changes_read.push(request.clone());
            if request.cluster_id != state.catalog.cluster_id {
                return Err(Refusal::new(Reason::WrongCluster, "another cluster").into());
            }
            state.changes_answers.pop_front()
        };
        if matches!(answer, Some(ChangesAnswer::Never)) {
            return std::future::pending().await;
        }
        let state = self.state.lock();
        match answer {
            Some(ChangesAnswer::Refuse(refusal)) => Err(refusal.into()),
            Some(ChangesAnswer::Page(page)) => Ok(Response::new(page)),
            None if request.incarnation != state.catalog.incarnation => {
                let snapshot_needed = true;
                Ok(Response::new(v1::GetCatalogChangesResponse {
                    snapshot_needed,
                    ..Default::default()
                }))
            }
            _ => Ok(Response::new(state.changes_since(request.revision))),
        }
    }

    async fn next_timestamps(
        &self,
        request: Request<v1::NextTimestampsRequest>,
    ) -> Result<Response<v1::NextTimestampsResponse>, Status> {
        let mut state = self.state.lock();
        if let Some(refusal) = state.meta_refusals.pop_front() {
            return Err(refusal.into());
        }
        let (first, count) = (state.next_timestamp, request.get_ref().count);
        state.next_timestamp += u64::from(count);
        Ok(Response::new(v1::NextTimestampsResponse { first, count }))
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
