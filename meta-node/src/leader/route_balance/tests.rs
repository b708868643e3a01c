use tidewater_common::ids::LogIndex;
use tidewater_common::ids::Term;
use tidewater_proto::v1::{self, ProcedureKind, meta_command::Kind};

use super::*;
use crate::commands::procedures::testing::{begin, complete};
use crate::commands::testing::{directory, pass, raise_to_highest, run, table, with_groups};
use crate::leader::ObservedGroup;

/// Time after which a route has rested, in seconds.
const REST: u64 = 61;

/// Groups of the same nodes, in a cluster at the highest level, and tables with their numbers of routes.
fn cluster(groups: u64, tables: &[u32]) -> MetaState {
    let mut state = with_groups(groups.min(7), groups);
    raise_to_highest(&mut state);
    for (number, regions) in (1..).zip(tables) {
        let create =
            v1::CreateTableRequest { regions: *regions, ..table(number, &format!("t{number}")) };
        run(&mut state, Kind::CreateTable(create)).unwrap();
        run(&mut state, Kind::ActivateTable(v1::ActivateTable { table_id: number as u32 }))
            .unwrap();
    }
    state
}

/// Observations of groups whose leaders report.
fn observed(state: &MetaState) -> ObservedCluster {
    let report = |group: &Group| ObservedGroup {
        term: Term(1),
        leader: group.home().unwrap(),
        voters: group.replicas(),
        learners: BTreeSet::new(),
        membership: (Term(1), LogIndex(4)),
        effective: Some((Term(1), LogIndex(4))),
        caught_up: BTreeSet::new(),
    };
    ObservedCluster {
        quiet_for: BALANCE_AFTER,
        leading_for: BALANCE_AFTER,
        groups: state.live_groups().map(|group| (group.id, report(group))).collect(),
        reported_for: state.live_groups().map(|group| (group.id, Duration::ZERO)).collect(),
        ..ObservedCluster::default()
    }
}

/// Begins a planned move and completes its steps.
fn perform(state: &mut MetaState, step: &PlacementStep, number: u64) {
    let PlacementStep::MoveRoute { route, to } = step else { panic!("{step:?}") };
    let request = v1::MoveRouteRequest {
        request_id: directory(number),
        route_id: route.get(),
        target_group_id: to.get(),
        expected_version: 0,
    };
    run(state, begin(ProcedureKind::Move, number, &request)).unwrap();
    for _ in 0..6 {
        complete(state, number);
    }
    assert_eq!(state.route(*route).unwrap().group_id, *to);
}

/// Performs planned moves until there is none; returns their number. No round moves a route that rests.
fn settle(state: &mut MetaState) -> u64 {
    let first = 1_000 + state.procedures().count() as u64;
    let mut number = first;
    loop {
        let steps = plan_moves(state, &observed(state), None);
        if steps.is_empty() {
            return number - first;
        }
        for step in &steps {
            perform(state, step, number);
            number += 1;
        }
        assert!(number < 2_000, "the balance does not end");
        pass(state, REST);
    }
}

/// Numbers of routes by group, of all tables or of one.
fn counts(state: &MetaState, table: Option<u32>) -> Vec<usize> {
    let routes = |group: GroupId| match table {
        None => state.routes_in(group),
        Some(table) => {
            state.routes_of(TableId(table)).filter(|route| route.group_id == group).count()
        }
    };
    state.live_groups().map(|group| routes(group.id)).collect()
}

fn set_retiring(state: &mut MetaState, group_id: u64, retiring: bool) {
    run(state, Kind::SetGroupRetiring(v1::SetGroupRetiring { group_id, retiring })).unwrap();
}

/// A cluster whose routes are all in the first of its groups.
fn uneven(groups: u64, tables: &[u32]) -> MetaState {
    let mut state = cluster(groups, &[]);
    (2..=groups).for_each(|group| set_retiring(&mut state, group, true));
    for (number, regions) in (1..).zip(tables) {
        let create =
            v1::CreateTableRequest { regions: *regions, ..table(number, &format!("t{number}")) };
        run(&mut state, Kind::CreateTable(create)).unwrap();
        run(&mut state, Kind::ActivateTable(v1::ActivateTable { table_id: number as u32 }))
            .unwrap();
    }
    (2..=groups).for_each(|group| set_retiring(&mut state, group, false));
    state
}

#[test]
fn routes_spread_over_groups_in_total_and_by_table() {
    for (groups, tables) in [(2, vec![2]), (3, vec![9, 9, 3]), (4, vec![1; 10]), (5, vec![16, 7])] {
        let mut state = uneven(groups, &tables);
        assert_eq!(counts(&state, None)[0], state.route_count());
        assert!(settle(&mut state) > 0);
        let uneven_by =
            |counts: Vec<usize>| counts.iter().max().unwrap() - counts.iter().min().unwrap();
        assert!(uneven_by(counts(&state, None)) <= 1, "{:?}", counts(&state, None));
        for number in (1..).take(tables.len()) {
            let of_table = counts(&state, Some(number));
            assert!(uneven_by(of_table.clone()) <= 3, "table {number}: {of_table:?}");
        }
        assert_eq!(plan_moves(&state, &observed(&state), None), []);
    }
}

#[test]
fn moves_begin_in_different_groups() {
    let mut state = cluster(12, &[]);
    (4..=12).for_each(|group| set_retiring(&mut state, group, true));
    let create = v1::CreateTableRequest { regions: 60, ..table(1, "t") };
    run(&mut state, Kind::CreateTable(create)).unwrap();
    run(&mut state, Kind::ActivateTable(v1::ActivateTable { table_id: 1 })).unwrap();
    (4..=12).for_each(|group| set_retiring(&mut state, group, false));
    let steps = plan_moves(&state, &observed(&state), None);
    assert_eq!(steps.len(), 3, "each full group gives one route");
    let PlacementStep::MoveRoute { route, to } = &steps[0] else { panic!("{steps:?}") };
    let request = v1::MoveRouteRequest {
        request_id: directory(70),
        route_id: route.get(),
        target_group_id: to.get(),
        expected_version: 0,
    };
    run(&mut state, begin(ProcedureKind::Move, 70, &request)).unwrap();
    let others = plan_moves(&state, &observed(&state), None);
    assert_eq!(others.len(), 2);
    let uses_group = |step: &PlacementStep| matches!(step, PlacementStep::MoveRoute { to: used, .. } if used == to);
    assert!(!others.iter().any(uses_group), "{others:?}");
}

#[test]
fn route_rests_after_an_operation() {
    let mut state = uneven(2, &[4]);
    let step = plan_moves(&state, &observed(&state), None).remove(0);
    perform(&mut state, &step, 80);
    let PlacementStep::MoveRoute { route, to } = step else { panic!() };
    set_retiring(&mut state, to.get(), true);
    assert_eq!(plan_moves(&state, &observed(&state), None), []);
    pass(&mut state, REST);
    let back = PlacementStep::MoveRoute { route, to: GroupId(1) };
    assert_eq!(plan_moves(&state, &observed(&state), None), [back]);
}

#[test]
fn retiring_group_loses_all_routes_also_without_spread() {
    let mut state = cluster(3, &[6, 3]);
    let off = v1::SetBalanceRequest { spread: Some(false), rest_ms: None, ..Default::default() };
    run(&mut state, Kind::SetBalance(off)).unwrap();
    set_retiring(&mut state, 2, true);
    assert_eq!(settle(&mut state), 3);
    let left = counts(&state, None);
    assert_eq!(left[1], 0, "{left:?}");
    assert_eq!(left.iter().sum::<usize>(), 9);
    set_retiring(&mut state, 2, false);
    assert_eq!(plan_moves(&state, &observed(&state), None), [], "routes are not spread");
    let on = v1::SetBalanceRequest { spread: Some(true), rest_ms: None, ..Default::default() };
    run(&mut state, Kind::SetBalance(on)).unwrap();
    assert!(settle(&mut state) > 0);
    assert_eq!(counts(&state, None), [3, 3, 3]);
}

#[test]
fn groups_without_a_leader_that_reports_are_left_alone() {
    let state = uneven(2, &[4]);
    let ready = observed(&state);
    assert_eq!(plan_moves(&state, &ready, None).len(), 1);
    let second = GroupId(2);
    let age = |age| BTreeMap::from([(GroupId(1), Duration::ZERO), (second, age)]);
    let late = ObservedCluster { reported_for: age(MAX_REPORT_AGE * 2), ..ready.clone() };
    let mut silent = ready.clone();
    silent.groups.remove_mut(&second);
    let early = ObservedCluster { quiet_for: Duration::from_secs(29), ..ready.clone() };
    let new = ObservedCluster { leading_for: Duration::from_secs(29), ..ready };
    for observed in [late, silent, early, new] {
        assert_eq!(plan_moves(&state, &observed, None), [], "{observed:?}");
    }
    let mut down = state.clone();
    let set_down = v1::SetNodeState { node_id: 101, state: NodeState::Down.into() };
    run(&mut down, Kind::SetNodeState(set_down)).unwrap();
    assert_eq!(plan_moves(&down, &observed(&state), None), []);
}

#[test]
fn table_with_an_operation_in_progress_is_left_alone() {
    let mut state = uneven(2, &[4]);
    run(&mut state, crate::commands::procedures::testing::truncate(90, "t1")).unwrap();
    assert_eq!(plan_moves(&state, &observed(&state), None), []);
}
