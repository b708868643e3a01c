use tidewater_common::ids::TableId;
use tidewater_proto::v1::meta_command::Kind;
use tidewater_proto::v1::{AbandonCause, ProcedureState, Reason};

use super::*;
use crate::commands::procedures::testing::{
    abandon, assert_abandoned_at_deadline, begin, complete, of, state_of,
};
use crate::commands::testing::{
    directory, durable_hook, raise_to, raise_to_highest, run, table, with_groups,
};

fn request(number: u64, route: RegionId, target: u64) -> v1::MoveRouteRequest {
    v1::MoveRouteRequest {
        request_id: directory(number),
        route_id: route.get(),
        target_group_id: target,
        expected_version: 0,
    }
}

fn relocate(number: u64, route: RegionId, target: u64) -> Kind {
    begin(v1::ProcedureKind::Move, number, &request(number, route, target))
}

/// A state with two active groups and table 1, the first of its two routes, and the group in which this is not.
fn with_route() -> (MetaState, RegionId, u64) {
    let mut state = with_groups(1, 2);
    raise_to_highest(&mut state);
    let request = v1::CreateTableRequest { regions: 2, ..table(1, "t") };
    run(&mut state, begin(v1::ProcedureKind::Create, 1, &request)).unwrap();
    complete(&mut state, 1);
    let route = state.routes_of(TableId(1)).next().unwrap().clone();
    (state, route.route_id, 3 - route.group_id.get())
}

fn reason(error: CommandError) -> Reason {
    error.reason()
}

fn group_of(state: &MetaState, route: RegionId) -> u64 {
    state.route(route).unwrap().group_id.get()
}

fn called(state: &MetaState, number: u64) -> RegionCall {
    let procedure = of(state, number);
    let [at] = MoveRoute.regions(state, procedure)[..] else { panic!("one call at a time") };
    MoveRoute.call(state, procedure, at).unwrap()
}

fn published(state: &MetaState) -> Vec<v1::RouteChange> {
    let mut tables = vec![state.table(TableId(1)).unwrap().as_ref().into()];
    state.publish_changes(&mut tables);
    tables.remove(0).route_changes
}

#[test]
fn target_group_has_the_route_after_its_release() {
    let (mut state, route, target) = with_route();
    let source = group_of(&state, route);
    let version = state.catalog_version();
    let before = state.route(route).unwrap().clone();
    run(&mut state, relocate(10, route, target)).unwrap();
    let number = of(&state, 10).number;
    let change = published(&state).remove(0);
    assert_eq!((change.route_id, change.target_group_id), (route.get(), target));
    assert_eq!((change.number, change.abandoning), (number, false));
    let RegionCall::Hold(hold) = called(&state, 10) else { panic!("not held") };
    assert_eq!((hold.group_id, hold.held, hold.mode()), (source, true, HoldMode::Open));
    complete(&mut state, 10);
    let RegionCall::Prepare(prepare) = called(&state, 10) else { panic!("not prepared") };
    assert_eq!((prepare.group_id, prepare.region_id), (target, route.get()));
    complete(&mut state, 10);
    let RegionCall::Hold(fence) = called(&state, 10) else { panic!("not fenced") };
    assert_eq!((fence.group_id, fence.held, fence.mode()), (source, true, HoldMode::Departing));
    assert_eq!(fence.target_group_id, target);
    complete(&mut state, 10);
    let RegionCall::Receive(receipt) = called(&state, 10) else { panic!("not received") };
    assert_eq!((receipt.departing.group_id, receipt.receive.group_id), (source, target));
    // The source group is asked for the state that this move has fenced.
    assert_eq!(receipt.departing.step, fence.step);
    complete(&mut state, 10);
    let RegionCall::Release(release) = called(&state, 10) else { panic!("not released") };
    assert_eq!((release.group_id, release.owner_group_id), (source, target));
    complete(&mut state, 10);
    let RegionCall::Activate(activate) = called(&state, 10) else { panic!("not activated") };
    assert_eq!(activate.group_id, target);
    assert_eq!((group_of(&state, route), state.catalog_version()), (source, version));
    complete(&mut state, 10);
    assert_eq!(state_of(&state, 10).0, ProcedureState::Completed);
    assert_eq!(state.catalog_version().get(), version.get() + 1);
    let moved = RouteDescriptor { group_id: GroupId(target), ..before.as_ref().clone() };
    assert_eq!(*state.route(route).unwrap().as_ref(), moved);
    assert_eq!(published(&state), []);
    state.verify().unwrap();
    // It can come back, under a greater number.
    run(&mut state, relocate(11, route, source)).unwrap();
    assert!(of(&state, 11).number > number);
    (0..6).for_each(|_| complete(&mut state, 11));
    assert_eq!(group_of(&state, route), source);
}

#[test]
fn abandoned_move_leaves_the_route() {
    for steps in 0..=3 {
        for cause in [AbandonCause::Operator, AbandonCause::Superseded] {
            let (mut state, route, target) = with_route();
            let source = group_of(&state, route);
            let version = state.catalog_version();
            run(&mut state, relocate(10, route, target)).unwrap();
            (0..steps).for_each(|_| complete(&mut state, 10));
            let abandoned = abandon(&state, 10, cause);
            let outcome = run(&mut state, abandoned).map_err(reason);
            if steps == 3 && cause == AbandonCause::Operator {
                // The target group may own the manifest.
                assert_eq!(outcome, Err(Reason::ProcedureNotAbandonable));
                continue;
            }
            outcome.unwrap();
            assert!(published(&state)[0].abandoning);
            let RegionCall::AbandonMove(keep, forget) = called(&state, 10) else {
                panic!("not abandoned")
            };
            assert_eq!((keep.group_id, keep.held), (source, false));
            assert_eq!((forget.group_id, forget.owner_group_id), (target, source));
            assert!(keep.step.unwrap().step > MOVE_RECEIVE_STEP);
            complete(&mut state, 10);
            assert_eq!(state_of(&state, 10).0, ProcedureState::Abandoned);
            assert_eq!((group_of(&state, route), state.catalog_version()), (source, version));
            run(&mut state, relocate(11, route, target)).unwrap();
        }
    }
}

#[test]
fn received_region_is_not_given_back() {
    for steps in [4, 5] {
        let (mut state, route, target) = with_route();
        run(&mut state, relocate(10, route, target)).unwrap();
        (0..steps).for_each(|_| complete(&mut state, 10));
        let abandoned = abandon(&state, 10, AbandonCause::Operator);
        let refused = run(&mut state, abandoned).map_err(reason);
        assert_eq!(refused, Err(Reason::ProcedureNotAbandonable));
        (steps..6).for_each(|_| complete(&mut state, 10));
        assert_eq!(group_of(&state, route), target);
    }
}

#[test]
fn invalid_moves_are_refused() {
    let (mut state, route, target) = with_route();
    let creating = Kind::CreateGroup(v1::CreateGroup { first_members: vec![101], home_groups: 0 });
    run(&mut state, creating).unwrap();
    let source = group_of(&state, route);
    let retired = v1::CreateGroup { first_members: vec![101], home_groups: 0 };
    run(&mut state, Kind::CreateGroup(retired)).unwrap();
    run(&mut state, Kind::ActivateGroup(v1::ActivateGroup { group_id: 4 })).unwrap();
    let retiring = v1::SetGroupRetiring { group_id: 4, retiring: true };
    run(&mut state, Kind::SetGroupRetiring(retiring)).unwrap();
    for (target, expected, text) in [
        (source, Reason::InvalidArgument, "in this group already"),
        (9, Reason::GroupNotFound, "group 9 does not exist"),
        (3, Reason::InvalidArgument, "not been created yet"),
        (4, Reason::InvalidArgument, "being retired"),
    ] {
        let refused = run(&mut state, relocate(10, route, target)).unwrap_err();
        assert!(refused.to_string().contains(text), "{refused}");
        assert_eq!(reason(refused), expected);
    }
    let unknown = run(&mut state, relocate(10, RegionId(99), target)).map_err(reason);
    assert_eq!(unknown, Err(Reason::RegionNotFound));
    let stale = v1::MoveRouteRequest { expected_version: 99, ..request(10, route, target) };
    let stale = run(&mut state, begin(v1::ProcedureKind::Move, 10, &stale)).map_err(reason);
    assert_eq!(stale, Err(Reason::CatalogVersionMismatch));
    run(&mut state, relocate(10, route, target)).unwrap();
    let busy = run(&mut state, relocate(11, route, target)).map_err(reason);
    assert_eq!(busy, Err(Reason::TableBusy));
}

#[test]
fn cursors_of_durable_hooks_move_with_the_region() {
    let (mut state, route, target) = with_route();
    run(&mut state, Kind::AddHook(durable_hook(5, "h"))).unwrap();
    let before = state.cursors().get(route, "h").unwrap().clone();
    run(&mut state, relocate(10, route, target)).unwrap();
    (0..5).for_each(|_| complete(&mut state, 10));
    assert_eq!(state.cursors().get(route, "h"), Some(&before));
    complete(&mut state, 10);
    let moved = HookCursor { group: GroupId(target), ..before };
    assert_eq!(state.cursors().get(route, "h"), Some(&moved));
    state.verify().unwrap();
}

#[test]
fn move_needs_its_level() {
    let mut state = with_groups(1, 2);
    raise_to(&mut state, FeatureLevel::new(3));
    run(&mut state, begin(v1::ProcedureKind::Create, 1, &table(1, "t"))).unwrap();
    complete(&mut state, 1);
    let route = state.routes_of(TableId(1)).next().unwrap().route_id;
    let target = 3 - group_of(&state, route);
    let refused = run(&mut state, relocate(10, route, target)).map_err(reason);
    assert_eq!(refused, Err(Reason::Unsupported));
}

#[test]
fn move_is_abandoned_at_its_deadline() {
    let (mut state, route, target) = with_route();
    run(&mut state, relocate(10, route, target)).unwrap();
    assert_abandoned_at_deadline(&mut state, 10, HOLD_TIME_MS);
    assert_eq!(state_of(&state, 10).1, MOVE_ABANDON_STEP);
}
