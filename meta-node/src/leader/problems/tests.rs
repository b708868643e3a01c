use std::collections::{BTreeMap, BTreeSet};

use tidewater_common::clock::ClockDifference;
use tidewater_common::ids::{GroupId, LogIndex, RegionId, TableId};
use tidewater_proto::v1::{self, NodeState, ProblemKind, TableState, meta_command::Kind};
use tidewater_raft_store::DiskHealth;

use super::members::MAX_LAG;
use super::*;
use crate::commands::procedures::refresh::testing::{finish, loaded, start, with_refreshable};
use crate::commands::procedures::testing::{complete, report as step_report};
use crate::commands::testing::{
    compactor, pass, raise_to, raise_to_highest, run, set_members, table, with_groups, with_nodes,
};
use crate::leader::{MemberDifference, ObservedReplica};

const TIMEOUT: Duration = Duration::from_secs(5);
const LEADER: NodeId = NodeId(1);

/// Knowledge of a leader that has led for a minute and received all heartbeats.
struct Known {
    state: MetaState,
    observed: ObservedCluster,
    members: Vec<MemberHealth>,
    of_process: Vec<Problem>,
    differing_clocks: Vec<NodeId>,
    operations: BTreeMap<TableOperation, Duration>,
}

impl Known {
    fn new(state: MetaState) -> Self {
        let mut observed =
            ObservedCluster { leading_for: Duration::from_secs(60), ..ObservedCluster::default() };
        for node in state.nodes() {
            observed.silent_for.insert(node.id, Duration::from_secs(1));
            observed.beating.insert(node.id);
        }
        for group in state.groups() {
            observed.reported_for.insert(group.id, Duration::from_secs(1));
            for node in group.replicas() {
                let hosted_for = Duration::from_secs(60);
                let replica = ObservedReplica { hosted_for, ..ObservedReplica::default() };
                observed.replicas.entry(group.id).or_default().insert(node, replica);
            }
        }
        Self {
            state,
            observed,
            members: Vec::new(),
            of_process: Vec::new(),
            differing_clocks: Vec::new(),
            operations: BTreeMap::new(),
        }
    }

    /// A cluster of `nodes` data nodes with one complete group.
    fn healthy(nodes: u64) -> Self {
        let mut state = with_groups(nodes, 1);
        let voters: Vec<u64> = (101..101 + nodes.min(3)).collect();
        report(&mut state, &voters, &[]);
        Self::new(state)
    }

    fn problems(&self) -> Vec<Problem> {
        find_problems(&ClusterKnowledge {
            state: &self.state,
            observed: &self.observed,
            members: &self.members,
            leader: LEADER,
            of_process: &self.of_process,
            differing_clocks: &self.differing_clocks,
            operations: &self.operations,
            failure_timeout: TIMEOUT,
        })
    }

    fn kinds(&self) -> Vec<ProblemKind> {
        self.problems().into_iter().map(|problem| problem.kind).collect()
    }

    /// Returns the only problem.
    fn only(&self) -> Problem {
        let mut problems = self.problems();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        problems.remove(0)
    }

    fn details(&self) -> Vec<String> {
        self.problems().into_iter().map(|problem| problem.detail).collect()
    }
}

fn report(state: &mut MetaState, voters: &[u64], learners: &[u64]) {
    let report = v1::ReportGroup {
        group_id: 1,
        term: 1,
        leader: 101,
        voters: voters.to_vec(),
        learners: learners.to_vec(),
        membership_term: 1,
        membership_index: 1,
        replaces_term: None,
    };
    run(state, Kind::ReportGroup(report)).unwrap();
}

fn set(state: &mut MetaState, node_id: u64, to: NodeState) {
    run(state, Kind::SetNodeState(v1::SetNodeState { node_id, state: to.into() })).unwrap();
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn cluster_with_all_possible_replicas_has_no_problems() {
    for nodes in 1..=4 {
        assert_eq!(
            Known::healthy(nodes).problems(),
            [],
            "{nodes} nodes with all possible replicas"
        );
    }
    assert_eq!(Known::new(with_groups(0, 0)).problems(), [], "no data node has registered yet");
}

#[test]
fn silent_and_lagging_meta_members_are_problems() {
    let mut known = Known::healthy(1);
    let member = |node, silent_for, lag| MemberHealth { node: NodeId(node), silent_for, lag };
    known.members = vec![
        member(2, Some(seconds(1)), MAX_LAG),
        member(3, Some(seconds(6)), 0),
        member(4, None, 0),
        member(5, Some(seconds(1)), MAX_LAG + 1),
        member(6, Some(seconds(1)), 0),
    ];
    known.observed.unreachable.insert(NodeId(3), (seconds(9), "refused".into()));
    known.observed.unreachable.insert(NodeId(6), (seconds(9), "refused".into()));
    let problem = |kind, node, detail: &str| {
        Problem::new(kind, detail).of_group(GroupId::META).of_node(NodeId(node))
    };
    let silent = ProblemKind::MetaMemberSilent;
    let expected = [
        problem(silent, 3, "meta node 3 does not answer the meta leader").lasting(seconds(6)),
        problem(silent, 4, "meta node 4 does not answer the meta leader").lasting(seconds(60)),
        problem(
            ProblemKind::MetaMemberLags,
            5,
            "meta node 5 lacks 1001 entries of the meta leader's log",
        ),
        problem(ProblemKind::NodeUnreachable, 6, "meta node 6 answers no new connections: refused")
            .lasting(seconds(9)),
    ];
    assert_eq!(known.problems(), expected);
}

#[test]
fn conditions_of_a_silent_member_are_no_problems() {
    let mut known = Known::healthy(1);
    let member =
        |silent_for, lag| MemberHealth { node: NodeId(2), silent_for: Some(silent_for), lag };
    let full = Problem::new(ProblemKind::DiskFull, "node 2: its disk is full").of_node(NodeId(2));
    known.observed.member_conditions.insert(NodeId(2), vec![full.clone()]);
    // Node 3 is no member any more.
    known.observed.member_conditions.insert(NodeId(3), vec![full.clone()]);
    known.members = vec![member(seconds(5), 0)];
    assert_eq!(known.only(), full);
    known.members = vec![member(seconds(5), MAX_LAG + 1)];
    assert_eq!(known.kinds(), [ProblemKind::DiskFull, ProblemKind::MetaMemberLags]);
    known.members = vec![member(seconds(6), 0)];
    assert_eq!(known.kinds(), [ProblemKind::MetaMemberSilent]);
    known.members = vec![member(seconds(5), 0)];
    known.observed.unreachable.insert(NodeId(2), (seconds(9), "refused".into()));
    assert_eq!(known.kinds(), [ProblemKind::NodeUnreachable]);
}

#[test]
fn member_with_another_catalog_is_a_problem() {
    let mut known = Known::healthy(1);
    let advance = v1::AdvanceTime { now_ms: 0, agreed_ms: 1_700_000_000_000 };
    run(&mut known.state, Kind::AdvanceTime(advance)).unwrap();
    let now_ms = known.state.header().time_ms;
    let member = |node| MemberHealth { node: NodeId(node), silent_for: Some(seconds(1)), lag: 0 };
    let differs = |first, age_s: u64| MemberDifference {
        first: LogIndex(first),
        since_ms: now_ms - 1_000 * age_s,
    };
    known.members = vec![member(2), member(3)];
    known.observed.member_differences.insert(NodeId(3), differs(70, 9));
    // Node 4 is no member any more.
    known.observed.member_differences.insert(NodeId(4), differs(1, 1));
    let problem = |node, detail: &str| {
        let problem = Problem::new(ProblemKind::MetaStateDiffers, detail);
        problem.of_group(GroupId::META).of_node(node).lasting(seconds(9))
    };
    let of_three = "the catalog of meta node 3 differs from the meta leader's since log index 70";
    assert_eq!(known.only(), problem(NodeId(3), of_three));
    // Both others differ: the leader's is the other one.
    known.observed.member_differences.insert(NodeId(2), differs(80, 4));
    let of_leader = "the catalog of meta node 1, which leads, differs from those of 2 of the 2 other \
                     members";
    assert_eq!(known.only(), problem(LEADER, of_leader));
    // One of two members is no majority.
    known.members.remove(1);
    assert_eq!(known.only().subject.node, Some(NodeId(2)));
    known.observed.member_differences.clear();
    assert_eq!(known.problems(), []);
}

#[test]
fn wrong_clocks_are_problems() {
    let mut known = Known::healthy(2);
    let since_ms = 1_700_000_000_000;
    known.observed.own_difference =
        Some(ClockDifference { difference_ms: 3_600_000, bound_ms: 600_000, since_ms });
    known.differing_clocks = vec![NodeId(102)];
    let problems = known.problems();
    assert_eq!(known.kinds(), [ProblemKind::ClockDiffers; 2]);
    assert_eq!(
        problems[0].detail,
        "the meta leader's clock is 3600 s ahead of the cluster's clocks (allowed: 600 s) since \
         2023-11-14 22:13:20 UTC: synchronize it (NTP)"
    );
    assert_eq!(problems[0].subject.node, Some(LEADER));
    assert_eq!(problems[1].subject.node, Some(NodeId(102)));
}

#[test]
fn down_node_with_replicas_is_a_problem() {
    let mut known = Known::healthy(4);
    // Neither an idle data node nor a compactor is missed.
    run(&mut known.state, Kind::RegisterNode(compactor(20, 1))).unwrap();
    for node in [104, 105] {
        set(&mut known.state, node, NodeState::Down);
    }
    assert_eq!(known.problems(), []);
    set(&mut known.state, 102, NodeState::Down);
    let problem = known.only();
    assert_eq!(problem.kind, ProblemKind::NodeDown);
    assert_eq!(problem.subject.node, Some(NodeId(102)));
    assert_eq!(problem.detail, "data node 102 at 127.0.0.1:7002 is down: it sends no heartbeats");
    assert!(problem.age.is_some());
}

#[test]
fn unreachable_node_is_a_problem_while_it_sends_heartbeats() {
    let mut known = Known::healthy(3);
    let node = NodeId(102);
    known.observed.unreachable.insert(node, (seconds(9), "no answer".into()));
    let expected = "data node 102 at 127.0.0.1:7002 sends heartbeats, but answers no new connections: \
                    no answer";
    let problem =
        Problem::new(ProblemKind::NodeUnreachable, expected).of_node(node).lasting(seconds(9));
    assert_eq!(known.only(), problem);
    known.observed.silent_for.insert(node, seconds(6));
    assert_eq!(known.problems(), [], "the failure detector decides about a silent node");
}

#[test]
fn conditions_are_problems_until_their_node_is_silent() {
    let mut known = Known::healthy(1);
    let node = NodeId(101);
    let full = Problem::new(ProblemKind::DiskFull, "node 101: its disk is full").of_node(node);
    known.observed.conditions.insert(node, vec![full.clone()]);
    assert_eq!(known.only(), full);
    known.observed.silent_for.insert(node, seconds(6));
    assert_eq!(known.problems(), []);
    known.observed.silent_for.insert(node, seconds(5));
    set(&mut known.state, 101, NodeState::Removed);
    assert!(!known.kinds().contains(&ProblemKind::DiskFull));
}

#[test]
fn problems_of_the_leaders_process_are_listed() {
    let mut known = Known::healthy(1);
    known.of_process =
        vec![Problem::new(ProblemKind::ConnectionsRefused, "it refuses connections")];
    let expected = "node 1: it refuses connections";
    let expected = Problem::new(ProblemKind::ConnectionsRefused, expected).of_node(LEADER);
    assert_eq!(known.only(), expected);
}

#[test]
fn events_are_no_problem_before_their_feature_level() {
    let mut known = Known::healthy(1);
    let not_recorded = Problem::new(ProblemKind::EventsNotRecorded, "no event is written");
    known.of_process = vec![not_recorded.clone()];
    known.members = vec![MemberHealth { node: NodeId(2), silent_for: Some(seconds(1)), lag: 0 }];
    for (node, conditions) in [
        (NodeId(101), &mut known.observed.conditions),
        (NodeId(2), &mut known.observed.member_conditions),
    ] {
        conditions.insert(node, vec![not_recorded.clone().of_node(node)]);
    }
    raise_to(&mut known.state, FeatureLevel::EVENT_TABLES.previous());
    assert_eq!(known.problems(), []);
    raise_to(&mut known.state, FeatureLevel::EVENT_TABLES);
    assert_eq!(known.kinds(), [ProblemKind::EventsNotRecorded; 3]);
}

#[test]
fn unusable_disk_of_the_leader_is_a_problem() {
    let of = |health| members::unusable_disk(&health).map(|problem| problem.kind);
    assert_eq!(of(DiskHealth::Ok), None);
    assert_eq!(of(DiskHealth::Full), Some(ProblemKind::DiskFull));
    assert_eq!(of(DiskHealth::Failed("I/O error".into())), Some(ProblemKind::DiskFailed));
}

#[test]
fn hooks_that_are_not_called_are_problems() {
    let mut known = Known::healthy(1);
    let hook = |name: &str, state: v1::HookState| v1::HookReport {
        name: name.into(),
        state: state.into(),
        last_error: "no route".into(),
        ..v1::HookReport::default()
    };
    let reports = vec![
        hook("a", v1::HookState::Active),
        hook("b", v1::HookState::Suspended),
        hook("c", v1::HookState::Paused),
        hook("d", v1::HookState::Broken),
    ];
    known.observed.hooks.insert(NodeId(101), reports.into());
    let names: Vec<_> = known.problems().into_iter().map(|problem| problem.subject.hook).collect();
    assert_eq!(names, [Some("b".to_owned()), Some("d".to_owned())]);
    let expected = "node 101: hook \"b\" is suspended after repeated failures: no route";
    assert_eq!(known.details()[0], expected);
}

/// Otherwise a starting cluster would count as healthy before it can store a row on more than one
/// disk.
#[test]
fn cluster_without_an_active_group_has_a_problem() {
    let mut state = with_groups(3, 0);
    assert_eq!(Known::new(state.clone()).only().kind, ProblemKind::NoActiveGroup);
    let create = v1::CreateGroup { first_members: vec![101], home_groups: 0 };
    run(&mut state, Kind::CreateGroup(create)).unwrap();
    let mut creating = Known::new(state.clone());
    assert_eq!(creating.kinds(), [ProblemKind::NoActiveGroup]);
    creating.observed.creating_for.insert(GroupId(1), seconds(11));
    assert_eq!(creating.kinds(), [ProblemKind::NoActiveGroup, ProblemKind::GroupNotCreated]);
    assert_eq!(creating.problems()[1].age, Some(seconds(11)));
    run(&mut state, Kind::ActivateGroup(v1::ActivateGroup { group_id: 1 })).unwrap();
    report(&mut state, &[101], &[]);
    assert_eq!(Known::new(state).details(), ["group 1 has 1 of 3 replicas: 2 to be added"]);
}

#[test]
fn group_without_leader_is_a_problem() {
    let without = |known: &Known| {
        let problem = known
            .problems()
            .into_iter()
            .find(|problem| problem.kind == ProblemKind::GroupWithoutLeader);
        problem.map(|problem| (problem.subject.group, problem.age.map(|age| age.as_secs())))
    };
    let group = Some(GroupId(1));
    assert_eq!(without(&Known::healthy(3)), None);
    assert_eq!(without(&Known::new(with_groups(3, 1))), Some((group, Some(1))), "none was elected");
    let mut known = Known::healthy(3);
    set(&mut known.state, 101, NodeState::Down);
    assert_eq!(without(&known), Some((group, Some(1))), "its node is down");
    // The node is up, and no longer reports to lead.
    let mut known = Known::healthy(3);
    known.observed.reported_for.insert(GroupId(1), TIMEOUT);
    assert_eq!(without(&known), None);
    known.observed.reported_for.insert(GroupId(1), seconds(6));
    assert_eq!(without(&known), Some((group, Some(6))));
    let expected = "group 1 has no leader: its regions accept no writes (last leader: node 101)";
    assert_eq!(known.only().detail, expected);
    // A new meta leader waits for the first report.
    known.observed.reported_for.clear();
    known.observed.leading_for = TIMEOUT;
    assert_eq!(without(&known), None);
    known.observed.leading_for = seconds(6);
    assert_eq!(without(&known), Some((group, Some(6))));
}

#[test]
fn group_without_barriers_is_a_problem() {
    let mut known = Known::healthy(3);
    known.observed.lagging.insert(GroupId(1), seconds(14));
    let detail = "group 1 has applied no barrier for 14 s";
    let expected = Problem::new(ProblemKind::BarriersLate, detail).of_group(GroupId(1));
    assert_eq!(known.only(), expected.lasting(seconds(14)));
    // Its leader explains more.
    known.observed.reported_for.insert(GroupId(1), seconds(6));
    assert_eq!(known.only().kind, ProblemKind::GroupWithoutLeader);
}

#[test]
fn failing_merge_of_a_refresh_is_a_problem() {
    let mut state = with_refreshable(0);
    run(&mut state, start(10)).unwrap();
    complete(&mut state, 10);
    finish(&mut state, 10, &loaded(1_000)).unwrap();
    pass(&mut state, 60);
    let unfinished = |state: &MetaState| {
        let problems = Known::new(state.clone()).problems();
        problems.into_iter().find(|problem| problem.kind == ProblemKind::TableUnfinished)
    };
    assert_eq!(unfinished(&state), None);
    let failure = v1::ProcedureFailure { message: "no leader".into(), ..Default::default() };
    let failed = v1::AdvanceProcedure { failure: Some(failure), ..step_report(&state, 10) };
    run(&mut state, Kind::AdvanceProcedure(failed)).unwrap();
    assert_eq!(unfinished(&state), None, "it may pass");
    pass(&mut state, 11);
    let problem = unfinished(&state).unwrap();
    assert!(problem.detail.ends_with("no leader"), "{}", problem.detail);
}

#[test]
fn group_with_missing_replicas_is_a_problem() {
    let mut state = with_groups(2, 1);
    let details = |state: &MetaState| Known::new(state.clone()).details();
    report(&mut state, &[101], &[]);
    let of_two = "group 1 has 1 of the 2 replicas that 2 data nodes can host";
    assert_eq!(details(&state), [format!("{of_two}: 1 to be added")]);
    report(&mut state, &[101], &[102]);
    assert_eq!(details(&state), [format!("{of_two}: 1 catching up")]);
    let mut state = with_groups(3, 1);
    report(&mut state, &[101], &[]);
    assert_eq!(details(&state), ["group 1 has 1 of 3 replicas: 2 to be added"]);
    report(&mut state, &[101], &[102]);
    assert_eq!(details(&state), ["group 1 has 1 of 3 replicas: 1 catching up, 1 to be added"]);
    report(&mut state, &[101], &[]);
    set(&mut state, 103, NodeState::Down);
    assert_eq!(
        details(&state),
        ["group 1 has 1 of 3 replicas: 1 to be added, 1 waiting for a data node to come up"]
    );
    set(&mut state, 102, NodeState::Down);
    assert_eq!(
        details(&state),
        ["group 1 has 1 of 3 replicas: 2 waiting for data nodes to come up"]
    );
}

#[test]
fn voter_that_hosts_no_replica_is_a_problem() {
    let mut known = Known::healthy(3);
    known.observed.replicas.get_mut(&GroupId(1)).unwrap().remove(&NodeId(103));
    let expected = "node 103 is a voter of group 1 and hosts no replica of it";
    let expected = Problem::new(ProblemKind::ReplicaMissing, expected)
        .of_group(GroupId(1))
        .of_node(NodeId(103));
    assert_eq!(known.only(), expected);
    known.observed.silent_for.insert(NodeId(103), seconds(6));
    assert_eq!(known.problems(), [], "its heartbeats are old");
    known.observed.silent_for.insert(NodeId(103), seconds(1));
    known.observed.beating.remove(&NodeId(103));
    assert_eq!(known.problems(), [], "it has registered, and sent no heartbeat yet");
}

#[test]
fn slow_operation_on_a_table_is_a_problem() {
    let mut known = Known::healthy(1);
    run(&mut known.state, Kind::CreateTable(table(1, "t"))).unwrap();
    let id = TableId(1);
    let creating = (id, TableState::Creating, 0);
    assert_eq!(tables::operations(&known.state), BTreeSet::from([creating]));
    known.operations.insert(creating, seconds(10));
    assert_eq!(known.problems(), []);
    known.operations.insert(creating, seconds(11));
    let problem = known.only();
    assert_eq!(problem.detail, "table \"t\" is being created for 11 s");
    assert_eq!(problem.subject.table.as_deref(), Some("t"));
    assert_eq!(problem.age, Some(seconds(11)));
    known.observed.table_errors.insert(id, "group 1 has no leader".into());
    assert_eq!(known.details(), ["table \"t\" is being created: group 1 has no leader"]);
    run(&mut known.state, Kind::ActivateTable(v1::ActivateTable { table_id: 1 })).unwrap();
    assert_eq!(known.problems(), []);
    assert!(tables::operations(&known.state).is_empty());
    run(&mut known.state, crate::commands::testing::drop_table(2, "t")).unwrap();
    known.operations.insert((id, TableState::Dropping, 0), seconds(60));
    assert_eq!(known.details(), ["table \"t\" is being dropped: group 1 has no leader"]);
}

#[test]
fn creation_of_a_table_counts_from_its_command() {
    let mut known = Known::healthy(1);
    run(&mut known.state, Kind::CreateTable(table(1, "t"))).unwrap();
    let advance = v1::AdvanceTime { now_ms: u64::MAX, agreed_ms: 0 };
    for _ in 0..6 {
        run(&mut known.state, Kind::AdvanceTime(advance)).unwrap();
    }
    assert_eq!(known.only().age, Some(seconds(12)), "also by a new leader");
}

#[test]
fn failing_garbage_collection_is_a_problem() {
    let mut known = Known::healthy(1);
    run(&mut known.state, Kind::CreateTable(table(1, "t"))).unwrap();
    known.observed.garbage.failing = Some((seconds(30), "no data node is up".into()));
    let manifest = |table_id, region_id| v1::UnreadableManifest {
        table_id,
        region_id,
        error: "a delta is missing".into(),
    };
    known.observed.garbage.unreadable = vec![manifest(1, 1), manifest(9, 7)];
    let failing = "garbage collection fails: no data node is up";
    let failing = Problem::new(ProblemKind::GarbageCollectionFailing, failing).lasting(seconds(30));
    let spared = |of: &str, region| {
        let detail =
            format!("garbage collection has left region {region}{of} alone: a delta is missing");
        Problem::new(ProblemKind::GarbageSpared, detail).of_region(RegionId(region))
    };
    let expected = [failing, spared(" of table \"t\"", 1).of_table("t"), spared("", 7)];
    assert_eq!(known.problems(), expected);
}

#[test]
fn removed_node_is_not_a_problem() {
    let mut state = with_nodes(1);
    set(&mut state, 101, NodeState::Removed);
    assert_eq!(Known::new(state).problems(), []);
}

#[test]
fn drain_that_cannot_continue_is_a_problem() {
    let mut known = Known::healthy(4);
    raise_to_highest(&mut known.state);
    let drain = v1::SetNodeDraining { node_id: 103, draining: true, replacement_id: 0 };
    run(&mut known.state, Kind::SetNodeDraining(drain)).unwrap();
    assert_eq!(known.kinds(), []);
    let set = |known: &mut Known, node_id, to: NodeState| {
        let command = v1::SetNodeState { node_id, state: to.into() };
        run(&mut known.state, Kind::SetNodeState(command)).unwrap();
    };
    set(&mut known, 104, NodeState::Down);
    let problem = known.problems().into_iter().find(|of| of.kind == ProblemKind::DrainWaits);
    let problem = problem.unwrap();
    assert_eq!(
        problem.detail,
        "the drain of node 103 waits for group 1 whose replicas no other data node that is up can have"
    );
    assert_eq!(problem.subject.node, Some(NodeId(103)));
    set(&mut known, 104, NodeState::Up);
    known.observed.reported_for.insert(GroupId(1), TIMEOUT * 2);
    let problems = known.problems();
    let waits = problems.iter().find(|of| of.kind == ProblemKind::DrainWaits).unwrap();
    assert_eq!(waits.detail, "the drain of node 103 waits for group 1 without a leader");
    // Its replica only has to be removed: nothing is missing.
    known.observed.reported_for.insert(GroupId(1), Duration::ZERO);
    report(&mut known.state, &[101, 102, 103, 104], &[]);
    assert!(!known.kinds().contains(&ProblemKind::DrainWaits));
}

#[test]
fn replacement_without_progress_is_a_problem() {
    let mut known = Known::healthy(3);
    set_members(&mut known.state, &[1, 2, 3]);
    raise_to_highest(&mut known.state);
    let request = v1::ReplaceMetaMemberRequest {
        old_node_id: 2,
        new_node_id: 4,
        address: "m:4".into(),
        cancel: false,
    };
    run(&mut known.state, Kind::ReplaceMetaMember(request)).unwrap();
    assert_eq!(known.problems(), []);
    known.observed.replacement_failing = Some((seconds(20), "connection refused".into()));
    let detail = "the replacement of meta node 2 by node 4 waits: connection refused";
    let expected = Problem::new(ProblemKind::MemberReplacementWaits, detail)
        .of_group(GroupId::META)
        .of_node(NodeId(2))
        .lasting(seconds(20));
    assert_eq!(known.only(), expected);
    let end = v1::EndMemberReplacement { old_node_id: 2, new_node_id: 4 };
    run(&mut known.state, Kind::EndMemberReplacement(end)).unwrap();
    assert_eq!(known.problems(), []);
}
