//! Merge of two neighbouring routes of one group: a child replaces their regions. The regions are held while they are
//! written (*hold*), fenced, flushed and sealed (*fence*), replaced in their group (*merge*, the point of no return),
//! then in the catalog, and closed. Writes wait from the fence to the merge. A group that waits for too long
//! restores its regions by itself: the merge is superseded then.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use prost::Message;
use tidewater_common::agreed_limits::{
    MERGE_ABANDON_STEP, MERGE_CLOSE_STEP, MERGE_FENCE_STEP, MERGE_HOLD_STEP, MERGE_STEP,
};
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{GroupId, RegionId, TableId};
use tidewater_proto::v1::{self, HoldMode, LockMode};

use super::decoded;
use super::kind::{AfterStep, KindFacts, ProcedureBegin, ProcedureKind, RegionCall, StepRegion};
use super::routes::{HOLD_TIME_MS, active_route, check_version};
use crate::catalog::{
    CatalogChange, MetaState, Procedure, RouteDescriptor, RouteError, TableLock, region_descriptor,
};
use crate::commands::{CommandError, RouteCommandError, cursors};

/// Merge of two routes. Its arguments are a [`v1::MergeRoutesRequest`], its plan is a [`v1::MergePlan`]. Its steps are
/// those of its regions ([`MERGE_HOLD_STEP`]).
pub(super) struct MergeRoutes;

impl ProcedureKind for MergeRoutes {
    fn facts(&self) -> KindFacts {
        KindFacts {
            number: v1::ProcedureKind::Merge as u32,
            name: "merge",
            verb: "merged",
            level: FeatureLevel::new(4),
            earlier_outcome: None,
        }
    }

    fn begin(&self, state: &MetaState, arguments: Bytes) -> Result<ProcedureBegin, CommandError> {
        let request: v1::MergeRoutesRequest = decoded(arguments)?;
        check_version(state, request.expected_version)?;
        let (table, route) = active_route(state, RegionId(request.route_id))?;
        let (other_table, neighbour) = active_route(state, RegionId(request.neighbour_id))?;
        let (first, second) =
            if route.start <= neighbour.start { (route, neighbour) } else { (neighbour, route) };
        check_neighbours(first, second, table == other_table)?;
        let child = state.next_route_id();
        let plan = v1::MergePlan {
            group_id: first.group_id.get(),
            route_ids: vec![first.route_id.get(), second.route_id.get()],
            child_id: child.get(),
        };
        let next = child.get().checked_add(1).ok_or(RouteError::RouteIdOverflow)?;
        Ok(ProcedureBegin {
            // The child also, until its parents are closed.
            routes: vec![first.route_id, second.route_id, child],
            deadline_ms: Some(state.header().time_ms.saturating_add(HOLD_TIME_MS)),
            plan: plan.encode_to_vec().into(),
            change: CatalogChange {
                next_route_id: Some(RegionId(next)),
                ..CatalogChange::default()
            },
            ..ProcedureBegin::new(table, vec![TableLock { table, mode: LockMode::Routes }])
        })
    }

    fn published_route(&self, procedure: &Procedure) -> Option<v1::RouteChange> {
        let plan = Plan::of(procedure).ok()?;
        (procedure.step != MERGE_CLOSE_STEP).then(|| v1::RouteChange {
            number: procedure.number,
            route_id: plan.first.get(),
            child_ids: vec![plan.child.get()],
            split_keys: Vec::new(),
            abandoning: procedure.step == MERGE_ABANDON_STEP,
            successor_id: plan.second.get(),
            target_group_id: 0,
        })
    }

    fn regions(&self, _: &MetaState, procedure: &Procedure) -> Vec<StepRegion> {
        let Ok(plan) = Plan::of(procedure) else { return Vec::new() };
        let at = |region| StepRegion { region, group: plan.group };
        match procedure.step {
            MERGE_STEP => vec![at(plan.first)],
            _ => vec![at(plan.first), at(plan.second)],
        }
    }

    fn call(&self, state: &MetaState, procedure: &Procedure, at: StepRegion) -> Option<RegionCall> {
        let (group_id, region_id) = (at.group.get(), at.region.get());
        let step = Some(v1::ProcedureStep { number: procedure.number, step: procedure.step });
        let hold = |held, mode: HoldMode| {
            Some(RegionCall::Hold(v1::HoldRegionRequest {
                header: None,
                group_id,
                region_id,
                held,
                step,
                mode: mode.into(),
                target_group_id: 0,
            }))
        };
        match procedure.step {
            MERGE_HOLD_STEP => hold(true, HoldMode::Open),
            MERGE_FENCE_STEP => hold(true, HoldMode::Fenced),
            MERGE_ABANDON_STEP => hold(false, HoldMode::Sealed),
            MERGE_STEP => {
                let plan = Plan::of(procedure).ok()?;
                let child = Some(child(state, procedure.table, &plan)?);
                let successor_id = plan.second.get();
                let call = v1::MergeRegionsRequest {
                    header: None,
                    group_id,
                    region_id,
                    successor_id,
                    child,
                    step,
                };
                Some(RegionCall::Merge(call))
            }
            MERGE_CLOSE_STEP => {
                let call = v1::CloseRegionRequest { header: None, group_id, region_id, step };
                Some(RegionCall::Close(call))
            }
            _ => None,
        }
    }

    fn completed(
        &self,
        state: &MetaState,
        procedure: &Procedure,
    ) -> Result<AfterStep, CommandError> {
        let next = |step| Ok(AfterStep::Step { step, change: CatalogChange::default() });
        match procedure.step {
            MERGE_HOLD_STEP => next(MERGE_FENCE_STEP),
            MERGE_FENCE_STEP => next(MERGE_STEP),
            MERGE_STEP => {
                let change = replaced(state, procedure)?;
                Ok(AfterStep::Step { step: MERGE_CLOSE_STEP, change })
            }
            _ => Ok(AfterStep::End(CatalogChange::default())),
        }
    }

    fn abandoned(&self, _: &MetaState, procedure: &Procedure) -> Option<AfterStep> {
        let change = CatalogChange::default();
        (procedure.step < MERGE_STEP)
            .then_some(AfterStep::Step { step: MERGE_ABANDON_STEP, change })
    }

    // A sealed region is not removed. The merge ends soon, or is cancelled first.
    fn ends_with_table(&self, _: &Procedure) -> bool {
        false
    }
}

/// Checks that two routes, in key order, can be merged.
fn check_neighbours(
    first: &RouteDescriptor,
    second: &RouteDescriptor,
    same_table: bool,
) -> Result<(), CommandError> {
    let why = if !same_table {
        "they are of different tables: choose routes of one table"
    } else if first.end.as_ref() != Some(&second.start) {
        "they are not neighbours: choose routes of which one begins where the other ends"
    } else if first.group_id != second.group_id {
        "they are in different groups: choose routes of one group (`tidewater route list`)"
    } else {
        return Ok(());
    };
    Err(CommandError::Route(RouteCommandError::NotMergeable {
        routes: [first.route_id, second.route_id],
        why,
    }))
}

/// Plan of a merge.
struct Plan {
    group: GroupId,
    first: RegionId,
    second: RegionId,
    child: RegionId,
}

impl Plan {
    fn of(procedure: &Procedure) -> Result<Self, CommandError> {
        let plan: v1::MergePlan = decoded(procedure.plan.clone())?;
        let [first, second] = plan.route_ids[..] else {
            return Err(CommandError::Malformed("the plan of a merge is damaged".to_owned()));
        };
        Ok(Self {
            group: GroupId(plan.group_id),
            first: RegionId(first),
            second: RegionId(second),
            child: RegionId(plan.child_id),
        })
    }
}

/// Returns the child as its data group begins it.
fn child(state: &MetaState, table: TableId, plan: &Plan) -> Option<v1::SplitChild> {
    let table = state.table(table)?;
    let [first, second] = [plan.first, plan.second]
        .map(|id| state.route(id).map(|route| region_descriptor(table, route)));
    Some(v1::SplitChild { region_id: plan.child.get(), start: first?.start, end: second?.end })
}

/// Returns the change that replaces the routes by their child.
fn replaced(state: &MetaState, procedure: &Procedure) -> Result<CatalogChange, CommandError> {
    let plan = Plan::of(procedure)?;
    let route =
        |id| state.route(id).ok_or(CommandError::Route(RouteCommandError::RouteNotFound(id)));
    let (first, second) = (route(plan.first)?, route(plan.second)?);
    let routes = vec![RouteDescriptor {
        route_id: plan.child,
        end: second.end.clone(),
        parent_route_id: None,
        ..first.as_ref().clone()
    }];
    let is_soft = state.has_soft_start(plan.first);
    Ok(CatalogChange {
        soft_starts: is_soft.then_some(plan.child).into_iter().collect(),
        // Those of the parents end when their hooks have received the removals.
        cursors: cursors::for_new_routes(state, procedure.table, &routes),
        routes,
        route_deletes: vec![plan.first, plan.second],
        ..CatalogChange::default()
    })
}
