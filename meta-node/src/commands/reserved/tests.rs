use bytes::Bytes;
use tidewater_proto::v1::ProcedureKind;
use tidewater_proto::v1::meta_command::Kind;

use super::*;
use crate::commands::procedures::testing::{abandon, begin, complete, state_of, with_tables};
use crate::commands::testing::{
    command, directory, drop_table, durable_hook, run, run_command, table,
};

const R: TableId = TableId(3);

fn reservation(name: &str) -> Kind {
    let definition = Some(v1::CreateTableRequest { regions: 0, ..table(0, name) });
    Kind::ReserveTable(v1::ReserveTableRequest { definition })
}

/// A state with the active tables 1 and 2, of two regions each, and the reserved table 3.
fn reserved() -> MetaState {
    let mut state = with_tables();
    assert_eq!(run(&mut state, reservation("r")), Ok(CommandReply::Table(R)));
    state
}

/// A route of table 3 from and to these row keys; `0xff`: to the end of the table.
fn route(id: u64, start: &[u8], end: u8) -> v1::Route {
    let key = |key: &[u8]| Bytes::from([&[0, 0, 0, 3], key].concat());
    let end = if end == 0xff { Bytes::from_static(&[0, 0, 0, 4]) } else { key(&[end]) };
    let (start, group_id) = (key(start), 1);
    v1::Route { route_id: id, start, end: Some(end), group_id, ..v1::Route::default() }
}

fn saving(state: &MetaState, number: u64, routes: &[v1::Route]) -> v1::SaveRoutesRequest {
    v1::SaveRoutesRequest {
        request_id: directory(number),
        table_id: R.get(),
        expected_version: state.catalog_version().get(),
        routes: routes.to_vec(),
    }
}

fn save(state: &mut MetaState, number: u64, routes: &[v1::Route]) -> Result<(), CommandError> {
    let request = saving(state, number, routes);
    run(state, Kind::SaveRoutes(request)).map(drop)
}

fn ids(state: &MetaState, table: TableId) -> Vec<u64> {
    state.routes_of(table).map(|route| route.route_id.get()).collect()
}

fn opening(number: u64, name: &str) -> Kind {
    let request = v1::OpenTableRequest { request_id: directory(number), name: name.to_owned() };
    begin(ProcedureKind::Open, number, &request)
}

#[test]
fn reserved_table_is_opened_with_its_saved_routes() {
    let mut state = reserved();
    let before = state.catalog_version().get();
    save(&mut state, 10, &[route(0, &[9], 0xff), route(0, &[], 9)]).unwrap();
    assert_eq!(state.catalog_version().get(), before + 1);
    assert_eq!(ids(&state, R), [6, 5]);
    // A route keeps its id, another one is replaced, and one above the next id is accepted.
    save(&mut state, 11, &[route(6, &[], 7), route(40, &[7], 0xff)]).unwrap();
    assert_eq!((ids(&state, R), state.next_route_id()), (vec![6, 40], RegionId(41)));
    assert_eq!(MetaState::from_rows(state.rows().unwrap()).unwrap(), state);
    run(&mut state, opening(12, "r")).unwrap();
    assert_eq!(state.table(R).unwrap().state, TableState::Creating);
    let busy = save(&mut state, 13, &[route(0, &[], 0xff)]);
    assert!(matches!(busy, Err(CommandError::Locked { .. })), "{busy:?}");
    complete(&mut state, 12);
    assert_eq!(state.table(R).unwrap().state, TableState::Active);
    assert_eq!(ids(&state, R), [6, 40]);
    let live = save(&mut state, 14, &[route(0, &[], 0xff)]);
    assert_eq!(live, Err(CommandError::Route(RouteCommandError::RouteLive("r".to_owned()))));
}

#[test]
fn reserved_table_keeps_its_name_and_accepts_no_change() {
    let mut state = reserved();
    assert_eq!(run(&mut state, reservation("r")), Ok(CommandReply::Table(R)));
    for name in ["t", "r"] {
        let other = v1::CreateTableRequest { regions: 0, ttl_ms: Some(5), ..table(0, name) };
        let other = v1::ReserveTableRequest { definition: Some(other) };
        let refused = run(&mut state, Kind::ReserveTable(other));
        assert!(refused.is_err(), "{name}: {refused:?}");
    }
    let regions = v1::CreateTableRequest { regions: 2, ..table(0, "s") };
    let regions = v1::ReserveTableRequest { definition: Some(regions) };
    for malformed in [regions, v1::ReserveTableRequest::default()] {
        let refused = run(&mut state, Kind::ReserveTable(malformed));
        assert!(matches!(refused, Err(CommandError::Malformed(_))), "{refused:?}");
    }
    let create = begin(ProcedureKind::Create, 20, &table(20, "r"));
    assert_eq!(run(&mut state, create), Err(CommandError::TableExists("r".to_owned())));
    save(&mut state, 10, &[route(0, &[], 0xff)]).unwrap();
    let truncate = v1::TruncateTableRequest { request_id: directory(21), name: "r".into() };
    let split = v1::SplitRouteRequest {
        request_id: directory(22),
        route_id: 5,
        split_key: Bytes::from_static(&[7]),
        expected_version: 0,
        for_load: false,
    };
    let clone =
        v1::CloneTableRequest { request_id: directory(23), name: "r".into(), new_name: "c".into() };
    for change in [
        begin(ProcedureKind::Truncate, 21, &truncate),
        begin(ProcedureKind::Split, 22, &split),
        begin(ProcedureKind::Clone, 23, &clone),
    ] {
        let refused = run(&mut state, change);
        assert!(matches!(refused, Err(CommandError::TableState { .. })), "{refused:?}");
    }
}

#[test]
fn each_invalid_save_has_its_own_error() {
    let mut state = reserved();
    save(&mut state, 10, &[route(0, &[], 9), route(0, &[9], 0xff)]).unwrap();
    let before = state.clone();
    let five = RegionId(5);
    let foreign = v1::Route { start: Bytes::from_static(&[0, 0, 0, 2, 1]), ..route(5, &[], 9) };
    let unbounded = v1::Route { end: None, ..route(5, &[], 9) };
    let in_group = |group_id| vec![v1::Route { group_id, ..route(5, &[], 9) }];
    let saved = |error| CommandError::Route(RouteCommandError::SavedRoute(error));
    let cases = [
        (
            vec![],
            CommandError::Route(RouteCommandError::SavedRoutes {
                routes: 0,
                max: MAX_SAVED_ROUTES,
            }),
        ),
        (vec![route(3, &[], 9)], CommandError::Route(RouteCommandError::RouteIdUsed(RegionId(3)))),
        (
            vec![route(7 + MAX_ID_DISTANCE, &[], 9)],
            CommandError::Route(RouteCommandError::RouteIdTooHigh {
                id: RegionId(7 + MAX_ID_DISTANCE),
                bound: 7 + MAX_ID_DISTANCE,
            }),
        ),
        (
            vec![route(5, &[7; MAX_BOUND_BYTES], 9)],
            CommandError::Route(RouteCommandError::BoundTooLong(MAX_BOUND_BYTES + 4)),
        ),
        (vec![route(5, &[], 9), route(5, &[9], 0xff)], saved(RouteError::DuplicateRouteId(five))),
        (vec![route(5, &[9], 9)], saved(RouteError::InvalidRange(five))),
        (
            vec![route(5, &[], 9), route(6, &[8], 0xff)],
            saved(RouteError::Overlap(five, RegionId(6))),
        ),
        (vec![route(5, &[], 9), route(6, &[], 8)], saved(RouteError::Order(five, RegionId(6)))),
        (vec![foreign], saved(RouteError::OutsideTable(five))),
        (vec![unbounded], saved(RouteError::OutsideTable(five))),
        (in_group(0), saved(RouteError::GroupIdRequired(five))),
        (in_group(9), CommandError::Group(GroupCommandError::GroupNotFound(GroupId(9)))),
    ];
    for (routes, error) in cases {
        assert_eq!(save(&mut state, 11, &routes), Err(error), "{routes:?}");
    }
    let many = vec![route(0, &[], 0xff); MAX_SAVED_ROUTES + 1];
    let error = CommandError::Route(RouteCommandError::SavedRoutes {
        routes: many.len(),
        max: MAX_SAVED_ROUTES,
    });
    assert_eq!(save(&mut state, 11, &many), Err(error));
    let request = saving(&state, 11, &[route(5, &[], 0xff)]);
    let unknown = v1::SaveRoutesRequest { table_id: 9, ..request.clone() };
    let unknown = run(&mut state, Kind::SaveRoutes(unknown));
    assert_eq!(unknown, Err(CommandError::TableIdNotFound(TableId(9))));
    let live = v1::SaveRoutesRequest { table_id: 1, ..request.clone() };
    let live = run(&mut state, Kind::SaveRoutes(live));
    assert_eq!(live, Err(CommandError::Route(RouteCommandError::RouteLive("t".to_owned()))));
    for expected in [0, request.expected_version - 1, request.expected_version + 1] {
        let stale = v1::SaveRoutesRequest { expected_version: expected, ..request.clone() };
        let stale = run(&mut state, Kind::SaveRoutes(stale));
        let version = state.catalog_version();
        assert_eq!(
            stale,
            Err(CommandError::Route(RouteCommandError::VersionMismatch { expected, version }))
        );
    }
    assert_eq!(state, before);
}

#[test]
fn repeated_save_changes_nothing() {
    let mut state = reserved();
    let save = |state: &mut MetaState, request: &v1::SaveRoutesRequest| {
        let rules = Rules::at(state.header().feature_level).0;
        let kind = Kind::SaveRoutes(request.clone());
        run_command(state, v1::MetaCommand { rules, ..command(kind) })
    };
    let request = saving(&state, 10, &[route(0, &[], 0xff)]);
    save(&mut state, &request).unwrap();
    let after = state.clone();
    save(&mut state, &request).unwrap();
    assert_eq!(state, after);
    let other = v1::SaveRoutesRequest { routes: vec![route(0, &[], 9)], ..request };
    let refused = save(&mut state, &other);
    assert!(matches!(refused, Err(CommandError::RequestIdReused(_))), "{refused:?}");
}

#[test]
fn table_with_gaps_is_not_opened() {
    let mut state = reserved();
    let gap = Err(CommandError::Route(RouteCommandError::SavedRoute(RouteError::Gap(R))));
    assert_eq!(run(&mut state, opening(10, "r")), gap);
    save(&mut state, 11, &[route(0, &[], 9)]).unwrap();
    assert_eq!(run(&mut state, opening(12, "r")), gap);
    save(&mut state, 13, &[route(0, &[9], 0xff)]).unwrap();
    assert_eq!(run(&mut state, opening(14, "r")), gap);
    for (name, error) in [
        ("t", CommandError::TableState { table: TableId(1), state: TableState::Active }),
        ("x", CommandError::TableNotFound("x".to_owned())),
    ] {
        assert_eq!(run(&mut state, opening(15, name)), Err(error));
    }
}

#[test]
fn cancelled_opening_removes_the_table() {
    let mut state = reserved();
    save(&mut state, 10, &[route(0, &[], 0xff)]).unwrap();
    run(&mut state, opening(11, "r")).unwrap();
    let cancel = abandon(&state, 11, v1::AbandonCause::Operator);
    run(&mut state, cancel).unwrap();
    complete(&mut state, 11);
    assert_eq!(state_of(&state, 11).0, v1::ProcedureState::Abandoned);
    assert!(state.table(R).is_none() && ids(&state, R).is_empty());
}

#[test]
fn reserved_table_is_dropped() {
    let mut state = reserved();
    save(&mut state, 10, &[route(0, &[], 0xff)]).unwrap();
    let Kind::BeginDropTable(request) = drop_table(11, "r") else { panic!("another command") };
    run(&mut state, begin(ProcedureKind::Drop, 11, &request)).unwrap();
    complete(&mut state, 11);
    assert!(state.table(R).is_none() && ids(&state, R).is_empty());
    assert!(save(&mut state, 12, &[route(5, &[], 0xff)]).is_err());
}

// C2.
#[test]
fn one_of_racing_savers_reaches_the_next_version() {
    let mut state = reserved();
    let version = state.catalog_version().get();
    let requests: Vec<_> =
        (0..16).map(|saver| saving(&state, 100 + saver, &[route(0, &[], 0xff)])).collect();
    let saved: Vec<_> =
        requests.into_iter().map(|request| run(&mut state, Kind::SaveRoutes(request))).collect();
    assert!(saved[0].is_ok());
    for overtaken in &saved[1..] {
        assert!(
            matches!(
                overtaken,
                Err(CommandError::Route(RouteCommandError::VersionMismatch { .. }))
            ),
            "{overtaken:?}"
        );
    }
    assert_eq!(state.catalog_version().get(), version + 1);
}

#[test]
fn reserved_table_keeps_its_definition() {
    let mut state = reserved();
    let append_only = v1::WriteMode::AppendOnly.into();
    let other = v1::CreateTableRequest { regions: 0, write_mode: append_only, ..table(0, "r") };
    let mut fewer = v1::CreateTableRequest { regions: 0, ..table(0, "r") };
    fewer.columns.truncate(2);
    for other in [other, fewer] {
        let other = v1::ReserveTableRequest { definition: Some(other) };
        let refused = run(&mut state, Kind::ReserveTable(other));
        assert_eq!(refused, Err(CommandError::TableExists("r".to_owned())));
    }
}

#[test]
fn route_in_a_group_being_created_is_refused() {
    let mut state = reserved();
    let first_members = vec![101];
    run(&mut state, Kind::CreateGroup(v1::CreateGroup { first_members, home_groups: 0 })).unwrap();
    let routes = [v1::Route { group_id: 2, ..route(0, &[], 0xff) }];
    let refused = save(&mut state, 10, &routes);
    let expected = CommandError::Group(GroupCommandError::GroupState {
        group: GroupId(2),
        state: GroupState::Creating,
    });
    assert_eq!(refused, Err(expected));
    run(&mut state, Kind::ActivateGroup(v1::ActivateGroup { group_id: 2 })).unwrap();
    save(&mut state, 11, &routes).unwrap();
}

#[test]
fn second_opening_waits_for_the_first() {
    let mut state = reserved();
    run(&mut state, Kind::AddHook(durable_hook(5, "h"))).unwrap();
    save(&mut state, 10, &[route(0, &[], 0xff)]).unwrap();
    run(&mut state, opening(11, "r")).unwrap();
    let refused = run(&mut state, opening(12, "r"));
    assert!(matches!(refused, Err(CommandError::Locked { .. })), "{refused:?}");
    assert!(state.cursors().get(RegionId(5), "h").is_some(), "durable hooks receive all versions");
}
