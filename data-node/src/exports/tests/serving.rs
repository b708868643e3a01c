//! A node that leads a group with one region, and exports it.

use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::header::CallSender;
use tidewater_common::ids::{Epoch, NodeId, Sequence};
use tidewater_proto::v1::data_server::Data;
use tidewater_proto::v1::{ExportFile, GroupBarrier, WriteRequest};
use uuid::Uuid;

use super::*;
use crate::data::DataService;
use crate::exports::testing::ExportDirectory;
use crate::group::entry;
use crate::group::replica::GroupReplica;
use crate::group::testing::{delete, region, write};
use crate::groups::tests::{GROUP, members, node, stop, until};

/// The region of the node.
pub(super) const REGION: RegionId = RegionId(7);
const LIMIT: Duration = Duration::from_secs(30);

/// A node that leads group 5, and in it region 7. It grants a directory to exports.
pub(super) struct ServingNode {
    _dir: TempDir,
    pub(super) groups: Arc<Groups>,
    pub(super) replica: Arc<GroupReplica>,
    pub(super) directory: ExportDirectory,
    pub(super) tracker: TaskTracker,
    opening: u64,
    serial: u64,
    epoch: u64,
}

impl ServingNode {
    pub(super) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let groups = node(dir.path());
        let replica = groups.start(GROUP).await.unwrap();
        groups.initialize(&replica, members()).await.unwrap();
        groups.context().cluster_level.send_replace(FeatureLevel::HIGHEST);
        let is_raised = async || replica.shared.level() == FeatureLevel::HIGHEST;
        until("the group is raised", is_raised).await;
        let opened = entry::opened(region(REGION.get(), None, None), Sequence(0));
        replica.propose(opened, LIMIT).await.unwrap().into_result().unwrap();
        let hosted = replica.region(REGION).unwrap();
        until("the manifest is read", async || hosted.region.load().await.is_ok()).await;
        let mut serving = Self {
            _dir: dir,
            groups,
            replica,
            directory: ExportDirectory::new(),
            tracker: TaskTracker::new(),
            opening: 0,
            serial: 0,
            epoch: 0,
        };
        serving.opening = serving.send(|serial| write(1, serial, &[])).await;
        serving
    }

    pub(super) async fn stop(self) {
        let Self { groups, replica, tracker, .. } = self;
        tracker.close();
        tracker.wait().await;
        drop(replica);
        stop(groups).await;
    }

    /// Sends the next write; returns its sequence.
    async fn send(&mut self, write: impl FnOnce(u64) -> WriteRequest) -> u64 {
        self.serial += 1;
        let request = WriteRequest { opening: self.opening, ..write(self.serial) };
        let data = DataService::new(self.groups.clone(), CancellationToken::new());
        data.write(Request::new(request)).await.unwrap().into_inner().sequence
    }

    /// Writes rows with these ids.
    pub(super) async fn put(&mut self, ids: &[i64]) {
        self.send(|serial| write(1, serial, ids)).await;
    }

    /// Deletes the rows with these ids.
    pub(super) async fn delete(&mut self, ids: &[i64]) {
        self.send(|serial| delete(1, serial, ids)).await;
    }

    /// Begins an epoch.
    pub(super) async fn begin_epoch(&mut self, epoch: u64) {
        let previous = std::mem::replace(&mut self.epoch, epoch);
        let barrier = GroupBarrier { previous, epoch, since: 1, tables: Vec::new() };
        let begun = self.replica.propose(entry::barrier(barrier), LIMIT).await.unwrap();
        begun.into_result().unwrap();
        assert_eq!(self.replica.shared.epoch(), Epoch(epoch));
    }

    /// Returns the service with these permissions.
    pub(super) fn service_with(&self, targets: ExportTargets) -> ExportService {
        let tracker = self.tracker.clone();
        ExportService::new(self.groups.clone(), targets, tracker, CancellationToken::new())
    }

    pub(super) fn service(&self) -> ExportService {
        self.service_with(self.directory.targets())
    }

    pub(super) fn header(&self) -> Option<CallHeader> {
        let node = self.groups.context();
        let sender = CallSender { cluster: node.cluster, node: NodeId(1) };
        Some(sender.header(node.node))
    }

    /// Export 5, with the granted directory.
    pub(super) fn target(&self) -> Option<v1::ExportTarget> {
        Some(v1::ExportTarget {
            export_id: Bytes::copy_from_slice(Uuid::from_u128(5).as_bytes()),
            name: "x".to_owned(),
            table: "t".to_owned(),
            target: self.directory.config().to_string(),
        })
    }

    pub(super) async fn claim(&self, service: &ExportService) {
        let request = ClaimExportTargetRequest { header: self.header(), target: self.target() };
        service.claim(request).await.unwrap();
    }

    pub(super) fn region_request(&self, step: u64, epochs: StepEpochs) -> ExportRegionRequest {
        ExportRegionRequest {
            header: self.header(),
            target: self.target(),
            step,
            group_id: GROUP.get(),
            region_id: REGION.get(),
            after: epochs.after,
            as_of: epochs.as_of,
        }
    }

    /// Repeats the call for the region until it has ended.
    pub(super) async fn export_region(
        &self,
        service: &ExportService,
        step: u64,
        epochs: StepEpochs,
    ) -> Result<ExportRegionResponse, Refusal> {
        loop {
            let response = service.export_region(self.region_request(step, epochs)).await?;
            if response.done {
                return Ok(response);
            }
        }
    }

    pub(super) fn completion(
        &self,
        step: u64,
        epochs: StepEpochs,
        files: Vec<ExportFile>,
    ) -> CompleteExportStepRequest {
        CompleteExportStepRequest {
            header: self.header(),
            target: self.target(),
            step,
            after: epochs.after,
            as_of: epochs.as_of,
            files,
        }
    }
}
