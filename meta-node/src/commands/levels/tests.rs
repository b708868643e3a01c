use std::time::Duration;

use tidewater_common::feature_level::{Release, UnsupportedRelease};
use tidewater_common::ids::Term;

use super::*;
use crate::catalog::CatalogError;
use crate::commands::procedures::testing::{begin, complete};
use crate::commands::testing::*;
use crate::commands::{CommandReply, apply, apply_change, members_change};

fn level(number: u32) -> FeatureLevel {
    FeatureLevel::new(number)
}

/// A raise by a leader that has asked the nodes with these ids and starts.
fn raise_to(number: u32, nodes: &[(u64, u64)]) -> Kind {
    let nodes =
        nodes.iter().map(|(node_id, boot)| v1::SupportingNode { node_id: *node_id, boot: *boot });
    Kind::RaiseFeatureLevel(v1::RaiseFeatureLevel { level: number, nodes: nodes.collect() })
}

/// A cluster with meta node 1, data nodes 101 and 102 that host group 1, and compactor 103.
fn cluster() -> MetaState {
    let mut state = with_groups(2, 1);
    run(&mut state, Kind::RegisterNode(compactor(20, 1))).unwrap();
    let change = members_change(&state, &[(NodeId(1), "m:1".to_owned())].into());
    apply_change(&mut state, change).unwrap();
    state
}

const ALL: [(u64, u64); 4] = [(1, 0), (101, 0), (102, 0), (103, 0)];

fn raised() -> MetaState {
    let mut state = cluster();
    run(&mut state, raise_to(2, &ALL)).unwrap();
    assert_eq!(state.header().feature_level, level(2));
    state
}

#[test]
fn repeated_raise_changes_nothing() {
    let mut state = raised();
    let before = state.clone();
    // Of the same leader, of another one with another view, and of a lower level.
    for repeat in [raise_to(2, &ALL), raise_to(2, &[]), raise_to(1, &ALL), raise_to(0, &[])] {
        assert_eq!(run(&mut state, repeat), Ok(CommandReply::Done));
        assert_eq!(state, before);
    }
    // The second of two leaders in terms of their own.
    for term in [1, 2] {
        let decided = v1::MetaCommand { decided_term: term, ..command(raise_to(2, &ALL)) };
        assert!(apply(&mut state, Term(term), decided).is_ok());
    }
    assert_eq!(state, before);
}

#[test]
fn raise_names_every_node_that_must_support_it() {
    let missing =
        |state: &MetaState, nodes: &[(u64, u64)]| match run(&mut state.clone(), raise_to(2, nodes))
        {
            Ok(_) => None,
            Err(CommandError::LevelNotSupported { node, .. }) => Some(node.get()),
            Err(error) => panic!("{error}"),
        };
    let state = cluster();
    assert_eq!(missing(&state, &ALL), None);
    for (node, _) in ALL {
        let others: Vec<_> = ALL.into_iter().filter(|(id, _)| *id != node).collect();
        assert_eq!(missing(&state, &others), Some(node));
    }
    // Registered after the leader has asked.
    let mut joined = state.clone();
    run(&mut joined, Kind::RegisterNode(registration(7))).unwrap();
    assert_eq!(missing(&joined, &ALL), Some(104));
    // Started again after the leader has asked.
    let mut restarted = state.clone();
    let again = v1::RegisterNode { boot: 4, start_id: directory(9), ..registration(1) };
    run(&mut restarted, Kind::RegisterNode(again)).unwrap();
    assert_eq!(missing(&restarted, &ALL), Some(101));
    assert_eq!(missing(&restarted, &[(1, 0), (101, 4), (102, 0), (103, 0)]), None);
}

#[test]
fn node_without_replicas_counts_while_it_is_up() {
    let mut state = cluster();
    run(&mut state, Kind::RegisterNode(registration(7))).unwrap();
    let set = |node_id, state: NodeState| {
        Kind::SetNodeState(v1::SetNodeState { node_id, state: state.into() })
    };
    let counts = |state: &MetaState, id| must_support(state, state.node(NodeId(id)).unwrap());
    // (node, state, counts): 102 has replicas, 104 has none, 103 is a compactor.
    for (node, node_state, expected) in [
        (102, NodeState::Up, true),
        (102, NodeState::Down, true),
        (104, NodeState::Up, true),
        (104, NodeState::Down, false),
        (103, NodeState::Up, true),
        (103, NodeState::Down, false),
        (102, NodeState::Removed, false),
    ] {
        run(&mut state, set(node, node_state)).unwrap();
        assert_eq!(counts(&state, node), expected, "{node} {node_state:?}");
    }
    let removed = members_change(&state, &[(NodeId(2), "m:2".to_owned())].into());
    assert!(counts(&state, 1));
    apply_change(&mut state, removed).unwrap();
    assert!(!counts(&state, 1) && counts(&state, 2));
}

#[test]
fn command_above_the_level_is_rejected() {
    let mut state = cluster();
    for (kind, needed) in [(raise_to(3, &ALL), 2), (raise_to(9, &ALL), 8)] {
        assert_eq!(command_level(&kind), level(needed));
        let expected = CommandError::FeatureLevel { needed: level(needed), level: level(1) };
        // Its stamp does not matter.
        assert_eq!(run(&mut state, kind), Err(expected));
    }
}

#[test]
fn options_of_event_tables_need_their_level() {
    let windowed = v1::CreateTableRequest {
        write_mode: v1::WriteMode::AppendOnly.into(),
        time_column: Some("t".into()),
        compaction_window_ms: Some(86_400_000),
        ..table(1, "t")
    };
    let of_events = v1::CreateTableRequest { holds_events: true, ..table(2, "u") };
    let alter = v1::AlterTableRequest {
        request_id: directory(3),
        name: "t".into(),
        compaction_window_ms: Some(0),
        ..v1::AlterTableRequest::default()
    };
    let reserve = |definition: &v1::CreateTableRequest| {
        let definition = Some(v1::CreateTableRequest { regions: 0, ..definition.clone() });
        Kind::ReserveTable(v1::ReserveTableRequest { definition })
    };
    let alter_procedure = begin(v1::ProcedureKind::Alter, 3, &alter);
    let later = [
        Kind::CreateTable(windowed.clone()),
        Kind::CreateTable(of_events.clone()),
        reserve(&of_events),
        begin(v1::ProcedureKind::Create, 1, &windowed),
        begin(v1::ProcedureKind::Create, 2, &of_events),
        Kind::BeginAlterTable(alter),
        alter_procedure.clone(),
    ];
    let mut state = cluster();
    crate::commands::testing::raise_to(&mut state, FeatureLevel::EVENT_TABLES.previous());
    let before = state.clone();
    for kind in later {
        let needed = FeatureLevel::EVENT_TABLES;
        let expected = CommandError::FeatureLevel { needed, level: needed.previous() };
        assert_eq!(run(&mut state, kind), Err(expected));
        assert_eq!(state, before);
    }
    let plain = table(1, "t");
    assert_eq!(command_level(&Kind::CreateTable(plain.clone())), level(1));
    assert_eq!(command_level(&begin(v1::ProcedureKind::Create, 1, &plain)), level(3));
    crate::commands::testing::raise_to(&mut state, FeatureLevel::EVENT_TABLES);
    run(&mut state, begin(v1::ProcedureKind::Create, 1, &windowed)).unwrap();
    complete(&mut state, 1);
    let window = |state: &MetaState| state.table_named("t").unwrap().options.compaction_window;
    assert_eq!(window(&state), Some(Duration::from_secs(86_400)));
    run(&mut state, alter_procedure).unwrap();
    complete(&mut state, 3);
    complete(&mut state, 3);
    assert_eq!(window(&state), None);
    assert!(MetaState::from_rows(state.rows().unwrap()).is_ok_and(|reloaded| reloaded == state));
}

#[test]
fn observations_of_processes_need_their_level() {
    let observed = v1::ObservedNode {
        node_id: 101,
        state: NodeState::Down.into(),
        ..v1::ObservedNode::default()
    };
    let observed_nodes = vec![observed];
    let observed = v1::RecordObservations { observed_nodes, ..v1::RecordObservations::default() };
    let needed = FeatureLevel::EXACT_EVENTS;
    let mut state = cluster();
    crate::commands::testing::raise_to(&mut state, needed.previous());
    let before = state.clone();
    let expected = CommandError::FeatureLevel { needed, level: needed.previous() };
    assert_eq!(run(&mut state, Kind::RecordObservations(observed.clone())), Err(expected));
    assert_eq!(state, before);
    let none = v1::RecordObservations::default();
    assert_eq!(command_level(&Kind::RecordObservations(none)), level(2));
    crate::commands::testing::raise_to(&mut state, needed);
    run(&mut state, Kind::RecordObservations(observed)).unwrap();
    assert_eq!(state.node(NodeId(101)).unwrap().state, NodeState::Down);
}

#[test]
fn agreed_term_is_stored_from_its_level_on() {
    let mut state = cluster();
    let tick = |state: &mut MetaState, term, agreed_ms| {
        let tick = v1::AdvanceTime { now_ms: 0, agreed_ms };
        apply(state, Term(term), command(Kind::AdvanceTime(tick))).unwrap();
        state.header().agreed_term.get()
    };
    crate::commands::testing::raise_to(&mut state, FeatureLevel::EXACT_EVENTS.previous());
    assert_eq!(tick(&mut state, 2, 1_700_000_000_000), 0);
    crate::commands::testing::raise_to(&mut state, FeatureLevel::EXACT_EVENTS);
    assert_eq!(tick(&mut state, 2, 0), 0);
    // Also by an agreement that does not advance the time.
    assert_eq!(tick(&mut state, 2, 1), 2);
    assert_eq!(tick(&mut state, 3, 0), 2);
    assert_eq!(MetaState::from_rows(state.rows().unwrap()).as_ref(), Ok(&state));
    assert_eq!(tick(&mut state, 3, 1_700_000_001_000), 3);
}

#[test]
fn raise_above_the_release_is_an_error() {
    let mut state = raised();
    let highest = FeatureLevel::HIGHEST;
    for level in 3..=highest.get() {
        run(&mut state, raise_to(level, &ALL)).unwrap();
    }
    let beyond = highest.next();
    // All replicas reject it, and none stops.
    let error = run(&mut state, raise_to(beyond.get(), &ALL[1..])).unwrap_err();
    assert_eq!(error, CommandError::LevelNotSupported { level: beyond, node: NodeId(1) });
    let error = run(&mut state, raise_to(beyond.get(), &ALL)).unwrap_err();
    assert_eq!(error, CommandError::LevelAboveRelease(beyond));
    assert_eq!(state.header().feature_level, highest);
    // A state that another release has raised.
    state = MetaState::from_rows(state.rows().unwrap()).unwrap();
    let header = Header { feature_level: beyond, ..state.header().clone() };
    let change = CatalogChange { header: Some(header), ..CatalogChange::default() };
    apply_change(&mut state, change).unwrap();
    assert_eq!(
        MetaState::from_rows(state.rows().unwrap()),
        Err(CatalogError::LevelAboveRelease(beyond))
    );
}

#[test]
fn node_that_cannot_run_at_the_level_is_refused() {
    let info = |lowest_level, highest_level| {
        Some(v1::ReleaseInfo { release: "9".into(), lowest_level, highest_level })
    };
    let with = |release| Kind::RegisterNode(v1::RegisterNode { release, ..registration(1) });
    // At the first level, replicas of releases without levels accept every node.
    for release in [None, info(1, 1), info(2, 2), info(7, 9)] {
        assert!(run(&mut cluster(), with(release)).is_ok());
    }
    for (release, is_refused) in [
        (None, true),
        (info(1, 1), true),
        (info(1, 2), false),
        (info(2, 9), false),
        (info(3, 9), true),
        (Some((&Release::own()).into()), false),
    ] {
        let mut state = raised();
        let result = run(&mut state, with(release.clone()));
        let refused = matches!(result, Err(CommandError::Release(_)));
        assert_eq!(refused, is_refused, "{release:?}: {result:?}");
        assert_eq!(result.is_ok(), !is_refused, "{release:?}: {result:?}");
    }
    let release = Release::without_levels();
    let too_old = CommandError::Release(UnsupportedRelease::TooOld { release, cluster: level(2) });
    assert_eq!(too_old.reason(), v1::Reason::ReleaseUnsupported);
}

#[test]
fn raised_state_is_unreadable_to_earlier_releases() {
    // Releases without levels read the first codec of the header only.
    let header = |state: &MetaState| state.rows().unwrap()[0].clone();
    assert_eq!(header(&cluster()).1[0], 1);
    assert_eq!(header(&raised()).1[0], 2);
    let reloaded = MetaState::from_rows(raised().rows().unwrap()).unwrap();
    assert_eq!(reloaded, raised());
    // A header whose codec does not belong to its level.
    for (mut state, codec) in [(cluster(), 2), (raised(), 1)] {
        let mut rows = state.rows().unwrap();
        rows[0].1[0] = codec;
        let error = MetaState::from_rows(rows).unwrap_err();
        assert!(matches!(error, CatalogError::InvalidRecord { kind: "header", .. }), "{error}");
        run(&mut state, Kind::AdvanceTime(v1::AdvanceTime { now_ms: 9, agreed_ms: 0 })).unwrap();
    }
}
