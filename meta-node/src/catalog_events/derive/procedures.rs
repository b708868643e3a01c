//! Events of procedures: begun, ended, cancelled, and the phases of refreshes.

use prost::Message;
use tidewater_cluster_events::types::{
    ProcedureBegun, ProcedureCancelled, ProcedureEnded, RefreshPhase,
};
use tidewater_events::Event;
use tidewater_proto::v1::{self, AbandonCause, ProcedureKind, ProcedureState};

use super::subject::subject;
use super::{ProcedureNames, known_kind, routes};
use crate::catalog::{MetaState, Procedure};
use crate::catalog_events::refresh_phase;
use crate::leader::clocks::announced_ms;

/// Returns the events of a procedure that a change has begun or continued. Most changes record progress, and have none.
pub(super) fn events(
    before: Option<&Procedure>,
    after: &Procedure,
    state: &MetaState,
) -> Vec<Box<dyn Event>> {
    let is_at = |before: &Procedure| (before.step, before.state) == (after.step, after.state);
    if before.is_some_and(is_at) {
        return Vec::new();
    }
    let names = ProcedureNames::of(after, state);
    let mut events: Vec<Box<dyn Event>> = Vec::new();
    match before {
        Some(before) => events.extend(routes::event(before, after, &names)),
        None => events.push(Box::new(begun(after, &names))),
    }
    if let Some(phase) = phase(before, after, &names) {
        events.push(Box::new(phase));
    }
    if !after.is_running() && before.is_none_or(Procedure::is_running) {
        events.push(end(after, names, state));
    }
    events
}

fn begun(procedure: &Procedure, names: &ProcedureNames) -> ProcedureBegun {
    ProcedureBegun {
        procedure_id: names.id.clone(),
        procedure_kind: names.kind.clone(),
        table_name: names.table.clone(),
        subject: subject(procedure),
    }
}

/// Returns the event of a refresh that has entered another phase.
fn phase(
    before: Option<&Procedure>,
    after: &Procedure,
    names: &ProcedureNames,
) -> Option<RefreshPhase> {
    let is_refresh = known_kind(after) == Some(ProcedureKind::Refresh) && after.is_running();
    let phase = refresh_phase(after);
    if !is_refresh || before.is_some_and(|before| refresh_phase(before) == phase) {
        return None;
    }
    let plan = v1::RefreshPlan::decode(after.plan.clone()).unwrap_or_default();
    Some(RefreshPhase {
        procedure_id: names.id.clone(),
        table_name: names.table.clone(),
        phase: phase.to_owned(),
        epoch: (plan.epoch != 0).then_some(plan.epoch),
    })
}

/// Returns the event of a procedure that has ended. One that could not succeed has failed; one that an operator, its
/// deadline, its table or a data group has ended is cancelled.
fn end(procedure: &Procedure, names: ProcedureNames, state: &MetaState) -> Box<dyn Event> {
    let is_completed = procedure.state == ProcedureState::Completed;
    let cause = if is_completed { None } else { reason(procedure, state) };
    if is_completed || procedure.cause == AbandonCause::Failed {
        let outcome = if is_completed { "completed" } else { "failed" };
        return Box::new(ProcedureEnded {
            procedure_id: names.id,
            procedure_kind: names.kind,
            table_name: names.table,
            outcome: outcome.to_owned(),
            cause,
            duration_ms: duration_ms(procedure),
        });
    }
    Box::new(ProcedureCancelled {
        procedure_id: names.id,
        procedure_kind: names.kind,
        table_name: names.table,
        cause,
        duration_ms: duration_ms(procedure),
    })
}

/// Returns the time from the begin of a procedure to its end; `None`: the clocks had not agreed when it began.
fn duration_ms(procedure: &Procedure) -> Option<u64> {
    let begun_ms = Some(announced_ms(procedure.begun_ms)).filter(|begun_ms| *begun_ms != 0)?;
    Some(procedure.ended_ms?.saturating_sub(begun_ms))
}

/// Returns the reason of the end of a procedure that is not completed.
fn reason(procedure: &Procedure, state: &MetaState) -> Option<String> {
    let why = match procedure.cause {
        AbandonCause::Operator => Some("an operator has cancelled it"),
        AbandonCause::Deadline => Some("its deadline has passed"),
        AbandonCause::Superseded => {
            Some("a data group has abandoned it, or has taken a later step")
        }
        AbandonCause::Drop => Some("its table was dropped"),
        AbandonCause::Failed | AbandonCause::Unspecified => None,
    };
    match (why, failure(procedure, state)) {
        (Some(why), Some(failure)) => Some(format!("{why}; its last failure: {failure}")),
        (why, failure) => failure.or_else(|| why.map(str::to_owned)),
    }
}

/// Returns the last failure of a procedure. The step that takes a refresh back has none, but its run has kept it.
fn failure(procedure: &Procedure, state: &MetaState) -> Option<String> {
    if let Some(failure) = &procedure.failure {
        return Some(failure.message.clone());
    }
    if procedure.cause != AbandonCause::Failed {
        return None;
    }
    let refreshes = state.refreshes_of(procedure.table)?;
    let mut runs = refreshes.history.iter();
    let run = runs.find(|run| run.request_id == procedure.id.as_bytes()[..])?;
    Some(run.error.clone())
}
