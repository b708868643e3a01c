//! Events of routes: divided, moved and merged, at the step that changes the routes of the catalog.

use prost::Message;
use tidewater_cluster_events::types::{RouteMoved, RouteSplit, RoutesMerged};
use tidewater_common::agreed_limits::{
    MERGE_CLOSE_STEP, MERGE_STEP, MOVE_ACTIVATE_STEP, SPLIT_CLOSE_STEP, SPLIT_STEP,
};
use tidewater_events::Event;
use tidewater_proto::v1::{self, ProcedureKind, ProcedureState};

use super::{ProcedureNames, known_kind};
use crate::catalog::Procedure;

/// Returns the event of the routes that a procedure has changed with its last step.
pub(super) fn event(
    before: &Procedure,
    after: &Procedure,
    names: &ProcedureNames,
) -> Option<Box<dyn Event>> {
    let passes = |from, to| before.step == from && after.step == to;
    match known_kind(before)? {
        ProcedureKind::Split if passes(SPLIT_STEP, SPLIT_CLOSE_STEP) => {
            Some(Box::new(split(before, names)?))
        }
        ProcedureKind::Merge if passes(MERGE_STEP, MERGE_CLOSE_STEP) => {
            Some(Box::new(merged(before, names)?))
        }
        ProcedureKind::Move
            if before.step == MOVE_ACTIVATE_STEP && after.state == ProcedureState::Completed =>
        {
            Some(Box::new(moved(before, names)?))
        }
        _ => None,
    }
}

fn split(before: &Procedure, names: &ProcedureNames) -> Option<RouteSplit> {
    let request = v1::SplitRouteRequest::decode(before.arguments.clone()).ok()?;
    let plan = v1::SplitPlan::decode(before.plan.clone()).ok()?;
    Some(RouteSplit {
        procedure_id: names.id.clone(),
        table_name: names.table.clone(),
        region_id: request.route_id,
        second_region_id: plan.child_ids.get(1).copied(),
        group_id: plan.group_id,
    })
}

fn merged(before: &Procedure, names: &ProcedureNames) -> Option<RoutesMerged> {
    let plan = v1::MergePlan::decode(before.plan.clone()).ok()?;
    Some(RoutesMerged {
        procedure_id: names.id.clone(),
        table_name: names.table.clone(),
        region_id: plan.child_id,
        second_region_id: plan.route_ids.get(1).copied(),
        group_id: plan.group_id,
    })
}

fn moved(before: &Procedure, names: &ProcedureNames) -> Option<RouteMoved> {
    let request = v1::MoveRouteRequest::decode(before.arguments.clone()).ok()?;
    let plan = v1::MovePlan::decode(before.plan.clone()).ok()?;
    Some(RouteMoved {
        procedure_id: names.id.clone(),
        table_name: names.table.clone(),
        region_id: request.route_id,
        group_id: request.target_group_id,
        former_group_id: plan.source_group_id,
    })
}
