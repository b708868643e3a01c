//! A kind of procedure for tests: three steps, of which the third is past its point of no return. It changes
//! nothing. When it is abandoned, it takes one more step.

use bytes::Bytes;
use tidewater_common::ids::TableId;
use tidewater_proto::v1::{self, LockMode, ProcedureState};

use super::FIRST_KINDS;
use super::kind::{AfterStep, KindFacts, ProcedureBegin, ProcedureKind, RegionCall, StepRegion};
use crate::catalog::{CatalogChange, MetaState, Procedure, TableLock};
use crate::commands::CommandError;

/// Number of the kind.
pub(crate) const TEST_KIND: u32 = 9_999;
/// Last step before the point of no return.
const LAST_ABANDONABLE: u32 = 2;
/// Step in which the procedure is taken back.
const ABANDONING: u32 = 10;

/// The kind. Its arguments are the table's id, a byte.
pub(super) struct TestKind;

impl ProcedureKind for TestKind {
    fn facts(&self) -> KindFacts {
        KindFacts {
            number: TEST_KIND,
            name: "test",
            verb: "tested",
            level: FIRST_KINDS,
            earlier_outcome: None,
        }
    }

    fn begin(&self, state: &MetaState, arguments: Bytes) -> Result<ProcedureBegin, CommandError> {
        let table = arguments.first().map(|id| TableId(u32::from(*id)));
        let table = table.ok_or_else(|| CommandError::Malformed("no table".to_owned()))?;
        let routes = state.routes_of(table).map(|route| route.route_id);
        Ok(ProcedureBegin {
            routes: routes.take(1).collect(),
            deadline_ms: Some(state.header().time_ms + 1_000),
            plan: Bytes::from_static(b"plan"),
            ..ProcedureBegin::new(table, vec![TableLock { table, mode: LockMode::Routes }])
        })
    }

    fn regions(&self, state: &MetaState, procedure: &Procedure) -> Vec<StepRegion> {
        let locked = procedure.routes.iter().filter_map(|route| state.route(*route));
        locked.map(|route| StepRegion { region: route.route_id, group: route.group_id }).collect()
    }

    fn call(&self, _: &MetaState, _: &Procedure, _: StepRegion) -> Option<RegionCall> {
        Some(RegionCall::Truncate(v1::TruncateRegionRequest::default()))
    }

    fn completed(&self, _: &MetaState, procedure: &Procedure) -> Result<AfterStep, CommandError> {
        Ok(match (procedure.state, procedure.step) {
            (ProcedureState::Running, step @ 1..=LAST_ABANDONABLE) => {
                AfterStep::Step { step: step + 1, change: CatalogChange::default() }
            }
            _ => AfterStep::End(CatalogChange::default()),
        })
    }

    fn abandoned(&self, _: &MetaState, procedure: &Procedure) -> Option<AfterStep> {
        (procedure.step <= LAST_ABANDONABLE)
            .then(|| AfterStep::Step { step: ABANDONING, change: CatalogChange::default() })
    }

    fn ends_with_table(&self, procedure: &Procedure) -> bool {
        procedure.step <= LAST_ABANDONABLE
    }
}
