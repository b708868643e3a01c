//! Opening of a reserved table: its saved routes must tile it; from then on its steps are those of a creation.

use bytes::Bytes;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_proto::v1::{self, LockMode, TableState};

use super::create::CreateTable;
use super::kind::{AfterStep, KindFacts, ProcedureBegin, ProcedureKind, RegionCall, StepRegion};
use super::{check_lock, decoded};
use crate::catalog::{
    CatalogChange, Coverage, MetaState, Procedure, RouteDescriptor, Table, TableLock,
    validate_routes,
};
use crate::commands::{CommandError, RouteCommandError, cursors};

/// Opening of a reserved table. Its arguments are a [`v1::OpenTableRequest`].
pub(super) struct OpenTable;

impl ProcedureKind for OpenTable {
    fn facts(&self) -> KindFacts {
        KindFacts {
            number: v1::ProcedureKind::Open as u32,
            name: "open",
            verb: "opened",
            level: FeatureLevel::new(4),
            earlier_outcome: None,
        }
    }

    fn begin(&self, state: &MetaState, arguments: Bytes) -> Result<ProcedureBegin, CommandError> {
        let request: v1::OpenTableRequest = decoded(arguments)?;
        let of = state
            .table_named(&request.name)
            .ok_or_else(|| CommandError::TableNotFound(request.name.clone()))?;
        if of.state != TableState::Reserved {
            check_lock(state, of, LockMode::Exclusive)?;
            return Err(CommandError::TableState { table: of.id, state: of.state });
        }
        let routes: Vec<RouteDescriptor> =
            state.routes_of(of.id).map(|route| route.as_ref().clone()).collect();
        let sorted: Vec<&RouteDescriptor> = routes.iter().collect();
        validate_routes(&sorted, [(of.id, Coverage::Whole)])
            .map_err(RouteCommandError::SavedRoute)?;
        let created_ms = state.header().time_ms;
        let opened = Table { state: TableState::Creating, created_ms, ..of.as_ref().clone() };
        let change = CatalogChange {
            tables: vec![opened],
            cursors: cursors::for_new_routes(state, of.id, &routes),
            ..CatalogChange::default()
        };
        let locks = vec![TableLock { table: of.id, mode: LockMode::Exclusive }];
        Ok(ProcedureBegin { change, ..ProcedureBegin::new(of.id, locks) })
    }

    fn regions(&self, state: &MetaState, procedure: &Procedure) -> Vec<StepRegion> {
        CreateTable.regions(state, procedure)
    }

    fn call(&self, state: &MetaState, procedure: &Procedure, at: StepRegion) -> Option<RegionCall> {
        CreateTable.call(state, procedure, at)
    }

    fn completed(
        &self,
        state: &MetaState,
        procedure: &Procedure,
    ) -> Result<AfterStep, CommandError> {
        CreateTable.completed(state, procedure)
    }

    fn abandoned(&self, state: &MetaState, procedure: &Procedure) -> Option<AfterStep> {
        CreateTable.abandoned(state, procedure)
    }

    fn ends_with_table(&self, procedure: &Procedure) -> bool {
        CreateTable.ends_with_table(procedure)
    }
}
