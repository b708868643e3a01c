//! Atomic loads: begun, kept alive, published or abandoned by their loaders.

use std::time::Duration;

use bytes::Bytes;
use tidewater_common::ids::TableId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    self, AbandonCause, LoadPhase, ProcedureKind, ProcedureState, Reason, meta_command::Kind,
};
use uuid::Uuid;

use super::super::AdminService;
use super::{ProcedureRequest, parse_id, table_of, wait_for};
use crate::catalog::{MetaState, Procedure, Table, TableChange};
use crate::commands::procedures::load;

/// Maximum wait of a load for the agreement of the clocks: a few heartbeats and ticks.
const AGREEMENT_WAIT: Duration = Duration::from_secs(5);

impl AdminService {
    pub(in crate::services::admin) async fn begin_load_of(
        &self,
        request: v1::BeginLoadRequest,
    ) -> Result<v1::BeginLoadResponse, Refusal> {
        let running = self.slot.get()?;
        let name = request.name.clone();
        let begin = ProcedureRequest::new(ProcedureKind::Load, &request.request_id, &request)?;
        let area = begin.id;
        running.group.check_leading()?;
        running.observations.wait_for_agreement(AGREEMENT_WAIT).await;
        let earlier = Kind::BeginLoad(request);
        let is_earlier = earlier_load(&running.group.view.read(), &name, area).is_some();
        let id = if is_earlier {
            table_of(&running.group.propose(earlier).await?)?
        } else {
            begin.propose(&running, earlier).await?
        };
        let ended = || {
            let text = format!("the load of table {name:?} ended before all regions had begun it");
            Some(Err(Refusal::new(Reason::LoadEnded, text)))
        };
        wait_for(&running, &format!("the load of table {name:?} is being begun"), |state| {
            let Some(table) = state.table(id) else { return ended() };
            match load_phase(state, table, area) {
                Some(LoadPhase::Opening) => None,
                Some(LoadPhase::Staging) => {
                    Some(Ok(v1::BeginLoadResponse { table: Some(table.as_ref().into()) }))
                }
                _ => ended(),
            }
        })
        .await
    }

    pub(in crate::services::admin) async fn end_load_of(
        &self,
        request: v1::EndLoadRequest,
    ) -> Result<v1::EndLoadResponse, Refusal> {
        let running = self.slot.get()?;
        let (name, publish) = (request.name.clone(), request.publish);
        let area = parse_id(&request.request_id)?;
        let verb = if publish { "published" } else { "abandoned" };
        let operation = format!("the load of table {name:?} is being {verb}");
        running.group.linearize().await?;
        let state = running.group.view.read();
        if state.procedures().get(area).is_none() {
            let id = table_of(&running.group.propose(Kind::EndLoad(request)).await?)?;
            return wait_for(&running, &operation, |state| {
                let is_open = state.table(id).and_then(|table| load_phase(state, table, area));
                is_open.is_none().then_some(Ok(v1::EndLoadResponse {}))
            })
            .await;
        }
        if let Some(ending) = load_ending(&state, &name, area, publish)? {
            match running.group.propose(ending).await {
                // The load is ending in the other way.
                Err(refusal) if refusal.reason == Reason::ProcedureNotAbandonable => {}
                proposed => drop(proposed?),
            }
        }
        wait_for(&running, &operation, |state| {
            let procedure = state.procedures().get(area)?;
            match (procedure.state, publish) {
                (ProcedureState::Completed, true) | (ProcedureState::Abandoned, false) => {
                    Some(Ok(v1::EndLoadResponse {}))
                }
                _ => load_ending(state, &name, area, publish).err().map(Err),
            }
        })
        .await
    }
}

/// Returns the phase of a load, while it runs.
fn load_phase(state: &MetaState, table: &Table, area: Uuid) -> Option<LoadPhase> {
    let Some(procedure) = state.procedures().get(area) else {
        return match &table.change {
            Some(TableChange::Load(load)) if load.area == area => Some(load.phase),
            _ => None,
        };
    };
    procedure.is_running().then_some(match procedure.step {
        load::steps::OPEN => LoadPhase::Opening,
        load::steps::STAGE => LoadPhase::Staging,
        load::steps::PUBLISH => LoadPhase::Publishing,
        _ => LoadPhase::Abandoning,
    })
}

/// Returns the table of a load that runs without a procedure.
fn earlier_load(state: &MetaState, name: &str, area: Uuid) -> Option<TableId> {
    let table = state.table_named(name)?;
    let is_procedure = state.procedures().get(area).is_some();
    (!is_procedure && load_phase(state, table, area).is_some()).then_some(table.id)
}

/// Returns the command that ends a load at its loader's request; `None`: it is ending in this way.
fn load_ending(
    state: &MetaState,
    name: &str,
    area: Uuid,
    publish: bool,
) -> Result<Option<Kind>, Refusal> {
    let procedure = state.procedures().get(area).filter(|procedure| {
        procedure.kind == ProcedureKind::Load as u32 && procedure.table_name == name
    });
    let Some(procedure) = procedure else {
        let text = format!("this load of table {name:?} does not exist");
        return Err(Refusal::new(Reason::LoadEnded, text));
    };
    let ended = |how: &str| {
        let text = format!("the load of table {name:?} was {how}");
        Err(Refusal::new(Reason::LoadEnded, text))
    };
    let id = Bytes::copy_from_slice(area.as_bytes());
    let Procedure { number, step, .. } = **procedure;
    match (procedure.state, publish) {
        (ProcedureState::Completed, false) => ended("published"),
        (ProcedureState::Abandoning | ProcedureState::Abandoned, true) => ended("abandoned"),
        (ProcedureState::Running, true) if step == load::steps::OPEN => {
            let text = format!("the regions of table {name:?} have not all begun the load yet");
            Err(Refusal::new(Reason::LoadEnded, text))
        }
        (ProcedureState::Running, true) if step == load::steps::STAGE => {
            Ok(Some(Kind::AdvanceProcedure(v1::AdvanceProcedure {
                id,
                number,
                step,
                completed: true,
                requested: true,
                ..v1::AdvanceProcedure::default()
            })))
        }
        (ProcedureState::Running, false) if step == load::steps::PUBLISH => ended("published"),
        (ProcedureState::Running, false) => {
            let cause = AbandonCause::Operator.into();
            Ok(Some(Kind::AbandonProcedure(v1::AbandonProcedure { id, number, cause, step })))
        }
        (ProcedureState::Superseded, _) => ended("superseded by a later change"),
        (
            ProcedureState::Running
            | ProcedureState::Completed
            | ProcedureState::Abandoning
            | ProcedureState::Abandoned
            | ProcedureState::Unspecified,
            _,
        ) => Ok(None),
    }
}
