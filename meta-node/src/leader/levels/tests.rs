use tidewater_common::ids::BootNumber;
use tidewater_proto::v1::meta_command::Kind;

use super::*;
use crate::commands::testing::*;
use crate::commands::{apply_change, members_change};

/// A cluster with meta nodes 1 and 2, data nodes 101 and 102 that host group 1, and data node 103 without a
/// replica.
fn cluster() -> MetaState {
    let mut state = with_groups(2, 1);
    run(&mut state, Kind::RegisterNode(registration(3))).unwrap();
    let members = [(NodeId(1), "m:1".to_owned()), (NodeId(2), "m:2".to_owned())].into();
    let change = members_change(&state, &members);
    apply_change(&mut state, change).unwrap();
    state
}

fn reported(highest: u32) -> ReportedRelease {
    let highest = FeatureLevel::new(highest);
    ReportedRelease { release: Release { highest, ..Release::own() }, ..ReportedRelease::own(None) }
}

/// Reports of all nodes, which support the second level.
fn all() -> BTreeMap<NodeId, ReportedRelease> {
    [1, 2, 101, 102, 103].into_iter().map(|node| (NodeId(node), reported(2))).collect()
}

fn status(state: &MetaState, recent: &BTreeMap<NodeId, ReportedRelease>) -> LevelStatus {
    LevelStatus::new(state, recent, FeatureLevel::new(2))
}

/// Nodes that hold back the next level.
fn holders(status: &LevelStatus) -> Vec<(u64, HoldReason)> {
    let held = status.nodes.iter().filter_map(|node| Some((node.node.get(), node.hold.clone()?)));
    held.collect()
}

#[test]
fn level_is_raised_when_all_nodes_support_it() {
    let mut state = cluster();
    let started = v1::RegisterNode { boot: 6, start_id: directory(9), ..registration(1) };
    run(&mut state, Kind::RegisterNode(started)).unwrap();
    let mut recent = all();
    // Reports of an earlier and of an unknown later start.
    for boot in [0, 5, 7] {
        recent.get_mut(&NodeId(101)).unwrap().boot = BootNumber(boot);
        assert_eq!(holders(&status(&state, &recent)), [(101, HoldReason::Unreported)]);
    }
    recent.get_mut(&NodeId(101)).unwrap().boot = BootNumber(6);
    let raise = status(&state, &recent).due_raise().unwrap();
    assert_eq!(raise.level, 2);
    let named: Vec<_> = raise.nodes.iter().map(|node| (node.node_id, node.boot)).collect();
    assert_eq!(named, [(1, 0), (2, 0), (101, 6), (102, 0), (103, 0)]);
}

#[test]
fn unsupporting_node_holds_the_level_back() {
    let limited = ReportedRelease::own(Some(FeatureLevel::FIRST));
    let release = reported(1).release;
    for (node, report, expected) in [
        (1, Some(limited), HoldReason::Limited(FeatureLevel::FIRST)),
        (2, None, HoldReason::Unreported),
        (102, Some(reported(1)), HoldReason::Unsupported(release.clone())),
        (103, Some(reported(1)), HoldReason::Unsupported(release)),
        (103, None, HoldReason::Unreported),
    ] {
        let mut recent = all();
        recent.remove(&NodeId(node));
        recent.extend(report.map(|report| (NodeId(node), report)));
        let status = status(&cluster(), &recent);
        assert_eq!(holders(&status), [(node, expected)]);
        assert_eq!(status.due_raise(), None);
    }
}

#[test]
fn stopped_node_holds_the_level_while_it_has_replicas() {
    let mut state = cluster();
    for node_id in [102, 103] {
        let down = v1::SetNodeState { node_id, state: NodeState::Down.into() };
        run(&mut state, Kind::SetNodeState(down)).unwrap();
    }
    // Its report is recent, but it may start with another release.
    assert_eq!(holders(&status(&state, &all())), [(102, HoldReason::Down)]);
    let mut recent = all();
    recent.remove(&NodeId(103));
    let removed = v1::SetNodeState { node_id: 102, state: NodeState::Removed.into() };
    run(&mut state, Kind::SetNodeState(removed)).unwrap();
    let raise = status(&state, &recent).due_raise().unwrap();
    assert_eq!(raise.nodes.iter().map(|node| node.node_id).collect::<Vec<_>>(), [1, 2, 101]);
    run(&mut state, Kind::RaiseFeatureLevel(raise)).unwrap();
    assert_eq!(state.header().feature_level, FeatureLevel::new(2));
}

#[test]
fn returning_node_of_an_earlier_release_holds_the_level() {
    let mut state = cluster();
    let down = v1::SetNodeState { node_id: 103, state: NodeState::Down.into() };
    run(&mut state, Kind::SetNodeState(down)).unwrap();
    // Its first heartbeat has arrived, and the catalog does not have it as up yet.
    let mut recent = all();
    recent.insert(NodeId(103), reported(1));
    let held = status(&state, &recent);
    assert_eq!(holders(&held), [(103, HoldReason::Unsupported(reported(1).release))]);
    assert_eq!(held.due_raise(), None);
    recent.insert(NodeId(103), reported(2));
    let raise = status(&state, &recent).due_raise().unwrap();
    assert!(raise.nodes.iter().any(|node| node.node_id == 103));
}

#[test]
fn silent_meta_node_holds_the_level_back() {
    let mut state = cluster();
    raise_to_highest(&mut state);
    let down = v1::ObservedNode {
        node_id: 2,
        state: NodeState::Down.into(),
        ..v1::ObservedNode::default()
    };
    let observed_nodes = vec![down];
    let observed = v1::RecordObservations { observed_nodes, ..v1::RecordObservations::default() };
    run(&mut state, Kind::RecordObservations(observed)).unwrap();
    assert_eq!(state.node(NodeId(2)).unwrap().state, NodeState::Down);
    let next = FeatureLevel::HIGHEST.next();
    let mut recent: BTreeMap<_, _> =
        all().into_keys().map(|node| (node, reported(next.get()))).collect();
    assert_eq!(holders(&LevelStatus::new(&state, &recent, next)), []);
    recent.remove(&NodeId(2));
    let held = LevelStatus::new(&state, &recent, next);
    assert_eq!(holders(&held), [(2, HoldReason::Unreported)]);
}

#[test]
fn no_level_follows_the_highest_of_the_leader() {
    let later = all().into_keys().map(|node| (node, reported(9))).collect();
    let at = |highest| LevelStatus::new(&cluster(), &later, FeatureLevel::new(highest));
    assert_eq!(at(1).next, None);
    assert_eq!(at(1).due_raise(), None);
    // One level at a time.
    assert_eq!(at(5).due_raise().map(|raise| raise.level), Some(2));
    // A limit at or above the next level holds nothing back.
    let mut limited = all();
    limited.insert(NodeId(1), ReportedRelease::own(Some(FeatureLevel::new(2))));
    assert!(status(&cluster(), &limited).due_raise().is_some());
}
