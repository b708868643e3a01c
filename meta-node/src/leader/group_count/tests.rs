use std::time::Duration;

use tidewater_proto::v1::{self, NodeState, meta_command::Kind};

use super::*;
use crate::commands::procedures::testing::{abandon, begin, complete};
use crate::commands::testing::{
    bootstrapped, command, directory, raise_to_highest, run, run_command, table, with_nodes,
};
use crate::commands::{CommandError, GroupCommandError};
use crate::leader::plan::plan;

const SETTLE: Duration = Duration::from_secs(1);

fn options(groups_per_node: usize) -> PlacementOptions {
    let replace_after = Duration::from_secs(600);
    PlacementOptions { settle: SETTLE, replace_after, groups_per_node }
}

fn quiet() -> ObservedCluster {
    let time = BALANCE_AFTER;
    ObservedCluster { quiet_for: time, leading_for: time, ..ObservedCluster::default() }
}

/// First members of the groups that a round creates, each with the number of groups of its home.
fn created(steps: &[PlacementStep]) -> Vec<(Vec<u64>, usize)> {
    let members = steps.iter().filter_map(|step| match step {
        PlacementStep::Create { first_members, home_groups } => {
            Some((first_members.iter().map(|id| id.get()).collect(), *home_groups))
        }
        _ => None,
    });
    members.collect()
}

fn set(state: &mut MetaState, node_id: u64, to: NodeState) {
    run(state, Kind::SetNodeState(v1::SetNodeState { node_id, state: to.into() })).unwrap();
}

/// Applies the steps that change the number of groups, as their commands do.
fn perform(state: &mut MetaState, steps: Vec<PlacementStep>) -> usize {
    let mut performed = 0;
    for step in steps {
        let kind = match step {
            PlacementStep::Create { first_members, home_groups } => {
                let first_members = first_members.iter().map(|id| id.get()).collect();
                let home_groups = u32::try_from(home_groups).unwrap();
                Kind::CreateGroup(v1::CreateGroup { first_members, home_groups })
            }
            PlacementStep::Start { group } => {
                Kind::ActivateGroup(v1::ActivateGroup { group_id: group.get() })
            }
            PlacementStep::SetRetiring { group, retiring } => {
                Kind::SetGroupRetiring(v1::SetGroupRetiring { group_id: group.get(), retiring })
            }
            PlacementStep::Retire { group } => {
                Kind::RetireGroup(v1::RetireGroup { group_id: group.get() })
            }
            _ => continue,
        };
        run(state, kind).unwrap();
        performed += 1;
    }
    performed
}

/// Rounds until none changes the number of groups.
fn settle(state: &mut MetaState, groups_per_node: usize) {
    for _ in 0..50 {
        let steps = plan(state, &quiet(), &options(groups_per_node));
        if perform(state, steps) == 0 {
            return;
        }
    }
    panic!("the number of groups does not settle");
}

/// Homes of the groups that take routes.
fn homes(state: &MetaState) -> Vec<u64> {
    let open = state.live_groups().filter(|group| group.takes_routes());
    let mut homes: Vec<u64> = open.map(|group| group.home().unwrap().get()).collect();
    homes.sort_unstable();
    homes
}

fn cluster(nodes: u64, groups_per_node: usize) -> MetaState {
    let mut state = with_nodes(nodes);
    raise_to_highest(&mut state);
    settle(&mut state, groups_per_node);
    state
}

#[test]
fn new_group_has_up_to_three_members() {
    let members = |state: &MetaState| {
        created(&plan(state, &quiet(), &options(1))).first().map(|(members, _)| members.clone())
    };
    assert_eq!(members(&bootstrapped()), None);
    assert_eq!(members(&with_nodes(1)).unwrap(), [101]);
    assert_eq!(members(&with_nodes(2)).unwrap(), [101, 102]);
    let mut state = with_nodes(4);
    assert_eq!(members(&state).unwrap(), [101, 102, 103]);
    set(&mut state, 102, NodeState::Down);
    assert_eq!(members(&state).unwrap(), [101, 103, 104]);
    set(&mut state, 102, NodeState::Up);
    let first = v1::CreateGroup { first_members: vec![101, 102, 103], home_groups: 0 };
    run(&mut state, Kind::CreateGroup(first)).unwrap();
    let next = members(&state).unwrap();
    assert_eq!(next, [102, 104, 101], "the node without replicas is chosen first");
    // An abandoned group does not count.
    run(&mut state, Kind::AbandonGroup(v1::AbandonGroup { group_id: 1 })).unwrap();
    assert_eq!(members(&state).unwrap(), [101, 102, 103]);
}

/// Each planned group counts at once, so that the groups of one round spread over the nodes.
#[test]
fn nodes_that_register_together_get_their_groups_together() {
    let created = |nodes: u64| created(&plan(&with_nodes(nodes), &quiet(), &options(1)));
    let six = created(6);
    let homes: Vec<u64> = six.iter().map(|(members, _)| members[0]).collect();
    assert_eq!(homes, [101, 102, 103, 104, 105, 106]);
    for node in 101..=106 {
        let replicas = six.iter().filter(|(members, _)| members.contains(&node)).count();
        assert_eq!(replicas, REPLICAS, "of node {node} in {six:?}");
    }
    assert_eq!(created(40).len(), MAX_NEW_GROUPS);
}

#[test]
fn first_group_waits_until_registrations_settle() {
    let early =
        ObservedCluster { quiet_for: Duration::from_millis(900), ..ObservedCluster::default() };
    assert_eq!(plan(&with_nodes(2), &early, &options(1)), []);
}

#[test]
fn node_is_the_home_of_its_share() {
    let mut state = with_nodes(2);
    settle(&mut state, 3);
    assert_eq!(homes(&state), [101, 102], "an older release has one group for each node");
    raise_to_highest(&mut state);
    let second = created(&plan(&state, &quiet(), &options(3)));
    let homes_of = |created: &[(Vec<u64>, usize)]| -> Vec<(u64, usize)> {
        created.iter().map(|(members, home_groups)| (members[0], *home_groups)).collect()
    };
    assert_eq!(homes_of(&second), [(101, 1), (102, 1)]);
    settle(&mut state, 3);
    assert_eq!(homes(&state), [101, 101, 101, 102, 102, 102]);
}

#[test]
fn repeated_creation_is_refused_by_the_number_of_groups() {
    let mut state = cluster(1, 2);
    let create = v1::CreateGroup { first_members: vec![101], home_groups: 1 };
    let rules = crate::commands::Rules::at(FeatureLevel::HIGHEST).0;
    let command =
        v1::MetaCommand { rules, ..crate::commands::testing::command(Kind::CreateGroup(create)) };
    let refused = crate::commands::testing::run_command(&mut state, command).unwrap_err();
    assert_eq!(refused.to_string(), "node 101 is the home of 2 groups, not of 1");
}

#[test]
fn node_that_is_down_keeps_its_share() {
    let mut state = cluster(3, 2);
    set(&mut state, 103, NodeState::Down);
    settle(&mut state, 2);
    assert_eq!(homes(&state), [101, 101, 102, 102, 103, 103]);
    let mut joined = with_nodes(3);
    raise_to_highest(&mut joined);
    set(&mut joined, 103, NodeState::Down);
    settle(&mut joined, 2);
    assert_eq!(homes(&joined), [101, 101, 102, 102]);
    set(&mut joined, 103, NodeState::Up);
    settle(&mut joined, 2);
    assert_eq!(homes(&joined), [101, 101, 102, 102, 103, 103]);
}

#[test]
fn surplus_groups_are_retired_when_they_are_empty() {
    let mut state = cluster(4, 2);
    let hashed = v1::CreateTableRequest { regions: 8, ..table(1, "t") };
    run(&mut state, Kind::CreateTable(hashed)).unwrap();
    let drain = v1::SetNodeDraining { node_id: 104, draining: true, replacement_id: 0 };
    run(&mut state, Kind::SetNodeDraining(drain)).unwrap();
    let early = ObservedCluster { quiet_for: Duration::from_secs(29), ..quiet() };
    let counted = |observed: &ObservedCluster| {
        let steps = plan(&state, observed, &options(2)).into_iter();
        steps.filter(|step| matches!(step, PlacementStep::SetRetiring { .. })).count()
    };
    assert_eq!((counted(&early), counted(&quiet())), (0, 2));
    settle(&mut state, 2);
    assert_eq!(homes(&state), [101, 101, 102, 102, 103, 103]);
    assert_eq!(state.live_groups().count(), 8, "they have a route each");
    // Taken back.
    let mut back = state.clone();
    let cancel = v1::SetNodeDraining { node_id: 104, draining: false, replacement_id: 0 };
    run(&mut back, Kind::SetNodeDraining(cancel)).unwrap();
    settle(&mut back, 2);
    assert_eq!(homes(&back), [101, 101, 102, 102, 103, 103, 104, 104]);
    // Dropped: the regions are closed after the routes are deleted.
    run(&mut state, crate::commands::testing::drop_table(2, "t")).unwrap();
    settle(&mut state, 2);
    assert_eq!(state.live_groups().count(), 8, "their regions are not closed yet");
    run(&mut state, Kind::FinishDropTable(v1::FinishDropTable { table_id: 1 })).unwrap();
    settle(&mut state, 2);
    assert_eq!(state.live_groups().count(), 6);
    assert!(state.groups().any(|group| group.state == GroupState::Retired));
    assert_eq!(MetaState::from_rows(state.rows().unwrap()).unwrap(), state);
}

#[test]
fn last_group_is_not_retired() {
    let mut state = cluster(1, 1);
    let group = GroupId(1);
    let retiring = Kind::SetGroupRetiring(v1::SetGroupRetiring { group_id: 1, retiring: true });
    assert_eq!(
        run(&mut state, retiring),
        Err(CommandError::Group(GroupCommandError::LastGroup(group)))
    );
    let retire = run(&mut state, Kind::RetireGroup(v1::RetireGroup { group_id: 1 }));
    let active =
        CommandError::Group(GroupCommandError::GroupState { group, state: GroupState::Active });
    assert_eq!(retire, Err(active), "it is not marked");
}

/// A group that is about to receive a region is not retired, although it has none.
#[test]
fn target_of_a_move_is_not_retired() {
    let mut state = cluster(2, 1);
    run(&mut state, Kind::CreateTable(table(1, "t"))).unwrap();
    run(&mut state, Kind::ActivateTable(v1::ActivateTable { table_id: 1 })).unwrap();
    let request = v1::MoveRouteRequest {
        request_id: directory(50),
        route_id: 1,
        target_group_id: 2,
        expected_version: 0,
    };
    run(&mut state, begin(v1::ProcedureKind::Move, 50, &request)).unwrap();
    let retiring = v1::SetGroupRetiring { group_id: 2, retiring: true };
    run(&mut state, Kind::SetGroupRetiring(retiring)).unwrap();
    let retire = || Kind::RetireGroup(v1::RetireGroup { group_id: 2 });
    assert_eq!(
        run(&mut state, retire()),
        Err(CommandError::Group(GroupCommandError::GroupInUse(GroupId(2))))
    );
    let abandoned = abandon(&state, 50, v1::AbandonCause::Operator);
    run(&mut state, abandoned).unwrap();
    assert_eq!(
        run(&mut state, retire()),
        Err(CommandError::Group(GroupCommandError::GroupInUse(GroupId(2))))
    );
    complete(&mut state, 50);
    run(&mut state, retire()).unwrap();
}

#[test]
fn group_is_not_created_on_a_draining_node() {
    let mut state = cluster(4, 1);
    let drain = v1::SetNodeDraining { node_id: 104, draining: true, replacement_id: 0 };
    run(&mut state, Kind::SetNodeDraining(drain)).unwrap();
    let create = v1::CreateGroup { first_members: vec![101, 104], home_groups: 1 };
    let rules = crate::commands::Rules::at(FeatureLevel::HIGHEST).0;
    let command = v1::MetaCommand { rules, ..command(Kind::CreateGroup(create)) };
    let refused = run_command(&mut state, command).unwrap_err();
    assert!(refused.to_string().contains("node 104 is draining"), "{refused}");
}
