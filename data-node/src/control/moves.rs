//! Calls of moves: the target group prepares, receives and activates a region, the source group returns its state
//! and releases it. Each can be repeated, also on the next leader. The source group is fenced by `hold`.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tidewater_common::ids::{GroupId, RegionId, Sequence};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    self, ActivateRegionRequest, ActivateRegionResponse, GetDepartingRegionRequest,
    GetDepartingRegionResponse, PrepareRegionRequest, PrepareRegionResponse, Reason,
    ReceiveRegionRequest, ReceiveRegionResponse, RegionActivated, RegionPrepared, RegionReceived,
    RegionReleased, ReleaseRegionRequest, ReleaseRegionResponse,
};
use tidewater_region_engine::manifest::RequiredProgress;

use super::routes::{DECIDE_TIMEOUT, SEAL_TIMEOUT, call_route, decide, named_step};
use super::settle::call_owner;
use crate::group::admits::ServingState;
use crate::group::apply::{check_departing, check_epoch};
use crate::group::entry::{self, EntryOutcome};
use crate::group::replica::GroupReplica;
use crate::group::state::RegionState;
use crate::groups::Groups;
use crate::owner_request::{OwnerRequest, RouteWork, TakeOver};

/// Longest wait for the first read of a manifest.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after which a call is repeated that comes too early.
const RETRY_TIME: Duration = Duration::from_millis(100);

/// Prepares the group for a region: its quorum answers.
pub(super) async fn prepare(
    groups: &Groups,
    request: PrepareRegionRequest,
) -> Result<PrepareRegionResponse, Refusal> {
    let replica = groups.get(GroupId(request.group_id))?;
    replica.require_leader()?;
    let prepared = RegionPrepared { region_id: request.region_id, step: request.step };
    decide(&replica, entry::prepared(prepared)).await?;
    Ok(PrepareRegionResponse {})
}

/// Returns the state of a region that is fenced for its move.
pub(super) async fn departing(
    groups: &Groups,
    request: GetDepartingRegionRequest,
) -> Result<GetDepartingRegionResponse, Refusal> {
    let replica = groups.get(GroupId(request.group_id))?;
    let region = RegionId(request.region_id);
    let step = named_step(request.step.as_ref())?;
    replica.require_leader()?;
    // Only a current registry shows whether the group has abandoned the move.
    replica.confirm(DECIDE_TIMEOUT).await?;
    let hosted = replica.region(region)?;
    let state = replica.shared.state.read().regions.get(&region).cloned();
    let state = state.ok_or_else(|| superseded(region))?;
    if state.step != Some(step) || state.serving() != ServingState::Departing {
        return Err(superseded(region));
    }
    let read = hosted.region.stats().manifest_version;
    if read < state.manifest_version || check_departing(&state).is_err() {
        let text = format!("the manifest of region {region} has yet to record all of it: retry");
        return Err(Refusal::new(Reason::RouteBusy, text).retry_after(RETRY_TIME));
    }
    let done_sequence = hosted.region.done_through().get();
    let level = replica.shared.level().get();
    let region = state.to_wire().encode_to_vec().into();
    Ok(GetDepartingRegionResponse { region, done_sequence, level })
}

/// Takes the manifest of a region over, then records the region in the log.
pub(super) async fn receive(
    groups: &Groups,
    request: ReceiveRegionRequest,
) -> Result<ReceiveRegionResponse, Refusal> {
    let group = GroupId(request.group_id);
    let replica = groups.get(group)?;
    let region = RegionId(request.region_id);
    let move_epoch = named_step(request.step.as_ref())?.number;
    let (wire, left) = decoded(&request.region, region)?;
    replica.require_leader()?;
    // Only a current registry shows whether the group has prepared for the region, or has received it.
    replica.confirm(DECIDE_TIMEOUT).await?;
    let (is_prepared, is_received) = {
        let state = replica.shared.state.read();
        let known = state.regions.get(&region);
        let is_received = known.is_some_and(|known| known.owner.move_epoch == move_epoch);
        (state.moves.prepared(region) == Some(move_epoch), is_received)
    };
    if is_received {
        return wait_until_read(&replica, region).await;
    }
    if !is_prepared || left.moving_to != Some(group) {
        return Err(superseded(region));
    }
    // Before the fence: from then on no other group can serve the region.
    check_epoch(&left, replica.shared.epoch())
        .map_err(|refused| refused.into_refusal().retry_after(RETRY_TIME))?;
    let required =
        RequiredProgress { flushed: left.flushed_rows(), done: Sequence(request.done_sequence) };
    let dir = left.descriptor.dir();
    let fenced = call_owner(&replica, SEAL_TIMEOUT, "a fence of the manifest", |reply| {
        OwnerRequest::TakeOver(TakeOver { region: dir, move_epoch, required }, reply)
    })
    .await?;
    let received = RegionReceived {
        region: Some(wire),
        fence_version: fenced.get(),
        step: request.step,
        level: request.level,
    };
    decide(&replica, entry::received(received)).await?;
    wait_until_read(&replica, region).await
}

/// Waits until this replica has read the manifest of a received region: until then, the other group serves reads.
async fn wait_until_read(
    replica: &GroupReplica,
    region: RegionId,
) -> Result<ReceiveRegionResponse, Refusal> {
    let read = async {
        while replica.shared.targets.is_open(region) {
            replica.shared.targets.wait_any_loaded(RETRY_TIME).await;
        }
    };
    if tokio::time::timeout(READ_TIMEOUT, read).await.is_err() {
        let text = format!("the manifest of region {region} has not been read yet: retry");
        return Err(Refusal::new(Reason::RouteBusy, text).retry_after(RETRY_TIME));
    }
    Ok(ReceiveRegionResponse {})
}

/// Decodes the state of a region that another group has sent.
fn decoded(
    bytes: &Bytes,
    region: RegionId,
) -> Result<(v1::GroupSnapshotRegion, RegionState), Refusal> {
    let invalid = |text: String| Refusal::new(Reason::InvalidArgument, text);
    let wire = v1::GroupSnapshotRegion::decode(bytes.clone()).map_err(|error| {
        invalid(format!("the state of region {region} does not decode: {error}"))
    })?;
    let state = RegionState::from_wire(wire.clone()).map_err(|error| invalid(error.to_string()))?;
    if state.descriptor.region_id != region {
        return Err(invalid(format!("the state is not of region {region}")));
    }
    check_departing(&state).map_err(EntryOutcome::into_refusal)?;
    Ok((wire, state))
}

/// Ends the service of a region that another group owns, or the preparation for one.
pub(super) async fn release(
    groups: &Groups,
    request: ReleaseRegionRequest,
) -> Result<ReleaseRegionResponse, Refusal> {
    let replica = groups.get(GroupId(request.group_id))?;
    let region = RegionId(request.region_id);
    let owner = GroupId(request.owner_group_id);
    let move_epoch = named_step(request.step.as_ref())?.number;
    replica.require_leader()?;
    replica.confirm(DECIDE_TIMEOUT).await?;
    if replica.shared.is_departing(region) {
        let check = RouteWork::CheckOwner(owner, move_epoch);
        call_route(&replica, region, check, SEAL_TIMEOUT).await?;
    }
    let (region_id, group_id) = (region.get(), owner.get());
    let released = RegionReleased { region_id, group_id, step: request.step };
    decide(&replica, entry::released(released)).await?;
    Ok(ReleaseRegionResponse {})
}

/// Serves a received region.
pub(super) async fn activate(
    groups: &Groups,
    request: ActivateRegionRequest,
) -> Result<ActivateRegionResponse, Refusal> {
    let replica = groups.get(GroupId(request.group_id))?;
    replica.require_leader()?;
    let activated = RegionActivated { region_id: request.region_id, step: request.step };
    decide(&replica, entry::activated(activated)).await?;
    Ok(ActivateRegionResponse {})
}

fn superseded(region: RegionId) -> Refusal {
    let text = format!("the group has ended this move of region {region}");
    Refusal::new(Reason::ProcedureSuperseded, text)
}
