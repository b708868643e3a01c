//! Implementation of the proto service `Procedures`: procedures, for operators.

use tidewater_cluster_events::RecordedCalls;
use tidewater_common::ids::TableId;
use tidewater_common::quote::quoted;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::procedures_server::{Procedures, ProceduresServer};
use tidewater_proto::v1::{self, AbandonCause, ProcedureState, Reason, meta_command::Kind};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{MAX_REQUEST_BYTES, ReplicaSlot};
use crate::catalog::{MetaState, Procedure};
use crate::commands::procedures::kind_of;

/// Number of ended procedures in a list without a limit.
const ENDED_LISTED: usize = 100;
/// Maximum number of ended procedures in a list, and of running ones.
const MAX_LISTED: usize = 1_000;

/// Lists, describes and cancels procedures.
#[derive(Debug, Clone)]
pub(crate) struct ProcedureService {
    slot: ReplicaSlot,
    calls: RecordedCalls,
}

impl ProcedureService {
    pub(crate) fn new(slot: ReplicaSlot, calls: RecordedCalls) -> Self {
        Self { slot, calls }
    }

    pub(crate) fn into_server(self) -> ProceduresServer<Self> {
        ProceduresServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    async fn list(&self, ended: u32) -> Result<v1::ListProceduresResponse, Refusal> {
        let running = self.slot.get()?;
        running.group.linearize().await?;
        let state = running.group.view.read();
        let failed = |_| Refusal::new(Reason::Internal, "the list of procedures failed");
        tokio::task::spawn_blocking(move || list(&state, ended)).await.map_err(failed)
    }

    async fn describe(&self, id: &str) -> Result<v1::ProcedureInfo, Refusal> {
        let id = parse_id(id)?;
        let running = self.slot.get()?;
        running.group.linearize().await?;
        describe(&running.group.view.read(), id)
    }

    async fn cancel(&self, id: &str) -> Result<v1::ProcedureInfo, Refusal> {
        let id = parse_id(id)?;
        let running = self.slot.get()?;
        running.group.linearize().await?;
        let state = running.group.view.read();
        let procedure = state.procedures().get(id).ok_or_else(|| not_found(id))?;
        let abandon = v1::AbandonProcedure {
            id: bytes::Bytes::copy_from_slice(id.as_bytes()),
            number: procedure.number,
            cause: AbandonCause::Operator.into(),
            step: procedure.step,
        };
        running.group.propose(Kind::AbandonProcedure(abandon)).await?;
        describe(&running.group.view.read(), id)
    }
}

/// Returns the running procedures by begin, and the last ended ones. Takes time for their regions.
fn list(state: &MetaState, ended: u32) -> v1::ListProceduresResponse {
    let limit = match usize::try_from(ended) {
        Ok(0) => ENDED_LISTED,
        Ok(requested) => requested.min(MAX_LISTED),
        Err(_) => MAX_LISTED,
    };
    let mut running: Vec<_> = state.procedures().running().collect();
    running.sort_by_key(|procedure| (procedure.begun_ms, procedure.id));
    let last_ended = state.procedures().last_ended().take(limit);
    let count = u32::try_from(running.len()).unwrap_or(u32::MAX);
    let listed = running.into_iter().take(MAX_LISTED).chain(last_ended);
    let procedures = listed.map(|procedure| info(state, procedure)).collect();
    v1::ListProceduresResponse { procedures, running: count }
}

fn describe(state: &MetaState, id: Uuid) -> Result<v1::ProcedureInfo, Refusal> {
    let procedure = state.procedures().get(id).ok_or_else(|| not_found(id))?;
    Ok(info(state, procedure))
}

fn info(state: &MetaState, procedure: &Procedure) -> v1::ProcedureInfo {
    let kind = kind_of(procedure.kind);
    let is_running = procedure.is_running();
    let regions = kind.filter(|_| is_running).map(|kind| kind.regions(state, procedure));
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let is_abandonable = procedure.state == ProcedureState::Running
        && kind.is_some_and(|kind| kind.abandoned(state, procedure).is_some());
    let record = v1::ProcedureRecord::from(procedure);
    v1::ProcedureInfo {
        procedure_id: procedure.id.to_string(),
        kind: kind.map(|kind| kind.facts().name.to_owned()).unwrap_or_default(),
        kind_number: procedure.kind,
        state: record.state,
        cause: record.cause,
        step: procedure.step,
        table: match table_name(state, procedure.table) {
            // The table of a drop gets a reserved name.
            Some(name) if procedure.kind != v1::ProcedureKind::Drop as u32 => name,
            _ => record.table_name,
        },
        table_id: procedure.table.get(),
        number: procedure.number,
        regions: regions.map_or(0, |regions| count(regions.len())),
        regions_done: count(procedure.done.len()),
        failure: record.failure,
        begun_ms: record.begun_ms,
        step_begun_ms: record.step_begun_ms,
        deadline_ms: record.deadline_ms,
        ended_ms: record.ended_ms,
        abandonable: is_abandonable,
    }
}

fn table_name(state: &MetaState, table: TableId) -> Option<String> {
    state.table(table).map(|table| table.name.clone())
}

fn parse_id(id: &str) -> Result<Uuid, Refusal> {
    id.parse().map_err(|_| {
        let text = format!(
            "{} is not the id of a procedure: `tidewater procedure list` shows the ids",
            quoted(id)
        );
        Refusal::new(Reason::InvalidArgument, text)
    })
}

fn not_found(id: Uuid) -> Refusal {
    let text = format!("procedure {id} does not exist, or ended more than 24 hours ago");
    Refusal::new(Reason::ProcedureNotFound, text)
}

#[tonic::async_trait]
impl Procedures for ProcedureService {
    async fn list_procedures(
        &self,
        request: Request<v1::ListProceduresRequest>,
    ) -> Result<Response<v1::ListProceduresResponse>, Status> {
        Ok(Response::new(self.list(request.into_inner().ended).await?))
    }

    async fn describe_procedure(
        &self,
        request: Request<v1::DescribeProcedureRequest>,
    ) -> Result<Response<v1::DescribeProcedureResponse>, Status> {
        let procedure = Some(self.describe(&request.into_inner().procedure_id).await?);
        Ok(Response::new(v1::DescribeProcedureResponse { procedure }))
    }

    async fn cancel_procedure(
        &self,
        request: Request<v1::CancelProcedureRequest>,
    ) -> Result<Response<v1::CancelProcedureResponse>, Status> {
        let call = self.calls.begin(&request);
        let procedure = call.end(self.cancel(&request.into_inner().procedure_id).await)?;
        let procedure = Some(procedure);
        Ok(Response::new(v1::CancelProcedureResponse { procedure }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::procedures::testing::{complete, id, test, truncate, with_tables};
    use crate::commands::testing::run;

    #[test]
    fn running_procedures_are_listed_before_the_last_ended_ones() {
        let mut state = with_tables();
        for number in [10, 11] {
            let later = 2_000 * number;
            let tick = v1::AdvanceTime { now_ms: later, agreed_ms: later };
            run(&mut state, Kind::AdvanceTime(tick)).unwrap();
            run(&mut state, truncate(number, "t")).unwrap();
            complete(&mut state, number);
        }
        run(&mut state, test(12, 2)).unwrap();
        let listed = |ended| -> Vec<String> {
            list(&state, ended).procedures.into_iter().map(|info| info.procedure_id).collect()
        };
        let expected = |numbers: &[u64]| -> Vec<String> {
            numbers.iter().map(|number| id(*number).to_string()).collect()
        };
        assert_eq!(listed(2), expected(&[12, 11, 10]));
        assert_eq!(listed(1), expected(&[12, 11]));
        // With those of the creation of the tables.
        assert_eq!(list(&state, 0).procedures.len(), 5);
        assert_eq!(list(&state, 0).running, 1);
        let running = describe(&state, id(12)).unwrap();
        assert_eq!((running.kind.as_str(), running.table.as_str()), ("test", "u"));
        assert_eq!((running.regions, running.regions_done, running.abandonable), (1, 0, true));
        let ended = describe(&state, id(10)).unwrap();
        let expected = (ProcedureState::Completed, 0, false);
        assert_eq!((ended.state(), ended.regions, ended.abandonable), expected);
        assert_eq!(describe(&state, Uuid::nil()).unwrap_err().reason, Reason::ProcedureNotFound);
        assert_eq!(parse_id("x").unwrap_err().reason, Reason::InvalidArgument);
    }
}
