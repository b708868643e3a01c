use tidewater_proto::v1::{WatchEvent, meta_command::Kind};

use super::*;
use crate::commands::procedures::testing::{complete, truncate, with_tables};
use crate::commands::testing::{catalog_of, directory, one_of_each, run, table, with_groups};

/// Decodes a message as watchers do, also those of older releases.
fn decode<M: Message + Default>(message: &[Bytes]) -> M {
    let bytes = message.concat();
    assert_eq!(bytes[0], 0, "not compressed");
    assert_eq!(bytes[1..5], u32::to_be_bytes((bytes.len() - HEADER_BYTES) as u32));
    M::decode(&bytes[HEADER_BYTES..]).unwrap()
}

fn decode_event(message: &[Bytes]) -> Event {
    decode::<WatchEvent>(message).event.unwrap()
}

fn topics(requested: &[i32]) -> TopicSet {
    TopicSet::parse(requested).unwrap()
}

/// A state with a change of a table in progress, which only published messages name.
fn changing() -> MetaState {
    let mut state = one_of_each();
    run(&mut state, Kind::ActivateTable(v1::ActivateTable { table_id: 1 })).unwrap();
    let truncate = v1::TruncateTableRequest { request_id: directory(9), name: "t".into() };
    run(&mut state, Kind::BeginTruncateTable(truncate)).unwrap();
    state
}

#[test]
fn snapshot_has_the_records_of_the_state() {
    let state = changing();
    let encoded = EncodedSnapshot::new(&state);
    let mut expected = catalog_of(&state);
    state.publish_changes(&mut expected.tables);
    state.publish_starts(&mut expected.nodes);
    expected.has_table_changes = true;
    expected.next_route_id = state.next_route_id().get();
    assert!(expected.tables.iter().any(|table| table.change.is_some()));
    assert_eq!(decode::<CatalogSnapshot>(&encoded.message()), expected);
    assert_eq!(decode_event(&encoded.event(TopicSet::ALL)), Event::Snapshot(expected.clone()));
    let selected =
        CatalogSnapshot { tables: Vec::new(), routes: Vec::new(), groups: Vec::new(), ..expected };
    assert_eq!(decode_event(&encoded.event(topics(&[1, 5]))), Event::Snapshot(selected));
}

#[test]
fn delta_has_the_changes_of_its_topics() {
    let state = changing();
    let stored = |pick: fn(&CatalogDelta) -> bool| {
        let deltas = state.deltas_since(Revision(0), usize::MAX).unwrap();
        deltas.into_iter().rev().find(|delta| pick(delta)).unwrap()
    };
    let created = stored(|delta| !delta.route_upserts.is_empty());
    let encoded = EncodedDelta::new(&created, &state);
    let next_route_id = state.next_route_id().get();
    let mut expected = CatalogDelta { next_route_id, ..created.as_ref().clone() };
    state.publish_changes(&mut expected.table_upserts);
    let event = |requested: &[i32]| decode_event(&[encoded.event(topics(requested))]);
    assert_eq!(event(&[]), Event::Delta(expected.clone()));
    assert_eq!(event(&[1, 2, 3, 4, 5]), Event::Delta(expected.clone()));
    let routes = CatalogDelta { table_upserts: Vec::new(), ..expected.clone() };
    assert_eq!(event(&[4]), Event::Delta(routes));
    let head = CatalogDelta { table_upserts: Vec::new(), route_upserts: Vec::new(), ..expected };
    assert_eq!(event(&[1, 5]), Event::Delta(head), "moves the revision");

    let changed = stored(|delta| !delta.table_upserts.is_empty());
    let Event::Delta(delta) = decode_event(&[EncodedDelta::new(&changed, &state).whole]) else {
        panic!("a delta")
    };
    assert!(delta.table_upserts[0].change.is_some(), "changes in progress are published");
}

#[test]
fn step_of_a_procedure_is_published_with_its_table() {
    let mut state = with_tables();
    run(&mut state, truncate(10, "t")).unwrap();
    let published = |state: &MetaState| {
        let snapshot = decode::<CatalogSnapshot>(&EncodedSnapshot::new(state).message());
        let last = state.deltas_since(Revision(state.header().revision.get() - 1), 1).unwrap();
        let Event::Delta(delta) = decode_event(&[EncodedDelta::new(&last[0], state).whole]) else {
            panic!("a delta")
        };
        assert_eq!(delta.table_upserts[..], snapshot.tables[..1]);
        snapshot.tables[0].change.clone()
    };
    // As releases without procedures have published a truncation.
    let change = v1::TableChange { number: 2, ..v1::TableChange::default() };
    assert_eq!(published(&state), Some(change));
    complete(&mut state, 10);
    assert_eq!(published(&state), None);
}

#[test]
fn large_catalogs_are_cut_into_pieces() {
    let mut state = with_groups(1, 1);
    for number in 1..=20 {
        let columns = (0..800).map(|column| v1::NewColumn {
            name: format!("column_{column:04}"),
            r#type: "int64".into(),
            nullable: true,
            default: None,
        });
        let small = table(number, &format!("t{number}"));
        let columns = small.columns.iter().cloned().chain(columns).collect();
        let wide = v1::CreateTableRequest { columns, ..small };
        run(&mut state, Kind::CreateTable(wide)).unwrap();
    }
    let encoded = EncodedSnapshot::new(&state);
    let message = encoded.message();
    assert!(message.len() > 2, "{}", message.len());
    assert!(message.iter().all(|piece| piece.len() <= PIECE_BYTES));
    assert_eq!(decode::<CatalogSnapshot>(&message).tables.len(), 20);
}

#[test]
fn current_revision_is_an_event() {
    let event = decode_event(&[current_revision(Revision(300))]);
    assert_eq!(event, Event::CurrentRevision(300));
}
