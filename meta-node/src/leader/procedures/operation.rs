//! Operations with work for the leader: procedures, and tables whose operations an earlier release has begun (pure).

use std::sync::Arc;

use bytes::Bytes;
use tidewater_common::ids::TableId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, AbandonCause, ProcedureState, Reason, meta_command::Kind};
use uuid::Uuid;

use crate::catalog::{MetaState, Procedure};
use crate::commands::procedures::kind::ProcedureKind;
use crate::commands::procedures::{earlier, kind_of};

/// An operation that the leader drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::leader) enum OperationKey {
    /// The table of an operation that an earlier release has begun.
    Table(TableId),
    /// A procedure.
    Procedure(Uuid),
}

/// Step of an operation, and its direction: work that the regions do once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::leader) struct ProcedurePhase {
    kind: u32,
    number: u64,
    step: u32,
    state: ProcedureState,
}

impl From<&Procedure> for ProcedurePhase {
    fn from(procedure: &Procedure) -> Self {
        let Procedure { kind, number, step, state, .. } = *procedure;
        Self { kind, number, step, state }
    }
}

/// One operation, and its kind.
pub(super) struct Operation {
    pub(super) key: OperationKey,
    pub(super) procedure: Arc<Procedure>,
    pub(super) kind: &'static dyn ProcedureKind,
}

/// Returns the operations with work for the leader. Those of kinds of later releases are left to their leaders.
pub(in crate::leader) fn unfinished(state: &MetaState) -> Vec<(OperationKey, ProcedurePhase)> {
    let is_due = |procedure: &Procedure| {
        kind_of(procedure.kind)
            .is_some_and(|kind| !kind.is_waiting(procedure) || is_overdue(state, procedure, kind))
    };
    let earlier = earlier::tables(state).filter_map(|table| {
        let operation = earlier::operation(table).filter(|operation| is_due(operation))?;
        Some((OperationKey::Table(table.id), ProcedurePhase::from(&operation)))
    });
    let running = state.procedures().running().filter(|procedure| is_due(procedure));
    let key = |procedure: &Procedure| {
        (OperationKey::Procedure(procedure.id), ProcedurePhase::from(procedure))
    };
    earlier.chain(running.map(|procedure| key(procedure))).collect()
}

/// Returns an operation that has not ended.
pub(super) fn find(state: &MetaState, key: OperationKey) -> Option<Operation> {
    let procedure = match key {
        OperationKey::Procedure(id) => {
            Arc::clone(state.procedures().get(id).filter(|procedure| procedure.is_running())?)
        }
        OperationKey::Table(id) => {
            let table = earlier::tables(state).find(|table| table.id == id)?;
            Arc::new(earlier::operation(table)?)
        }
    };
    let kind = kind_of(procedure.kind)?;
    Some(Operation { key, procedure, kind })
}

impl Operation {
    pub(super) fn phase(&self) -> ProcedurePhase {
        ProcedurePhase::from(self.procedure.as_ref())
    }

    /// Returns a report on the step, without progress.
    pub(super) fn report(&self) -> v1::AdvanceProcedure {
        v1::AdvanceProcedure {
            id: wire_id(self.procedure.id),
            number: self.procedure.number,
            step: self.procedure.step,
            ..v1::AdvanceProcedure::default()
        }
    }

    /// Returns the command that completes the step.
    pub(super) fn completion(&self) -> Kind {
        match self.key {
            OperationKey::Table(_) => earlier::completion(&self.procedure),
            OperationKey::Procedure(_) => {
                Kind::AdvanceProcedure(v1::AdvanceProcedure { completed: true, ..self.report() })
            }
        }
    }

    /// Returns the command that abandons the operation at its deadline, or because it is superseded.
    pub(super) fn abandonment(&self, cause: AbandonCause) -> Kind {
        match self.key {
            OperationKey::Table(_) => earlier::expiry(&self.procedure),
            OperationKey::Procedure(id) => Kind::AbandonProcedure(v1::AbandonProcedure {
                id: wire_id(id),
                number: self.procedure.number,
                cause: cause.into(),
                step: self.procedure.step,
            }),
        }
    }

    /// Returns whether each attempt on the step fails after this refusal of a region.
    pub(super) fn is_permanent(&self, refusal: &Refusal) -> bool {
        self.is_superseded(refusal) || self.kind.cannot_succeed(&self.procedure, refusal.reason)
    }

    /// Returns whether a refusal ends the procedure: its region has taken a later step, and always refuses this one.
    /// Operations of earlier releases have no such end.
    pub(super) fn is_superseded(&self, refusal: &Refusal) -> bool {
        matches!(self.key, OperationKey::Procedure(_))
            && refusal.reason == Reason::ProcedureSuperseded
    }
}

/// Returns whether a procedure is past its deadline and can be abandoned.
pub(super) fn is_overdue(
    state: &MetaState,
    procedure: &Procedure,
    kind: &dyn ProcedureKind,
) -> bool {
    procedure.state == ProcedureState::Running
        && procedure.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= state.header().time_ms)
        && kind.abandoned(state, procedure).is_some()
}

fn wire_id(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}
