//! Drops of held tables, and of tables whose policy is empty.

use tidewater_proto::v1::read_policy::Policy;
use tidewater_proto::v1::{AbandonCause, ProcedureState, TableState};

use super::*;
use crate::commands::collections::testing::{create_export, drop_export, policy};
use crate::commands::procedures::kind::RegionCall;
use crate::commands::procedures::kind_of;
use crate::commands::procedures::testing::{abandon, drop_by_id, state_of};
use crate::commands::testing::table;

const T: TableId = TableId(1);

/// A state with table "t", held by "h" at epoch 20 and dropped, before its regions refuse writes.
fn with_held_drop() -> MetaState {
    let mut state = with_tables();
    run(&mut state, change(20, acquire(1, "h", &["t"], 0))).unwrap();
    run(&mut state, drop_named(10, "t")).unwrap();
    state
}

#[test]
fn held_table_frees_its_name_and_keeps_its_routes() {
    let mut state = with_held_drop();
    assert!(state.table_named("t").is_none() && state.table_named("_tw_dropped_1").is_none());
    assert_eq!(state.routes_of(T).count(), 2);
    let kept = state.table(T).unwrap();
    assert_eq!((kept.name.as_str(), kept.original_name()), ("_tw_dropped_1", "t"));
    assert_eq!((kept.state, kept.options.dropped), (TableState::Active, false));
    let procedure = of(&state, 10);
    assert_eq!(procedure.table_name, "t");
    let published = procedure.published.clone().unwrap();
    assert!(published.options.unwrap().dropped);
    let kind = kind_of(procedure.kind).unwrap();
    let regions = kind.regions(&state, procedure);
    assert_eq!(regions.len(), 2);
    let call = kind.call(&state, procedure, regions[0]);
    let Some(RegionCall::Alter(call)) = call else { panic!("{call:?}") };
    assert!(call.options.unwrap().dropped && !call.check_only);
    let cancel = abandon(&state, 10, AbandonCause::Operator);
    assert!(matches!(run(&mut state, cancel), Err(CommandError::NotAbandonable { .. })));
    complete(&mut state, 10);
    assert_eq!(state_of(&state, 10).0, ProcedureState::Completed);
    assert!(state.table(T).unwrap().options.dropped);
    // Its name belongs to another table.
    run(&mut state, begin(v1::ProcedureKind::Create, 11, &table(11, "t"))).unwrap();
    complete(&mut state, 11);
    assert_eq!(state.table_named("t").unwrap().id, TableId(3));
    let stored = MetaState::from_rows(state.rows().unwrap()).unwrap();
    assert_eq!(stored, state);
    assert_eq!(stored.table_named("t").unwrap().id, TableId(3));
    // A repeated request drops nothing more.
    run(&mut state, drop_named(10, "t")).unwrap();
    assert_eq!(state.table_named("t").unwrap().id, TableId(3));
}

#[test]
fn dropped_table_is_removed_after_its_last_hold() {
    let mut state = with_held_drop();
    complete(&mut state, 10);
    let cloned = Change::Acquire(v1::AcquireReadHoldRequest {
        request_id: directory(2),
        name: "clone".to_owned(),
        like: "h".to_owned(),
        epoch: 25,
        ..v1::AcquireReadHoldRequest::default()
    });
    run(&mut state, change(30, cloned)).unwrap();
    for (held, since) in [("h", 20), ("clone", 25)] {
        assert_eq!(since_of(&state, 1, 50), since);
        let before = state.clone();
        assert_eq!(refused(&mut state, drop_by_id(12, 1)), Reason::Held);
        assert_eq!(state, before);
        run(&mut state, change(50, release(held))).unwrap();
    }
    run(&mut state, drop_by_id(12, 1)).unwrap();
    assert_eq!(state.table(T).unwrap().state, TableState::Dropping);
    assert_eq!(state.table(T).unwrap().dropping.len(), 2);
    assert!(matches!(
        run(&mut state, drop_by_id(13, 1)),
        Err(CommandError::TableState { state: TableState::Dropping, .. })
    ));
    complete(&mut state, 12);
    assert!(state.table(T).is_none() && state.collection(T).is_none());
    assert!(matches!(run(&mut state, drop_by_id(13, 1)), Err(CommandError::TableIdNotFound(T))));
}

#[test]
fn dropped_table_is_found_by_no_command_of_users() {
    let mut state = with_held_drop();
    complete(&mut state, 10);
    let before = state.clone();
    let alter = v1::AlterTableRequest {
        request_id: directory(15),
        ttl_ms: Some(5),
        ..v1::AlterTableRequest::default()
    };
    for name in ["t", "_tw_dropped_1"] {
        let alter = v1::AlterTableRequest { name: name.to_owned(), ..alter.clone() };
        let clone = v1::CloneTableRequest {
            request_id: directory(15),
            name: name.to_owned(),
            new_name: "c".to_owned(),
        };
        for kind in [
            begin(v1::ProcedureKind::Alter, 15, &alter),
            begin(v1::ProcedureKind::Clone, 15, &clone),
            truncate(15, name),
            drop_named(15, name),
            drop_table(15, name),
            change(30, acquire(3, "later", &[name], 0)),
            change(30, policy(name, None)),
            change(30, capabilities(name, &[(30, 1)])),
            change(30, create_export(20, "x", name, 0)),
        ] {
            assert_eq!(refused(&mut state, kind), Reason::TableNotFound);
            assert_eq!(state, before);
        }
    }
}

#[test]
fn acquisition_is_repeated_after_the_drop_of_its_table() {
    let mut state = with_held_drop();
    complete(&mut state, 10);
    run(&mut state, begin(v1::ProcedureKind::Create, 11, &table(11, "t"))).unwrap();
    let before = state.clone();
    run(&mut state, change(20, acquire(1, "h", &["t"], 0))).unwrap();
    assert_eq!(state, before);
}

#[test]
fn released_table_ends_its_unfinished_drop() {
    let mut state = with_held_drop();
    run(&mut state, change(20, release("h"))).unwrap();
    run(&mut state, drop_by_id(12, 1)).unwrap();
    assert_eq!(state_of(&state, 10).0, ProcedureState::Abandoned);
    complete(&mut state, 12);
    assert!(state.table(T).is_none());
}

#[test]
fn held_table_is_dropped_after_its_change_in_progress() {
    let mut state = with_tables();
    run(&mut state, change(20, acquire(1, "h", &["t"], 0))).unwrap();
    let alter = v1::AlterTableRequest {
        request_id: directory(11),
        name: "t".to_owned(),
        columns: vec![v1::ColumnChange {
            change: Some(v1::column_change::Change::Add(v1::NewColumn {
                name: "x".to_owned(),
                r#type: "int8".to_owned(),
                nullable: true,
                default: None,
            })),
        }],
        ..v1::AlterTableRequest::default()
    };
    run(&mut state, begin(v1::ProcedureKind::Alter, 11, &alter)).unwrap();
    let before = state.clone();
    assert!(matches!(run(&mut state, drop_named(10, "t")), Err(CommandError::Locked { .. })));
    assert_eq!(state, before);
    complete(&mut state, 11);
    complete(&mut state, 11);
    run(&mut state, drop_named(10, "t")).unwrap();
    complete(&mut state, 10);
    assert!(state.table(T).unwrap().schema.column_named("x").is_some());
}

#[test]
fn exported_or_capable_table_is_not_dropped() {
    let mut state = with_tables();
    for of in [
        acquire(1, "h", &["t"], 0),
        acquire(2, "i", &["u"], 0),
        create_export(20, "x", "t", 0),
        capabilities("u", &[(20, 1)]),
    ] {
        run(&mut state, change(20, of)).unwrap();
    }
    let (reason, text) = refusal(&mut state, drop_named(10, "t"));
    assert_eq!(reason, Reason::Held);
    assert!(text.contains("exported by \"x\""), "{text}");
    let (reason, text) = refusal(&mut state, drop_named(10, "u"));
    assert_eq!(reason, Reason::Held);
    assert!(text.contains("read capabilities"), "{text}");
    run(&mut state, change(20, drop_export("x"))).unwrap();
    run(&mut state, drop_named(10, "t")).unwrap();
    run(&mut state, change(20, capabilities("u", &[(20, -1)]))).unwrap();
    run(&mut state, drop_named(11, "u")).unwrap();
}

#[test]
fn drop_by_id_requires_the_empty_policy() {
    let mut state = with_tables();
    let named = |table_id| {
        let (request_id, name) = (directory(12), "t".to_owned());
        let request = v1::DropTableRequest { request_id, name, table_id };
        begin(v1::ProcedureKind::Drop, 12, &request)
    };
    run(&mut state.clone(), named(1)).unwrap();
    assert_eq!(refused(&mut state, named(2)), Reason::TableNotFound, "t has another id");
    assert_eq!(refused(&mut state, drop_by_id(12, 1)), Reason::InvalidArgument);
    run(&mut state, change(20, capabilities("t", &[(20, 1)]))).unwrap();
    assert_eq!(refused(&mut state, drop_by_id(12, 1)), Reason::InvalidArgument);
    run(&mut state, change(20, policy("t", Some(Policy::Empty(true))))).unwrap();
    // Capabilities keep the table, and its epochs.
    assert_eq!(since_of(&state, 1, 50), 20);
    assert_eq!(refused(&mut state, drop_by_id(12, 1)), Reason::Held);
    run(&mut state, change(50, capabilities("t", &[(20, -1)]))).unwrap();
    run(&mut state, drop_by_id(12, 1)).unwrap();
    assert!(state.table_named("t").is_none());
    complete(&mut state, 12);
    assert!(state.table(T).is_none());
}

#[test]
fn drops_by_id_and_empty_policies_need_their_level() {
    let needed = FeatureLevel::HELD_DROPS;
    let mut state = with_tables_at(needed.previous());
    for kind in [drop_by_id(12, 1), change(20, policy("t", Some(Policy::Empty(true))))] {
        let expected = CommandError::FeatureLevel { needed, level: needed.previous() };
        assert_eq!(run(&mut state, kind), Err(expected));
    }
}
