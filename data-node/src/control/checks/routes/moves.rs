//! Checks of calls that move regions.

#[cfg(test)]
mod tests;

use tidewater_common::agreed_limits::{
    MOVE_ABANDON_STEP, MOVE_ACTIVATE_STEP, MOVE_FENCE_STEP, MOVE_HOLD_STEP, MOVE_PREPARE_STEP,
    MOVE_RECEIVE_STEP, MOVE_RELEASE_STEP,
};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    self, ActivateRegionRequest, HoldMode, HoldRegionRequest, PrepareRegionRequest, ProcedureStep,
    ReceiveRegionRequest, ReleaseRegionRequest,
};

use super::super::{Checked, refuse, table};
use super::{is_step, no_such_change};
use crate::catalog::CatalogRecords;

/// Checks the preparation of a move, its fence, or its abandonment, in the group that has the region.
pub(super) fn hold(change: &v1::RouteChange, request: &HoldRegionRequest) -> Checked {
    let expected = match (request.held, request.mode()) {
        (true, HoldMode::Open) => Some(MOVE_HOLD_STEP),
        (true, HoldMode::Departing) => Some(MOVE_FENCE_STEP),
        (false, HoldMode::Departing) => Some(MOVE_ABANDON_STEP),
        _ => None,
    };
    let is_decided = change.abandoning != request.held
        && change.target_group_id == request.target_group_id
        && expected.is_some_and(|step| is_step(&request.step, step));
    if is_decided { Ok(()) } else { Err(no_such_change(request.region_id)) }
}

/// Checks that a group prepares for a region.
pub(in crate::control) fn prepare(
    catalog: &CatalogRecords,
    request: &PrepareRegionRequest,
) -> Checked {
    let step = request.step.as_ref();
    to_target(catalog, request.region_id, request.group_id, step, MOVE_PREPARE_STEP)
}

/// Checks that a group takes a region over.
pub(in crate::control) fn receive(
    catalog: &CatalogRecords,
    request: &ReceiveRegionRequest,
) -> Checked {
    let step = request.step.as_ref();
    to_target(catalog, request.region_id, request.group_id, step, MOVE_RECEIVE_STEP)
}

/// Checks that a group serves a region that it has received.
pub(in crate::control) fn activate(
    catalog: &CatalogRecords,
    request: &ActivateRegionRequest,
) -> Checked {
    let step = request.step.as_ref();
    to_target(catalog, request.region_id, request.group_id, step, MOVE_ACTIVATE_STEP)
}

/// Checks that a group releases a region, or the preparation for one.
pub(in crate::control) fn release(
    catalog: &CatalogRecords,
    request: &ReleaseRegionRequest,
) -> Checked {
    let region = request.region_id;
    let (change, source) = moving(catalog, region, request.step.as_ref())?;
    let (releases, owner, step) = if change.abandoning {
        (change.target_group_id, source, MOVE_ABANDON_STEP)
    } else {
        (source, change.target_group_id, MOVE_RELEASE_STEP)
    };
    let is_decided = request.group_id == releases
        && request.owner_group_id == owner
        && is_step(&request.step, step);
    if is_decided {
        Ok(())
    } else {
        refuse(format!("the catalog moves region {region} in another way"))
    }
}

fn to_target(
    catalog: &CatalogRecords,
    region: u64,
    group: u64,
    step: Option<&ProcedureStep>,
    expected: u32,
) -> Checked {
    let (change, _) = moving(catalog, region, step)?;
    let is_decided = !change.abandoning
        && change.target_group_id == group
        && step.is_some_and(|step| step.step == expected);
    if is_decided {
        return Ok(());
    }
    refuse(format!("the catalog does not move region {region} to group {group} in this way"))
}

/// Returns the move of a region that a call names, and the group that has the region in the catalog.
fn moving<'a>(
    catalog: &'a CatalogRecords,
    region: u64,
    step: Option<&ProcedureStep>,
) -> Result<(&'a v1::RouteChange, u64), Refusal> {
    let place = catalog.regions.get(&region).ok_or_else(|| no_such_change(region))?;
    let number = step.map(|step| step.number);
    let mut changes = table(catalog, place.table_id)?.route_changes.iter();
    let change = changes.find(|change| {
        change.route_id == region && change.target_group_id != 0 && Some(change.number) == number
    });
    change.map(|change| (change, place.group_id)).ok_or_else(|| no_such_change(region))
}
