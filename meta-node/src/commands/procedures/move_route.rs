//! Move of a route to another group: only the ownership of its region changes. The region is held while it is written
//! (*hold*), the target group shows that it can receive it (*prepare*), the region is fenced and flushed (*fence*), the
//! target group takes its manifest over (*receive*, the point of no return), the source group ends its service
//! (*release*), the target group begins it (*activate*), and the catalog names the target group. Writes wait from the
//! fence to the activation. A source group that waits for too long abandons the move by itself, if the
//! manifest still belongs to it: the step that receives the region is superseded then.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use prost::Message;
use tidewater_common::agreed_limits::{
    MOVE_ABANDON_STEP, MOVE_ACTIVATE_STEP, MOVE_FENCE_STEP, MOVE_HOLD_STEP, MOVE_PREPARE_STEP,
    MOVE_RECEIVE_STEP, MOVE_RELEASE_STEP,
};
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{GroupId, RegionId};
use tidewater_proto::v1::{self, GroupState, HoldMode, LockMode};

use super::decoded;
use super::kind::{
    AfterStep, KindFacts, ProcedureBegin, ProcedureKind, RegionCall, RegionReceipt, StepRegion,
};
use super::routes::{HOLD_TIME_MS, active_route, check_version};
use crate::catalog::{CatalogChange, HookCursor, MetaState, Procedure, RouteDescriptor, TableLock};
use crate::commands::{CommandError, GroupCommandError, RouteCommandError};

/// Move of a route. Its arguments are a [`v1::MoveRouteRequest`], its plan is a [`v1::MovePlan`]. Its steps are those of
/// its region ([`MOVE_HOLD_STEP`]); its number is the move epoch of the region's manifest.
pub(super) struct MoveRoute;

impl ProcedureKind for MoveRoute {
    fn facts(&self) -> KindFacts {
        KindFacts {
            number: v1::ProcedureKind::Move as u32,
            name: "move",
            verb: "moved",
            level: FeatureLevel::new(4),
            earlier_outcome: None,
        }
    }

    fn begin(&self, state: &MetaState, arguments: Bytes) -> Result<ProcedureBegin, CommandError> {
        let request: v1::MoveRouteRequest = decoded(arguments)?;
        check_version(state, request.expected_version)?;
        let (table, route) = active_route(state, RegionId(request.route_id))?;
        let target = GroupId(request.target_group_id);
        check_target(state, route, target)?;
        let plan = v1::MovePlan { source_group_id: route.group_id.get() };
        Ok(ProcedureBegin {
            routes: vec![route.route_id],
            // A target group without a quorum must not lock the table forever.
            deadline_ms: Some(state.header().time_ms.saturating_add(HOLD_TIME_MS)),
            plan: plan.encode_to_vec().into(),
            ..ProcedureBegin::new(table, vec![TableLock { table, mode: LockMode::Routes }])
        })
    }

    fn published_route(&self, procedure: &Procedure) -> Option<v1::RouteChange> {
        let plan = Plan::of(procedure).ok()?;
        Some(v1::RouteChange {
            number: procedure.number,
            route_id: plan.region.get(),
            child_ids: Vec::new(),
            split_keys: Vec::new(),
            abandoning: procedure.step == MOVE_ABANDON_STEP,
            successor_id: 0,
            target_group_id: plan.target.get(),
        })
    }

    fn regions(&self, _: &MetaState, procedure: &Procedure) -> Vec<StepRegion> {
        let Ok(plan) = Plan::of(procedure) else { return Vec::new() };
        let group = match procedure.step {
            MOVE_PREPARE_STEP | MOVE_RECEIVE_STEP | MOVE_ACTIVATE_STEP => plan.target,
            _ => plan.source,
        };
        vec![StepRegion { region: plan.region, group }]
    }

    fn call(&self, _: &MetaState, procedure: &Procedure, at: StepRegion) -> Option<RegionCall> {
        let plan = Plan::of(procedure).ok()?;
        let step_of = |step| Some(v1::ProcedureStep { number: procedure.number, step });
        let step = step_of(procedure.step);
        let (group_id, region_id) = (at.group.get(), at.region.get());
        let target_group_id = plan.target.get();
        let hold = |held, mode: HoldMode| {
            let mode = mode.into();
            v1::HoldRegionRequest {
                header: None,
                group_id,
                region_id,
                held,
                step,
                mode,
                target_group_id,
            }
        };
        Some(match procedure.step {
            MOVE_HOLD_STEP => RegionCall::Hold(hold(true, HoldMode::Open)),
            MOVE_FENCE_STEP => RegionCall::Hold(hold(true, HoldMode::Departing)),
            MOVE_ABANDON_STEP => {
                let forget = v1::ReleaseRegionRequest {
                    header: None,
                    group_id: plan.target.get(),
                    region_id,
                    owner_group_id: plan.source.get(),
                    step,
                };
                RegionCall::AbandonMove(hold(false, HoldMode::Departing), forget)
            }
            MOVE_PREPARE_STEP => RegionCall::Prepare(v1::PrepareRegionRequest {
                header: None,
                group_id,
                region_id,
                step,
            }),
            MOVE_RECEIVE_STEP => {
                let departing = v1::GetDepartingRegionRequest {
                    header: None,
                    group_id: plan.source.get(),
                    region_id,
                    step: step_of(MOVE_FENCE_STEP),
                };
                let receive = v1::ReceiveRegionRequest {
                    header: None,
                    group_id,
                    region_id,
                    region: Bytes::new(),
                    done_sequence: 0,
                    level: 0,
                    step,
                };
                RegionCall::Receive(Box::new(RegionReceipt { departing, receive }))
            }
            MOVE_RELEASE_STEP => RegionCall::Release(v1::ReleaseRegionRequest {
                header: None,
                group_id,
                region_id,
                owner_group_id: plan.target.get(),
                step,
            }),
            MOVE_ACTIVATE_STEP => {
                let call = v1::ActivateRegionRequest { header: None, group_id, region_id, step };
                RegionCall::Activate(call)
            }
            _ => return None,
        })
    }

    fn completed(
        &self,
        state: &MetaState,
        procedure: &Procedure,
    ) -> Result<AfterStep, CommandError> {
        let next = |step| Ok(AfterStep::Step { step, change: CatalogChange::default() });
        match procedure.step {
            MOVE_HOLD_STEP => next(MOVE_PREPARE_STEP),
            MOVE_PREPARE_STEP => next(MOVE_FENCE_STEP),
            MOVE_FENCE_STEP => next(MOVE_RECEIVE_STEP),
            MOVE_RECEIVE_STEP => next(MOVE_RELEASE_STEP),
            MOVE_RELEASE_STEP => next(MOVE_ACTIVATE_STEP),
            MOVE_ACTIVATE_STEP => Ok(AfterStep::End(moved(state, procedure)?)),
            _ => Ok(AfterStep::End(CatalogChange::default())),
        }
    }

    fn abandoned(&self, _: &MetaState, procedure: &Procedure) -> Option<AfterStep> {
        (procedure.step < MOVE_RECEIVE_STEP).then(taken_back)
    }

    // Only the manifest decides who owns the region while the target group may be taking it over. A group that has
    // abandoned the move owns it.
    fn superseded(&self, _: &MetaState, procedure: &Procedure) -> Option<AfterStep> {
        (procedure.step <= MOVE_RECEIVE_STEP).then(taken_back)
    }

    // The move ends soon, or is cancelled first.
    fn ends_with_table(&self, _: &Procedure) -> bool {
        false
    }
}

fn taken_back() -> AfterStep {
    AfterStep::Step { step: MOVE_ABANDON_STEP, change: CatalogChange::default() }
}

/// Checks that a group can receive a route.
fn check_target(
    state: &MetaState,
    route: &RouteDescriptor,
    target: GroupId,
) -> Result<(), CommandError> {
    let group =
        state.group(target).ok_or(CommandError::Group(GroupCommandError::GroupNotFound(target)))?;
    let why = if route.group_id == target {
        "the route is in this group already"
    } else if group.retiring || !group.is_live() {
        "the group is being retired, or never was active: `tidewater group list` shows others"
    } else if group.state != GroupState::Active {
        "the group has not been created yet: retry when `tidewater group list` shows it as active"
    } else {
        return Ok(());
    };
    Err(CommandError::Route(RouteCommandError::NotMovable { route: route.route_id, target, why }))
}

/// Plan of a move.
struct Plan {
    region: RegionId,
    source: GroupId,
    target: GroupId,
}

impl Plan {
    fn of(procedure: &Procedure) -> Result<Self, CommandError> {
        let request: v1::MoveRouteRequest = decoded(procedure.arguments.clone())?;
        let plan: v1::MovePlan = decoded(procedure.plan.clone())?;
        Ok(Self {
            region: RegionId(request.route_id),
            source: GroupId(plan.source_group_id),
            target: GroupId(request.target_group_id),
        })
    }
}

/// Returns the change that names the target group, also in the cursors of the region.
fn moved(state: &MetaState, procedure: &Procedure) -> Result<CatalogChange, CommandError> {
    let plan = Plan::of(procedure)?;
    let route = state
        .route(plan.region)
        .ok_or(CommandError::Route(RouteCommandError::RouteNotFound(plan.region)))?;
    let cursors = state.cursors().in_region(plan.region);
    let cursors = cursors.map(|cursor| HookCursor { group: plan.target, ..cursor.clone() });
    Ok(CatalogChange {
        cursors: cursors.collect(),
        routes: vec![RouteDescriptor { group_id: plan.target, ..route.as_ref().clone() }],
        ..CatalogChange::default()
    })
}
