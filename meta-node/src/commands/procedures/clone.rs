//! Clone of a table: all regions are opened with the files of the source's regions, then the table accepts writes.
//! Until then, the source is not changed, and its routes stay as they are.

use bytes::Bytes;
use tidewater_common::agreed_limits::CLONE_STEP;
use tidewater_common::keys::global_key;
use tidewater_proto::v1::{self, LockMode, ProcedureState};

use super::create::{created, created_regions, opening, taken_back};
use super::drop::drop_call;
use super::kind::{
    AfterStep, KindFacts, ProcedureBegin, ProcedureKind, RegionCall, RegionClone, StepRegion,
};
use super::{FIRST_KINDS, decoded};
use crate::catalog::{MetaState, OutcomeKind, Procedure, TableLock, row_key};
use crate::commands::{CommandError, clone_table};

/// Clone of a table. Its arguments are a [`v1::CloneTableRequest`].
pub(super) struct CloneTable;

impl ProcedureKind for CloneTable {
    fn facts(&self) -> KindFacts {
        KindFacts {
            number: v1::ProcedureKind::Clone as u32,
            name: "clone",
            verb: "cloned",
            level: FIRST_KINDS,
            earlier_outcome: Some(OutcomeKind::CloneTable),
        }
    }

    fn begin(&self, state: &MetaState, arguments: Bytes) -> Result<ProcedureBegin, CommandError> {
        let request: v1::CloneTableRequest = decoded(arguments)?;
        let (source, (table, mut change)) = clone_table::creation(state, &request)?;
        // The number of this procedure is that of the adoption.
        change.tables.iter_mut().for_each(|table| table.changes = CLONE_STEP.0.saturating_sub(1));
        let locks = vec![
            TableLock { table, mode: LockMode::Exclusive },
            TableLock { table: source.id, mode: LockMode::Source },
        ];
        Ok(ProcedureBegin { change, ..ProcedureBegin::new(table, locks) })
    }

    fn regions(&self, state: &MetaState, procedure: &Procedure) -> Vec<StepRegion> {
        created_regions(state, procedure)
    }

    fn call(&self, state: &MetaState, procedure: &Procedure, at: StepRegion) -> Option<RegionCall> {
        if procedure.state == ProcedureState::Abandoning {
            return Some(drop_call(at));
        }
        region_clone(state, procedure, at).map(|call| RegionCall::Clone(Box::new(call)))
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

/// Returns the clone of the source's region with the same row keys. The cluster may have been restored since the
/// source was made: each region's directory is named by the incarnation of its own creation.
fn region_clone(state: &MetaState, procedure: &Procedure, at: StepRegion) -> Option<RegionClone> {
    let source_table = state.table(procedure.table)?.clone_of?;
    let start = global_key(source_table, row_key(&state.route(at.region)?.start));
    let source = state.route_starting_at(&start)?;
    Some(RegionClone {
        source: StepRegion { region: source.route_id, group: source.group_id },
        open: opening(state, procedure, at)?,
        copy: v1::CopyRegionRequest {
            header: None,
            group_id: at.group.get(),
            region_id: at.region.get(),
            source_table_id: source_table.get(),
            source_region_id: source.route_id.get(),
            source_incarnation: source.incarnation.get(),
            step: Some(v1::ProcedureStep { number: procedure.number, step: CLONE_STEP.1 }),
        },
    })
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::{Incarnation, TableId};
    use tidewater_proto::v1::meta_command::Kind;

    use super::*;
    use crate::catalog::{CatalogChange, Header};
    use crate::commands::apply_change;
    use crate::commands::procedures::testing::{begin, of};
    use crate::commands::testing::{directory, raise_to_highest, run, table, with_groups};

    #[test]
    fn clone_refers_to_the_sources_own_incarnation() {
        let mut state = with_groups(1, 1);
        raise_to_highest(&mut state);
        run(&mut state, Kind::CreateTable(table(1, "old"))).unwrap();
        run(&mut state, Kind::ActivateTable(v1::ActivateTable { table_id: 1 })).unwrap();
        let restored = Header { incarnation: Incarnation(2), ..state.header().clone() };
        let change = CatalogChange { header: Some(restored), ..CatalogChange::default() };
        apply_change(&mut state, change).unwrap();
        let request = v1::CloneTableRequest {
            request_id: directory(2),
            name: "old".into(),
            new_name: "new".into(),
        };
        run(&mut state, begin(v1::ProcedureKind::Clone, 2, &request)).unwrap();
        // Also after a restart.
        let state = MetaState::from_rows(state.rows().unwrap()).unwrap();
        let procedure = of(&state, 2);
        let at = CloneTable.regions(&state, procedure)[0];
        let route = state.routes_of(TableId(2)).next().unwrap();
        assert_eq!((route.route_id, route.incarnation), (at.region, Incarnation(2)));
        let Some(RegionCall::Clone(call)) = CloneTable.call(&state, procedure, at) else {
            panic!("no clone");
        };
        assert_eq!((call.copy.source_region_id, call.copy.source_incarnation), (1, 1));
        assert_eq!(call.copy.step, Some(v1::ProcedureStep { number: 1, step: 1 }));
    }
}
