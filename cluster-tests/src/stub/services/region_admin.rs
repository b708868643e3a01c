//! `RegionAdmin`: regions without files.

use std::sync::Arc;

use futures::stream::BoxStream;
use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::region_admin_server::RegionAdmin;
use tidewater_proto::v1::{self, Reason};
use tonic::{Request, Response, Status};

use crate::stub::node_core::NodeCore;

/// The service of one node.
#[derive(Debug, Clone)]
pub(in crate::stub) struct RegionService {
    pub(in crate::stub) node: Arc<NodeCore>,
}

fn nothing_stored<T>() -> Result<Response<T>, Status> {
    Err(Refusal::new(Reason::Internal, "a stub node stores no files").into())
}

#[tonic::async_trait]
impl RegionAdmin for RegionService {
    type SweepStoreStream = BoxStream<'static, Result<v1::GarbageEvent, Status>>;
    type CompactRegionStream = BoxStream<'static, Result<v1::CompactRegionEvent, Status>>;

    async fn sweep_store(
        &self,
        _request: Request<v1::SweepStoreRequest>,
    ) -> Result<Response<Self::SweepStoreStream>, Status> {
        nothing_stored()
    }

    async fn list_regions(
        &self,
        request: Request<v1::ListRegionsRequest>,
    ) -> Result<Response<v1::ListRegionsResponse>, Status> {
        self.node.ready().await;
        let request = request.get_ref();
        let hosted = self.node.world.regions_of(self.node.node);
        let is_listed = |id: u64, leads: bool| {
            (leads || request.include_followers) && request.region_id.is_none_or(|only| only == id)
        };
        let regions = hosted
            .into_iter()
            .filter(|(_, region, _, leads)| is_listed(region.get(), *leads))
            .map(|(group, region, known, leader)| v1::RegionInfo {
                region_id: region.get(),
                table_id: known.table,
                group_id: group.get(),
                node_id: self.node.node.get(),
                leader,
                schema_version: known.schema_version,
                state: "serving".to_owned(),
                ..v1::RegionInfo::default()
            })
            .collect();
        Ok(Response::new(v1::ListRegionsResponse { regions }))
    }

    async fn flush_region(
        &self,
        request: Request<v1::FlushRegionRequest>,
    ) -> Result<Response<v1::FlushRegionResponse>, Status> {
        self.node.ready().await;
        self.node.world.require_leader(self.node.node, GroupId(request.get_ref().group_id))?;
        Ok(Response::new(v1::FlushRegionResponse::default()))
    }

    async fn compact_region(
        &self,
        _request: Request<v1::CompactRegionRequest>,
    ) -> Result<Response<Self::CompactRegionStream>, Status> {
        nothing_stored()
    }

    async fn list_compactions(
        &self,
        _request: Request<v1::ListCompactionsRequest>,
    ) -> Result<Response<v1::ListCompactionsResponse>, Status> {
        Ok(Response::new(v1::ListCompactionsResponse::default()))
    }

    async fn cancel_compaction(
        &self,
        _request: Request<v1::CancelCompactionRequest>,
    ) -> Result<Response<v1::CancelCompactionResponse>, Status> {
        nothing_stored()
    }

    async fn list_files(
        &self,
        _request: Request<v1::ListFilesRequest>,
    ) -> Result<Response<v1::ListFilesResponse>, Status> {
        Ok(Response::new(v1::ListFilesResponse::default()))
    }

    async fn count_versions(
        &self,
        _request: Request<v1::CountVersionsRequest>,
    ) -> Result<Response<v1::CountVersionsResponse>, Status> {
        Ok(Response::new(v1::CountVersionsResponse::default()))
    }

    async fn show_manifest(
        &self,
        _request: Request<v1::ShowManifestRequest>,
    ) -> Result<Response<v1::ShowManifestResponse>, Status> {
        nothing_stored()
    }
}
