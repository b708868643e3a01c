//! Operations that releases without procedures have begun. The records of their tables hold their state: creating,
//! changing or dropping. They are driven like procedures, and completed by the commands of those releases.

use std::collections::BTreeSet;

use bytes::Bytes;
use tidewater_proto::v1::{
    self, AbandonCause, LoadPhase, ProcedureKind, ProcedureState, TableState, meta_command::Kind,
};
use uuid::Uuid;

use super::load::steps;
use super::{alter, load};
use crate::catalog::{MetaState, Procedure, Table, TableChange};

/// Returns the tables with such an operation.
pub(crate) fn tables(state: &MetaState) -> impl Iterator<Item = &Table> {
    let is_earlier = |table: &&Table| {
        !state.procedures().of_table(table.id).any(|procedure| procedure.table == table.id)
    };
    state.tables_in_progress().map(AsRef::as_ref).filter(is_earlier)
}

/// Returns the operation on a table in the form of a procedure; `None`: there is none.
pub(crate) fn operation(table: &Table) -> Option<Procedure> {
    let first = |kind| Some(procedure(table, kind, 1));
    match (table.state, &table.change) {
        (TableState::Creating, _) if table.clone_of.is_some() => first(ProcedureKind::Clone),
        (TableState::Creating, _) => first(ProcedureKind::Create),
        (TableState::Dropping, _) => first(ProcedureKind::Drop),
        (TableState::Unspecified | TableState::Reserved, _) | (TableState::Active, None) => None,
        (TableState::Active, Some(TableChange::Truncate)) => first(ProcedureKind::Truncate),
        (TableState::Active, Some(TableChange::Alter { schema, options })) => {
            let plan = alter::plan(schema, options, false);
            Some(Procedure { plan, ..procedure(table, ProcedureKind::Alter, 1) })
        }
        (TableState::Active, Some(TableChange::Load(of))) => {
            let (step, state) = match of.phase {
                LoadPhase::Opening => (steps::OPEN, ProcedureState::Running),
                LoadPhase::Staging => (steps::STAGE, ProcedureState::Running),
                LoadPhase::Publishing => (steps::PUBLISH, ProcedureState::Running),
                LoadPhase::Abandoning => (steps::ABANDON, ProcedureState::Abandoning),
                LoadPhase::Unspecified => return None,
            };
            Some(Procedure {
                id: of.area,
                state,
                deadline_ms: Some(of.deadline_ms),
                plan: load::plan(of.latest_ms),
                ..procedure(table, ProcedureKind::Load, step)
            })
        }
    }
}

/// Returns the command that completes the step of such an operation.
pub(crate) fn completion(operation: &Procedure) -> Kind {
    let (table_id, number) = (operation.table.get(), operation.number);
    let is_kind = |kind: ProcedureKind| operation.kind == kind as u32;
    if is_kind(ProcedureKind::Create) || is_kind(ProcedureKind::Clone) {
        Kind::ActivateTable(v1::ActivateTable { table_id })
    } else if is_kind(ProcedureKind::Drop) {
        Kind::FinishDropTable(v1::FinishDropTable { table_id })
    } else if is_kind(ProcedureKind::Load) && operation.step == steps::OPEN {
        Kind::LoadOpened(v1::AdvanceLoad { table_id, number })
    } else {
        Kind::FinishTableChange(v1::FinishTableChange { table_id, number })
    }
}

/// Returns the command that abandons such an operation, a load past its deadline.
pub(crate) fn expiry(operation: &Procedure) -> Kind {
    let table_id = operation.table.get();
    Kind::ExpireLoad(v1::AdvanceLoad { table_id, number: operation.number })
}

fn procedure(table: &Table, kind: ProcedureKind, step: u32) -> Procedure {
    Procedure {
        id: Uuid::nil(),
        kind: kind as u32,
        arguments: Bytes::new(),
        arguments_checksum: 0,
        locks: Vec::new(),
        routes: Vec::new(),
        number: table.changes,
        step,
        state: ProcedureState::Running,
        cause: AbandonCause::Unspecified,
        done: BTreeSet::new(),
        failure: None,
        begun_ms: 0,
        step_begun_ms: 0,
        deadline_ms: None,
        ended_ms: None,
        plan: Bytes::new(),
        published: None,
        published_route: None,
        table: table.id,
        table_name: table.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use tidewater_common::ids::TableId;

    use super::*;
    use crate::commands::procedures::kind::RegionCall;
    use crate::commands::procedures::kind_of;
    use crate::commands::testing::{
        directory, drop_table, raise_to_highest, run, table, with_groups,
    };

    /// Kind and step of the operation on a table, the first call to a region, and the command that completes it.
    fn driven(state: &MetaState, id: u32) -> (u32, u32, Option<RegionCall>, Kind) {
        let table = tables(state).find(|table| table.id == TableId(id)).unwrap();
        let operation = operation(table).unwrap();
        let kind = kind_of(operation.kind).unwrap();
        let regions = kind.regions(state, &operation);
        let call = regions.first().and_then(|at| kind.call(state, &operation, *at));
        (operation.kind, operation.step, call, completion(&operation))
    }

    #[test]
    fn operations_of_earlier_releases_are_driven_to_their_end() {
        let mut state = with_groups(1, 1);
        run(&mut state, Kind::CreateTable(table(1, "t"))).unwrap();
        raise_to_highest(&mut state);
        let (kind, _, call, complete) = driven(&state, 1);
        assert_eq!(kind, ProcedureKind::Create as u32);
        assert!(matches!(call, Some(RegionCall::Open(_))), "{call:?}");
        run(&mut state, complete).unwrap();

        let name = || "t".to_owned();
        let new_name = "c".to_owned();
        let clone = v1::CloneTableRequest { request_id: directory(2), name: name(), new_name };
        run(&mut state, Kind::CloneTable(clone)).unwrap();
        let (kind, _, call, complete) = driven(&state, 2);
        assert_eq!(kind, ProcedureKind::Clone as u32);
        let Some(RegionCall::Clone(call)) = call else { panic!("{call:?}") };
        assert_eq!(call.copy.step, Some(v1::ProcedureStep { number: 1, step: 1 }));
        run(&mut state, complete).unwrap();

        let truncate = v1::TruncateTableRequest { request_id: directory(3), name: name() };
        run(&mut state, Kind::BeginTruncateTable(truncate)).unwrap();
        let (kind, _, call, complete) = driven(&state, 1);
        assert_eq!(kind, ProcedureKind::Truncate as u32);
        assert!(matches!(call, Some(RegionCall::Truncate(_))), "{call:?}");
        run(&mut state, complete).unwrap();

        let added = v1::NewColumn {
            name: "x".into(),
            r#type: "int8".into(),
            nullable: true,
            default: None,
        };
        let change = Some(v1::column_change::Change::Add(added));
        let alter = v1::AlterTableRequest {
            request_id: directory(4),
            name: name(),
            columns: vec![v1::ColumnChange { change }],
            ttl_ms: None,
            compaction_window_ms: None,
            by_node: false,
            explicit_since: false,
        };
        run(&mut state, Kind::BeginAlterTable(alter)).unwrap();
        let (kind, _, call, complete) = driven(&state, 1);
        assert_eq!(kind, ProcedureKind::Alter as u32);
        let Some(RegionCall::Alter(call)) = call else { panic!("{call:?}") };
        assert_eq!(call.schema.unwrap().version, 2);
        run(&mut state, complete).unwrap();
        assert_eq!(state.table(TableId(1)).unwrap().schema.version().get(), 2);

        let begin = v1::BeginLoadRequest { request_id: directory(5), name: name(), timeout_ms: 0 };
        run(&mut state, Kind::BeginLoad(begin)).unwrap();
        let (kind, step, call, complete) = driven(&state, 1);
        assert_eq!((kind, step), (ProcedureKind::Load as u32, steps::OPEN));
        assert!(matches!(call, Some(RegionCall::OpenArea(_))), "{call:?}");
        run(&mut state, complete).unwrap();
        assert_eq!(driven(&state, 1).1, steps::STAGE);
        let end = v1::EndLoadRequest { request_id: directory(5), name: name(), publish: true };
        run(&mut state, Kind::EndLoad(end)).unwrap();
        let (_, step, call, complete) = driven(&state, 1);
        assert_eq!(step, steps::PUBLISH);
        let Some(RegionCall::CloseArea(call)) = call else { panic!("{call:?}") };
        assert!(call.publish && call.area_id == id_bytes(5));
        run(&mut state, complete).unwrap();

        run(&mut state, drop_table(6, "t")).unwrap();
        let (kind, _, call, complete) = driven(&state, 1);
        assert_eq!(kind, ProcedureKind::Drop as u32);
        assert!(matches!(call, Some(RegionCall::Drop(_))), "{call:?}");
        run(&mut state, complete).unwrap();
        assert_eq!(tables(&state).count(), 0);
        assert!(state.table(TableId(1)).is_none());
    }

    fn id_bytes(number: u64) -> Bytes {
        Bytes::copy_from_slice(directory(number).parse::<Uuid>().unwrap().as_bytes())
    }
}
