use tidewater_common::ids::TableId;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{AbandonCause, ProcedureState, Reason};

use super::*;
use crate::commands::procedures::testing::{
    abandon, assert_abandoned_at_deadline, begin, complete, of, state_of, with_tables,
};
use crate::commands::testing::{directory, durable_hook, raise_to, run, table, with_groups};

fn request(number: u64, routes: [RegionId; 2]) -> v1::MergeRoutesRequest {
    v1::MergeRoutesRequest {
        request_id: directory(number),
        route_id: routes[0].get(),
        neighbour_id: routes[1].get(),
        expected_version: 0,
    }
}

fn merge(number: u64, routes: [RegionId; 2]) -> Kind {
    begin(v1::ProcedureKind::Merge, number, &request(number, routes))
}

fn routes_of(state: &MetaState, table: u32) -> Vec<RegionId> {
    state.routes_of(TableId(table)).map(|route| route.route_id).collect()
}

/// A state at the level of merges, and the two routes of table 1.
fn with_routes() -> (MetaState, [RegionId; 2]) {
    let state = with_tables();
    let routes = routes_of(&state, 1).try_into().unwrap();
    (state, routes)
}

fn reason(error: CommandError) -> Reason {
    error.reason()
}

fn calls(state: &MetaState, number: u64) -> Vec<RegionCall> {
    let procedure = of(state, number);
    let regions = MergeRoutes.regions(state, procedure).into_iter();
    regions.map(|at| MergeRoutes.call(state, procedure, at).unwrap()).collect()
}

/// Regions, modes and steps of the calls of a step that hold regions.
fn held(state: &MetaState, number: u64) -> Vec<(u64, bool, HoldMode, u32)> {
    let held = |call| match call {
        RegionCall::Hold(ask) => (ask.region_id, ask.held, ask.mode(), ask.step.unwrap().step),
        other => panic!("{other:?}"),
    };
    calls(state, number).into_iter().map(held).collect()
}

fn published(state: &MetaState) -> Vec<v1::RouteChange> {
    let mut tables = vec![state.table(TableId(1)).unwrap().as_ref().into()];
    state.publish_changes(&mut tables);
    tables.remove(0).route_changes
}

#[test]
fn child_replaces_the_routes_after_its_group_has_it() {
    for is_reversed in [false, true] {
        let (mut state, [first, second]) = with_routes();
        let [low, high] = [first, second].map(|id| state.route(id).unwrap().clone());
        let (child, version) = (state.next_route_id(), state.catalog_version());
        let named = if is_reversed { [second, first] } else { [first, second] };
        run(&mut state, merge(10, named)).unwrap();
        let change = published(&state).remove(0);
        assert_eq!((change.route_id, change.successor_id), (first.get(), second.get()));
        assert_eq!((&change.child_ids[..], change.abandoning), (&[child.get()][..], false));
        let both = |mode, step| [first, second].map(|id| (id.get(), true, mode, step)).to_vec();
        assert_eq!(held(&state, 10), both(HoldMode::Open, MERGE_HOLD_STEP));
        complete(&mut state, 10);
        assert_eq!(held(&state, 10), both(HoldMode::Fenced, MERGE_FENCE_STEP));
        complete(&mut state, 10);
        let [RegionCall::Merge(ask)] = &calls(&state, 10)[..] else { panic!("not merged") };
        assert_eq!((ask.region_id, ask.successor_id), (first.get(), second.get()));
        let asked = ask.child.clone().unwrap();
        assert_eq!((asked.region_id, &asked.start[..], asked.end), (child.get(), &b""[..], None));
        assert_eq!(state.catalog_version(), version);
        complete(&mut state, 10);
        assert_eq!(state_of(&state, 10), (ProcedureState::Running, MERGE_CLOSE_STEP));
        assert_eq!(state.catalog_version().get(), version.get() + 1);
        assert_eq!(routes_of(&state, 1), [child]);
        let merged = state.route(child).unwrap();
        assert_eq!((&merged.start, &merged.end), (&low.start, &high.end));
        assert_eq!(merged.group_id, low.group_id);
        state.verify().unwrap();
        assert_eq!(published(&state), []);
        // The child is locked until its parents are closed.
        let key = bytes::Bytes::from_static(&[0x20]);
        let split = |number| v1::SplitRouteRequest {
            request_id: directory(number),
            route_id: child.get(),
            split_key: key.clone(),
            expected_version: 0,
            for_load: false,
        };
        let early = run(&mut state, begin(v1::ProcedureKind::Split, 11, &split(11)));
        assert_eq!(early.map_err(reason), Err(Reason::TableBusy));
        let closed: Vec<u64> = calls(&state, 10)
            .into_iter()
            .map(|call| match call {
                RegionCall::Close(ask) => ask.region_id,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(closed, [first.get(), second.get()]);
        complete(&mut state, 10);
        assert_eq!(state_of(&state, 10).0, ProcedureState::Completed);
        run(&mut state, begin(v1::ProcedureKind::Split, 12, &split(12))).unwrap();
        state.verify().unwrap();
    }
}

#[test]
fn abandoned_merge_leaves_the_routes() {
    for steps in [0, 1] {
        for cause in [AbandonCause::Operator, AbandonCause::Superseded] {
            let (mut state, routes) = with_routes();
            let version = state.catalog_version();
            run(&mut state, merge(10, routes)).unwrap();
            (0..steps).for_each(|_| complete(&mut state, 10));
            let abandoned = abandon(&state, 10, cause);
            run(&mut state, abandoned).unwrap();
            assert!(published(&state)[0].abandoning);
            for (at, (region, is_held, _, step)) in held(&state, 10).into_iter().enumerate() {
                assert_eq!((region, is_held), (routes[at].get(), false));
                assert!(step > MERGE_STEP);
            }
            complete(&mut state, 10);
            assert_eq!(state_of(&state, 10).0, ProcedureState::Abandoned);
            assert_eq!(state.catalog_version(), version);
            assert_eq!(routes_of(&state, 1), routes);
            run(&mut state, merge(11, routes)).unwrap();
        }
    }
}

#[test]
fn merge_is_not_abandoned_when_its_regions_are_replaced() {
    let (mut state, routes) = with_routes();
    run(&mut state, merge(10, routes)).unwrap();
    (0..2).for_each(|_| complete(&mut state, 10));
    let late = abandon(&state, 10, AbandonCause::Operator);
    assert_eq!(run(&mut state, late).map_err(reason), Err(Reason::ProcedureNotAbandonable));
    // The group has restored its regions by itself.
    let superseded = abandon(&state, 10, AbandonCause::Superseded);
    run(&mut state, superseded).unwrap();
    assert_eq!(state_of(&state, 10).0, ProcedureState::Superseded);
    assert_eq!(routes_of(&state, 1), routes);
    run(&mut state, merge(11, routes)).unwrap();
    state.verify().unwrap();
}

#[test]
fn invalid_merge_is_refused_with_its_reason() {
    let mut state = with_groups(1, 1);
    raise_to(&mut state, FeatureLevel::HIGHEST);
    for (number, name, regions) in [(1, "t", 3), (2, "u", 2)] {
        let request = v1::CreateTableRequest { regions, ..table(number, name) };
        run(&mut state, begin(v1::ProcedureKind::Create, number, &request)).unwrap();
        complete(&mut state, number);
    }
    let (t, u) = (routes_of(&state, 1), routes_of(&state, 2));
    let version = state.catalog_version().get();
    let stale =
        v1::MergeRoutesRequest { expected_version: version + 1, ..request(10, [t[0], t[1]]) };
    let cases = [
        (request(10, [t[0], RegionId(9_999)]), Reason::RegionNotFound),
        (request(10, [RegionId(9_999), t[0]]), Reason::RegionNotFound),
        (request(10, [t[0], t[2]]), Reason::InvalidArgument),
        (request(10, [t[0], t[0]]), Reason::InvalidArgument),
        (request(10, [t[2], u[0]]), Reason::InvalidArgument),
        (stale, Reason::CatalogVersionMismatch),
    ];
    for (request, expected) in cases {
        let begun = run(&mut state, begin(v1::ProcedureKind::Merge, 10, &request));
        assert_eq!(begun.map_err(reason), Err(expected), "{request:?}");
    }
    run(&mut state, merge(11, [t[0], t[1]])).unwrap();
    for routes in [[t[1], t[2]], [t[0], t[1]]] {
        let busy = run(&mut state, merge(12, routes));
        assert_eq!(busy.map_err(reason), Err(Reason::TableBusy));
    }
    let drop =
        v1::DropTableRequest { request_id: directory(15), name: "t".to_owned(), table_id: 0 };
    let dropped = run(&mut state, begin(v1::ProcedureKind::Drop, 15, &drop));
    assert_eq!(dropped.map_err(reason), Err(Reason::TableBusy));
    run(&mut state, merge(13, [u[1], u[0]])).unwrap();
}

#[test]
fn neighbours_in_different_groups_are_not_merged() {
    let (state, [first, second]) = with_routes();
    let [low, high] = [first, second].map(|id| state.route(id).unwrap().as_ref().clone());
    assert_eq!(check_neighbours(&low, &high, true), Ok(()));
    let moved = RouteDescriptor { group_id: GroupId(9), ..high.clone() };
    for (low, high, same_table, text) in [
        (&low, &moved, true, "different groups"),
        (&high, &low, true, "not neighbours"),
        (&low, &high, false, "different tables"),
    ] {
        let refused = check_neighbours(low, high, same_table).unwrap_err().to_string();
        assert!(refused.contains(text), "{refused}");
    }
}

#[test]
fn repeated_merge_has_the_same_child() {
    let (mut state, routes) = with_routes();
    run(&mut state, merge(10, routes)).unwrap();
    let change = published(&state).remove(0);
    run(&mut state, merge(10, routes)).unwrap();
    assert_eq!(published(&state)[..], *std::slice::from_ref(&change));
    let other = run(&mut state, merge(10, [routes[1], routes[0]]));
    assert_eq!(other.map_err(reason), Err(Reason::InvalidArgument));
    // The next leader continues from the stored records.
    let mut state = MetaState::from_rows(state.rows().unwrap()).unwrap();
    assert_eq!(published(&state)[..], *std::slice::from_ref(&change));
    (0..3).for_each(|_| complete(&mut state, 10));
    assert_eq!(routes_of(&state, 1), [RegionId(change.child_ids[0])]);
}

#[test]
fn merge_needs_its_level() {
    let mut state = with_groups(1, 1);
    raise_to(&mut state, FeatureLevel::new(3));
    let request = v1::CreateTableRequest { regions: 2, ..table(1, "t") };
    run(&mut state, begin(v1::ProcedureKind::Create, 1, &request)).unwrap();
    complete(&mut state, 1);
    let routes = routes_of(&state, 1).try_into().unwrap();
    assert_eq!(run(&mut state, merge(10, routes)).map_err(reason), Err(Reason::Unsupported));
}

#[test]
fn child_has_cursors_of_durable_hooks() {
    let (mut state, routes) = with_routes();
    run(&mut state, Kind::AddHook(durable_hook(5, "h"))).unwrap();
    run(&mut state, merge(10, routes)).unwrap();
    let child = RegionId(published(&state)[0].child_ids[0]);
    (0..2).for_each(|_| complete(&mut state, 10));
    assert!(state.cursors().get(child, "h").is_none(), "before the swap");
    complete(&mut state, 10);
    assert!(state.cursors().get(child, "h").is_some());
}

#[test]
fn merge_is_abandoned_at_its_deadline() {
    let (mut state, routes) = with_routes();
    run(&mut state, merge(10, routes)).unwrap();
    assert_abandoned_at_deadline(&mut state, 10, HOLD_TIME_MS);
    assert_eq!(state_of(&state, 10).1, MERGE_ABANDON_STEP);
}

#[test]
fn delayed_supersession_does_not_end_a_later_step() {
    let (mut state, routes) = with_routes();
    run(&mut state, merge(10, routes)).unwrap();
    let superseded = abandon(&state, 10, AbandonCause::Superseded);
    for step in [MERGE_FENCE_STEP, MERGE_STEP, MERGE_CLOSE_STEP] {
        complete(&mut state, 10);
        let late = run(&mut state, superseded.clone()).map_err(reason);
        assert_eq!(late, Err(Reason::ProcedureNotAbandonable), "step {step}");
        assert_eq!(state_of(&state, 10), (ProcedureState::Running, step));
    }
}
