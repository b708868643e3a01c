//! Checks of calls that split, merge and move regions.

pub(super) mod moves;

use tidewater_common::agreed_limits::{
    MERGE_ABANDON_STEP, MERGE_FENCE_STEP, MERGE_HOLD_STEP, MERGE_STEP, SPLIT_ABANDON_STEP,
    SPLIT_HOLD_STEP, SPLIT_STEP,
};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    self, HoldMode, HoldRegionRequest, MergeRegionsRequest, ProcedureStep, SplitRegionRequest,
};

use super::{Checked, changing_table, contradiction, refuse, region_place};
use crate::catalog::CatalogRecords;

#[cfg(test)]
mod tests;

/// Checks the preparation of a split, merge or move, or its abandonment.
pub(in crate::control) fn hold(catalog: &CatalogRecords, request: &HoldRegionRequest) -> Checked {
    let region = request.region_id;
    let change = route_change(catalog, request.group_id, region, request.step.as_ref())?;
    if change.target_group_id != 0 {
        return moves::hold(change, request);
    }
    if request.target_group_id != 0 {
        return Err(no_such_change(region));
    }
    let is_merge = change.successor_id != 0;
    let expected = match (is_merge, request.held, request.mode()) {
        (false, true, HoldMode::Sealed) => Some(SPLIT_HOLD_STEP),
        (false, false, _) => Some(SPLIT_ABANDON_STEP),
        (true, true, HoldMode::Open) => Some(MERGE_HOLD_STEP),
        (true, true, HoldMode::Fenced) => Some(MERGE_FENCE_STEP),
        (true, false, _) => Some(MERGE_ABANDON_STEP),
        (_, true, HoldMode::Departing)
        | (false, true, HoldMode::Open | HoldMode::Fenced)
        | (true, true, HoldMode::Sealed) => None,
    };
    if change.abandoning == request.held
        || expected.is_none_or(|step| !is_step(&request.step, step))
    {
        return Err(no_such_change(region));
    }
    Ok(())
}

/// Checks the replacement of a region by its children.
pub(in crate::control) fn split(catalog: &CatalogRecords, request: &SplitRegionRequest) -> Checked {
    let region = request.region_id;
    let change = route_change(catalog, request.group_id, region, request.step.as_ref())?;
    let ids = request.children.iter().map(|child| child.region_id);
    let keys = request.children.iter().skip(1).map(|child| &child.start);
    let is_decided = change.successor_id == 0
        && change.target_group_id == 0
        && is_step(&request.step, SPLIT_STEP)
        && ids.eq(change.child_ids.iter().copied())
        && keys.eq(&change.split_keys);
    if change.abandoning || !is_decided {
        return refuse(format!("the catalog divides region {region} in another way"));
    }
    Ok(())
}

/// Checks the replacement of two regions by one.
pub(in crate::control) fn merge(
    catalog: &CatalogRecords,
    request: &MergeRegionsRequest,
) -> Checked {
    let (region, successor) = (request.region_id, request.successor_id);
    let change = route_change(catalog, request.group_id, region, request.step.as_ref())?;
    region_place(catalog, request.group_id, successor)?;
    let child: Vec<u64> = request.child.iter().map(|child| child.region_id).collect();
    let is_decided = change.route_id == region
        && change.successor_id == successor
        && successor != 0
        && is_step(&request.step, MERGE_STEP)
        && child == change.child_ids;
    if change.abandoning || !is_decided {
        return refuse(format!(
            "the catalog does not merge regions {region} and {successor} in this way"
        ));
    }
    Ok(())
}

/// Returns the change of a route in progress whose number a call names.
fn route_change<'a>(
    catalog: &'a CatalogRecords,
    group: u64,
    region: u64,
    step: Option<&ProcedureStep>,
) -> Result<&'a v1::RouteChange, Refusal> {
    let table = changing_table(catalog, group, region)?;
    let number = step.map(|step| step.number);
    let mut changes = table.route_changes.iter();
    let change = changes.find(|change| replaces(change, region) && Some(change.number) == number);
    change.ok_or_else(|| no_such_change(region))
}

/// Returns whether a region is replaced by a change.
pub(super) fn replaces(change: &v1::RouteChange, region: u64) -> bool {
    change.route_id == region || (change.successor_id == region && region != 0)
}

fn is_step(step: &Option<ProcedureStep>, expected: u32) -> bool {
    step.as_ref().is_some_and(|step| step.step == expected)
}

fn no_such_change(region: u64) -> Refusal {
    contradiction(format!("the catalog has no such change of region {region}"))
}
