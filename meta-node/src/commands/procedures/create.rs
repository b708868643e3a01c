//! Creation of a table: all regions are opened, then the table accepts writes.

use bytes::Bytes;
use tidewater_proto::v1::{self, LockMode, ProcedureState};

use super::drop::{drop_call, regions_to_drop};
use super::kind::{AfterStep, KindFacts, ProcedureBegin, ProcedureKind, RegionCall, StepRegion};
use super::{FIRST_KINDS, decoded, regions_of};
use crate::catalog::{MetaState, OutcomeKind, Procedure, TableLock, region_descriptor};
use crate::commands::{CommandError, tables};

/// Step in which the regions of an abandoned creation are removed.
const REMOVE_STEP: u32 = 10;

/// Creation of a table. Its arguments are a [`v1::CreateTableRequest`].
pub(super) struct CreateTable;

impl ProcedureKind for CreateTable {
    fn facts(&self) -> KindFacts {
        KindFacts {
            number: v1::ProcedureKind::Create as u32,
            name: "create",
            verb: "created",
            level: FIRST_KINDS,
            earlier_outcome: Some(OutcomeKind::CreateTable),
        }
    }

    fn begin(&self, state: &MetaState, arguments: Bytes) -> Result<ProcedureBegin, CommandError> {
        let request: v1::CreateTableRequest = decoded(arguments)?;
        let (table, change) = tables::creation(state, &request)?;
        let locks = vec![TableLock { table, mode: LockMode::Exclusive }];
        Ok(ProcedureBegin { change, ..ProcedureBegin::new(table, locks) })
    }

    fn regions(&self, state: &MetaState, procedure: &Procedure) -> Vec<StepRegion> {
        created_regions(state, procedure)
    }

    fn call(&self, state: &MetaState, procedure: &Procedure, at: StepRegion) -> Option<RegionCall> {
        if procedure.state == ProcedureState::Abandoning {
            return Some(drop_call(at));
        }
        opening(state, procedure, at).map(RegionCall::Open)
    }

    fn completed(
        &self,
        state: &MetaState,
        procedure: &Procedure,
    ) -> Result<AfterStep, CommandError> {
        created(state, procedure)
    }

    fn abandoned(&self, state: &MetaState, procedure: &Procedure) -> Option<AfterStep> {
        taken_back(state, procedure)
    }

    fn ends_with_table(&self, _: &Procedure) -> bool {
        true
    }
}

/// Returns the regions of a table that is created, or whose creation is taken back.
pub(super) fn created_regions(state: &MetaState, procedure: &Procedure) -> Vec<StepRegion> {
    match procedure.state {
        ProcedureState::Abandoning => regions_to_drop(state, procedure.table),
        _ => regions_of(state, procedure.table),
    }
}

/// Returns the request that opens a region of a new table.
pub(super) fn opening(
    state: &MetaState,
    procedure: &Procedure,
    at: StepRegion,
) -> Option<v1::OpenRegionRequest> {
    let (table, route) = (state.table(procedure.table)?, state.route(at.region)?);
    Some(v1::OpenRegionRequest {
        header: None,
        group_id: at.group.get(),
        region: Some(region_descriptor(table, route)),
        base: 0,
    })
}

/// Returns the end of a creation, or of its abandonment.
pub(super) fn created(state: &MetaState, procedure: &Procedure) -> Result<AfterStep, CommandError> {
    let id = procedure.table;
    let table = state.table(id).ok_or(CommandError::TableIdNotFound(id))?;
    Ok(AfterStep::End(match procedure.state {
        ProcedureState::Abandoning => tables::deleted(state, id),
        _ => tables::activated(table),
    }))
}

/// Returns the removal of the regions of a creation that is abandoned.
pub(super) fn taken_back(state: &MetaState, procedure: &Procedure) -> Option<AfterStep> {
    let table = state.table(procedure.table)?;
    Some(AfterStep::Step { step: REMOVE_STEP, change: tables::dropped(state, table) })
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{RegionId, TableId};
    use tidewater_proto::v1::meta_command::Kind;
    use tidewater_proto::v1::{AbandonCause, TableState};

    use super::*;
    use crate::commands::procedures::testing::{
        abandon, begin, complete, of, state_of, truncate, with_tables,
    };
    use crate::commands::testing::{directory, run, table};

    const T: TableId = TableId(3);

    fn creating() -> MetaState {
        let mut state = with_tables();
        let request = v1::CreateTableRequest { regions: 2, ..table(10, "new") };
        run(&mut state, begin(v1::ProcedureKind::Create, 10, &request)).unwrap();
        state
    }

    #[test]
    fn created_table_is_active_when_its_regions_are_open() {
        let mut state = creating();
        assert_eq!(state.table(T).unwrap().state, TableState::Creating);
        let regions = CreateTable.regions(&state, of(&state, 10));
        assert_eq!(regions.iter().map(|at| at.region.get()).collect::<Vec<_>>(), [5, 6]);
        let Some(RegionCall::Open(open)) = CreateTable.call(&state, of(&state, 10), regions[1])
        else {
            panic!("no opening");
        };
        let region = open.region.unwrap();
        assert_eq!((region.region_id, region.table_id, region.start.len()), (6, 3, 2));
        let refused = run(&mut state, truncate(11, "new"));
        assert!(matches!(refused, Err(CommandError::Locked { .. })), "{refused:?}");
        complete(&mut state, 10);
        assert_eq!(state.table(T).unwrap().state, TableState::Active);
        run(&mut state, truncate(11, "new")).unwrap();
        assert_eq!(MetaState::from_rows(state.rows().unwrap()).unwrap(), state);
    }

    #[test]
    fn cancelled_creation_removes_its_regions() {
        let mut state = creating();
        let cancel = abandon(&state, 10, AbandonCause::Operator);
        run(&mut state, cancel).unwrap();
        assert_eq!(state_of(&state, 10), (ProcedureState::Abandoning, REMOVE_STEP));
        assert!(state.table_named("new").is_none() && state.routes_of(T).next().is_none());
        let procedure = of(&state, 10);
        let regions = CreateTable.regions(&state, procedure);
        assert_eq!(regions.iter().map(|at| at.region).collect::<Vec<_>>(), [5, 6].map(RegionId));
        let call = CreateTable.call(&state, procedure, regions[0]);
        assert!(matches!(call, Some(RegionCall::Drop(_))), "{call:?}");
        complete(&mut state, 10);
        assert_eq!(state_of(&state, 10), (ProcedureState::Abandoned, REMOVE_STEP));
        assert!(state.table(T).is_none());
    }

    #[test]
    fn dropped_table_ends_its_creation() {
        let mut state = creating();
        let drop =
            v1::DropTableRequest { request_id: directory(11), name: "new".into(), table_id: 0 };
        run(&mut state, begin(v1::ProcedureKind::Drop, 11, &drop)).unwrap();
        assert_eq!(state_of(&state, 10).0, ProcedureState::Abandoned);
        complete(&mut state, 11);
        assert!(state.table(T).is_none());
    }

    #[test]
    fn name_of_a_table_is_created_once() {
        let mut state = creating();
        let request = table(12, "new");
        let refused = run(&mut state, begin(v1::ProcedureKind::Create, 12, &request));
        assert_eq!(refused, Err(CommandError::TableExists("new".to_owned())));
        let malformed = Kind::BeginProcedure(v1::BeginProcedure {
            id: bytes::Bytes::copy_from_slice(uuid::Uuid::from_u128(13).as_bytes()),
            kind: v1::ProcedureKind::Create as u32,
            arguments: vec![0xff; 3].into(),
        });
        let refused = run(&mut state, malformed);
        assert!(matches!(refused, Err(CommandError::Malformed(_))), "{refused:?}");
    }
}
