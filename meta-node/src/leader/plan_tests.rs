use std::collections::BTreeMap;

use tidewater_proto::v1::{self, NodeState, meta_command::Kind};

use super::super::node_load::RETURN_LIMIT;
use super::*;
use crate::commands::testing::{raise_to_highest, run, with_groups, with_nodes};

const OPTIONS: PlacementOptions = PlacementOptions {
    settle: Duration::from_secs(1),
    replace_after: Duration::from_secs(600),
    groups_per_node: 1,
};

fn ids(numbers: &[u64]) -> BTreeSet<NodeId> {
    numbers.iter().copied().map(NodeId).collect()
}

/// Observations of a leader that has waited for nodes that were down to return.
fn observed() -> ObservedCluster {
    ObservedCluster { leading_for: RETURN_LIMIT, ..ObservedCluster::default() }
}

fn quiet() -> ObservedCluster {
    ObservedCluster { quiet_for: Duration::from_secs(2), ..observed() }
}

fn reported(voters: &[u64], learners: &[u64], caught_up: &[u64]) -> ObservedCluster {
    let report = ObservedGroup {
        term: Term(1),
        leader: NodeId(101),
        voters: ids(voters),
        learners: ids(learners),
        membership: (Term(1), LogIndex(4)),
        effective: Some((Term(1), LogIndex(4))),
        caught_up: ids(caught_up),
    };
    ObservedCluster { groups: [(GroupId(1), report)].into_iter().collect(), ..observed() }
}

fn set(state: &mut MetaState, node_id: u64, to: NodeState) {
    run(state, Kind::SetNodeState(v1::SetNodeState { node_id, state: to.into() })).unwrap();
}

/// Sets a node down and advances replicated time by the delay until replacement.
fn long_down(state: &mut MetaState, node_id: u64) {
    set(state, node_id, NodeState::Down);
    while state.header().time_ms - state.node(NodeId(node_id)).unwrap().state_since_ms < 600_000 {
        let tick = v1::AdvanceTime { now_ms: u64::MAX, agreed_ms: 0 };
        run(state, Kind::AdvanceTime(tick)).unwrap();
    }
}

fn on() -> (Term, LogIndex) {
    (Term(1), LogIndex(4))
}

fn add(node: u64) -> PlacementStep {
    PlacementStep::Add { group: GroupId(1), leader: NodeId(101), node: NodeId(node), on: on() }
}

fn promote(node: u64) -> PlacementStep {
    PlacementStep::Promote { group: GroupId(1), leader: NodeId(101), node: NodeId(node), on: on() }
}

fn remove(node: u64) -> PlacementStep {
    PlacementStep::Remove { group: GroupId(1), leader: NodeId(101), node: NodeId(node), on: on() }
}

#[test]
fn new_group_is_started_then_activated_or_abandoned() {
    let mut state = with_nodes(1);
    run(
        &mut state,
        Kind::CreateGroup(v1::CreateGroup { first_members: vec![101], home_groups: 0 }),
    )
    .unwrap();
    let group = GroupId(1);
    assert_eq!(plan(&state, &quiet(), &OPTIONS), [PlacementStep::Start { group }]);
    assert_eq!(
        plan(&state, &reported(&[101], &[], &[]), &OPTIONS),
        [PlacementStep::Activate { group }]
    );
    let late = ObservedCluster {
        creating_for: BTreeMap::from([(group, CREATION_LIMIT + Duration::from_secs(1))]),
        ..ObservedCluster::default()
    };
    assert_eq!(plan(&state, &late, &OPTIONS), [PlacementStep::Abandon { group }]);
}

#[test]
fn groups_grow_to_three_as_nodes_join() {
    // (nodes, voters, learners, caught up, step)
    type Case = (u64, &'static [u64], &'static [u64], &'static [u64], Option<PlacementStep>);
    let cases: Vec<Case> = vec![
        (1, &[101], &[], &[], None),
        (2, &[101], &[], &[], Some(add(102))),
        (2, &[101], &[102], &[], None),
        (2, &[101], &[102], &[102], Some(promote(102))),
        (2, &[101, 102], &[], &[], None),
        (3, &[101, 102], &[], &[], Some(add(103))),
        (3, &[101], &[102], &[], None),
        (4, &[101, 102, 103], &[], &[], None),
        (4, &[101, 102, 103], &[104], &[104], Some(remove(104))),
        (4, &[101, 102, 103, 104], &[], &[], Some(remove(104))),
    ];
    for (nodes, voters, learners, caught_up, step) in cases {
        let state = with_groups(nodes, 1);
        let observed = reported(voters, learners, caught_up);
        assert_eq!(plan(&state, &observed, &OPTIONS), Vec::from_iter(step), "{voters:?}");
    }
}

#[test]
fn surplus_voter_is_never_the_leader() {
    let mut observed = reported(&[101, 102, 103, 104], &[], &[]);
    observed.groups.get_mut(&GroupId(1)).unwrap().leader = NodeId(104);
    let remove = PlacementStep::Remove {
        group: GroupId(1),
        leader: NodeId(104),
        node: NodeId(103),
        on: on(),
    };
    assert_eq!(plan(&with_groups(4, 1), &observed, &OPTIONS), [remove]);
}

#[test]
fn surplus_voter_is_down_or_lagging_if_one_is() {
    // (down, last log entries of 101 to 104, removed)
    let cases: [(&[u64], [u64; 4], u64); 6] = [
        (&[], [20_000; 4], 104),
        (&[102], [20_000; 4], 102),
        (&[], [20_000, 9_000, 20_000, 20_000], 102),
        // Within the distance of two heartbeats.
        (&[], [20_000, 10_000, 20_000, 20_000], 104),
        (&[103], [20_000, 9_000, 20_000, 20_000], 103),
        // The leader is never removed.
        (&[], [0, 20_000, 20_000, 20_000], 104),
    ];
    for (down, last_logs, removed) in cases {
        let mut state = with_groups(4, 1);
        down.iter().for_each(|node| set(&mut state, *node, NodeState::Down));
        let mut observed = reported(&[101, 102, 103, 104], &[], &[]);
        let replica = |(node, index)| {
            let last_log = LogIndex(index);
            (NodeId(node), ObservedReplica { last_log, ..ObservedReplica::default() })
        };
        let replicas = (101..).zip(last_logs).map(replica).collect();
        observed.replicas = BTreeMap::from([(GroupId(1), replicas)]);
        let case = format!("{down:?} {last_logs:?}");
        assert_eq!(plan(&state, &observed, &OPTIONS), [remove(removed)], "{case}");
    }
}

#[test]
fn learner_on_a_down_node_is_replaced_at_once() {
    let learning = reported(&[101, 102], &[103], &[]);
    let mut state = with_groups(4, 1);
    assert_eq!(plan(&state, &learning, &OPTIONS), []);
    set(&mut state, 103, NodeState::Down);
    assert_eq!(plan(&state, &learning, &OPTIONS), [remove(103)], "not only after 10 minutes");
    assert_eq!(plan(&state, &reported(&[101, 102], &[], &[]), &OPTIONS), [add(104)]);
    // Without another node, the learner is the only hope.
    set(&mut state, 104, NodeState::Down);
    assert_eq!(plan(&state, &learning, &OPTIONS), []);
    set(&mut state, 103, NodeState::Up);
    assert_eq!(plan(&state, &reported(&[101, 102], &[103], &[103]), &OPTIONS), [promote(103)]);
}

#[test]
fn step_waits_for_the_report_on_the_previous_step() {
    let state = with_groups(2, 1);
    let mut observed = reported(&[101], &[], &[]);
    observed.changed.insert(GroupId(1), (Term(1), LogIndex(5)));
    assert_eq!(plan(&state, &observed, &OPTIONS), []);
    observed.changed.insert(GroupId(1), on());
    assert_eq!(plan(&state, &observed, &OPTIONS), [add(102)]);
}

#[test]
fn group_with_a_down_leader_gets_no_step() {
    let mut state = with_groups(2, 1);
    set(&mut state, 101, NodeState::Down);
    assert_eq!(plan(&state, &reported(&[101], &[], &[]), &OPTIONS), []);
}

#[test]
fn replicas_of_lost_nodes_are_replaced() {
    let mut state = with_groups(4, 1);
    let full = reported(&[101, 102, 103], &[], &[]);
    set(&mut state, 103, NodeState::Down);
    assert_eq!(plan(&state, &full, &OPTIONS), [], "not before the delay");
    long_down(&mut state, 103);
    assert_eq!(plan(&state, &full, &OPTIONS), [add(104)]);
    let learning = reported(&[101, 102, 103], &[104], &[104]);
    assert_eq!(plan(&state, &learning, &OPTIONS), [promote(104)]);
    let promoted = reported(&[101, 102, 103, 104], &[], &[]);
    assert_eq!(plan(&state, &promoted, &OPTIONS), [remove(103)]);
    // Without a replacement, the lost node stays a member.
    let mut state = with_groups(3, 1);
    long_down(&mut state, 103);
    assert_eq!(plan(&state, &full, &OPTIONS), []);
    // A lost learner is removed.
    set(&mut state, 102, NodeState::Removed);
    assert_eq!(plan(&state, &reported(&[101], &[102], &[]), &OPTIONS), [remove(102)]);
}

#[test]
fn replacement_gets_the_replicas_of_its_node() {
    let mut state = with_groups(6, 1);
    raise_to_highest(&mut state);
    let full = reported(&[101, 102, 103], &[], &[]);
    let drain = |replacement_id| {
        Kind::SetNodeDraining(v1::SetNodeDraining { node_id: 103, draining: true, replacement_id })
    };
    run(&mut state, drain(106)).unwrap();
    // It may be down for a moment only.
    set(&mut state, 103, NodeState::Down);
    let membership = |state: &MetaState, observed: &ObservedCluster| {
        let steps = plan(state, observed, &OPTIONS).into_iter();
        let of_group = |step: &PlacementStep| step.group() == Some(GroupId(1));
        steps.filter(of_group).collect::<Vec<_>>()
    };
    assert_eq!(membership(&state, &full), [add(106)]);
    set(&mut state, 106, NodeState::Down);
    assert_eq!(membership(&state, &full), [add(104)], "the replacement is down");
}

/// A replica that its node has reported for some seconds.
fn hosted(
    group: u64,
    node: u64,
    seconds: u64,
) -> BTreeMap<GroupId, BTreeMap<NodeId, ObservedReplica>> {
    let hosted_for = Duration::from_secs(seconds);
    let replica = ObservedReplica { hosted_for, ..ObservedReplica::default() };
    BTreeMap::from([(GroupId(group), BTreeMap::from([(NodeId(node), replica)]))])
}

/// Each added replica counts at once, so that the steps of one round spread over the nodes.
#[test]
fn steps_of_one_round_spread_over_the_nodes() {
    let mut state = with_nodes(6);
    let mut observed = observed();
    for id in 1..=3 {
        let first_members = vec![101];
        run(&mut state, Kind::CreateGroup(v1::CreateGroup { first_members, home_groups: 0 }))
            .unwrap();
        run(&mut state, Kind::ActivateGroup(v1::ActivateGroup { group_id: id })).unwrap();
        let report = reported(&[101], &[], &[]).groups.get(&GroupId(1)).cloned().unwrap();
        observed.groups.insert_mut(GroupId(id), report);
    }
    let added = plan(&state, &observed, &OPTIONS).into_iter().map(|step| match step {
        PlacementStep::Add { node, .. } => node.get(),
        other => panic!("{other:?}"),
    });
    assert_eq!(added.collect::<Vec<_>>(), [102, 103, 104]);
}

#[test]
fn stray_replicas_are_stopped_after_a_delay() {
    let mut state = with_groups(4, 1);
    let mut observed = reported(&[101, 102, 103], &[], &[]);
    observed.replicas = hosted(1, 104, 14);
    assert_eq!(plan(&state, &observed, &OPTIONS), []);
    observed.replicas = hosted(1, 104, 16);
    observed.reported_for.insert(GroupId(1), Duration::from_secs(4));
    assert_eq!(plan(&state, &observed, &OPTIONS), [], "the report is too old");
    observed.reported_for.remove(&GroupId(1));
    assert_eq!(plan(&state, &observed, &OPTIONS), [], "the report's age is unknown");
    observed.reported_for.insert(GroupId(1), Duration::from_secs(1));
    let stray = std::mem::replace(&mut observed.replicas, hosted(1, 102, 60));
    assert_eq!(plan(&state, &observed, &OPTIONS), [], "a member is no stray");
    observed.replicas = stray;
    let on = observed.groups.get(&GroupId(1)).unwrap().membership;
    let stop = PlacementStep::Stop { group: GroupId(1), node: NodeId(104), on };
    assert_eq!(plan(&state, &observed, &OPTIONS), [stop]);
    run(
        &mut state,
        Kind::CreateGroup(v1::CreateGroup { first_members: vec![101], home_groups: 0 }),
    )
    .unwrap();
    run(&mut state, Kind::AbandonGroup(v1::AbandonGroup { group_id: 2 })).unwrap();
    observed.replicas = hosted(2, 101, 16);
    let on = (Term(u64::MAX), LogIndex(u64::MAX));
    let stop = PlacementStep::Stop { group: GroupId(2), node: NodeId(101), on };
    assert_eq!(plan(&state, &observed, &OPTIONS), [stop]);
}

#[test]
fn change_in_progress_delays_steps_and_stops() {
    let state = with_groups(4, 1);
    let stray = hosted(1, 104, 60);
    let observe = |effective| {
        let mut observed = reported(&[101, 102], &[], &[]);
        observed.reported_for.insert(GroupId(1), Duration::ZERO);
        observed.replicas = stray.clone();
        observed.groups.get_mut(&GroupId(1)).unwrap().effective = effective;
        plan(&state, &observed, &OPTIONS)
    };
    let changing = Some((Term(1), LogIndex(7)));
    assert_eq!(observe(changing), []);
    assert_ne!(observe(Some((Term(1), LogIndex(4)))), []);
    // A report of an older release: its members may not be committed.
    let mut full = reported(&[101, 102, 103], &[], &[]);
    full.reported_for.insert(GroupId(1), Duration::ZERO);
    full.replicas = stray;
    assert_eq!(plan(&state, &full, &OPTIONS).len(), 1);
    full.groups.get_mut(&GroupId(1)).unwrap().effective = None;
    assert_eq!(plan(&state, &full, &OPTIONS), []);
}
