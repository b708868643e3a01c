use tidewater_common::ids::{ManifestVersion, Term};
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{CursorState, ProcedureState, Reason, TableState};

use super::*;
use crate::catalog::MAX_OUTCOMES;
use crate::commands::apply;
use crate::commands::procedures::testing::{
    complete, drop_named, fill, id, set_time, with_tables, with_tables_at,
};
use crate::commands::requests::RETRY_WINDOW_MS;
use crate::commands::testing::{command, directory, durable_hook, run, table};

fn allocate(number: u64, count: u32) -> Kind {
    Kind::AllocateIds(v1::AllocateIdsRequest { request_id: directory(number), count })
}

fn description(id: u32, name: &str) -> v1::CollectionDescription {
    let definition =
        v1::CreateTableRequest { request_id: String::new(), regions: 2, ..table(1, name) };
    v1::CollectionDescription { id, definition: Some(definition) }
}

fn create(collections: &[v1::CollectionDescription]) -> Kind {
    Kind::CreateCollections(v1::CreateCollectionsRequest { collections: collections.to_vec() })
}

fn drop_ids(ids: &[u32]) -> Kind {
    Kind::DropCollections(v1::DropCollectionsRequest { ids: ids.to_vec() })
}

fn refused(state: &mut MetaState, kind: Kind) -> Reason {
    run(state, kind).unwrap_err().reason()
}

#[test]
fn ids_are_handed_out_once() {
    let mut state = with_tables();
    assert_eq!(run(&mut state, allocate(10, 3)), Ok(CommandReply::Table(TableId(3))));
    assert_eq!(run(&mut state, allocate(10, 3)), Ok(CommandReply::Table(TableId(3))));
    assert_eq!(run(&mut state, allocate(11, 1)), Ok(CommandReply::Table(TableId(6))));
    assert_eq!(state.header().next_table_id, TableId(7));
    assert_eq!(state.unused_id_count(), 4);
    let other = run(&mut state, allocate(10, 2));
    assert!(matches!(other, Err(CommandError::RequestIdReused(_))), "{other:?}");
    for count in [0, MAX_COUNT + 1] {
        assert_eq!(refused(&mut state, allocate(12, count)), Reason::InvalidArgument);
    }
    let stored = MetaState::from_rows(state.rows().unwrap()).unwrap();
    assert_eq!(stored, state);
}

#[test]
fn batch_is_created_whole() {
    let mut state = with_tables();
    run(&mut state, allocate(10, 3)).unwrap();
    let batch = [description(4, "b"), description(3, "a")];
    run(&mut state, create(&batch)).unwrap();
    let (a, b) = (state.table_named("a").unwrap(), state.table_named("b").unwrap());
    assert_eq!((a.id, b.id), (TableId(3), TableId(4)));
    assert_eq!((a.state, b.state), (TableState::Creating, TableState::Creating));
    assert_eq!(state.routes_of(a.id).count() + state.routes_of(b.id).count(), 4);
    assert!(!state.is_unused_id(a.id) && state.is_unused_id(TableId(5)));
    assert_eq!(state.header().next_table_id, TableId(6));
    let running: Vec<_> = state.procedures().running().map(|of| of.id).collect();
    assert_eq!(running.len(), 2);
    let stored = MetaState::from_rows(state.rows().unwrap()).unwrap();
    assert_eq!(stored, state);
    for id in running {
        let procedure = state.procedures().get(id).unwrap();
        let completed = v1::AdvanceProcedure {
            id: Bytes::copy_from_slice(id.as_bytes()),
            number: procedure.number,
            step: procedure.step,
            completed: true,
            ..v1::AdvanceProcedure::default()
        };
        run(&mut state, Kind::AdvanceProcedure(completed)).unwrap();
        let ended = state.procedures().get(id).unwrap();
        assert_eq!(ended.state, ProcedureState::Completed);
    }
    assert_eq!(state.table_named("a").unwrap().state, TableState::Active);
    // A repeated batch creates what is missing.
    let before = state.clone();
    run(&mut state, create(&batch)).unwrap();
    assert_eq!(state, before);
    run(&mut state, create(&[description(3, "a"), description(5, "c")])).unwrap();
    assert_eq!(state.table_named("c").unwrap().id, TableId(5));
    assert_eq!(state.unused_id_count(), 0);
}

#[test]
fn batch_with_an_invalid_part_creates_nothing() {
    let mut state = with_tables();
    run(&mut state, allocate(10, 4)).unwrap();
    run(&mut state, create(&[description(3, "a"), description(4, "gone")])).unwrap();
    run(&mut state, drop_named(20, "gone")).unwrap();
    let good = description(5, "new");
    let wide = |id, name: &str| v1::CollectionDescription {
        definition: Some(v1::CreateTableRequest {
            regions: 1_000,
            ..description(id, name).definition.unwrap()
        }),
        id,
    };
    let with = |change: fn(&mut v1::CreateTableRequest)| {
        let mut described = description(6, "x");
        change(described.definition.as_mut().unwrap());
        described
    };
    for (bad, reason) in [
        (description(7, "x"), Reason::IdentifierMissing),
        (description(0, "x"), Reason::IdentifierMissing),
        (description(4, "gone"), Reason::IdentifierInvalid),
        (description(3, "other"), Reason::IdentifierReused),
        (description(1, "t"), Reason::IdentifierReused),
        (description(5, "other"), Reason::IdentifierReused),
        (description(6, "new"), Reason::TableExists),
        (description(6, "t"), Reason::TableExists),
        (v1::CollectionDescription { id: 6, definition: None }, Reason::InvalidArgument),
        (with(|of| of.request_id = "x".to_owned()), Reason::InvalidArgument),
        (with(|of| of.refresh = Some(v1::RefreshDefinition::default())), Reason::InvalidArgument),
        (with(|of| of.columns.clear()), Reason::InvalidArgument),
    ] {
        let before = state.clone();
        let text = format!("{bad:?}");
        assert_eq!(refused(&mut state, create(&[good.clone(), bad])), reason, "{text}");
        assert_eq!(state, before, "{text}");
    }
    let many: Vec<_> = (0..101).map(|id| description(id, "x")).collect();
    for batch in [&many[..], &[], &[wide(5, "x"), wide(6, "y"), good.clone()]] {
        assert!(run(&mut state, create(batch)).is_err());
    }
    // The same description twice is one collection.
    run(&mut state, create(&[good.clone(), good])).unwrap();
    assert_eq!(state.table_named("new").unwrap().id, TableId(5));
}

#[test]
fn dropped_collection_keeps_its_id() {
    let mut state = with_tables();
    run(&mut state, allocate(10, 1)).unwrap();
    run(&mut state, create(&[description(3, "a")])).unwrap();
    run(&mut state, drop_named(20, "a")).unwrap();
    for _ in 0..2 {
        assert_eq!(refused(&mut state, create(&[description(3, "a")])), Reason::IdentifierInvalid);
        if state.table(TableId(3)).is_some() {
            complete(&mut state, 20);
        }
    }
}

#[test]
fn ids_and_batches_need_their_level() {
    let mut state = with_tables_at(ALLOCATED_IDS.previous());
    for (kind, level) in [
        (allocate(10, 1), ALLOCATED_IDS),
        (create(&[description(3, "a")]), ALLOCATED_IDS),
        (drop_ids(&[1]), DROPPED_IDS),
    ] {
        let refused = run(&mut state, kind).unwrap_err();
        assert!(matches!(refused, CommandError::FeatureLevel { needed, .. } if needed == level));
    }
}

#[test]
fn unused_ids_are_dropped_once() {
    let mut state = with_tables();
    run(&mut state, allocate(10, 3)).unwrap();
    let revision = state.header().revision;
    assert_eq!(run(&mut state, drop_ids(&[5, 3, 5])), Ok(CommandReply::Done));
    assert_eq!(state.unused_id_count(), 1);
    assert!(state.is_unused_id(TableId(4)));
    assert_eq!(state.header().revision, revision, "watchers do not see ids");
    assert_eq!(MetaState::from_rows(state.rows().unwrap()).as_ref(), Ok(&state));
    let before = state.clone();
    assert_eq!(run(&mut state, drop_ids(&[3, 5])), Ok(CommandReply::Done));
    // The answer to the allocation was lost before.
    assert_eq!(run(&mut state, allocate(10, 3)), Ok(CommandReply::Table(TableId(3))));
    for batch in [&[description(3, "a")][..], &[description(4, "b"), description(5, "a")]] {
        assert_eq!(refused(&mut state, create(batch)), Reason::IdentifierInvalid);
    }
    assert_eq!(state, before);
    assert_eq!(run(&mut state, allocate(11, 1)), Ok(CommandReply::Table(TableId(6))));
    run(&mut state, create(&[description(4, "b")])).unwrap();
    assert_eq!(state.table_named("b").unwrap().id, TableId(4));
}

#[test]
fn drop_of_unused_ids_leaves_collections() {
    let mut state = with_tables();
    run(&mut state, allocate(10, 3)).unwrap();
    run(&mut state, create(&[description(3, "a")])).unwrap();
    run(&mut state, drop_named(20, "u")).unwrap();
    complete(&mut state, 20);
    let before = state.clone();
    // Active, dropped, being created, and not used.
    run(&mut state, drop_ids(&[1, 2, 3, 4])).unwrap();
    assert!(!state.is_unused_id(TableId(4)) && state.is_unused_id(TableId(5)));
    assert_eq!(state.header(), before.header());
    assert!(state.tables().eq(before.tables()) && state.routes().eq(before.routes()));
    assert_eq!(state.procedures(), before.procedures());
    assert_eq!(refused(&mut state, create(&[description(4, "b")])), Reason::IdentifierInvalid);
    // The creation is repeated.
    run(&mut state, create(&[description(3, "a")])).unwrap();
}

#[test]
fn drop_with_an_unknown_id_changes_nothing() {
    let mut state = with_tables();
    run(&mut state, allocate(10, 2)).unwrap();
    for unknown in [0, 5, u32::MAX] {
        let dropped = run(&mut state, drop_ids(&[3, 1, unknown]));
        let missing = CollectionCommandError::IdentifierMissing(TableId(unknown));
        assert_eq!(dropped, Err(CommandError::from(missing)));
    }
    assert_eq!(refused(&mut state, drop_ids(&[3; 101])), Reason::InvalidArgument);
    assert_eq!(state.unused_id_count(), 2);
    run(&mut state, drop_ids(&[3; 100])).unwrap();
    run(&mut state, drop_ids(&[])).unwrap();
    assert_eq!(state.unused_id_count(), 1);
}

#[test]
fn dropped_ids_make_room_for_others() {
    let mut state = with_tables();
    for number in 100..200 {
        run(&mut state, allocate(number, MAX_COUNT)).unwrap();
    }
    assert_eq!(state.unused_id_count(), MAX_UNUSED);
    let full = run(&mut state, allocate(10, 1)).unwrap_err();
    assert_eq!(full, CommandError::from(CollectionCommandError::TooManyIds(MAX_UNUSED)));
    assert_eq!(full.reason(), Reason::InvalidArgument);
    run(&mut state, drop_ids(&[7])).unwrap();
    assert_eq!(run(&mut state, allocate(10, 1)), Ok(CommandReply::Table(TableId(100_003))));
}

#[test]
fn created_collections_have_cursors_of_durable_hooks() {
    let mut state = with_tables();
    run(&mut state, allocate(10, 3)).unwrap();
    run(&mut state, Kind::AddHook(durable_hook(30, "all"))).unwrap();
    let of_another = v1::AddHookRequest { table: "t".into(), ..durable_hook(31, "one") };
    run(&mut state, Kind::AddHook(of_another)).unwrap();
    let counts = |state: &MetaState| ["all", "one"].map(|hook| state.cursors().count(hook));
    assert_eq!(counts(&state), [4, 2]);
    run(&mut state, create(&[description(4, "b"), description(3, "a")])).unwrap();
    assert_eq!(counts(&state), [8, 2]);
    let generation = state.hook("all").unwrap().generation;
    for table in [3, 4].map(TableId) {
        for route in state.routes_of(table) {
            let cursor = state.cursors().get(route.route_id, "all").unwrap();
            assert_eq!((cursor.table, cursor.group), (table, route.group_id));
            assert_eq!((cursor.incarnation, cursor.generation), (route.incarnation, generation));
            // The hook receives all versions.
            assert_eq!((cursor.version, cursor.state), (ManifestVersion(0), CursorState::Tail));
        }
    }
    // One of the batch exists: its cursors stay.
    run(&mut state, create(&[description(3, "a"), description(5, "c")])).unwrap();
    assert_eq!(counts(&state), [10, 2]);
    assert_eq!(MetaState::from_rows(state.rows().unwrap()).as_ref(), Ok(&state));
}

#[test]
fn batch_makes_room_for_all_its_procedures() {
    let mut state = with_tables();
    run(&mut state, allocate(10, 100)).unwrap();
    // All but one of the procedures that the batch replaces end first, among them the creations of the tables.
    let first_ms = state.header().time_ms;
    fill(&mut state, 99, first_ms);
    fill(&mut state, MAX_OUTCOMES, first_ms + 1);
    let described: Vec<_> = (3..103).map(|id| description(id, &format!("c{id}"))).collect();
    // `run` compares and verifies the whole state, which takes long.
    let create_all = |state: &mut MetaState| {
        apply(state, Term(1), command(create(&described))).map(|(reply, _)| reply)
    };
    set_time(&mut state, first_ms + RETRY_WINDOW_MS + 1);
    assert_eq!(create_all(&mut state), Err(CommandError::OutcomesFull(MAX_OUTCOMES)));
    assert_eq!((state.unused_id_count(), state.tables().count()), (100, 2));
    set_time(&mut state, first_ms + RETRY_WINDOW_MS + 2);
    assert_eq!(create_all(&mut state), Ok(CommandReply::Done));
    assert_eq!(state.unused_id_count(), 0);
    let procedures = state.procedures();
    assert_eq!((procedures.count(), procedures.running().count()), (MAX_OUTCOMES, 100));
    assert!([1, 2].into_iter().all(|number| procedures.get(id(number)).is_none()));
    // A repeated batch begins none, and needs no room.
    let revision = state.header().revision;
    assert_eq!(create_all(&mut state), Ok(CommandReply::Done));
    assert_eq!(state.header().revision, revision);
    state.verify().unwrap();
}
