//! Regions and barriers of fake data nodes: their leaders report regions, and apply barriers at once.

use futures::stream::BoxStream;
use tidewater_proto::v1::barriers_server::Barriers;
use tidewater_proto::v1::region_admin_server::RegionAdmin;
use tidewater_proto::v1::{self, Reason};
use tonic::{Request, Response, Status};

use super::FakeGroupControl;

fn not_faked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the fake data node does not have this call"))
}

#[tonic::async_trait]
impl RegionAdmin for FakeGroupControl {
    type SweepStoreStream = BoxStream<'static, Result<v1::GarbageEvent, Status>>;
    type CompactRegionStream = BoxStream<'static, Result<v1::CompactRegionEvent, Status>>;

    async fn list_regions(
        &self,
        request: Request<v1::ListRegionsRequest>,
    ) -> Result<Response<v1::ListRegionsResponse>, Status> {
        let request = request.into_inner();
        if !request.confirmed {
            return not_faked();
        }
        let own = *self.node_id.lock();
        let mut hosted = self.hosted.lock();
        hosted.asked.extend(request.table);
        let led = hosted.regions.iter().filter(|(group, region)| {
            hosted.leaders.get(group) == Some(&own) && !hosted.unreported.contains(region)
        });
        let regions = led.map(|(group, region)| v1::RegionInfo {
            region_id: *region,
            group_id: *group,
            node_id: own,
            leader: true,
            since: hosted.sinces.get(region).copied().unwrap_or_default(),
            ..v1::RegionInfo::default()
        });
        Ok(Response::new(v1::ListRegionsResponse { regions: regions.collect() }))
    }

    async fn sweep_store(
        &self,
        _request: Request<v1::SweepStoreRequest>,
    ) -> Result<Response<Self::SweepStoreStream>, Status> {
        not_faked()
    }

    async fn flush_region(
        &self,
        _request: Request<v1::FlushRegionRequest>,
    ) -> Result<Response<v1::FlushRegionResponse>, Status> {
        not_faked()
    }

    async fn compact_region(
        &self,
        _request: Request<v1::CompactRegionRequest>,
    ) -> Result<Response<Self::CompactRegionStream>, Status> {
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

#[tonic::async_trait]
impl Barriers for FakeGroupControl {
    async fn inject_barrier(
        &self,
        request: Request<v1::InjectBarrierRequest>,
    ) -> Result<Response<v1::InjectBarrierResponse>, Status> {
        let request = request.into_inner();
        let mut hosted = self.hosted.lock();
        for table in &request.tables {
            // A delayed barrier names an earlier epoch.
            let named = hosted.named.entry(table.table_id).or_default();
            *named = table.since.max(*named);
        }
        let applied = request.groups.iter().map(|target| v1::GroupEpoch {
            group_id: target.group_id,
            epoch: request.epoch,
            refused: Reason::Unspecified.into(),
        });
        Ok(Response::new(v1::InjectBarrierResponse { groups: applied.collect() }))
    }
}
