//! Service `ExportWork`: the work of this node in exports. It writes the changes of the regions that it leads to objects below
//! the prefix of an export, and the objects that show completed steps.
//!
//! The node keeps no state of an export. The meta leader decides the epochs of each step; the objects show the progress.
//!
//! # Terms
//!
//! - **Target**: directory, or prefix of a bucket, that has the objects of an export. The export claims it when it is created;
//!   a call opens it for its time.
//! - **Step**: the rows of a table as of an epoch, or its changes from one epoch to another. It is complete when its object
//!   names all of its files.
//! - **Part**: a region that is to be written for a step ([`RegionPart`]). Its task lives until its files are written or cannot
//!   be written, until no call asks for it for a time, or until the node shuts down.
//!
//! # Layout
//!
//! - `layout`: names and contents of the objects. `json`: their encoding.
//! - `open_target`: targets and their claims. `own_prefix`: targets in the object store of the cluster, which are refused.
//!   `steps`: completed steps, and the removal of other objects.
//! - `parts`: tasks of parts. `region_part`: the work of one. `changes`: rows that it reads. `files`: Parquet files that it
//!   writes.
//! - `tasks`: tasks that end with the node.

mod changes;
mod files;
mod json;
mod layout;
mod open_target;
mod own_prefix;
mod parts;
mod region_part;
mod steps;
mod tasks;

use std::sync::Arc;

use tidewater_common::header::check_header;
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::export_work_server::{ExportWork, ExportWorkServer};
use tidewater_proto::v1::{
    self, CallHeader, ClaimExportTargetRequest, ClaimExportTargetResponse,
    CompleteExportStepRequest, CompleteExportStepResponse, ExportRegionRequest,
    ExportRegionResponse, Reason,
};
use tidewater_source_kinds::ExportTargets;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use self::json::MAX_JSON_BYTES;
use self::layout::{ExportStep, StepEpochs, StepFile};
use self::open_target::UnopenedTarget;
use self::own_prefix::OwnPrefix;
use self::parts::{PartKey, Parts};
use self::region_part::RegionPart;
use self::tasks::ExportTasks;
use crate::control::count_contradiction;
use crate::groups::Groups;
use crate::meters;

/// Largest list of files, in bytes.
const MAX_MESSAGE_BYTES: usize = MAX_JSON_BYTES as usize;

/// The gRPC service `ExportWork` of a node.
#[derive(Debug, Clone)]
pub struct ExportService {
    groups: Arc<Groups>,
    targets: ExportTargets,
    own: Arc<OwnPrefix>,
    tasks: ExportTasks,
    parts: Arc<Parts>,
}

impl ExportService {
    /// Creates the service for a node's groups. Its tasks are added to `tracker`, and end when `closing` is cancelled.
    pub fn new(
        groups: Arc<Groups>,
        targets: ExportTargets,
        tracker: TaskTracker,
        closing: CancellationToken,
    ) -> Self {
        let tasks = ExportTasks { tracker, closing };
        let parts = Arc::new(Parts::new(tasks.clone()));
        let own = Arc::new(OwnPrefix::from_environment(groups.context().env.storage.location()));
        Self { groups, targets, own, tasks, parts }
    }

    /// Wraps the service for tonic.
    pub fn into_server(self) -> ExportWorkServer<Self> {
        ExportWorkServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn check_header(&self, header: Option<&CallHeader>) -> Result<(), Refusal> {
        let node = self.groups.context();
        check_header(node.cluster, node.node, header)
    }

    fn unopened(&self, target: Option<v1::ExportTarget>) -> Result<UnopenedTarget, Refusal> {
        let cluster = self.groups.context().cluster;
        UnopenedTarget::new(self.targets.clone(), &self.own, cluster, target)
    }

    async fn claim(&self, request: ClaimExportTargetRequest) -> Result<(), Refusal> {
        self.check_header(request.header.as_ref())?;
        self.unopened(request.target)?.open().await?.claim().await
    }

    async fn export_region(
        &self,
        request: ExportRegionRequest,
    ) -> Result<ExportRegionResponse, Refusal> {
        self.check_header(request.header.as_ref())?;
        let epochs = StepEpochs { after: request.after, as_of: request.as_of };
        check_epochs(request.step, epochs)?;
        let replica = self.groups.get(GroupId(request.group_id))?;
        replica.require_leader()?;
        let region = RegionId(request.region_id);
        replica.region(region)?;
        let target = self.unopened(request.target)?;
        let key = PartKey { export: target.export, step: request.step, region };
        let env = &self.groups.context().env;
        let ids = Arc::clone(&env.ids);
        let memory = Arc::clone(&env.scan_memory);
        let part = RegionPart { replica, target, ids, memory, key, epochs };
        self.parts.advance(key, |rows| part.write(rows)).await
    }

    async fn complete(
        &self,
        request: CompleteExportStepRequest,
    ) -> Result<CompleteExportStepResponse, Refusal> {
        self.check_header(request.header.as_ref())?;
        let epochs = StepEpochs { after: request.after, as_of: request.as_of };
        check_epochs(request.step, epochs)?;
        let target = self.unopened(request.target)?.open().await?;
        let files = request.files.into_iter().map(StepFile::from).collect();
        let step = ExportStep::new(target.export, request.step, epochs, files);
        let step = target.complete(step).await?;
        let response = CompleteExportStepResponse {
            as_of: step.epochs.as_of,
            files: step.files.len() as u64,
            rows: step.rows,
            bytes: step.bytes,
        };
        // A step of many regions has many objects to remove: the call does not wait for it.
        self.tasks.spawn(async move { target.clean(&step).await });
        Ok(response)
    }
}

/// Checks the epochs of a step: the first one has all rows, and each later one begins after an epoch.
fn check_epochs(step: u64, epochs: StepEpochs) -> Result<(), Refusal> {
    let is_valid = match epochs.after {
        None => step == 1,
        Some(after) => step > 1 && after < epochs.as_of,
    };
    if is_valid && epochs.as_of > 0 {
        return Ok(());
    }
    let StepEpochs { after, as_of } = epochs;
    let text = format!("step {step} of an export cannot be after {after:?} and as of {as_of}");
    Err(Refusal::new(Reason::InvalidArgument, text))
}

fn counted(call: &'static str, problem: Refusal) -> Status {
    count_contradiction(call, &problem);
    problem.into()
}

#[tonic::async_trait]
impl ExportWork for ExportService {
    async fn claim_export_target(
        &self,
        request: Request<ClaimExportTargetRequest>,
    ) -> Result<Response<ClaimExportTargetResponse>, Status> {
        let claimed = self.claim(request.into_inner()).await;
        claimed
            .map(|()| Response::new(ClaimExportTargetResponse {}))
            .map_err(|problem| counted("claim_export_target", problem))
    }

    async fn export_region(
        &self,
        request: Request<ExportRegionRequest>,
    ) -> Result<Response<ExportRegionResponse>, Status> {
        let exported = self.export_region(request.into_inner()).await;
        exported.map(Response::new).map_err(|problem| counted("export_region", problem))
    }

    async fn complete_export_step(
        &self,
        request: Request<CompleteExportStepRequest>,
    ) -> Result<Response<CompleteExportStepResponse>, Status> {
        let completed = self.complete(request.into_inner()).await;
        completed.map(Response::new).map_err(|problem| {
            meters::record_export_failure(problem.reason);
            counted("complete_export_step", problem)
        })
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
