use tidewater_common::ids::TableId;
use tidewater_common::keys::split_global_key;
use tidewater_common::rows::MAX_KEY_BYTES;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{AbandonCause, ProcedureState, Reason};

use super::*;
use crate::catalog::RouteState;
use crate::commands::apply_change;
use crate::commands::procedures::testing::{
    abandon, assert_abandoned_at_deadline, begin, complete, of, state_of, with_tables,
};
use crate::commands::testing::{directory, durable_hook, raise_to, run, table, with_groups};

const KEY: &[u8] = &[0x40];

fn request(number: u64, route: u64, key: &'static [u8]) -> v1::SplitRouteRequest {
    v1::SplitRouteRequest {
        request_id: directory(number),
        route_id: route,
        split_key: Bytes::from_static(key),
        expected_version: 0,
        for_load: false,
    }
}

fn split(number: u64, route: u64, key: &'static [u8]) -> Kind {
    begin(v1::ProcedureKind::Split, number, &request(number, route, key))
}

/// A state at the level of splits, and the first route of table 1.
fn with_route() -> (MetaState, RegionId) {
    let state = with_tables();
    let route = state.routes_of(TableId(1)).next().unwrap().route_id;
    (state, route)
}

fn reason(error: CommandError) -> Reason {
    error.reason()
}

fn call(state: &MetaState, number: u64) -> Option<RegionCall> {
    let procedure = of(state, number);
    let at = SplitRoute.regions(state, procedure);
    assert_eq!(at.len(), 1);
    SplitRoute.call(state, procedure, at[0])
}

fn published(state: &MetaState) -> Vec<v1::RouteChange> {
    let mut tables = vec![state.table(TableId(1)).unwrap().as_ref().into()];
    state.publish_changes(&mut tables);
    tables.remove(0).route_changes
}

#[test]
fn children_replace_the_route_after_their_group_has_them() {
    let (mut state, route) = with_route();
    let parent = state.route(route).unwrap().clone();
    let (next, version) = (state.next_route_id(), state.catalog_version());
    run(&mut state, split(10, route.get(), KEY)).unwrap();
    let change = published(&state).remove(0);
    assert_eq!((change.route_id, change.abandoning), (route.get(), false));
    assert_eq!(change.child_ids, [next.get(), next.get() + 1]);
    assert_eq!(change.split_keys, [KEY]);
    assert_eq!((state.route(route), state.catalog_version()), (Some(&parent), version));
    let Some(RegionCall::Hold(hold)) = call(&state, 10) else { panic!("not held") };
    assert!(hold.held);
    complete(&mut state, 10);
    let Some(RegionCall::Split(ask)) = call(&state, 10) else { panic!("not split") };
    let ends: Vec<_> =
        ask.children.iter().map(|child| (child.region_id, &child.start[..])).collect();
    assert_eq!(ends, [(next.get(), &b""[..]), (next.get() + 1, KEY)]);
    assert_eq!(ask.children[0].end.as_deref(), Some(KEY));
    complete(&mut state, 10);
    assert_eq!(state_of(&state, 10), (ProcedureState::Running, SPLIT_CLOSE_STEP));
    assert_eq!(state.catalog_version().get(), version.get() + 1);
    assert!(state.route(route).is_none());
    let children: Vec<_> = state
        .routes_of(TableId(1))
        .filter(|child| child.parent_route_id == Some(route))
        .cloned()
        .collect();
    assert_eq!(children.len(), 2);
    assert_eq!((&children[0].start, &children[1].end), (&parent.start, &parent.end));
    assert_eq!(children[0].end.as_ref(), Some(&children[1].start));
    assert!(children.iter().all(|child| child.group_id == parent.group_id));
    state.verify().unwrap();
    assert_eq!(published(&state), []);
    // The children are locked until their parent is closed.
    let again = split(11, children[0].route_id.get(), &[0x20]);
    assert_eq!(run(&mut state, again).map_err(reason), Err(Reason::TableBusy));
    let Some(RegionCall::Close(close)) = call(&state, 10) else { panic!("not closed") };
    assert_eq!(close.region_id, route.get());
    complete(&mut state, 10);
    assert_eq!(state_of(&state, 10).0, ProcedureState::Completed);
    run(&mut state, split(12, children[0].route_id.get(), &[0x20])).unwrap();
    state.verify().unwrap();
}

#[test]
fn abandoned_split_leaves_the_routes() {
    let (mut state, route) = with_route();
    let version = state.catalog_version();
    run(&mut state, split(10, route.get(), KEY)).unwrap();
    let next = state.next_route_id();
    let cancel = abandon(&state, 10, AbandonCause::Operator);
    run(&mut state, cancel).unwrap();
    assert!(published(&state)[0].abandoning);
    let Some(RegionCall::Hold(hold)) = call(&state, 10) else { panic!("not restored") };
    let step = hold.step.unwrap();
    assert!(!hold.held && step.step > SPLIT_STEP);
    complete(&mut state, 10);
    assert_eq!(state_of(&state, 10).0, ProcedureState::Abandoned);
    assert_eq!((state.catalog_version(), state.route(route).is_some()), (version, true));
    // Ids are never used again.
    run(&mut state, split(11, route.get(), KEY)).unwrap();
    assert_eq!(published(&state)[0].child_ids, [next.get(), next.get() + 1]);
    complete(&mut state, 11);
    let late = abandon(&state, 11, AbandonCause::Operator);
    assert_eq!(run(&mut state, late).map_err(reason), Err(Reason::ProcedureNotAbandonable));
}

#[test]
fn invalid_split_is_refused_with_its_reason() {
    let (mut state, route) = with_route();
    let id = route.get();
    let version = state.catalog_version().get();
    let stale = v1::SplitRouteRequest { expected_version: version + 1, ..request(10, id, KEY) };
    let cases = [
        (request(10, 9_999, KEY), Reason::RegionNotFound),
        (request(10, id, b""), Reason::KeyOnBoundary),
        (request(10, id, &[0xff; 40]), Reason::KeyOutsideRegion),
        (request(10, id, &[0x10; MAX_KEY_BYTES + 1]), Reason::InvalidArgument),
        (stale, Reason::CatalogVersionMismatch),
    ];
    for (request, expected) in cases {
        let begun = run(&mut state, begin(v1::ProcedureKind::Split, 10, &request));
        assert_eq!(begun.map_err(reason), Err(expected), "{request:?}");
    }
    let current = v1::SplitRouteRequest { expected_version: version, ..request(11, id, KEY) };
    run(&mut state, begin(v1::ProcedureKind::Split, 11, &current)).unwrap();
    let busy = run(&mut state, split(12, id, &[0x20]));
    assert_eq!(busy.map_err(reason), Err(Reason::TableBusy));
    // Another route of the table is split at the same time.
    let other = state.routes_of(TableId(1)).nth(1).unwrap().clone();
    let (_, start) = split_global_key(&other.start).unwrap();
    let key: &'static [u8] = [start, &[1]].concat().leak();
    run(&mut state, split(13, other.route_id.get(), key)).unwrap();
    assert_eq!(published(&state).len(), 2);
    let truncate = v1::TruncateTableRequest { request_id: directory(14), name: "t".to_owned() };
    let truncated = run(&mut state, begin(v1::ProcedureKind::Truncate, 14, &truncate));
    assert_eq!(truncated.map_err(reason), Err(Reason::TableBusy));
    let drop =
        v1::DropTableRequest { request_id: directory(15), name: "t".to_owned(), table_id: 0 };
    let dropped = run(&mut state, begin(v1::ProcedureKind::Drop, 15, &drop));
    assert_eq!(dropped.map_err(reason), Err(Reason::TableBusy));
}

#[test]
fn repeated_split_has_the_same_children() {
    let (mut state, route) = with_route();
    run(&mut state, split(10, route.get(), KEY)).unwrap();
    let children = published(&state)[0].child_ids.clone();
    run(&mut state, split(10, route.get(), KEY)).unwrap();
    assert_eq!(published(&state).len(), 1);
    let other = run(&mut state, split(10, route.get(), &[0x20]));
    assert_eq!(other.map_err(reason), Err(Reason::InvalidArgument));
    complete(&mut state, 10);
    // The next leader continues from the stored records.
    let mut state = MetaState::from_rows(state.rows().unwrap()).unwrap();
    assert_eq!(published(&state)[0].child_ids, children);
    complete(&mut state, 10);
    assert!(children.iter().all(|child| state.route(RegionId(*child)).is_some()));
}

#[test]
fn split_needs_its_level() {
    let mut state = with_groups(1, 1);
    raise_to(&mut state, FeatureLevel::new(3));
    run(&mut state, begin(v1::ProcedureKind::Create, 1, &table(1, "t"))).unwrap();
    complete(&mut state, 1);
    let route = state.routes_of(TableId(1)).next().unwrap().route_id;
    let begun = run(&mut state, split(10, route.get(), KEY));
    assert_eq!(begun.map_err(reason), Err(Reason::Unsupported));
}

#[test]
fn children_have_cursors_of_durable_hooks() {
    let (mut state, route) = with_route();
    run(&mut state, Kind::AddHook(durable_hook(5, "h"))).unwrap();
    run(&mut state, split(10, route.get(), KEY)).unwrap();
    let children = published(&state)[0].child_ids.clone();
    let has_cursor = |state: &MetaState, child| state.cursors().get(RegionId(child), "h").is_some();
    assert!(!children.iter().any(|child| has_cursor(&state, *child)), "before the swap");
    (0..2).for_each(|_| complete(&mut state, 10));
    assert!(children.iter().all(|child| has_cursor(&state, *child)));
}

#[test]
fn split_is_abandoned_at_its_deadline() {
    let (mut state, route) = with_route();
    run(&mut state, split(10, route.get(), KEY)).unwrap();
    assert_abandoned_at_deadline(&mut state, 10, HOLD_TIME_MS);
    assert_eq!(state_of(&state, 10).1, SPLIT_ABANDON_STEP);
}

#[test]
fn only_active_routes_of_active_tables_are_split() {
    let (mut state, route) = with_route();
    for of in [RouteState::WriteFenced, RouteState::MigratingSource, RouteState::MigratingTarget] {
        let routes =
            vec![RouteDescriptor { state: of, ..state.route(route).unwrap().as_ref().clone() }];
        apply_change(&mut state, CatalogChange { routes, ..CatalogChange::default() }).unwrap();
        let refused = run(&mut state, split(10, route.get(), KEY));
        assert_eq!(refused.map_err(reason), Err(Reason::RouteBusy), "{of:?}");
    }
    // The caller of a split waits until the table is created.
    run(&mut state, begin(v1::ProcedureKind::Create, 11, &table(11, "v"))).unwrap();
    let created = state.routes_of(TableId(3)).next().unwrap().route_id;
    let refused = run(&mut state, split(12, created.get(), KEY));
    assert!(matches!(refused, Err(CommandError::Locked { .. })), "{refused:?}");
}
