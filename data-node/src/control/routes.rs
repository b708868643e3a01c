//! Calls of splits, merges and moves: hold, fence and seal a region, replace it by its children, or several by one, close it.
//! Each can be repeated, also on the next leader: log and manifest record which of their parts are done.

use std::time::Duration;

use futures::future::try_join_all;
use tidewater_common::agreed_limits::{MERGE_FENCE_STEP, SPLIT_HOLD_STEP};
use tidewater_common::ids::{GroupId, ManifestVersion, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    self, CloseRegionRequest, CloseRegionResponse, HoldMode, HoldRegionRequest, HoldRegionResponse,
    MergeRegionsRequest, MergeRegionsResponse, Reason, RegionClosed, RegionHeld, RegionSplit,
    RegionsMerged, SealedRegion, SplitRegionRequest, SplitRegionResponse,
};
use tidewater_region_engine::manifest::ProcedureStep;

use super::settle::call_owner;
use crate::group::admits::{Operation, ServingState};
use crate::group::entry::{self, EncodedEntry, EntryOutcome};
use crate::group::obligation::step_from_wire;
use crate::group::producers::Eviction;
use crate::group::replica::GroupReplica;
use crate::group::state::RegionState;
use crate::groups::Groups;
use crate::owner_request::{OwnerRequest, RouteWork};

pub(super) const DECIDE_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const SEAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Long, because rows in memory are flushed.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// Holds a region for its split, merge or move, in one of the modes of [`HoldMode`], or abandons that.
///
/// An abandonment of a split or merge is decided by the log before the manifest's range is restored: a delayed one has no
/// effect then, so that no children begin with a manifest that changes. That of a move is decided by the manifest.
pub(super) async fn hold(
    groups: &Groups,
    request: HoldRegionRequest,
) -> Result<HoldRegionResponse, Refusal> {
    let replica = groups.get(GroupId(request.group_id))?;
    let region = RegionId(request.region_id);
    let step = named_step(request.step.as_ref())?;
    let mode = request.mode();
    let is_taken = is_taken(&replica, region, request.step.as_ref(), Operation::Hold).await?;
    if request.held && !is_taken {
        check_no_area(&replica, region)?;
        // Before the hold, so that the children begin with few rows in memory, and writes and decisions wait for a
        // short time. A region that is held has flushed the rows with which it began: its own parent can be removed.
        flush(&replica, region).await?;
        // After the flush, before which the owner has read the manifest.
        check_not_sealed(&replica, region)?;
    }
    let is_move_end = !request.held && mode == HoldMode::Departing;
    if is_move_end && is_taken {
        return Ok(HoldRegionResponse {});
    }
    // Before its fence, the target group cannot take it over.
    let is_fenced = is_move_end && replica.shared.is_departing(region);
    if is_fenced {
        call_route(&replica, region, RouteWork::Reclaim(step.number), SEAL_TIMEOUT).await?;
    }
    let fenced = request.held && matches!(mode, HoldMode::Fenced | HoldMode::Departing);
    let held = RegionHeld {
        region_id: region.get(),
        held: request.held,
        step: request.step,
        fenced,
        target_group_id: if fenced { request.target_group_id } else { 0 },
        move_epoch: if is_fenced { step.number } else { 0 },
    };
    decide(&replica, entry::held(held)).await?;
    let work = match (request.held, mode) {
        (false, HoldMode::Departing) => return Ok(HoldRegionResponse {}),
        (false, _) => RouteWork::Unseal(step),
        (true, HoldMode::Open) => return Ok(HoldRegionResponse {}),
        (true, HoldMode::Sealed) => RouteWork::Seal(step),
        (true, HoldMode::Departing) => {
            // The last decisions and rows: none follow.
            call_owner(&replica, SEAL_TIMEOUT, "recording decisions in the manifest", |reply| {
                OwnerRequest::Settle(region, reply)
            })
            .await?;
            flush(&replica, region).await?;
            return Ok(HoldRegionResponse {});
        }
        (true, HoldMode::Fenced) => {
            // The last rows: none follow.
            flush(&replica, region).await?;
            RouteWork::Seal(step)
        }
    };
    call_route(&replica, region, work, SEAL_TIMEOUT).await?;
    Ok(HoldRegionResponse {})
}

async fn flush(replica: &GroupReplica, region: RegionId) -> Result<(), Refusal> {
    let request = |reply| OwnerRequest::Flush(region, reply);
    call_owner(replica, FLUSH_TIMEOUT, "a flush", request).await.map(drop)
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

/// Refuses to hold a region whose manifest has yet to be restored after an abandoned split or merge.
fn check_not_sealed(replica: &GroupReplica, region: RegionId) -> Result<(), Refusal> {
    let is_held = {
        let state = replica.shared.state.read();
        state.regions.get(&region).is_some_and(|region| region.held)
    };
    if is_held || !replica.region(region)?.region.is_sealed() {
        return Ok(());
    }
    let text =
        format!("region {region} is being restored after an abandoned split or merge: retry");
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
    if !is_replaced(&replica, region, request.step.as_ref(), Operation::Split).await? {
        // Idempotent: the version of the seal. A split that was abandoned is refused by the manifest or the log.
        let sealed = RouteWork::Seal(ProcedureStep { step: SPLIT_HOLD_STEP, ..step });
        let sealed = call_route(&replica, region, sealed, SEAL_TIMEOUT).await?;
        let split = RegionSplit {
            region_id: region.get(),
            sealed_version: sealed.get(),
            children: request.children,
            step: request.step,
        };
        decide(&replica, entry::split(split)).await?;
    }
    for child in children {
        call_route(&replica, child, RouteWork::Begin, SEAL_TIMEOUT).await?;
    }
    Ok(SplitRegionResponse {})
}

/// Replaces two fenced regions by one, and lets its manifest begin.
pub(super) async fn merge(
    groups: &Groups,
    request: MergeRegionsRequest,
) -> Result<MergeRegionsResponse, Refusal> {
    let replica = groups.get(GroupId(request.group_id))?;
    let regions = [RegionId(request.region_id), RegionId(request.successor_id)];
    let step = named_step(request.step.as_ref())?;
    let child = request.child.as_ref().map(|child| RegionId(child.region_id)).ok_or_else(|| {
        Refusal::new(
            Reason::InvalidArgument,
            "a merge must name the region that replaces the others",
        )
    })?;
    if !is_replaced(&replica, regions[0], request.step.as_ref(), Operation::Merge).await? {
        // Idempotent: the versions of the seals, which the log knows then.
        let step = ProcedureStep { step: MERGE_FENCE_STEP, ..step };
        let sealed =
            regions.map(|id| call_route(&replica, id, RouteWork::Seal(step), SEAL_TIMEOUT));
        let parents = try_join_all(sealed).await?.into_iter().zip(regions);
        let parents = parents.map(|(version, region)| SealedRegion {
            region_id: region.get(),
            sealed_version: version.get(),
        });
        let parents = parents.collect();
        let eviction = Eviction::CURRENT.to_wire();
        let merged = RegionsMerged { parents, child: request.child, step: request.step, eviction };
        decide(&replica, entry::merged(merged)).await?;
    }
    call_route(&replica, child, RouteWork::Begin, SEAL_TIMEOUT).await?;
    Ok(MergeRegionsResponse {})
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
        call_route(&replica, region, RouteWork::Remove(children), FLUSH_TIMEOUT).await?;
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

/// Returns whether the log has replaced a region in a step.
///
/// # Errors
/// As [`is_taken`]; [`Reason::ProcedureSuperseded`] if the group has taken the step to abandon the procedure.
async fn is_replaced(
    replica: &GroupReplica,
    region: RegionId,
    step: Option<&v1::ProcedureStep>,
    operation: Operation,
) -> Result<bool, Refusal> {
    let is_taken = is_taken(replica, region, step, operation).await?;
    let state = replica.shared.state.read();
    let serving = state.regions.get(&region).map(RegionState::serving);
    if is_taken && serving != Some(ServingState::Replaced) {
        let text = format!("the group has abandoned the split or merge of region {region}");
        return Err(Refusal::new(Reason::ProcedureSuperseded, text));
    }
    Ok(is_taken)
}

pub(super) async fn decide(replica: &GroupReplica, entry: EncodedEntry) -> Result<(), Refusal> {
    replica.propose(entry, DECIDE_TIMEOUT).await?.into_result().map(drop)
}

pub(super) async fn call_route(
    replica: &GroupReplica,
    region: RegionId,
    work: RouteWork,
    limit: Duration,
) -> Result<ManifestVersion, Refusal> {
    let request = |reply| OwnerRequest::Route(region, work, reply);
    call_owner(replica, limit, "a step of a split, merge or move", request).await
}

pub(super) fn named_step(step: Option<&v1::ProcedureStep>) -> Result<ProcedureStep, Refusal> {
    step.map(step_from_wire).ok_or_else(|| {
        let text = "a change of a route must name the procedure step that causes it";
        Refusal::new(Reason::InvalidArgument, text)
    })
}
