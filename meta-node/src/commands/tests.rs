use tidewater_common::ids::{
    CatalogVersion, ClusterId, GroupId, NodeId, RegionId, Revision, TableId, Term,
};
use tidewater_common::refusal::Refusal;
use tidewater_common::schema::SchemaError;
use tidewater_proto::v1::{self, GroupState, NodeRole, NodeState, TableState, meta_command::Kind};
use uuid::Uuid;

use super::testing::*;
use super::*;
use crate::catalog::{COMPACTOR_KEPT_MS, MAX_OUTCOMES, OUTCOME_KEPT_MS, RouteError};

fn cluster() -> ClusterId {
    CLUSTER.parse().unwrap()
}

#[test]
fn cluster_is_bootstrapped_once() {
    let mut state = MetaState::default();
    assert_eq!(
        run(&mut state, Kind::AdvanceTime(v1::AdvanceTime { now_ms: 5, agreed_ms: 0 })),
        Err(CommandError::NotBootstrapped)
    );
    let again = v1::BootstrapCluster { cluster_id: directory(9), now_ms: 3 };
    let bad = v1::BootstrapCluster { cluster_id: "x".into(), now_ms: 3 };
    assert!(matches!(run(&mut state, Kind::Bootstrap(bad)), Err(CommandError::Malformed(_))));
    let mut state = bootstrapped();
    assert_eq!(state.header().incarnation.get(), 1);
    assert_eq!(
        run(&mut state, Kind::Bootstrap(again)),
        Err(CommandError::AlreadyBootstrapped(cluster()))
    );
}

#[test]
fn commands_of_newer_level_or_other_term_are_rejected() {
    let mut state = bootstrapped();
    let newer = v1::MetaCommand {
        feature_level: 2,
        ..command(Kind::AdvanceTime(v1::AdvanceTime { now_ms: 5, agreed_ms: 0 }))
    };
    assert_eq!(
        run_command(&mut state, newer),
        Err(CommandError::FeatureLevel {
            needed: FeatureLevel::new(2),
            level: FeatureLevel::FIRST
        })
    );
    for decided_term in [2, 7] {
        let stale = v1::MetaCommand {
            decided_term,
            ..command(Kind::AdvanceTime(v1::AdvanceTime { now_ms: 5, agreed_ms: 0 }))
        };
        assert_eq!(
            run_command(&mut state, stale),
            Err(CommandError::StaleTerm { decided: Term(decided_term), entry: Term(1) })
        );
    }
    let none = v1::MetaCommand { feature_level: 1, decided_term: 1, ..v1::MetaCommand::default() };
    assert_eq!(run_command(&mut state, none), Err(CommandError::UnknownCommand));
}

#[test]
fn replicated_time_never_decreases_or_leaps() {
    let mut state = bootstrapped();
    let mut tick = |now_ms, agreed_ms| {
        run(&mut state, Kind::AdvanceTime(v1::AdvanceTime { now_ms, agreed_ms })).unwrap();
        state.header().time_ms
    };
    assert_eq!(tick(1_500, 0), 1_500);
    assert_eq!(tick(200, 0), 1_500);
    assert_eq!(tick(u64::MAX, 0), 3_500);
    assert_eq!(tick(4_000, 0), 4_000);
    // Several clocks agree, after an outage.
    assert_eq!(tick(5_000, 900_000), 900_000);
    assert_eq!(tick(901_000, 900_500), 901_000);
    assert_eq!(tick(0, 1), 901_000);
    assert_eq!(state.header().revision, Revision(0), "watchers do not see time");
}

#[test]
fn registered_directory_keeps_its_node_id() {
    let mut state = with_nodes(2);
    let first = registration(1);
    assert_eq!(
        run(&mut state, Kind::RegisterNode(first.clone())),
        Ok(CommandReply::Node(NodeId(101)))
    );
    let revision = state.header().revision;
    let known = v1::RegisterNode { cluster_id: CLUSTER.into(), node_id: 101, ..first };
    let moved = v1::RegisterNode { address: "host:9".into(), ..known.clone() };
    assert_eq!(run(&mut state, Kind::RegisterNode(known)), Ok(CommandReply::Node(NodeId(101))));
    assert_eq!(state.header().revision, revision);
    assert_eq!(run(&mut state, Kind::RegisterNode(moved)), Ok(CommandReply::Node(NodeId(101))));
    assert_eq!(state.node(NodeId(101)).unwrap().address, "host:9");
    assert_eq!(state.header().revision.get(), revision.get() + 1);
    assert_eq!(
        run(&mut state, Kind::RegisterNode(registration(3))),
        Ok(CommandReply::Node(NodeId(103)))
    );
}

#[test]
fn start_number_belongs_to_one_process() {
    let mut state = with_nodes(1);
    let mut start = |boot, process| {
        let start_id = if process == 0 { String::new() } else { directory(process) };
        let address = format!("host:{}", process + 1);
        let register = v1::RegisterNode { boot, start_id, address, ..registration(1) };
        let result = run(&mut state, Kind::RegisterNode(register));
        let node = state.node(NodeId(101)).unwrap();
        (result.map_err(|error| error.reason()), node.boot.get(), node.address.clone())
    };
    let node = Ok(CommandReply::Node(NodeId(101)));
    let copied = Err(v1::Reason::DirectoryCopied);
    // (number, process, result, number in the catalog, process of the address in the catalog)
    let cases = [
        (1, 11, node, 1, 11),
        // The registration is repeated: its answer was lost.
        (1, 11, node, 1, 11),
        // A crash between counting and registration leaves a number unused.
        (3, 12, node, 3, 12),
        // The first process has a late message on the way.
        (1, 11, copied, 3, 12),
        // The directory was restored from a backup: an older number, and the same one.
        (2, 13, copied, 3, 12),
        (3, 14, copied, 3, 12),
        // An older release does not count: the number remains, so that it counts again after an upgrade.
        (0, 0, node, 3, 0),
        (3, 12, node, 3, 12),
        (3, 15, copied, 3, 12),
        (4, 16, node, 4, 16),
    ];
    for (boot, process, expected, recorded, at) in cases {
        let expected = (expected, recorded, format!("host:{}", at + 1));
        assert_eq!(start(boot, process), expected, "{boot} {process}");
    }
    let unreadable = v1::RegisterNode { start_id: "no".into(), ..registration(1) };
    let malformed = CommandError::Malformed("the id of the process is not a UUID".into());
    assert_eq!(run(&mut state, Kind::RegisterNode(unreadable)), Err(malformed));
    assert_eq!(MetaState::from_rows(state.rows().unwrap()).unwrap(), state);
}

#[test]
fn new_node_at_used_address_displaces_the_old_node() {
    let mut state = with_nodes(1);
    let wiped = v1::RegisterNode { directory_id: directory(77), ..registration(1) };
    assert_eq!(run(&mut state, Kind::RegisterNode(wiped)), Ok(CommandReply::Node(NodeId(102))));
    assert_eq!(state.node(NodeId(101)).unwrap().state, NodeState::Down);
    assert_eq!(state.node(NodeId(102)).unwrap().state, NodeState::Up);
}

#[test]
fn restarted_compactor_leaves_one_record() {
    let mut state = with_nodes(1);
    let other = run(&mut state, Kind::RegisterNode(compactor(20, 2))).unwrap();
    assert_eq!(other, CommandReply::Node(NodeId(102)));
    let mut stored = StoredRows::of(&state);
    for number in 0..1_000 {
        let register = command(Kind::RegisterNode(compactor(1_000 + number, 1)));
        let (reply, effects) = apply(&mut state, Term(1), register).unwrap();
        stored.write(effects);
        assert_eq!(reply, CommandReply::Node(NodeId(103 + number)), "ids are never reused");
        // Every second record is removed before it is displaced.
        if number % 2 == 0 {
            let removed = NodeState::Removed.into();
            let set = v1::SetNodeState { node_id: 103 + number, state: removed };
            let set = command(Kind::SetNodeState(set));
            stored.write(apply(&mut state, Term(1), set).unwrap().1);
        }
    }
    let ids: Vec<_> = state.nodes().map(|node| node.id.get()).collect();
    assert_eq!(ids, [101, 102, 1_102]);
    assert_eq!(state.node_of_directory(Uuid::from_u128(1_500)), None);
    assert!(state.is_forgotten(NodeId(1_101)) && !state.is_forgotten(NodeId(1_102)));
    assert!(!state.is_forgotten(NodeId(1_103)), "the id was never assigned");
    assert!(!state.is_forgotten_group(state.header().next_group_id), "yet to be assigned");
    assert_eq!(stored, StoredRows::of(&state));
    let last = state.deltas_since((state.header().revision.get() - 1).into(), 1).unwrap();
    assert_eq!((&last[0].node_deletes[..], last[0].node_upserts.len()), (&[1_101][..], 1));
    assert_eq!(MetaState::from_rows(state.rows().unwrap()).unwrap(), state);
}

#[test]
fn record_of_a_down_compactor_expires_after_a_day() {
    let mut state = with_nodes(1);
    run(&mut state, Kind::RegisterNode(compactor(20, 1))).unwrap();
    run(&mut state, Kind::RegisterNode(compactor(21, 2))).unwrap();
    for node_id in [101, 102] {
        let down = v1::SetNodeState { node_id, state: NodeState::Down.into() };
        run(&mut state, Kind::SetNodeState(down)).unwrap();
    }
    let begun = state.header().time_ms;
    while state.header().time_ms <= begun + COMPACTOR_KEPT_MS {
        assert!(state.node(NodeId(102)).is_some());
        // One tick at a time; verifying the whole state each time would take minutes.
        let tick = command(Kind::AdvanceTime(v1::AdvanceTime { now_ms: u64::MAX, agreed_ms: 0 }));
        apply(&mut state, Term(1), tick).unwrap();
    }
    let ids: Vec<_> = state.nodes().map(|node| node.id.get()).collect();
    assert_eq!(ids, [101, 103], "data nodes and compactors that are up keep their records");
    let last = state.deltas_since((state.header().revision.get() - 1).into(), 1).unwrap();
    assert_eq!(last[0].node_deletes, [102]);
}

#[test]
fn compactor_never_sets_the_clusters_object_store() {
    let mut state = bootstrapped();
    let register = |compactor| Kind::RegisterNode(compactor);
    assert_eq!(
        run(&mut state, register(compactor(20, 1))),
        Err(CommandError::Node(NodeCommandError::ObjectStoreUnknown))
    );
    let silent = v1::RegisterNode { object_store_id: String::new(), ..compactor(21, 2) };
    run(&mut state, register(silent)).unwrap();
    assert_eq!(state.header().object_store_id, None);
    run(&mut state, Kind::RegisterNode(registration(1))).unwrap();
    run(&mut state, register(compactor(20, 1))).unwrap();
    let other = v1::RegisterNode { object_store_id: "other".into(), ..compactor(22, 3) };
    let refused = CommandError::Node(NodeCommandError::ObjectStoreMismatch {
        theirs: "other".into(),
        ours: "store".into(),
    });
    assert_eq!(refused.reason(), v1::Reason::ObjectStoreMismatch);
    assert_eq!(run(&mut state, register(other)), Err(refused));
    let unknown = Refusal::from(CommandError::Node(NodeCommandError::ObjectStoreUnknown));
    assert!(unknown.reason == v1::Reason::NoDataNodes && unknown.retry_after.is_some());
}

#[test]
fn invalid_registrations_are_rejected() {
    let mut state = with_nodes(1);
    let removed = v1::SetNodeState { node_id: 101, state: NodeState::Removed.into() };
    let good = registration(1);
    let cases = [
        (
            v1::RegisterNode { cluster_id: directory(5), ..good.clone() },
            CommandError::WrongCluster { theirs: directory(5), ours: cluster() },
        ),
        (
            v1::RegisterNode { directory_id: "no".into(), ..good.clone() },
            CommandError::Malformed("the directory id is not a UUID".into()),
        ),
        (
            v1::RegisterNode { role: NodeRole::Meta.into(), ..good.clone() },
            CommandError::Node(NodeCommandError::RoleCannotRegister),
        ),
        (
            v1::RegisterNode { role: NodeRole::Compactor.into(), ..good.clone() },
            CommandError::Node(NodeCommandError::RoleMismatch {
                node: NodeId(101),
                registered: NodeRole::Data,
                requested: NodeRole::Compactor,
            }),
        ),
        (
            v1::RegisterNode { address: "nowhere".into(), ..good.clone() },
            CommandError::Node(NodeCommandError::BadAddress("nowhere".into())),
        ),
        (
            v1::RegisterNode { object_store_id: String::new(), ..good.clone() },
            CommandError::Node(NodeCommandError::ObjectStoreRequired),
        ),
        (
            v1::RegisterNode { object_store_id: "other".into(), ..good.clone() },
            CommandError::Node(NodeCommandError::ObjectStoreMismatch {
                theirs: "other".into(),
                ours: "store".into(),
            }),
        ),
        (
            v1::RegisterNode { node_id: 102, ..good.clone() },
            CommandError::Node(NodeCommandError::WrongDirectory {
                claimed: NodeId(102),
                directory: Uuid::from_u128(1),
            }),
        ),
        (
            v1::RegisterNode { node_id: 101, ..registration(2) },
            CommandError::Node(NodeCommandError::WrongDirectory {
                claimed: NodeId(101),
                directory: Uuid::from_u128(2),
            }),
        ),
    ];
    for (bad, error) in cases {
        assert_eq!(run(&mut state, Kind::RegisterNode(bad)), Err(error));
    }
    run(&mut state, Kind::SetNodeState(removed)).unwrap();
    assert_eq!(
        run(&mut state, Kind::RegisterNode(good)),
        Err(CommandError::Node(NodeCommandError::NodeRemoved(NodeId(101))))
    );
}

#[test]
fn removed_node_stays_removed_and_keeps_its_id() {
    let mut state = with_nodes(2);
    let set =
        |to: NodeState| Kind::SetNodeState(v1::SetNodeState { node_id: 102, state: to.into() });
    run(&mut state, set(NodeState::Removed)).unwrap();
    let gone = Err(CommandError::Node(NodeCommandError::NodeAlreadyRemoved(NodeId(102))));
    assert_eq!(run(&mut state, set(NodeState::Up)), gone);
    let update = v1::UpdateNode { node_id: 102, address: "other:1".into() };
    assert_eq!(run(&mut state, Kind::UpdateNode(update)), gone);
    assert_eq!(
        run(&mut state, Kind::RegisterNode(registration(3))),
        Ok(CommandReply::Node(NodeId(103)))
    );
}

#[test]
fn commands_change_node_states_and_addresses() {
    let mut state = with_nodes(1);
    let set =
        |node_id, to: NodeState| Kind::SetNodeState(v1::SetNodeState { node_id, state: to.into() });
    run(&mut state, set(101, NodeState::Down)).unwrap();
    assert_eq!(state.node(NodeId(101)).unwrap().state, NodeState::Down);
    assert_eq!(
        run(&mut state, set(9, NodeState::Up)),
        Err(CommandError::Node(NodeCommandError::NodeNotFound(NodeId(9))))
    );
    assert_eq!(
        run(&mut state, set(101, NodeState::Unspecified)),
        Err(CommandError::Node(NodeCommandError::BadNodeState(NodeId(101))))
    );
    let update =
        |address: &str| Kind::UpdateNode(v1::UpdateNode { node_id: 101, address: address.into() });
    run(&mut state, update("other:1")).unwrap();
    assert_eq!(state.node(NodeId(101)).unwrap().address, "other:1");
    assert!(matches!(
        run(&mut state, update("x:0")),
        Err(CommandError::Node(NodeCommandError::BadAddress(_)))
    ));
}

#[test]
fn meta_nodes_follow_the_membership_entries() {
    let mut state = with_nodes(1);
    let members = |ids: &[u64]| ids.iter().map(|id| (NodeId(*id), format!("m:{id}"))).collect();
    let change = members_change(&state, &members(&[1, 2]));
    apply_change(&mut state, change).unwrap();
    assert_eq!(state.node(NodeId(2)).unwrap().address, "m:2");
    let change = members_change(&state, &members(&[1]));
    assert_eq!(change.nodes.len(), 1);
    apply_change(&mut state, change).unwrap();
    assert_eq!(state.node(NodeId(2)).unwrap().state, NodeState::Removed);
    assert_eq!(state.node(NodeId(101)).unwrap().state, NodeState::Up);
    assert_eq!(members_change(&state, &members(&[1])), CatalogChange::default());
    let set = v1::SetNodeState { node_id: 1, state: NodeState::Down.into() };
    assert_eq!(
        run(&mut state, Kind::SetNodeState(set)),
        Err(CommandError::Node(NodeCommandError::NodeNotFound(NodeId(1))))
    );
}

#[test]
fn group_of_up_nodes_is_activated_or_abandoned_once() {
    let mut state = with_nodes(3);
    let create = |members: &[u64]| {
        Kind::CreateGroup(v1::CreateGroup { first_members: members.to_vec(), home_groups: 0 })
    };
    for bad in [&[][..], &[101, 101], &[7], &[101; 8]] {
        assert!(matches!(
            run(&mut state, create(bad)),
            Err(CommandError::Group(GroupCommandError::FirstMembers(_)))
        ));
    }
    let down = v1::SetNodeState { node_id: 103, state: NodeState::Down.into() };
    run(&mut state, Kind::SetNodeState(down)).unwrap();
    assert!(matches!(
        run(&mut state, create(&[103])),
        Err(CommandError::Group(GroupCommandError::FirstMembers(_)))
    ));
    assert_eq!(run(&mut state, create(&[101, 102])), Ok(CommandReply::Group(GroupId(1))));
    assert_eq!(run(&mut state, create(&[102])), Ok(CommandReply::Group(GroupId(2))));
    let activate = |group_id| Kind::ActivateGroup(v1::ActivateGroup { group_id });
    let abandon = |group_id| Kind::AbandonGroup(v1::AbandonGroup { group_id });
    for _ in 0..2 {
        assert_eq!(run(&mut state, activate(1)), Ok(CommandReply::Done));
        assert_eq!(run(&mut state, abandon(2)), Ok(CommandReply::Done));
    }
    assert_eq!(
        run(&mut state, abandon(1)),
        Err(CommandError::Group(GroupCommandError::GroupState {
            group: GroupId(1),
            state: GroupState::Active
        }))
    );
    assert_eq!(
        run(&mut state, activate(2)),
        Err(CommandError::Group(GroupCommandError::GroupState {
            group: GroupId(2),
            state: GroupState::Abandoned
        }))
    );
    assert_eq!(
        run(&mut state, activate(3)),
        Err(CommandError::Group(GroupCommandError::GroupNotFound(GroupId(3))))
    );
    assert_eq!(
        run(&mut state, create(&[101])),
        Ok(CommandReply::Group(GroupId(3))),
        "id 2 belongs to an abandoned group"
    );
    let report = v1::ReportGroup {
        group_id: 2,
        term: 1,
        leader: 102,
        voters: vec![102],
        ..v1::ReportGroup::default()
    };
    assert_eq!(
        run(&mut state, Kind::ReportGroup(report)),
        Err(CommandError::Group(GroupCommandError::GroupState {
            group: GroupId(2),
            state: GroupState::Abandoned
        }))
    );
}

/// Leader, its term, voters and the index of the membership of group 1.
fn group_record(state: &MetaState) -> (u64, u64, Vec<u64>, u64) {
    let group = state.group(GroupId(1)).unwrap();
    let voters = group.voters.iter().map(|id| id.get()).collect();
    (group.leader.unwrap().get(), group.leader_term.get(), voters, group.membership.1.get())
}

#[test]
fn new_leader_with_an_older_membership_is_recorded() {
    let mut state = with_groups(3, 1);
    let report = |leader, term, index, voters: &[u64]| v1::ReportGroup {
        group_id: 1,
        term,
        leader,
        voters: voters.to_vec(),
        membership_term: 1,
        membership_index: index,
        ..v1::ReportGroup::default()
    };
    run(&mut state, Kind::ReportGroup(report(101, 2, 9, &[101, 102]))).unwrap();
    run(&mut state, Kind::ReportGroup(report(102, 3, 5, &[101, 102, 103]))).unwrap();
    assert_eq!(group_record(&state), (102, 3, vec![101, 102], 9));
    // A record that the leader itself contradicts is replaced as a whole.
    let right = report(101, 2, 5, &[101, 102, 103]);
    let corrects = v1::ReportGroup { replaces_term: Some(3), ..right };
    run(&mut state, Kind::ReportGroup(corrects)).unwrap();
    assert_eq!(group_record(&state), (101, 2, vec![101, 102, 103], 5));
}

#[test]
fn stale_group_reports_are_rejected() {
    let mut state = with_groups(3, 1);
    let report = |term, index| v1::ReportGroup {
        group_id: 1,
        term,
        leader: 101,
        voters: vec![101, 102],
        learners: vec![103],
        membership_term: 1,
        membership_index: index,
        replaces_term: None,
    };
    run(&mut state, Kind::ReportGroup(report(2, 5))).unwrap();
    let revision = state.header().revision;
    run(&mut state, Kind::ReportGroup(report(2, 5))).unwrap();
    assert_eq!(state.header().revision, revision);
    for stale in [report(1, 6), v1::ReportGroup { replaces_term: Some(1), ..report(1, 6) }] {
        assert_eq!(
            run(&mut state, Kind::ReportGroup(stale)),
            Err(CommandError::Group(GroupCommandError::StaleReport(GroupId(1))))
        );
    }
    for bad in [
        v1::ReportGroup { voters: vec![], ..report(3, 6) },
        v1::ReportGroup { leader: 0, ..report(3, 6) },
        v1::ReportGroup { learners: vec![101], ..report(3, 6) },
    ] {
        assert_eq!(
            run(&mut state, Kind::ReportGroup(bad)),
            Err(CommandError::Group(GroupCommandError::BadReport(GroupId(1))))
        );
    }
    let unknown = v1::ReportGroup { group_id: 9, ..report(3, 6) };
    assert_eq!(
        run(&mut state, Kind::ReportGroup(unknown)),
        Err(CommandError::Group(GroupCommandError::GroupNotFound(GroupId(9))))
    );
}

#[test]
fn table_is_created_activated_and_dropped() {
    let mut state = with_groups(3, 2);
    let request = v1::CreateTableRequest {
        hash_columns: vec!["a".into()],
        regions: 4,
        ..table(1, "flights")
    };
    assert_eq!(
        run(&mut state, Kind::CreateTable(request.clone())),
        Ok(CommandReply::Table(TableId(1)))
    );
    assert_eq!(state.catalog_version(), CatalogVersion(1));
    assert_eq!(state.next_route_id(), RegionId(5));
    let routes: Vec<_> = state.routes_of(TableId(1)).collect();
    let starts: Vec<_> = routes.iter().map(|route| route.start.clone()).collect();
    let prefixed = |vnode: u8| vec![0, 0, 0, 1, 0, vnode];
    assert_eq!(starts, [vec![0, 0, 0, 1], prefixed(64), prefixed(128), prefixed(192)]);
    assert_eq!(routes[3].end, Some(vec![0, 0, 0, 2]));
    let groups: Vec<_> = routes.iter().map(|route| route.group_id.get()).collect();
    assert_eq!(groups, [1, 2, 1, 2]);
    let schema = &state.table(TableId(1)).unwrap().schema;
    assert!(!schema.columns()[0].nullable && schema.columns()[2].nullable);

    // A repeated request, for example after a lost response.
    let before = state.clone();
    assert_eq!(run(&mut state, Kind::CreateTable(request)), Ok(CommandReply::Table(TableId(1))));
    assert_eq!(state, before);

    let activate = || Kind::ActivateTable(v1::ActivateTable { table_id: 1 });
    let finish = || Kind::FinishDropTable(v1::FinishDropTable { table_id: 1 });
    assert_eq!(
        run(&mut state, finish()),
        Err(CommandError::TableState { table: TableId(1), state: TableState::Creating })
    );
    for _ in 0..2 {
        assert_eq!(run(&mut state, activate()), Ok(CommandReply::Done));
    }
    assert_eq!(run(&mut state, drop_table(2, "flights")), Ok(CommandReply::Table(TableId(1))));
    assert_eq!(state.routes().count(), 0);
    assert_eq!(state.catalog_version(), CatalogVersion(2));
    assert_eq!(state.table(TableId(1)).unwrap().dropping.len(), 4);
    assert_eq!(
        run(&mut state, activate()),
        Err(CommandError::TableState { table: TableId(1), state: TableState::Dropping })
    );
    // The name is free immediately; ids are never reused.
    assert_eq!(
        run(&mut state, Kind::CreateTable(table(3, "flights"))),
        Ok(CommandReply::Table(TableId(2)))
    );
    assert_eq!(state.next_route_id(), RegionId(6));
    assert_eq!(run(&mut state, finish()), Ok(CommandReply::Done));
    assert_eq!(run(&mut state, finish()), Err(CommandError::TableIdNotFound(TableId(1))));
    assert_eq!(run(&mut state, drop_table(2, "flights")), Ok(CommandReply::Table(TableId(1))));
    assert!(state.table_named("flights").is_some());
}

#[test]
fn range_distributed_table_is_split_evenly() {
    let mut state = with_groups(1, 1);
    let request = v1::CreateTableRequest { regions: 2, ..table(1, "t") };
    run(&mut state, Kind::CreateTable(request)).unwrap();
    let routes: Vec<_> = state.routes_of(TableId(1)).collect();
    assert_eq!(routes[1].start, [0, 0, 0, 1, 0x80, 0]);
    run(&mut state, Kind::CreateTable(table(2, "u"))).unwrap();
    assert_eq!(state.routes_of(TableId(2)).count(), 1);
}

#[test]
fn invalid_tables_are_rejected() {
    let mut state = with_groups(1, 1);
    run(&mut state, Kind::CreateTable(table(1, "t"))).unwrap();
    let good = table(2, "u");
    let unknown = |what| CommandError::UnknownColumn { what, name: "z".into() };
    let mut typed = good.clone();
    typed.columns[1].r#type = "decimal".into();
    let cases = [
        (
            v1::CreateTableRequest { name: "t".into(), ..good.clone() },
            CommandError::TableExists("t".into()),
        ),
        (
            v1::CreateTableRequest { request_id: "no".into(), ..good.clone() },
            CommandError::Malformed("the request id is not a UUID".into()),
        ),
        (
            v1::CreateTableRequest { request_id: directory(1), ..good.clone() },
            CommandError::RequestIdReused(Uuid::from_u128(1)),
        ),
        (
            v1::CreateTableRequest { primary_key: vec!["z".into()], ..good.clone() },
            unknown("primary key column"),
        ),
        (
            v1::CreateTableRequest { hash_columns: vec!["z".into()], ..good.clone() },
            unknown("hash column"),
        ),
        (
            v1::CreateTableRequest { time_column: Some("z".into()), ..good.clone() },
            unknown("time column"),
        ),
        (
            v1::CreateTableRequest { primary_key: vec![], ..good.clone() },
            SchemaError::NoPrimaryKey.into(),
        ),
        (
            v1::CreateTableRequest { columns: vec![], primary_key: vec![], ..good.clone() },
            SchemaError::NoColumns.into(),
        ),
        (
            v1::CreateTableRequest { regions: 1_025, ..good.clone() },
            CommandError::Regions { requested: 1_025, max: 1_024 },
        ),
        (
            v1::CreateTableRequest {
                regions: 5,
                vnode_count: 4,
                hash_columns: vec!["a".into()],
                ..good.clone()
            },
            CommandError::Regions { requested: 5, max: 4 },
        ),
        (
            v1::CreateTableRequest { write_mode: 9, ..good.clone() },
            CommandError::Malformed("write mode 9 is unknown".into()),
        ),
    ];
    for (bad, error) in cases {
        assert_eq!(run(&mut state, Kind::CreateTable(bad)), Err(error));
    }
    for bad in [
        typed,
        v1::CreateTableRequest { name: String::new(), ..good.clone() },
        v1::CreateTableRequest { vnode_count: 7, ..good.clone() },
        v1::CreateTableRequest { ttl_ms: Some(1), ..good.clone() },
    ] {
        assert!(matches!(run(&mut state, Kind::CreateTable(bad)), Err(CommandError::Schema(_))));
    }
    assert_eq!(run(&mut state, drop_table(3, "zz")), Err(CommandError::TableNotFound("zz".into())));
    assert_eq!(
        run(&mut with_nodes(1), Kind::CreateTable(good)),
        Err(CommandError::Group(GroupCommandError::NoGroups))
    );
}

#[test]
fn exhausted_counters_reject_commands_without_a_change() {
    // States that commands cannot reach in practice.
    let grown = |key: &[u8], bytes: Vec<u8>| {
        let mut rows = with_groups(1, 1).rows().unwrap();
        rows.iter_mut().find(|row| row.0 == key).unwrap().1 = bytes;
        MetaState::from_rows(rows).unwrap()
    };
    let version_key = crate::catalog::catalog_version_key();
    let version = crate::catalog::encode_catalog_version(CatalogVersion(u64::MAX));
    assert_eq!(
        run(&mut grown(&version_key, version), Kind::CreateTable(table(1, "t"))),
        Err(RouteError::VersionOverflow.into())
    );
    let next_key = crate::catalog::catalog_next_route_id_key();
    let next = crate::catalog::encode_catalog_next_route_id(RegionId(u64::MAX));
    assert_eq!(
        run(&mut grown(&next_key, next), Kind::CreateTable(table(1, "t"))),
        Err(RouteError::RouteIdOverflow.into())
    );
}

#[test]
fn request_ids_expire_after_a_day_of_replicated_time() {
    let mut state = with_groups(1, 1);
    run(&mut state, Kind::CreateTable(table(1, "t"))).unwrap();
    let mut stored = StoredRows::of(&state);
    let start = state.header().time_ms;
    while state.header().time_ms <= start + OUTCOME_KEPT_MS {
        assert_eq!(state.outcome_count(), 1);
        // One tick at a time; verifying the whole state each time would take minutes.
        let tick = command(Kind::AdvanceTime(v1::AdvanceTime { now_ms: u64::MAX, agreed_ms: 0 }));
        let (_, effects) = apply(&mut state, Term(1), tick).unwrap();
        stored.write(effects);
    }
    assert_eq!(state.outcome_count(), 0);
    assert_eq!(stored, StoredRows::of(&state));
    assert_eq!(
        run(&mut state, Kind::CreateTable(table(1, "t"))),
        Err(CommandError::TableExists("t".into()))
    );
}

#[test]
fn number_of_request_ids_is_limited() {
    let mut state = with_groups(1, 1);
    run(&mut state, Kind::CreateTable(table(1, "t"))).unwrap();
    let mut rows = state.rows().unwrap();
    let outcome = rows.iter().find(|row| row.0.starts_with(b"meta/outcome/")).unwrap().1.clone();
    for number in 0..MAX_OUTCOMES as u128 - 1 {
        let id = Uuid::from_u128(1_000 + number);
        rows.push(([b"meta/outcome/".as_slice(), id.as_bytes()].concat(), outcome.clone()));
    }
    let mut state = MetaState::from_rows(rows).unwrap();
    let refused = apply(&mut state, Term(1), command(Kind::CreateTable(table(2, "u"))));
    assert_eq!(refused.unwrap_err(), CommandError::OutcomesFull(MAX_OUTCOMES));
    let repeated = apply(&mut state, Term(1), command(Kind::CreateTable(table(1, "t"))));
    assert_eq!(repeated.unwrap().0, CommandReply::Table(TableId(1)));
}

#[test]
fn node_below_level_4_is_home_of_one_group() {
    let mut state = with_nodes(3);
    let create = |rules, members: &[u64]| v1::MetaCommand {
        rules,
        ..command(Kind::CreateGroup(v1::CreateGroup {
            first_members: members.to_vec(),
            home_groups: 0,
        }))
    };
    let current = Rules::at(FeatureLevel::new(3)).0;
    let taken = |group| {
        Err(CommandError::Group(GroupCommandError::HomeTaken {
            home: NodeId(101),
            group: GroupId(group),
        }))
    };
    // The first command was committed after its deadline, and the leader planned the group again.
    let made = run_command(&mut state, create(current, &[101, 102, 103]));
    assert_eq!(made, Ok(CommandReply::Group(GroupId(1))));
    assert_eq!(run_command(&mut state, create(current, &[101, 102, 103])), taken(1));
    assert_eq!(run_command(&mut state, create(current, &[101])), taken(1));
    let other = run_command(&mut state, create(current, &[102, 101, 103]));
    assert_eq!(other, Ok(CommandReply::Group(GroupId(2))));
    run(&mut state, Kind::AbandonGroup(v1::AbandonGroup { group_id: 1 })).unwrap();
    let again = run_command(&mut state, create(current, &[101]));
    assert_eq!(again, Ok(CommandReply::Group(GroupId(3))));
    // The log of an older release.
    let older = run_command(&mut state, create(0, &[101]));
    assert_eq!(older, Ok(CommandReply::Group(GroupId(4))));
}
