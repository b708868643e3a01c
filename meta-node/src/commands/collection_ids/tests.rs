use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{ProcedureState, Reason, TableState};

use super::*;
use crate::commands::procedures::testing::{drop_named, with_tables, with_tables_at};
use crate::commands::testing::{directory, run, table};

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
            crate::commands::procedures::testing::complete(&mut state, 20);
        }
    }
}

#[test]
fn ids_and_batches_need_their_level() {
    let mut state = with_tables_at(ALLOCATED_IDS.previous());
    for kind in [allocate(10, 1), create(&[description(3, "a")])] {
        let refused = run(&mut state, kind).unwrap_err();
        assert!(
            matches!(refused, CommandError::FeatureLevel { needed, .. } if needed == ALLOCATED_IDS)
        );
    }
}
