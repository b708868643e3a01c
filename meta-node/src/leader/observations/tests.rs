use tidewater_common::refusal::Refusal;

use super::clocks::LOADER_RETURN;
use super::*;

fn report(group_id: u64, term: u64, leader: u64, voters: &[u64]) -> v1::GroupReport {
    let voters = voters.to_vec();
    v1::GroupReport { group_id, term, leader, voters, ..v1::GroupReport::default() }
}

fn heartbeat(node_id: u64, groups: Vec<v1::GroupReport>) -> v1::HeartbeatRequest {
    v1::HeartbeatRequest { node_id, groups, ..v1::HeartbeatRequest::default() }
}

#[test]
fn report_of_a_deposed_leader_is_ignored() {
    let observations = Observations::default();
    let now = Instant::now();
    let record = |node, group_report| {
        observations.record_heartbeat(&heartbeat(node, vec![group_report]), now);
    };
    record(102, report(1, 5, 102, &[101, 102]));
    record(101, report(1, 4, 101, &[101]));
    assert_eq!(observations.leader_of(GroupId(1)), Some(NodeId(102)));
    // Reports of followers are ignored, too.
    record(103, report(1, 9, 101, &[101]));
    let observed = observations.snapshot(&[], now);
    assert_eq!(observed.groups.get(&GroupId(1)).unwrap().term, Term(5));
    record(101, report(1, 6, 101, &[101]));
    assert_eq!(observations.leader_of(GroupId(1)), Some(NodeId(101)));
}

// A forged or mistaken report must not stay for good.
#[test]
fn own_later_report_of_a_leader_counts() {
    let observations = Observations::default();
    let now = Instant::now();
    let record = |node, group_report| {
        observations.record_heartbeat(&heartbeat(node, vec![group_report]), now);
    };
    let observed = || observations.snapshot(&[], now).groups.get(&GroupId(1)).cloned().unwrap();
    record(101, report(1, 900, 101, &[101]));
    record(101, report(1, 5, 101, &[101, 102]));
    assert_eq!((observed().term, observed().voters.len()), (Term(5), 2));
    // Another node in a later term, until that node itself reports that it follows.
    record(102, report(1, 900, 102, &[102]));
    record(101, report(1, 5, 101, &[101, 102]));
    assert_eq!(observed().leader, NodeId(102));
    record(102, report(1, 5, 101, &[]));
    record(101, report(1, 5, 101, &[101, 102]));
    assert_eq!((observed().leader, observed().term), (NodeId(101), Term(5)));
    assert!(observations.snapshot(&[], now).is_follower(GroupId(1), NodeId(102)));
}

#[test]
fn observations_start_empty_in_a_new_term() {
    let observations = Observations::default();
    let begun = Instant::now();
    observations.restart(begun);
    observations.record_heartbeat(&heartbeat(101, vec![report(1, 5, 101, &[101])]), begun);
    observations.record_table_error(TableId(1), Some("no".into()));
    let later = begun + Duration::from_secs(9);
    let observed = observations.snapshot(&[], later);
    assert_eq!(observed.silent_for[&NodeId(101)], Duration::from_secs(9));
    observations.restart(later);
    let observed = observations.snapshot(&[], later + Duration::from_secs(1));
    assert_eq!(observed.leading_for, Duration::from_secs(1));
    assert!(observed.silent_for.is_empty() && observed.groups.is_empty());
    assert!(observed.replicas.is_empty() && observed.table_errors.is_empty());
}

#[tokio::test(start_paused = true)]
async fn agreement_of_clocks_is_awaited_in_each_term() {
    let observations = Observations::default();
    let limit = Duration::from_secs(5);
    let waited = async || {
        let begun = Instant::now();
        observations.wait_for_agreement(limit).await;
        begun.elapsed()
    };
    assert_eq!(waited().await, limit, "no clock is known");
    let agreeing = async {
        tokio::time::sleep(limit / 5).await;
        observations.record_agreement();
    };
    let (first, ()) = tokio::join!(waited(), agreeing);
    assert_eq!((first, waited().await), (limit / 5, Duration::ZERO));
    observations.restart(Instant::now());
    assert_eq!(waited().await, limit);
}

#[test]
fn loads_outlive_a_jump_of_time() {
    let observations = Observations::default();
    let now = Instant::now();
    assert!(observations.may_pass_deadlines(now));
    observations.record_jump(now);
    let soon = Duration::from_secs(1);
    assert!(!observations.may_pass_deadlines(now + LOADER_RETURN - soon));
    assert!(observations.may_pass_deadlines(now + LOADER_RETURN));
    observations.restart(now);
    assert!(observations.may_pass_deadlines(now));
}

#[test]
fn clocks_age_until_they_are_too_old() {
    let observations = Observations::default();
    let now = Instant::now();
    let sent = v1::HeartbeatRequest { clock_ms: 1_000, ..heartbeat(101, vec![]) };
    observations.record_heartbeat(&sent, now);
    // An older release sends no clock.
    observations.record_heartbeat(&heartbeat(102, vec![]), now);
    let at = |seconds| observations.clocks(now + Duration::from_secs(seconds));
    assert_eq!(at(3), BTreeMap::from([(NodeId(101), 4_000)]));
    assert_eq!(at(4), BTreeMap::new());
}

#[test]
fn observations_of_unknown_nodes_are_removed() {
    let observations = Observations::default();
    let now = Instant::now();
    for node in [101, 102] {
        observations.record_heartbeat(&heartbeat(node, vec![]), now);
    }
    observations.retain_nodes(|node| node == NodeId(101));
    assert_eq!(observations.hooks().into_keys().collect::<Vec<_>>(), [NodeId(101)]);
    assert_eq!(observations.snapshot(&[], now).silent_for.len(), 1);
}

// Otherwise the node would count as silent since the start of the term.
#[test]
fn registered_node_is_alive_before_its_first_heartbeat() {
    let observations = Observations::default();
    let begun = Instant::now();
    observations.restart(begun);
    let later = begun + Duration::from_secs(60);
    observations.record_registration(NodeId(104), false, later);
    let observed = observations.snapshot(&[], later);
    assert_eq!(observed.silent_for, BTreeMap::from([(NodeId(104), Duration::ZERO)]));
    assert_eq!(observed.quiet_for, Duration::from_secs(60), "no data node has registered");
}

#[test]
fn registration_is_in_progress_until_it_is_recorded() {
    let observations = Arc::new(Observations::default());
    let now = Instant::now();
    let start_id = Uuid::from_u128(7);
    let begun = observations.begin_registration(Some(start_id));
    assert_eq!(observations.snapshot(&[], now).registering, [start_id].into());
    // A new term begins with the command of the registration in progress.
    observations.restart(now);
    assert_eq!(observations.snapshot(&[], now).registering, [start_id].into());
    let repeated = observations.begin_registration(Some(start_id));
    drop(begun);
    assert_eq!(observations.snapshot(&[], now).registering, [start_id].into());
    drop(repeated);
    assert!(observations.snapshot(&[], now).registering.is_empty());
}

#[test]
fn compactors_are_listed_until_their_heartbeat_timeout() {
    let observations = Observations::default();
    let begun = Instant::now();
    let load = v1::CompactorLoad { slots: 2, ..v1::CompactorLoad::default() };
    let beat = v1::HeartbeatRequest { compactor: Some(load.clone()), ..heartbeat(104, vec![]) };
    observations.record_heartbeat(&beat, begun);
    observations.record_heartbeat(&heartbeat(101, vec![]), begun);
    assert_eq!(observations.compactors(begun), BTreeMap::from([(NodeId(104), load.clone())]));
    let soon = begun + COMPACTOR_TIMEOUT / 2;
    let later = begun + COMPACTOR_TIMEOUT;
    assert_eq!(observations.compactors(soon).len(), 1);
    assert!(observations.compactors(later).is_empty());
    let busy = v1::CompactorLoad { jobs: 2, ..load.clone() };
    let beat = v1::HeartbeatRequest { compactor: Some(busy.clone()), ..beat };
    observations.record_heartbeat(&beat, soon);
    assert_eq!(observations.compactors(later)[&NodeId(104)], busy);
    observations.retain_nodes(|node| node == NodeId(101));
    assert!(observations.compactors(soon).is_empty());
}

#[test]
fn conditions_of_older_releases_are_taken_as_text() {
    let observations = Observations::default();
    let now = Instant::now();
    let texts = vec!["its disk is full".to_owned(), "its clock differs".to_owned()];
    let beat = v1::HeartbeatRequest { problems: texts, ..heartbeat(101, vec![]) };
    let seen = |request: &v1::HeartbeatRequest| {
        observations.record_heartbeat(request, now);
        let observed = observations.snapshot(&[], now);
        assert!(observed.beating.contains(&NodeId(101)));
        observed.conditions.get(&NodeId(101)).cloned().unwrap_or_default()
    };
    let text = "node 101: its disk is full; its clock differs";
    let expected = Problem::new(v1::ProblemKind::Reported, text).of_node(NodeId(101));
    assert_eq!(seen(&beat), [expected]);
    let condition = v1::NodeCondition {
        kind: v1::ProblemKind::DiskFull.into(),
        age_ms: 2_000,
        detail: "full".into(),
        ..v1::NodeCondition::default()
    };
    let conditions = vec![condition; 2 * MAX_CONDITIONS];
    let seen_now = seen(&v1::HeartbeatRequest { conditions, ..beat });
    assert_eq!(seen_now.len(), MAX_CONDITIONS);
    let expected = Problem::new(v1::ProblemKind::DiskFull, "node 101: full")
        .of_node(NodeId(101))
        .lasting(Duration::from_secs(2));
    assert_eq!(seen_now[0], expected);
    assert_eq!(seen(&heartbeat(101, vec![])), []);
}

#[test]
fn member_conditions_are_of_its_last_answer() {
    let observations = Observations::default();
    let now = Instant::now();
    let node = NodeId(2);
    let seen = |conditions: &[v1::NodeCondition]| {
        observations.record_member_conditions(node, conditions);
        observations.snapshot(&[], now).member_conditions
    };
    let condition = v1::NodeCondition {
        kind: v1::ProblemKind::EventsNotRecorded.into(),
        age_ms: 2_000,
        detail: "its events are not recorded".into(),
        ..v1::NodeCondition::default()
    };
    let detail = "node 2: its events are not recorded";
    let expected = Problem::new(v1::ProblemKind::EventsNotRecorded, detail)
        .of_node(node)
        .lasting(Duration::from_secs(2));
    let one = BTreeMap::from([(node, vec![expected])]);
    assert_eq!(seen(std::slice::from_ref(&condition)), one);
    assert_eq!(seen(&vec![condition.clone(); 2 * MAX_CONDITIONS])[&node].len(), MAX_CONDITIONS);
    // An answer without conditions, also of an older release, and none at all.
    assert_eq!(seen(&[]), BTreeMap::new());
    assert_eq!(seen(std::slice::from_ref(&condition)), one);
    observations.restart(now);
    assert_eq!(observations.snapshot(&[], now).member_conditions, BTreeMap::new());
}

#[test]
fn failures_of_connections_and_passes_keep_their_begin() {
    let observations = Observations::default();
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    observations.record_heartbeat(&heartbeat(101, vec![]), begin);
    let fail = |second, error: &str| {
        observations.record_probe(NodeId(101), Some(error.to_owned()), at(second));
        let refusal = Refusal::new(v1::Reason::Unavailable, error);
        observations.record_garbage(Err(&refusal), at(second));
    };
    fail(1, "a");
    fail(2, "b");
    let observed = observations.snapshot(&[], at(4));
    let failing = (Duration::from_secs(3), "b".to_owned());
    assert_eq!(observed.unreachable[&NodeId(101)], failing);
    assert_eq!(observed.garbage.failing.map(|(age, _)| age), Some(failing.0));
    observations.record_probe(NodeId(101), None, at(5));
    let manifest = v1::UnreadableManifest { region_id: 7, ..Default::default() };
    let unreadable_manifests = vec![manifest];
    let report = v1::GarbageReport { unreadable_manifests, ..Default::default() };
    observations.record_garbage(Ok(&report), at(5));
    let observed = observations.snapshot(&[], at(6));
    assert!(observed.unreachable.is_empty() && observed.garbage.failing.is_none());
    assert_eq!(observed.garbage.unreadable.len(), 1);
    observations.record_garbage(Ok(&v1::GarbageReport::default()), at(7));
    assert!(observations.snapshot(&[], at(8)).garbage.unreadable.is_empty());
}

#[test]
fn age_of_an_operation_counts_from_its_first_observation() {
    let observations = Observations::default();
    let begin = Instant::now();
    let operation = (TableId(1), v1::TableState::Active, 1);
    let later = (TableId(1), v1::TableState::Active, 2);
    let ages = |operations: &[TableOperation], second: u64| -> Vec<u64> {
        let current = operations.iter().copied().collect();
        let now = begin + Duration::from_secs(second);
        let ages = observations.record_operations(&current, now);
        ages.values().map(Duration::as_secs).collect()
    };
    assert_eq!(ages(&[operation], 0), [0]);
    assert_eq!(ages(&[operation], 7), [7]);
    assert_eq!(ages(&[later], 8), [0], "the next operation on the table");
    assert_eq!(ages(&[], 9), [0; 0]);
}

#[test]
fn membership_after_a_step_is_kept_until_its_timeout() {
    let observations = Observations::default();
    let now = Instant::now();
    let at = (Term(2), LogIndex(7));
    observations.record_membership(GroupId(1), at, now);
    let soon = now + REPORT_WAIT / 2;
    assert_eq!(observations.snapshot(&[], soon).changed.get(&GroupId(1)), Some(&at));
    assert!(observations.snapshot(&[], now + REPORT_WAIT).changed.is_empty());
}

#[test]
fn report_age_counts_from_the_leaders_last_report() {
    let observations = Observations::default();
    let start = Instant::now();
    let record = |node, group_report, after: u64| {
        let at = start + Duration::from_secs(after);
        observations.record_heartbeat(&heartbeat(node, vec![group_report]), at);
    };
    let age = |after: u64| {
        let observed = observations.snapshot(&[], start + Duration::from_secs(after));
        observed.reported_for.get(&GroupId(1)).map(Duration::as_secs)
    };
    assert_eq!(age(0), None);
    record(101, report(1, 2, 101, &[]), 0);
    assert_eq!(age(5), Some(5));
    // A repeated report resets the age; reports of a follower or an old leader do not.
    record(101, report(1, 2, 101, &[]), 5);
    record(102, report(1, 1, 102, &[]), 7);
    record(101, report(1, 2, 0, &[]), 8);
    assert_eq!(age(9), Some(4));
    assert_eq!(observations.leader_of(GroupId(1)), Some(NodeId(101)));
    record(102, report(1, 3, 102, &[]), 9);
    assert_eq!((age(9), observations.leader_of(GroupId(1))), (Some(0), Some(NodeId(102))));
}
