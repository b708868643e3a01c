//! Drop of a table: its routes and its name are free at once, then all its regions are removed.
//!
//! A held table keeps its routes under a reserved name: the drop ends when all its regions refuse writes. When its last hold has
//! ended, the leader drops the table by its id, which removes the regions.

use bytes::Bytes;
use prost::Message;
use tidewater_collections::ReadPolicy;
use tidewater_common::ids::TableId;
use tidewater_common::schema::TableOptions;
use tidewater_proto::v1::{self, LockMode};

use super::alter::{alter_call, plan, planned, published_change};
use super::kind::{AfterStep, KindFacts, ProcedureBegin, ProcedureKind, RegionCall, StepRegion};
use super::{FIRST_KINDS, check_active, decoded, ended_by_drop, regions_of};
use crate::catalog::{
    CatalogChange, MetaState, OutcomeKind, Procedure, Table, TableLock, lock_conflict,
};
use crate::commands::{CollectionCommandError, CommandError, clone_table, collections, tables};

/// Drop of a table. Its arguments are a [`v1::DropTableRequest`]. The plan of the drop of a held table is a [`v1::AlterPlan`], that
/// of others is empty.
pub(super) struct DropTable;

impl ProcedureKind for DropTable {
    fn facts(&self) -> KindFacts {
        KindFacts {
            number: v1::ProcedureKind::Drop as u32,
            name: "drop",
            verb: "dropped",
            level: FIRST_KINDS,
            earlier_outcome: Some(OutcomeKind::DropTable),
        }
    }

    fn begin(&self, state: &MetaState, arguments: Bytes) -> Result<ProcedureBegin, CommandError> {
        let request: v1::DropTableRequest = decoded(arguments)?;
        let of = requested(state, &request)?;
        tables::check_not_publishing(of)?;
        if collections::keeps_rows_when_dropped(state, of) {
            return begin_keeping_rows(state, of);
        }
        collections::check_not_held(state, of, "dropped")?;
        let ended = ended_by_drop(state, of)?;
        clone_table::check_not_being_cloned(state, of)?;
        let locks = vec![TableLock { table: of.id, mode: LockMode::Exclusive }];
        let change = tables::dropped(state, of);
        Ok(ProcedureBegin {
            has_precedence: true,
            ended,
            change,
            ..ProcedureBegin::new(of.id, locks)
        })
    }

    fn published(&self, procedure: &Procedure) -> Option<v1::TableChange> {
        keeps_rows(procedure).then(|| published_change(procedure)).flatten()
    }

    fn regions(&self, state: &MetaState, procedure: &Procedure) -> Vec<StepRegion> {
        if keeps_rows(procedure) {
            return regions_of(state, procedure.table);
        }
        regions_to_drop(state, procedure.table)
    }

    fn call(&self, _: &MetaState, procedure: &Procedure, at: StepRegion) -> Option<RegionCall> {
        if keeps_rows(procedure) {
            let plan: v1::AlterPlan = decoded(procedure.plan.clone()).ok()?;
            return Some(alter_call(procedure, plan, at, false));
        }
        Some(drop_call(at))
    }

    fn completed(
        &self,
        state: &MetaState,
        procedure: &Procedure,
    ) -> Result<AfterStep, CommandError> {
        if keeps_rows(procedure) {
            let id = procedure.table;
            let table = state.table(id).ok_or(CommandError::TableIdNotFound(id))?;
            let (schema, options) = planned(&decoded(procedure.plan.clone())?)?;
            let refusing = Table { schema, options, ..table.as_ref().clone() };
            let tables = vec![refusing];
            return Ok(AfterStep::End(CatalogChange { tables, ..CatalogChange::default() }));
        }
        Ok(AfterStep::End(tables::deleted(state, procedure.table)))
    }

    // The name is free, and the routes are gone.
    fn abandoned(&self, _: &MetaState, _: &Procedure) -> Option<AfterStep> {
        None
    }

    // A table whose regions are removed has no name by which it could be dropped again. One that keeps its rows is dropped by
    // its id when its last hold has ended.
    fn ends_with_table(&self, procedure: &Procedure) -> bool {
        keeps_rows(procedure)
    }
}

/// Returns whether the leader can drop a table by its id.
pub(crate) fn can_drop(state: &MetaState, table: TableId) -> bool {
    let request = v1::DropTableRequest { table_id: table.get(), ..v1::DropTableRequest::default() };
    let begun = DropTable.begin(state, request.encode_to_vec().into());
    begun.is_ok_and(|begun| {
        begun.has_precedence || lock_conflict(state, &begun.locks, &begun.routes).is_none()
    })
}

/// Returns whether the drop keeps the rows of its table for holds.
fn keeps_rows(procedure: &Procedure) -> bool {
    !procedure.plan.is_empty()
}

/// Returns the table that a request names by its name, by its id, or by both.
fn requested<'a>(
    state: &'a MetaState,
    request: &v1::DropTableRequest,
) -> Result<&'a Table, CommandError> {
    let id = TableId(request.table_id);
    if !request.name.is_empty() || id == TableId(0) {
        let named = state.table_named(&request.name);
        // The name may be that of a later table.
        let named = named.filter(|table| id == TableId(0) || table.id == id);
        let named = named.ok_or_else(|| CommandError::TableNotFound(request.name.clone()))?;
        return Ok(named);
    }
    let table = state.table(id).ok_or(CommandError::TableIdNotFound(id))?;
    if !table.is_live() {
        return Err(CommandError::TableState { table: id, state: table.state });
    }
    // The policy may have changed since the leader has decided.
    if state.collection(id).is_none_or(|record| record.policy != ReadPolicy::Empty) {
        return Err(CollectionCommandError::PolicyNotEmpty(table.name.clone()).into());
    }
    Ok(table)
}

/// Begins the drop of a held table. Other changes of the table do not end with it, since its regions remain.
fn begin_keeping_rows(state: &MetaState, table: &Table) -> Result<ProcedureBegin, CommandError> {
    check_active(state, table)?;
    let (kept, record) = collections::dropped_and_kept(state, table)?;
    let schema = table.schema.altered(&[])?;
    let locks = vec![TableLock { table: table.id, mode: LockMode::Exclusive }];
    let options = TableOptions { dropped: true, ..table.options.clone() };
    let change =
        CatalogChange { tables: vec![kept], collections: vec![record], ..CatalogChange::default() };
    let plan = plan(&schema, &options, false);
    Ok(ProcedureBegin { plan, change, ..ProcedureBegin::new(table.id, locks) })
}

/// Returns the regions of a dropped table that are to be removed.
pub(super) fn regions_to_drop(state: &MetaState, table: TableId) -> Vec<StepRegion> {
    let dropping = state.table(table).map(|table| table.dropping.as_slice()).unwrap_or_default();
    let region = |of: &crate::catalog::DroppedRegion| StepRegion {
        region: of.region_id,
        group: of.group_id,
    };
    dropping.iter().map(region).collect()
}

/// Returns the call that removes a region.
pub(super) fn drop_call(at: StepRegion) -> RegionCall {
    RegionCall::Drop(v1::DropRegionRequest {
        header: None,
        group_id: at.group.get(),
        region_id: at.region.get(),
    })
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::meta_command::Kind;
    use tidewater_proto::v1::{ProcedureKind as Number, ProcedureState, TableState};

    use super::*;
    use crate::catalog::LockHolder;
    use crate::commands::procedures::testing::{
        abandon, begin, complete, of, state_of, truncate, with_tables,
    };
    use crate::commands::testing::{directory, run, table};

    fn drop(number: u64, name: &str) -> Kind {
        let request = v1::DropTableRequest {
            request_id: directory(number),
            name: name.to_owned(),
            table_id: 0,
        };
        begin(Number::Drop, number, &request)
    }

    #[test]
    fn dropped_table_frees_its_name_and_removes_its_regions() {
        let mut state = with_tables();
        run(&mut state, drop(10, "t")).unwrap();
        assert_eq!(state.table(TableId(1)).unwrap().state, TableState::Dropping);
        assert!(state.table_named("t").is_none());
        assert_eq!(regions_to_drop(&state, TableId(1)).len(), 2);
        run(&mut state, begin(Number::Create, 11, &table(11, "t"))).unwrap();
        let cancel = abandon(&state, 10, v1::AbandonCause::Operator);
        let refused = run(&mut state, cancel);
        assert!(matches!(refused, Err(CommandError::NotAbandonable { .. })), "{refused:?}");
        let mut state = MetaState::from_rows(state.rows().unwrap()).unwrap();
        complete(&mut state, 10);
        assert_eq!(state_of(&state, 10), (ProcedureState::Completed, 1));
        assert!(state.table(TableId(1)).is_none());
        // The reply is the same after the end.
        run(&mut state, drop(10, "t")).unwrap();
        assert_eq!(state.table_named("t").unwrap().id, TableId(3));
    }

    #[test]
    fn drop_ends_changes_of_the_table() {
        let mut state = with_tables();
        run(&mut state, truncate(10, "t")).unwrap();
        run(&mut state, drop(11, "t")).unwrap();
        assert_eq!(state_of(&state, 10).0, ProcedureState::Abandoned);
        assert_eq!(of(&state, 11).number, 3, "above the change that it ends");
        // Also one that was begun without a procedure.
        let truncate = v1::TruncateTableRequest { request_id: directory(12), name: "u".into() };
        run(&mut state, Kind::BeginTruncateTable(truncate)).unwrap();
        run(&mut state, drop(13, "u")).unwrap();
        assert_eq!(state.table(TableId(2)).unwrap().change, None);
    }

    #[test]
    fn source_of_a_clone_is_not_dropped() {
        let mut state = with_tables();
        let clone = v1::CloneTableRequest {
            request_id: directory(10),
            name: "t".into(),
            new_name: "c".into(),
        };
        run(&mut state, begin(Number::Clone, 10, &clone)).unwrap();
        let refused = run(&mut state, drop(11, "t"));
        let CommandError::Locked { holder, .. } = refused.unwrap_err() else { panic!("dropped") };
        let LockHolder::Procedure { id, .. } = holder else { panic!("{holder:?}") };
        assert_eq!(id, of(&state, 10).id);
        // A clone that is cancelled needs its source no longer.
        let mut cancelled = state.clone();
        let cancel = abandon(&cancelled, 10, v1::AbandonCause::Operator);
        run(&mut cancelled, cancel).unwrap();
        assert_eq!(state_of(&cancelled, 10).0, ProcedureState::Abandoning);
        run(&mut cancelled, drop(14, "t")).unwrap();
        // A superseded one is taken back, and ends when a step of that is superseded.
        let mut superseded = state.clone();
        for expected in [ProcedureState::Abandoning, ProcedureState::Superseded] {
            let supersede = abandon(&superseded, 10, v1::AbandonCause::Superseded);
            run(&mut superseded, supersede).unwrap();
            assert_eq!(state_of(&superseded, 10).0, expected);
        }
        // The clone is dropped, and then the source.
        run(&mut state, drop(12, "c")).unwrap();
        assert_eq!(state_of(&state, 10).0, ProcedureState::Abandoned);
        run(&mut state, drop(13, "t")).unwrap();
    }
}
