//! Fake service for regions of a data node: compactions, which have nothing to do or fail as a test says.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use tidewater_proto::v1::{self, region_admin_server::RegionAdmin};
use tonic::{Request, Response, Status};

use super::state::State;

pub(super) struct RegionAdminNode {
    pub(super) state: Arc<Mutex<State>>,
}

fn not_faked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the fake data node does not have this call"))
}

#[tonic::async_trait]
impl RegionAdmin for RegionAdminNode {
    type SweepStoreStream = BoxStream<'static, Result<v1::GarbageEvent, Status>>;
    type CompactRegionStream = BoxStream<'static, Result<v1::CompactRegionEvent, Status>>;

    async fn compact_region(
        &self,
        _request: Request<v1::CompactRegionRequest>,
    ) -> Result<Response<Self::CompactRegionStream>, Status> {
        let event = match self.state.lock().compaction_refusals.pop_front() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(v1::CompactRegionEvent { done: true, ..Default::default() }),
        };
        Ok(Response::new(stream::iter([event]).boxed()))
    }

    async fn sweep_store(
        &self,
        _request: Request<v1::SweepStoreRequest>,
    ) -> Result<Response<Self::SweepStoreStream>, Status> {
        not_faked()
    }

    async fn list_regions(
        &self,
        _request: Request<v1::ListRegionsRequest>,
    ) -> Result<Response<v1::ListRegionsResponse>, Status> {
        not_faked()
    }

    async fn flush_region(
        &self,
        _request: Request<v1::FlushRegionRequest>,
    ) -> Result<Response<v1::FlushRegionResponse>, Status> {
        not_faked()
    }

    async fn list_compactions(
        &self,
        _request: Request<v1::ListCompactionsRequest>,
    ) -> Result<Response<v1::ListCompactionsResponse>, Status> {
        not_faked()
    }

    async fn cancel_compaction(
        &self,
        _request: Request<v1::CancelCompactionRequest>,
    ) -> Result<Response<v1::CancelCompactionResponse>, Status> {
        not_faked()
    }

    async fn list_files(
        &self,
        _request: Request<v1::ListFilesRequest>,
    ) -> Result<Response<v1::ListFilesResponse>, Status> {
        not_faked()
    }

    async fn count_versions(
        &self,
        _request: Request<v1::CountVersionsRequest>,
    ) -> Result<Response<v1::CountVersionsResponse>, Status> {
        not_faked()
    }

    async fn show_manifest(
        &self,
        _request: Request<v1::ShowManifestRequest>,
    ) -> Result<Response<v1::ShowManifestResponse>, Status> {
        not_faked()
    }
}
