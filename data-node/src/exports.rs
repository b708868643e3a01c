//! Service `ExportWork`: the work of this node in exports. It writes the changes of the regions that it leads to objects below
//! the prefix of an export, and the objects that show completed steps.
//!
//! Nothing of an export is kept on the node. The meta leader decides the epochs of each step; the objects show what is done.
//!
//! - `layout`: names and contents of the objects. `steps`: identity and completed steps. `parts`: tasks that write regions.
//!   `files`: Parquet files.

mod files;
mod layout;
mod parts;
mod steps;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde_json::Value;
use tidewater_common::header::check_header;
use tidewater_common::ids::{ClusterId, GroupId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::export_work_server::{ExportWork, ExportWorkServer};
use tidewater_proto::v1::{
    self, CallHeader, ClaimExportTargetRequest, ClaimExportTargetResponse,
    CompleteExportStepRequest, CompleteExportStepResponse, ExportRegionRequest,
    ExportRegionResponse, Reason,
};
use tidewater_region_engine::read::memory::{NestedBudgets, ScanAccount, ScanMemory};
use tidewater_region_engine::region::{EpochChangeOptions, EpochChanges};
use tidewater_region_engine::{AsOf, ScanMeter};
use tidewater_source_kinds::{ExportTargets, TargetError};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use self::files::PartWriter;
use self::layout::{Part, Step, StepEpochs, StepFile, part_object};
use self::parts::{PartKey, Parts};
use self::steps::{ExportPlace, encoded};
use crate::control::count_contradiction;
use crate::group::hosted::HostedRegion;
use crate::group::replica::GroupReplica;
use crate::groups::Groups;

/// Limit for the proof of the leadership.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest list of files, in bytes.
const MAX_MESSAGE_BYTES: usize = 32 << 20;
/// Rows of a batch.
const BATCH_ROWS: usize = 8_192;

/// The gRPC service `ExportWork` of a node.
#[derive(Debug, Clone)]
pub struct ExportService {
    groups: Arc<Groups>,
    targets: ExportTargets,
    parts: Arc<Parts>,
}

impl ExportService {
    /// Creates the service for a node's groups.
    pub fn new(groups: Arc<Groups>, targets: ExportTargets) -> Self {
        Self { groups, targets, parts: Arc::default() }
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

    /// Reads the target of a call.
    fn place(&self, target: Option<v1::ExportTarget>) -> Result<UnopenedPlace, Refusal> {
        let invalid = |text: String| Refusal::new(Reason::InvalidArgument, text);
        let target = target.ok_or_else(|| invalid("the call names no target".to_owned()))?;
        let export = Uuid::from_slice(&target.export_id)
            .map_err(|_| invalid("the id of an export must be a UUID of 16 bytes".to_owned()))?;
        let config: Value = serde_json::from_str(&target.target)
            .map_err(|error| invalid(format!("the target of the export is no JSON: {error}")))?;
        ExportTargets::check(&config).map_err(invalid)?;
        let cluster = self.groups.context().cluster;
        let v1::ExportTarget { name, table, .. } = target;
        Ok(UnopenedPlace { targets: self.targets.clone(), cluster, export, name, table, config })
    }

    async fn claim(&self, request: ClaimExportTargetRequest) -> Result<(), Refusal> {
        self.check_header(request.header.as_ref())?;
        self.place(request.target)?.open().await?.claim().await
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
        let place = self.place(request.target)?;
        let key = PartKey { export: place.export, step: request.step, region };
        let memory = Arc::clone(&self.groups.context().env.scan_memory);
        let write = |rows| write_part(replica, place, memory, (key, epochs), rows);
        self.parts.advance(key, write).await
    }

    async fn complete(
        &self,
        request: CompleteExportStepRequest,
    ) -> Result<CompleteExportStepResponse, Refusal> {
        self.check_header(request.header.as_ref())?;
        let epochs = StepEpochs { after: request.after, as_of: request.as_of };
        check_epochs(request.step, epochs)?;
        let place = self.place(request.target)?.open().await?;
        let files = request.files.into_iter().map(StepFile::from).collect();
        let step = Step::new(place.export, request.step, epochs, files);
        let step = place.complete(step).await?;
        place.clean(&step).await;
        Ok(CompleteExportStepResponse {
            as_of: step.epochs.as_of,
            files: step.files.len() as u64,
            rows: step.rows,
            bytes: step.bytes,
        })
    }
}

/// An export, and the configuration of its target.
struct UnopenedPlace {
    targets: ExportTargets,
    cluster: ClusterId,
    export: Uuid,
    name: String,
    table: String,
    config: Value,
}

impl UnopenedPlace {
    async fn open(self) -> Result<ExportPlace, Refusal> {
        let target = self.targets.open(&self.config).await.map_err(target_error)?;
        let Self { cluster, export, name, table, .. } = self;
        Ok(ExportPlace { cluster, export, name, table, target })
    }
}

/// Refuses a step whose epochs are not those of its number.
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

/// Writes a region for a step, or finds that it is written, and returns its files.
async fn write_part(
    replica: Arc<GroupReplica>,
    place: UnopenedPlace,
    memory: Arc<ScanMemory>,
    (key, epochs): (PartKey, StepEpochs),
    rows: Arc<AtomicU64>,
) -> Result<Vec<StepFile>, Refusal> {
    let place = place.open().await?;
    let name = part_object(key.step, key.region);
    if let Some(part) = place.read::<Part>(&name).await? {
        return of_step(part, &name, epochs);
    }
    replica.confirm(CONFIRM_TIMEOUT).await?;
    // Looked up after the confirmation: its rows are those of a leader.
    let hosted = replica.region(key.region)?;
    let changes = changes(&replica, &hosted, &memory, epochs)?;
    let writer = PartWriter {
        target: &place.target,
        step: key.step,
        region: key.region,
        schema: &hosted.descriptor.schema,
        rows: &rows,
    };
    let files = writer.write(changes).await?;
    if files.is_empty() {
        // Found again in little time: files without later epochs are not read.
        return Ok(files);
    }
    let part = Part::new(epochs, files);
    let bytes = encoded(&name, &part)?;
    if place.target.put_new(&name, bytes).await.map_err(target_error)? {
        return Ok(part.files);
    }
    // Another leader has written the region, too.
    match place.read::<Part>(&name).await? {
        Some(part) => of_step(part, &name, epochs),
        // The step was completed since, and its parts are removed.
        None => Ok(part.files),
    }
}

/// Returns the files of a part that was found.
fn of_step(part: Part, name: &str, epochs: StepEpochs) -> Result<Vec<StepFile>, Refusal> {
    if part.epochs == epochs {
        return Ok(part.files);
    }
    let text = format!("{name} is of other epochs than those of the step: remove it");
    Err(Refusal::new(Reason::Corrupt, text))
}

/// Pins the changes of a region between the epochs of a step.
fn changes(
    replica: &GroupReplica,
    hosted: &HostedRegion,
    memory: &ScanMemory,
    epochs: StepEpochs,
) -> Result<EpochChanges, Refusal> {
    let region = hosted.descriptor.region_id;
    let (_, upper) = replica.shared.state.read().readable_epochs(region).unwrap_or_default();
    if upper <= epochs.as_of() {
        let text = format!("group {} has not completed epoch {}", replica.group(), epochs.as_of);
        return Err(Refusal::new(Reason::EpochIncomplete, text));
    }
    let whole = |budget| NestedBudgets::new([Arc::clone(budget)]);
    let account = ScanAccount::new(
        whole(memory.arguments()),
        whole(memory.sources()),
        whole(memory.messages()),
    );
    let options = EpochChangeOptions {
        after: epochs.after(),
        as_of: AsOf { epoch: epochs.as_of(), upper },
        batch_rows: BATCH_ROWS,
        account,
    };
    let changes = hosted.region.epoch_changes(&options, &ScanMeter::default());
    changes.map_err(|error| Refusal::from(&error))
}

/// Returns the RPC error of a target.
fn target_error(error: TargetError) -> Refusal {
    let reason = match &error {
        TargetError::Unavailable(_) | TargetError::NotPermitted(_) => {
            Reason::ExportTargetUnavailable
        }
        TargetError::BadConfig(_) => Reason::InvalidArgument,
        TargetError::Invalid(_) => Reason::Corrupt,
    };
    Refusal::new(reason, error.to_string())
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
        completed.map(Response::new).map_err(|problem| counted("complete_export_step", problem))
    }
}

#[cfg(test)]
mod tests;
