//! Split of a route at a key: two children replace its region. The region is prepared while it is written
//! (*hold*), replaced in its group (*split*, the point of no return), then in the catalog, and closed. Until its
//! route is replaced, clients name the region, and its children serve them.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use prost::Message;
use tidewater_common::agreed_limits::{
    SPLIT_ABANDON_STEP, SPLIT_CLOSE_STEP, SPLIT_HOLD_STEP, SPLIT_STEP,
};
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_common::keys::global_key;
use tidewater_common::rows::MAX_KEY_BYTES;
use tidewater_proto::v1::{self, HoldMode, LockMode};

use super::decoded;
use super::kind::{AfterStep, KindFacts, ProcedureBegin, ProcedureKind, RegionCall, StepRegion};
use super::routes::{HOLD_TIME_MS, active_route, check_version};
use crate::catalog::{
    CatalogChange, MetaState, Procedure, RouteDescriptor, RouteError, TableLock, region_descriptor,
};
use crate::commands::{CommandError, GroupCommandError, RouteCommandError, cursors};

/// Split of a route. Its arguments are a [`v1::SplitRouteRequest`], its plan is a [`v1::SplitPlan`]. Its steps are
/// those of its region ([`SPLIT_HOLD_STEP`]).
pub(super) struct SplitRoute;

impl ProcedureKind for SplitRoute {
    fn facts(&self) -> KindFacts {
        KindFacts {
            number: v1::ProcedureKind::Split as u32,
            name: "split",
            verb: "split",
            level: FeatureLevel::new(4),
            earlier_outcome: None,
        }
    }

    fn begin(&self, state: &MetaState, arguments: Bytes) -> Result<ProcedureBegin, CommandError> {
        let request: v1::SplitRouteRequest = decoded(arguments)?;
        check_version(state, request.expected_version)?;
        // It was switched off since the leader has decided.
        if request.for_load && state.balance().hotspots != v1::HotspotMode::On {
            return Err(GroupCommandError::HotspotsNotOn.into());
        }
        let id = RegionId(request.route_id);
        let (table, route) = active_route(state, id)?;
        check_key(route, &global_key(table, &request.split_key))?;
        let left = state.next_route_id();
        let after = |id: RegionId| id.get().checked_add(1).ok_or(RouteError::RouteIdOverflow);
        let right = RegionId(after(left)?);
        let next_route_id = Some(RegionId(after(right)?));
        let plan = v1::SplitPlan {
            group_id: route.group_id.get(),
            child_ids: vec![left.get(), right.get()],
        };
        let locks = vec![TableLock { table, mode: LockMode::Routes }];
        Ok(ProcedureBegin {
            // The children also, until their parent is closed.
            routes: vec![id, left, right],
            // A region that cannot be prepared does not keep its table from other operations for ever.
            deadline_ms: Some(state.header().time_ms.saturating_add(HOLD_TIME_MS)),
            plan: plan.encode_to_vec().into(),
            change: CatalogChange { next_route_id, ..CatalogChange::default() },
            ..ProcedureBegin::new(table, locks)
        })
    }

    fn published_route(&self, procedure: &Procedure) -> Option<v1::RouteChange> {
        let (request, plan) = parts(procedure).ok()?;
        (procedure.step != SPLIT_CLOSE_STEP).then(|| v1::RouteChange {
            number: procedure.number,
            route_id: request.route_id,
            child_ids: plan.child_ids,
            split_keys: vec![request.split_key],
            abandoning: procedure.step == SPLIT_ABANDON_STEP,
            successor_id: 0,
            target_group_id: 0,
        })
    }

    fn regions(&self, _: &MetaState, procedure: &Procedure) -> Vec<StepRegion> {
        let region = |(request, plan): (v1::SplitRouteRequest, v1::SplitPlan)| StepRegion {
            region: RegionId(request.route_id),
            group: GroupId(plan.group_id),
        };
        parts(procedure).map(region).into_iter().collect()
    }

    fn call(&self, state: &MetaState, procedure: &Procedure, at: StepRegion) -> Option<RegionCall> {
        let (group_id, region_id) = (at.group.get(), at.region.get());
        let step = Some(v1::ProcedureStep { number: procedure.number, step: procedure.step });
        let header = None;
        match procedure.step {
            SPLIT_HOLD_STEP | SPLIT_ABANDON_STEP => {
                let held = procedure.step == SPLIT_HOLD_STEP;
                let call = v1::HoldRegionRequest {
                    header,
                    group_id,
                    region_id,
                    held,
                    step,
                    mode: HoldMode::Sealed.into(),
                    target_group_id: 0,
                };
                Some(RegionCall::Hold(call))
            }
            SPLIT_STEP => {
                let children = children(state, procedure)?;
                let call = v1::SplitRegionRequest { header, group_id, region_id, children, step };
                Some(RegionCall::Split(call))
            }
            SPLIT_CLOSE_STEP => {
                let call = v1::CloseRegionRequest { header, group_id, region_id, step };
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
        match procedure.step {
            SPLIT_HOLD_STEP => {
                Ok(AfterStep::Step { step: SPLIT_STEP, change: CatalogChange::default() })
            }
            SPLIT_STEP => {
                Ok(AfterStep::Step { step: SPLIT_CLOSE_STEP, change: replaced(state, procedure)? })
            }
            _ => Ok(AfterStep::End(CatalogChange::default())),
        }
    }

    fn abandoned(&self, _: &MetaState, procedure: &Procedure) -> Option<AfterStep> {
        let change = CatalogChange::default();
        (procedure.step == SPLIT_HOLD_STEP)
            .then_some(AfterStep::Step { step: SPLIT_ABANDON_STEP, change })
    }

    // A sealed region is not removed. The split ends soon, or is cancelled first.
    fn ends_with_table(&self, _: &Procedure) -> bool {
        false
    }
}

/// Checks that a route can be split at a global key.
fn check_key(route: &RouteDescriptor, key: &[u8]) -> Result<(), CommandError> {
    if key.len() > MAX_KEY_BYTES {
        return Err(RouteCommandError::SplitKeyTooLong(key.len()).into());
    }
    if key == route.start {
        return Err(RouteCommandError::KeyOnBoundary(route.route_id).into());
    }
    if key < route.start.as_slice() || route.end.as_deref().is_some_and(|end| key >= end) {
        return Err(RouteCommandError::KeyOutsideRoute(route.route_id).into());
    }
    Ok(())
}

fn parts(procedure: &Procedure) -> Result<(v1::SplitRouteRequest, v1::SplitPlan), CommandError> {
    Ok((decoded(procedure.arguments.clone())?, decoded(procedure.plan.clone())?))
}

/// Returns the children as their data group begins them.
fn children(state: &MetaState, procedure: &Procedure) -> Option<Vec<v1::SplitChild>> {
    let (request, plan) = parts(procedure).ok()?;
    let table = state.table(procedure.table)?;
    let parent = region_descriptor(table, state.route(RegionId(request.route_id))?);
    let [left, right] = plan.child_ids[..] else { return None };
    let key = request.split_key;
    Some(vec![
        v1::SplitChild { region_id: left, start: parent.start, end: Some(key.clone()) },
        v1::SplitChild { region_id: right, start: key, end: parent.end },
    ])
}

/// Returns the change that replaces the route by its children.
fn replaced(state: &MetaState, procedure: &Procedure) -> Result<CatalogChange, CommandError> {
    let damaged = || CommandError::Malformed("the plan of a split is damaged".to_owned());
    let (request, plan) = parts(procedure)?;
    let id = RegionId(request.route_id);
    let parent =
        state.route(id).ok_or(CommandError::Route(RouteCommandError::RouteNotFound(id)))?;
    let [left, right] = plan.child_ids[..] else { return Err(damaged()) };
    let key = global_key(procedure.table, &request.split_key);
    let child = |id, start: &[u8], end: Option<&[u8]>| RouteDescriptor {
        route_id: RegionId(id),
        start: start.to_vec(),
        end: end.map(<[u8]>::to_vec),
        parent_route_id: Some(parent.route_id),
        ..parent.as_ref().clone()
    };
    let routes =
        vec![child(left, &parent.start, Some(&key)), child(right, &key, parent.end.as_deref())];
    let is_soft = [(left, state.has_soft_start(id)), (right, request.for_load)];
    let soft = is_soft.into_iter().filter(|(_, is_soft)| *is_soft);
    Ok(CatalogChange {
        soft_starts: soft.map(|(child, _)| RegionId(child)).collect(),
        // Those of the parent end when its hooks have received its removal.
        cursors: cursors::for_new_routes(state, procedure.table, &routes),
        routes,
        route_deletes: vec![id],
        ..CatalogChange::default()
    })
}
