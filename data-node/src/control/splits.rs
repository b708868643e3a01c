//! Calls of a split: hold and seal a region, replace it by its children, close it. Each can be repeated, also on
//! the next leader: log and manifest record which of their parts are done.

use std::time::Duration;

use tidewater_common::agreed_limits::SPLIT_HOLD_STEP;
use tidewater_common::ids::{GroupId, ManifestVersion, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    self, CloseRegionRequest, CloseRegionResponse, HoldRegionRequest, HoldRegionResponse, Reason,
    RegionClosed, RegionHeld, RegionSplit, SplitRegionRequest, SplitRegionResponse,
};
use tidewater_region_engine::manifest::ProcedureStep;

use super::settle::call_owner;
use crate::group::admits::Operation;
use crate::group::entry::{self, EncodedEntry, EntryOutcome};
use crate::group::obligation::step_from_wire;
use crate::group::replica::GroupReplica;
use crate::groups::Groups;
use crate::owner_request::{OwnerRequest, SplitWork};

const DECIDE_TIMEOUT: Duration = Duration::from_secs(10);
const SEAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Long, because rows in memory are flushed.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// Holds and seals a region, or abandons that.
///
/// An abandonment is decided by the log before the manifest's range is restored: a delayed split has no effect
/// then, so that no children begin with a manifest that changes.
pub(super) async fn hold(
    groups: &Groups,
    request: HoldRegionRequest,
) -> Result<HoldRegionResponse, Refusal> {
    let replica = groups.get(GroupId(request.group_id))?;
    let region = RegionId(request.region_id);
    let step = named_step(request.step.as_ref())?;
    let is_taken = is_taken(&replica, region, request.step.as_ref(), Operation::Hold).await?;
    if request.held && !is_taken {
        check_no_area(&replica, region)?;
        // Before the hold, so that the children begin with few rows in memory, and decisions wait for a short time. A
        // region that is held has flushed the rows with which it began: its own parent can be removed.
        let flush = |reply| OwnerRequest::Flush(region, reply);
        call_owner(&replica, FLUSH_TIMEOUT, "a flush", flush).await?;
    }
    let held = RegionHeld { region_id: region.get(), held: request.held, step: request.step };
    decide(&replica, entry::held(held)).await?;
    let work = if request.held { SplitWork::Seal(step) } else { SplitWork::Unseal(step) };
    call_split(&replica, region, work, SEAL_TIMEOUT).await?;
    Ok(HoldRegionResponse {})
}

/// Refuses to hold a region into which files are loaded: its seal would wait for them, and they for it.
fn check_no_area(replica: &GroupReplica, region: RegionId) -> Result<(), Refusal> {
    let hosted = replica.region(region)?;
    if hosted.region.staging_areas().is_empty() {
        return Ok(());
    }
    let text = format!("files are being loaded into region {region}: retry");
    Err(Refusal::new(Reason::RouteBusy, text).retry_after(Duration::from_millis(500)))
}

/// Replaces a held region by its children, and lets their manifests begin.
pub(super) async fn split(
    groups: &Groups,
    request: SplitRegionRequest,
) -> Result<SplitRegionResponse, Refusal> {
    let replica = groups.get(GroupId(request.group_id))?;
    let region = RegionId(request.region_id);
    let step = named_step(request.step.as_ref())?;
    let children: Vec<RegionId> =
        request.children.iter().map(|child| RegionId(child.region_id)).collect();
    if !is_taken(&replica, region, request.step.as_ref(), Operation::Split).await? {
        // Idempotent: the version of the seal. A split that was abandoned is refused by the manifest or the log.
        let sealed = SplitWork::Seal(ProcedureStep { step: SPLIT_HOLD_STEP, ..step });
        let sealed = call_split(&replica, region, sealed, SEAL_TIMEOUT).await?;
        let split = RegionSplit {
            region_id: region.get(),
            sealed_version: sealed.get(),
            children: request.children,
            step: request.step,
        };
        decide(&replica, entry::split(split)).await?;
    }
    for child in children {
        call_split(&replica, child, SplitWork::Begin, SEAL_TIMEOUT).await?;
    }
    Ok(SplitRegionResponse {})
}

/// Removes a region that its children have replaced, and ends its service.
pub(super) async fn close(
    groups: &Groups,
    request: CloseRegionRequest,
) -> Result<CloseRegionResponse, Refusal> {
    let replica = groups.get(GroupId(request.group_id))?;
    // Only a current registry proves that the region was closed already.
    replica.confirm(DECIDE_TIMEOUT).await?;
    let region = RegionId(request.region_id);
    let children = {
        let state = replica.shared.state.read();
        state.regions.get(&region).map(|region| region.children.clone())
    };
    if let Some(children) = children.filter(|children| !children.is_empty()) {
        call_split(&replica, region, SplitWork::Remove(children), FLUSH_TIMEOUT).await?;
    }
    // Refused for a region that has no children.
    let closed = RegionClosed { region_id: region.get(), step: request.step };
    decide(&replica, entry::closed(closed)).await?;
    Ok(CloseRegionResponse {})
}

/// Returns whether the log has taken a step already.
///
/// # Errors
/// Those of a read, and the refusal of an entry with this step.
async fn is_taken(
    replica: &GroupReplica,
    region: RegionId,
    step: Option<&v1::ProcedureStep>,
    operation: Operation,
) -> Result<bool, Refusal> {
    replica.require_leader()?;
    // Only a current registry shows what the log has decided.
    replica.confirm(DECIDE_TIMEOUT).await?;
    replica.region(region)?;
    let state = replica.shared.state.read();
    let checked = state.regions.get(&region).map(|region| region.check_step(step, operation));
    match checked {
        Some(Err(refused @ EntryOutcome::Refused { .. })) => Err(refused.into_refusal()),
        Some(Err(EntryOutcome::Done { .. })) => Ok(true),
        Some(Ok(())) | None => Ok(false),
    }
}

async fn decide(replica: &GroupReplica, entry: EncodedEntry) -> Result<(), Refusal> {
    replica.propose(entry, DECIDE_TIMEOUT).await?.into_result().map(drop)
}

async fn call_split(
    replica: &GroupReplica,
    region: RegionId,
    work: SplitWork,
    limit: Duration,
) -> Result<ManifestVersion, Refusal> {
    let request = |reply| OwnerRequest::Split(region, work, reply);
    call_owner(replica, limit, "a step of a split", request).await
}

fn named_step(step: Option<&v1::ProcedureStep>) -> Result<ProcedureStep, Refusal> {
    step.map(step_from_wire).ok_or_else(|| {
        let text = "a split must name the procedure step that causes it";
        Refusal::new(Reason::InvalidArgument, text)
    })
}
