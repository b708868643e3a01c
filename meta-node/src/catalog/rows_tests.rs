use tidewater_common::ids::{GroupId, NodeId, RegionId, TableId};
use tidewater_proto::v1::meta_command::Kind;

use super::*;
use crate::catalog::{CatalogError, RouteError};
use crate::commands::collections::testing::with_export;
use crate::commands::procedures::testing::{report, truncate, with_tables};
use crate::commands::testing::{hex, one_of_each, run, unhex};

#[test]
fn stored_rows_are_frozen() {
    let rows = one_of_each().rows().unwrap();
    let text: String =
        rows.iter().map(|(key, value)| format!("{} {}\n", hex(key), hex(value))).collect();
    let golden = include_str!("golden_rows.txt");
    assert_eq!(text, golden, "stored bytes have changed: older directories must stay readable");
    let stored = golden.lines().map(|line| {
        let (key, value) = line.split_once(' ').unwrap();
        (unhex(key), unhex(value))
    });
    assert_eq!(MetaState::from_rows(stored).unwrap(), one_of_each());
}

/// A state with procedures that run, fail and have ended.
fn with_procedures() -> MetaState {
    let mut state = with_tables();
    run(&mut state, truncate(10, "t")).unwrap();
    let failure = v1::ProcedureFailure { reason: 20, message: "no leader".into(), since_ms: 0 };
    let progress = v1::AdvanceProcedure {
        done_regions: vec![1],
        failure: Some(failure),
        ..report(&state, 10)
    };
    run(&mut state, Kind::AdvanceProcedure(progress)).unwrap();
    state
}

#[test]
fn damaged_rows_fail_to_load() {
    for state in [one_of_each(), with_procedures(), with_export()] {
        every_damage_is_found(&state);
    }
}

fn every_damage_is_found(state: &MetaState) {
    let rows = state.rows().unwrap();
    for at in 0..rows.len() {
        let length = rows[at].1.len();
        for cut in 0..length {
            let mut damaged = rows.clone();
            damaged[at].1.truncate(cut);
            assert!(MetaState::from_rows(damaged).is_err(), "row {at} cut at {cut}");
        }
        let mut damaged = rows.clone();
        damaged[at].1[length - 1] ^= 1;
        assert!(MetaState::from_rows(damaged).is_err(), "row {at} changed");
    }
}

#[test]
fn contradicting_rows_fail_to_load() {
    let key_of = |prefix: &[u8]| {
        one_of_each().rows().unwrap().iter().position(|row| row.0.starts_with(prefix)).unwrap()
    };
    let route = key_of(RowKind::Route.prefix());
    let mut moved = one_of_each().rows().unwrap();
    moved[route].0 = catalog_route_key(RegionId(77));
    assert_eq!(
        MetaState::from_rows(moved).unwrap_err(),
        RouteError::RouteKeyMismatch { key: RegionId(77), record: RegionId(1) }.into()
    );
    let mut gap = one_of_each().rows().unwrap();
    gap.remove(route);
    let error = MetaState::from_rows(gap).unwrap_err();
    assert!(matches!(error, CatalogError::Route(RouteError::Gap(_))), "{error}");
    let mut orphan = one_of_each().rows().unwrap();
    orphan.remove(key_of(RowKind::Table.prefix()));
    let error = MetaState::from_rows(orphan).unwrap_err();
    assert!(matches!(error, CatalogError::Route(RouteError::OutsideTable(_))), "{error}");
    let mut hole = one_of_each().rows().unwrap();
    hole.remove(key_of(RowKind::Delta.prefix()) + 1);
    assert!(matches!(MetaState::from_rows(hole).unwrap_err(), CatalogError::DeltaHole { .. }));
    let mut unknown = one_of_each().rows().unwrap();
    unknown.push((b"other".to_vec(), Vec::new()));
    assert_eq!(MetaState::from_rows(unknown).unwrap_err(), CatalogError::UnknownKey(5));
    let short = vec![(b"catalog/route/x".to_vec(), Vec::new())];
    assert_eq!(MetaState::from_rows(short).unwrap_err(), RouteError::InvalidRouteKey(15).into());
}

#[test]
fn indexes_are_rebuilt_on_load() {
    let loaded = MetaState::from_rows(one_of_each().rows().unwrap()).unwrap();
    assert_eq!(loaded, one_of_each());
    assert!(loaded.table_named("t").is_some() && loaded.table_named("u").is_none());
    assert_eq!(loaded.open_groups().collect::<Vec<_>>(), [(GroupId(1), 2)]);
    let in_progress = loaded.tables_in_progress().map(|table| table.id.get());
    assert_eq!(in_progress.collect::<Vec<_>>(), [1, 2], "one is created, one is dropped");
    let routes = loaded.routes_of(TableId(1)).map(|route| route.route_id.get());
    assert_eq!(routes.collect::<Vec<_>>(), [1, 2]);
    assert_eq!(loaded.node_of_directory(Uuid::from_u128(2)).unwrap().id, NodeId(102));
    assert_eq!(MetaState::from_rows([]).unwrap(), MetaState::default());
}
