//! Procedures: begun, advanced from step to step, abandoned.
//!
//! - *Procedure*: an operation of several steps, as a record of the catalog. A command begins it, takes its locks
//!   and its number; the leader calls the regions of each step and proposes a command when all have
//!   completed it; a command ends it.
//! - *Kind*: the decisions of one operation. Those of its begin, of the end of each step and of its abandonment are
//!   made in apply, on every replica alike. This file decides what all kinds share: repeated requests,
//!   locks, numbers, progress and ends.
//!
//! Adding a kind: a number in `proto/tidewater/v1/procedure.proto`, a file below `procedures/`, and its row in
//! `procedures/kinds.rs`.

mod alter;
mod begin;
mod clone;
mod create;
mod drop;
pub(crate) mod earlier;
pub(crate) mod kind;
mod kinds;
pub(crate) mod load;
mod merge;
mod move_route;
mod open;
pub(crate) mod refresh;
mod routes;
mod split;
#[cfg(test)]
mod test_kind;
#[cfg(test)]
pub(crate) mod testing;
mod truncate;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{RegionId, TableId};
use tidewater_proto::v1::{self, AbandonCause, LockMode, ProcedureState, TableState};
use uuid::Uuid;

pub(super) use self::begin::{NewProcedure, begin, find_begun, make_room, recorded};
pub(crate) use self::drop::can_drop;
pub(crate) use self::kind::ProcedureKind;
use self::kind::{AfterStep, StepRegion};
pub(super) use self::kinds::creation_kind;
pub(crate) use self::kinds::kind_of;
use super::CommandError;
use crate::catalog::{
    CatalogChange, LockHolder, MetaState, Procedure, ProcedureFailure, Table, TableLock,
    procedure_conflict,
};

/// Level of the first kinds.
pub(crate) const FIRST_KINDS: FeatureLevel = FeatureLevel::new(3);
/// Maximum length of the recorded text of a failure, in characters. Apply depends on it, so it never changes.
pub(crate) const MAX_MESSAGE: usize = 500;

/// Returns the change of its table that data nodes see at the procedure's step.
fn published(kind: &dyn ProcedureKind, procedure: &Procedure) -> Option<v1::TableChange> {
    let number = procedure.number;
    kind.published(procedure).map(|change| v1::TableChange { number, ..change })
}

/// Returns the change of a route that data nodes see at the procedure's step.
fn published_route(kind: &dyn ProcedureKind, procedure: &Procedure) -> Option<v1::RouteChange> {
    let number = procedure.number;
    kind.published_route(procedure).map(|change| v1::RouteChange { number, ..change })
}

/// Records progress, or the completion of a step. Without effect unless the procedure is at the step.
pub(super) fn advance(
    state: &MetaState,
    command: &v1::AdvanceProcedure,
) -> Result<CatalogChange, CommandError> {
    let procedure = find(state, &command.id)?;
    let is_at = procedure.number == command.number
        && procedure.step == command.step
        && procedure.is_running();
    if !is_at {
        return Ok(CatalogChange::default());
    }
    let kind = known_kind(procedure.kind)?;
    if command.completed {
        if kind.is_waiting(procedure) && !command.requested {
            return Err(CommandError::NotRequested(procedure.id));
        }
        if !kind.is_waiting(procedure) {
            let following = kind.completed(state, procedure)?;
            return Ok(follow(state, kind, procedure, following));
        }
        let (following, plan) = kind.requested(state, procedure, &command.result)?;
        let plan = plan.unwrap_or_else(|| procedure.plan.clone());
        let planned = Procedure { plan, ..procedure.as_ref().clone() };
        return Ok(follow(state, kind, &planned, following));
    }
    let regions = kind.regions(state, procedure).into_iter();
    let regions: BTreeSet<RegionId> = regions.map(|at| at.region).collect();
    let reported = command.done_regions.iter().copied().map(RegionId);
    let of_step = reported.filter(|region| regions.contains(region));
    let mut advanced = procedure.as_ref().clone();
    advanced.done.extend(of_step);
    advanced.failure = command.failure.as_ref().map(|failure| {
        let earlier = procedure.failure.as_ref().filter(|of| of.reason == failure.reason);
        ProcedureFailure {
            reason: failure.reason,
            message: failure.message.chars().take(MAX_MESSAGE).collect(),
            since_ms: earlier.map_or(state.header().time_ms, |of| of.since_ms),
        }
    });
    Ok(CatalogChange { procedures: vec![advanced], ..CatalogChange::default() })
}

/// Abandons a procedure before its point of no return. Without effect when it was abandoned before.
pub(super) fn abandon(
    state: &MetaState,
    command: &v1::AbandonProcedure,
) -> Result<CatalogChange, CommandError> {
    let procedure = find(state, &command.id)?;
    let refused = |why| CommandError::NotAbandonable { id: procedure.id, why };
    let cause = command.cause();
    match procedure.state {
        _ if procedure.number != command.number => return Err(refused("it has another number")),
        ProcedureState::Abandoning if cause == AbandonCause::Superseded => {}
        ProcedureState::Abandoning | ProcedureState::Abandoned => {
            return Ok(CatalogChange::default());
        }
        ProcedureState::Superseded => return Err(refused("it was superseded")),
        ProcedureState::Completed | ProcedureState::Unspecified => {
            return Err(refused("it is completed"));
        }
        ProcedureState::Running => {}
    }
    let kind = known_kind(procedure.kind)?;
    let is_running = procedure.state == ProcedureState::Running;
    let following = match (is_running, cause) {
        (false, _) => None,
        (true, AbandonCause::Superseded) => kind.superseded(state, procedure),
        (true, _) => kind.abandoned(state, procedure),
    };
    match cause {
        AbandonCause::Failed | AbandonCause::Superseded if command.step != procedure.step => {
            return Err(refused("it has reached another step"));
        }
        AbandonCause::Operator | AbandonCause::Failed => {}
        // A step that can be taken back is.
        AbandonCause::Superseded if following.is_some() => {}
        AbandonCause::Superseded => {
            let superseded = Procedure { cause, ..procedure.as_ref().clone() };
            let ended = superseded.ended(ProcedureState::Superseded, state.header().time_ms);
            return Ok(with_table(state, kind.change_when_superseded(state, procedure), ended));
        }
        AbandonCause::Deadline => {
            let now_ms = state.header().time_ms;
            if procedure.deadline_ms.is_none_or(|deadline_ms| deadline_ms > now_ms) {
                return Err(refused("its deadline has not passed"));
            }
        }
        AbandonCause::Drop | AbandonCause::Unspecified => {
            return Err(CommandError::Malformed("the cause of an abandonment is unknown".into()));
        }
    }
    let following = following.ok_or_else(|| refused("its step cannot be taken back"))?;
    // It no longer reads other tables.
    let locks = procedure.locks.iter().copied().filter(|lock| lock.mode != LockMode::Source);
    let abandoned = Procedure {
        state: ProcedureState::Abandoning,
        cause,
        locks: locks.collect(),
        ..procedure.as_ref().clone()
    };
    Ok(follow(state, kind, &abandoned, following))
}

/// Checks that no procedure forbids an operation that is begun without one.
///
/// # Errors
/// [`CommandError::Locked`].
pub(super) fn check_lock(
    state: &MetaState,
    table: &Table,
    mode: LockMode,
) -> Result<(), CommandError> {
    match procedure_conflict(state, TableLock { table: table.id, mode }) {
        Some(holder) => Err(CommandError::Locked { table: table.name.clone(), holder }),
        None => Ok(()),
    }
}

/// Returns the procedures that end with their dropped table.
///
/// # Errors
/// A procedure of the table does not end with it.
pub(super) fn ended_by_drop(
    state: &MetaState,
    table: &Table,
) -> Result<Vec<Procedure>, CommandError> {
    let now_ms = state.header().time_ms;
    let end = |procedure: &Arc<Procedure>| {
        let ends = procedure.table == table.id
            && kind_of(procedure.kind).is_some_and(|kind| kind.ends_with_table(procedure));
        let holder = || LockHolder::Procedure {
            id: procedure.id,
            kind: procedure.kind,
            table: Some(table.id),
        };
        let abandoned = || {
            let abandoned = Procedure { cause: AbandonCause::Drop, ..procedure.as_ref().clone() };
            abandoned.ended(ProcedureState::Abandoned, now_ms)
        };
        let ended = ends.then(abandoned);
        ended.ok_or_else(|| CommandError::Locked { table: table.name.clone(), holder: holder() })
    };
    state.procedures().of_table(table.id).map(end).collect()
}

/// Returns the change of a procedure that takes its next step, or ends.
fn follow(
    state: &MetaState,
    kind: &dyn ProcedureKind,
    procedure: &Procedure,
    following: AfterStep,
) -> CatalogChange {
    let (change, mut next) = match following {
        AfterStep::Step { step, change } => {
            let next = Procedure {
                step,
                step_begun_ms: state.header().time_ms,
                done: BTreeSet::new(),
                failure: None,
                ..procedure.clone()
            };
            (change, next)
        }
        AfterStep::End(change) => {
            let ended = match procedure.state {
                ProcedureState::Abandoning => ProcedureState::Abandoned,
                _ => ProcedureState::Completed,
            };
            (change, procedure.ended(ended, state.header().time_ms))
        }
    };
    if next.is_running() {
        next.published = published(kind, &next);
        next.published_route = published_route(kind, &next);
    }
    with_table(state, change, next)
}

/// Adds a procedure to a change, and its table: watchers see a revision with what the step publishes, and so do
/// the calls that wait for it.
fn with_table(state: &MetaState, mut change: CatalogChange, procedure: Procedure) -> CatalogChange {
    let table = procedure.table;
    let is_written =
        change.tables.iter().any(|row| row.id == table) || change.table_deletes.contains(&table);
    if !is_written {
        change.tables.extend(state.table(table).map(|row| row.as_ref().clone()));
    }
    change.procedures.push(procedure);
    change
}

fn parse_id(id: &[u8]) -> Result<Uuid, CommandError> {
    Uuid::from_slice(id)
        .map_err(|_| CommandError::Malformed("the id of a procedure is not a UUID".to_owned()))
}

fn find<'a>(state: &'a MetaState, id: &[u8]) -> Result<&'a Arc<Procedure>, CommandError> {
    let id = parse_id(id)?;
    state.procedures().get(id).ok_or(CommandError::ProcedureNotFound(id))
}

fn known_kind(number: u32) -> Result<&'static dyn ProcedureKind, CommandError> {
    kind_of(number).ok_or(CommandError::UnknownProcedureKind(number))
}

/// Returns the table with this name, which must be active.
fn active_table<'a>(state: &'a MetaState, name: &str) -> Result<&'a Arc<Table>, CommandError> {
    let table =
        state.table_named(name).ok_or_else(|| CommandError::TableNotFound(name.to_owned()))?;
    check_active(state, table)?;
    Ok(table)
}

fn check_active(state: &MetaState, table: &Table) -> Result<(), CommandError> {
    if table.state == TableState::Active {
        return Ok(());
    }
    check_lock(state, table, LockMode::Exclusive)?;
    Err(CommandError::TableState { table: table.id, state: table.state })
}

/// Returns the table with this id, which must be active.
fn active_table_by_id(state: &MetaState, id: TableId) -> Result<&Arc<Table>, CommandError> {
    let table = state.table(id).ok_or(CommandError::TableIdNotFound(id))?;
    check_active(state, table)?;
    Ok(table)
}

/// Returns the regions of a table.
fn regions_of(state: &MetaState, table: TableId) -> Vec<StepRegion> {
    let routes = state.routes_of(table);
    routes.map(|route| StepRegion { region: route.route_id, group: route.group_id }).collect()
}

/// Decodes the message of a kind.
fn decoded<M: Message + Default>(message: Bytes) -> Result<M, CommandError> {
    M::decode(message).map_err(|error| CommandError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests;
