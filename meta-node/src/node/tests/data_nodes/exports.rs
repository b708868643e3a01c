//! Exports of fake data nodes: a region is one file of ten rows.

use std::collections::BTreeMap;
use std::time::Duration;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::export_work_server::ExportWork;
use tidewater_proto::v1::{self, Reason};
use tokio::time::sleep;
use tonic::{Request, Response, Status};

use super::FakeGroupControl;

/// Work of the fake data nodes in exports.
#[derive(Debug, Default)]
pub(in crate::node::tests) struct FakeExports {
    /// First step whose calls of regions do not return.
    pub(in crate::node::tests) blocked_from: Option<u64>,
    /// Regions whose calls fail, with the reason.
    pub(in crate::node::tests) failing: BTreeMap<u64, Reason>,
    /// Regions have no rows for a step.
    pub(in crate::node::tests) is_unchanged: bool,
    /// Nodes that have claimed a prefix.
    pub(in crate::node::tests) claims: Vec<u64>,
    /// Calls of regions.
    pub(in crate::node::tests) calls: Vec<v1::ExportRegionRequest>,
    /// Completed steps with objects.
    pub(in crate::node::tests) completed: Vec<v1::CompleteExportStepRequest>,
}

impl FakeExports {
    fn is_blocked(&self, step: u64) -> bool {
        self.blocked_from.is_some_and(|first| step >= first)
    }

    /// Returns the file of a region.
    fn file(&self, request: &v1::ExportRegionRequest) -> Option<v1::ExportFile> {
        let path = format!("{}/{}", request.step, request.region_id);
        (!self.is_unchanged).then_some(v1::ExportFile { path, rows: 10, bytes: 100 })
    }
}

#[tonic::async_trait]
impl ExportWork for FakeGroupControl {
    async fn claim_export_target(
        &self,
        _request: Request<v1::ClaimExportTargetRequest>,
    ) -> Result<Response<v1::ClaimExportTargetResponse>, Status> {
        let node = *self.node_id.lock();
        self.hosted.lock().exports.claims.push(node);
        Ok(Response::new(v1::ClaimExportTargetResponse::default()))
    }

    async fn export_region(
        &self,
        request: Request<v1::ExportRegionRequest>,
    ) -> Result<Response<v1::ExportRegionResponse>, Status> {
        let request = request.into_inner();
        self.hosted.lock().exports.calls.push(request.clone());
        let is_blocked = || self.hosted.lock().exports.is_blocked(request.step);
        while is_blocked() {
            sleep(Duration::from_millis(10)).await;
        }
        let hosted = self.hosted.lock();
        if let Some(reason) = hosted.exports.failing.get(&request.region_id) {
            return Err(Refusal::new(*reason, "the bucket is full").into());
        }
        if !hosted.regions.contains(&(request.group_id, request.region_id)) {
            return Err(Refusal::new(Reason::RegionNotFound, "the region was closed").into());
        }
        let files: Vec<_> = hosted.exports.file(&request).into_iter().collect();
        let rows = files.iter().map(|file| file.rows).sum();
        Ok(Response::new(v1::ExportRegionResponse { rows, done: true, files }))
    }

    async fn complete_export_step(
        &self,
        request: Request<v1::CompleteExportStepRequest>,
    ) -> Result<Response<v1::CompleteExportStepResponse>, Status> {
        let request = request.into_inner();
        let response = v1::CompleteExportStepResponse {
            as_of: request.as_of,
            files: request.files.len() as u64,
            rows: request.files.iter().map(|file| file.rows).sum(),
            bytes: request.files.iter().map(|file| file.bytes).sum(),
        };
        self.hosted.lock().exports.completed.push(request);
        Ok(Response::new(response))
    }
}
