//! Rejected requests and the reasons of their errors.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::Term;
use tidewater_common::refusal::Refusal;
use tidewater_events::NoRecorder;
use tidewater_proto::v1::{self, NodeRole, Reason, meta_command::Kind, watch_event::Event};
use tidewater_raft_store::DiskHealth;
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt;
use tonic::Status;

use super::cluster::{LIMIT, MetaCluster};
use super::data_nodes::{FakeDataNode, FakeDataNodes, register_request, voters};
use crate::catalog::MetaState;
use crate::commands::testing::directory;
use crate::group::MetaGroup;
use crate::leader::{
    GarbageOptions, LeaderEvents, LeaderTerm, LeaderTiming, PlacementOptions, Retention,
};
use crate::machine::CatalogView;

fn reason<T: std::fmt::Debug>(result: Result<T, Status>) -> Reason {
    Refusal::from_status(&result.unwrap_err()).reason
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_and_isolated_leaders_serve_no_stale_state() {
    let mut cluster = MetaCluster::bootstrapped(3).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let mut meta = cluster.meta(follower).await;
    let cluster_id = cluster.catalog().await.cluster_id;
    let heartbeat = v1::HeartbeatRequest { cluster_id, ..v1::HeartbeatRequest::default() };
    assert_eq!(reason(meta.heartbeat(heartbeat).await), Reason::NotLeader);
    assert_eq!(reason(meta.get_catalog(v1::GetCatalogRequest {}).await), Reason::NotLeader);
    let watch = v1::WatchRequest::default();
    assert_eq!(reason(meta.watch(watch).await), Reason::NotLeader);
    let mut admin = cluster.admin(follower).await;
    assert_eq!(reason(admin.cluster_status(v1::ClusterStatusRequest {}).await), Reason::NotLeader);
    let members = admin.list_meta_members(v1::ListMetaMembersRequest {}).await;
    assert_eq!(reason(members), Reason::NotLeader);

    // A leader without an answer from a quorum may have been deposed.
    let alone = cluster.nodes.remove(&leader).unwrap();
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.kill().await;
    }
    let deadline = Instant::now() + LIMIT;
    while alone.meta.leading().is_some() {
        assert!(Instant::now() < deadline, "the node still leads without a quorum");
        sleep(Duration::from_millis(50)).await;
    }
    alone.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_requests_are_rejected() {
    let mut cluster = MetaCluster::bootstrapped(1).await;
    let hosted = Arc::new(Mutex::new(FakeDataNodes::default()));
    let data = FakeDataNode::start(&cluster, 1, &hosted).await;
    let running = cluster.nodes[&1].meta.slot().get().unwrap();
    let cluster_id = running.group.cluster_id.to_string();
    let mut meta = cluster.meta(1).await;
    let heartbeat = |node_id| v1::HeartbeatRequest {
        cluster_id: cluster_id.clone(),
        node_id,
        role: NodeRole::Data.into(),
        ..v1::HeartbeatRequest::default()
    };
    let other = v1::HeartbeatRequest { cluster_id: directory(9), ..heartbeat(data.node_id) };
    assert_eq!(reason(meta.heartbeat(other).await), Reason::WrongCluster);
    assert_eq!(reason(meta.heartbeat(heartbeat(177)).await), Reason::NodeNotFound);
    assert_eq!(reason(meta.heartbeat(heartbeat(1)).await), Reason::NodeNotFound);
    let groups = vec![v1::GroupReport::default(); 10_001];
    let large = v1::HeartbeatRequest { groups, ..heartbeat(data.node_id) };
    assert_eq!(reason(meta.heartbeat(large).await), Reason::InvalidArgument);
    let registered = meta.register(register_request(2, "removed:1")).await.unwrap().into_inner();
    let node_id = registered.node_id;
    let removed = v1::SetNodeState { node_id, state: v1::NodeState::Removed.into() };
    running.group.propose(Kind::SetNodeState(removed)).await.unwrap();
    assert_eq!(reason(meta.heartbeat(heartbeat(node_id)).await), Reason::NodeRemoved);
    // A compactor that a restart has displaced has no record, and is rejected, too.
    let compactor = |number| v1::RegisterRequest {
        role: NodeRole::Compactor.into(),
        ..register_request(number, "compactor:1")
    };
    let displaced = meta.register(compactor(3)).await.unwrap().into_inner().node_id;
    // Its address is free once its heartbeats are missing.
    assert_eq!(reason(meta.register(compactor(4)).await), Reason::MemberExists);
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while let Err(status) = meta.register(compactor(4)).await {
        assert!(tokio::time::Instant::now() < until, "{status}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(reason(meta.heartbeat(heartbeat(displaced)).await), Reason::NodeRemoved);

    let mut admin = cluster.admin(1).await;
    let bench = v1::BenchCommandRequest { value: vec![0; 1024 * 1024 + 1].into() };
    assert_eq!(reason(admin.bench_command(bench).await), Reason::MessageTooLarge);
    cluster.wait_for("a group", |catalog| voters(catalog, 1) == 1).await;
    let transfer = |group_id, to_node| v1::TransferGroupLeaderRequest { group_id, to_node };
    let result = admin.transfer_group_leader(transfer(1, 177)).await;
    assert_eq!(reason(result), Reason::MemberNotFound);
    assert_eq!(reason(admin.transfer_group_leader(transfer(9, 101)).await), Reason::GroupNotFound);
    assert_eq!(reason(admin.transfer_group_leader(transfer(0, 7)).await), Reason::MemberNotFound);

    // A node with a full disk proposes no command.
    let group = &running.group;
    let (_full, health) = tokio::sync::watch::channel(DiskHealth::Full);
    let full = MetaGroup {
        cluster_id: group.cluster_id,
        node_id: group.node_id,
        raft: group.raft.clone(),
        confirmations: Arc::clone(&group.confirmations),
        view: group.view.clone(),
        health,
        comparison: Arc::clone(&group.comparison),
        addresses: Arc::clone(&group.addresses),
        clock: Arc::clone(&group.clock),
        max_clock_difference: group.max_clock_difference,
        max_level: None,
        joining: tokio::sync::Mutex::default(),
        timestamps: parking_lot::Mutex::default(),
    };
    let tick = || Kind::AdvanceTime(v1::AdvanceTime { now_ms: 1, agreed_ms: 0 });
    assert_eq!(full.propose(tick()).await.unwrap_err().reason, Reason::DiskFull);

    // Nor does a leader answer with the empty catalog from before the first command.
    let new = MetaGroup { view: CatalogView::new(MetaState::default()), ..full };
    assert_eq!(new.check_bootstrapped().unwrap_err().reason, Reason::NotBootstrapped);
    assert_eq!(group.check_bootstrapped(), Ok(()));

    // Apply rejects the decision of a leader service in another term.
    let retention = Retention { grace: LIMIT, hook_age: LIMIT, hook_versions: 1 };
    let garbage = GarbageOptions { interval: LIMIT, retention };
    let placement = PlacementOptions { settle: LIMIT, replace_after: LIMIT, groups_per_node: 1 };
    let timing =
        LeaderTiming::new(LIMIT, placement, garbage, crate::leader::BarrierOptions::default());
    let events = LeaderEvents { recorder: Arc::new(NoRecorder), recent: Arc::default() };
    let term = group.leading().unwrap();
    for (decided_term, expected) in [(Term(term.get() + 1), Err(Reason::NotLeader)), (term, Ok(()))]
    {
        let leader_term = LeaderTerm::new(
            decided_term,
            Arc::clone(&running.group),
            Arc::clone(&running.control),
            Arc::clone(&running.observations),
            timing.clone(),
            events.clone(),
        );
        let result = leader_term.command(tick()).await.map_err(|refusal| refusal.reason);
        assert_eq!(result, expected);
    }
    data.stop().await;
    cluster.nodes.remove(&1).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_of_another_cluster_is_refused() {
    let cluster = MetaCluster::bootstrapped(1).await;
    let running = cluster.nodes[&1].meta.slot().get().unwrap();
    let ours = running.group.cluster_id.to_string();
    let mut meta = cluster.meta(1).await;
    let watch = |cluster_id| v1::WatchRequest { cluster_id, ..v1::WatchRequest::default() };
    assert_eq!(reason(meta.watch(watch(directory(9))).await), Reason::WrongCluster);
    for accepted in [ours, String::new()] {
        meta.watch(watch(accepted)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_with_invalid_topics_or_revision_is_refused() {
    let cluster = MetaCluster::bootstrapped(1).await;
    let mut meta = cluster.meta(1).await;
    let snapshot = meta.get_catalog(v1::GetCatalogRequest {}).await.unwrap().into_inner();
    let unknown = v1::WatchRequest { topics: vec![1, 99], ..v1::WatchRequest::default() };
    assert_eq!(reason(meta.watch(unknown).await), Reason::InvalidArgument);
    let ahead = v1::WatchRequest {
        from_revision: snapshot.revision + 1_000,
        incarnation: snapshot.incarnation,
        ..v1::WatchRequest::default()
    };
    assert_eq!(reason(meta.watch(ahead).await), Reason::CatalogBehind);
    let nodes = v1::WatchRequest { topics: vec![1], ..v1::WatchRequest::default() };
    let mut events = meta.watch(nodes).await.unwrap().into_inner();
    let first = events.next().await.unwrap().unwrap().event;
    let Some(Event::Snapshot(watched)) = first else { panic!("{first:?}") };
    assert_eq!((watched.nodes.len(), watched.revision >= snapshot.revision), (1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn deposed_leader_ends_its_watches_and_restarts_its_timers() {
    let mut cluster = MetaCluster::bootstrapped(3).await;
    let first = cluster.leader().await;
    let second = (1..=3).find(|id| *id != first).unwrap();
    let watch = v1::WatchRequest::default();
    let mut events = cluster.meta(first).await.watch(watch).await.unwrap().into_inner();
    events.next().await.unwrap().unwrap();
    let transfer_leadership = async |from: u64, to: u64| {
        let transfer = || v1::TransferGroupLeaderRequest { group_id: 0, to_node: to };
        let deadline = Instant::now() + LIMIT;
        while cluster.admin(from).await.transfer_group_leader(transfer()).await.is_err() {
            assert!(Instant::now() < deadline, "leadership is not transferred to node {to}");
            sleep(Duration::from_millis(50)).await;
        }
        while cluster.nodes[&to].meta.leading().is_none() {
            assert!(Instant::now() < deadline, "node {to} does not lead");
            sleep(Duration::from_millis(10)).await;
        }
    };
    transfer_leadership(first, second).await;
    let end = tokio::time::timeout(LIMIT, async {
        loop {
            match events.next().await {
                Some(Ok(_)) => {}
                Some(Err(status)) => return Refusal::from_status(&status).reason,
                None => panic!("the watch ended without a reason"),
            }
        }
    });
    assert_eq!(end.await.unwrap(), Reason::NotLeader);

    // Every failure timer restarts with the term, also on a node that has led before.
    let begun = Instant::now();
    transfer_leadership(second, first).await;
    let running = cluster.nodes[&first].meta.slot().get().unwrap();
    let deadline = Instant::now() + LIMIT;
    loop {
        let now = Instant::now();
        if running.observations.snapshot(&[], now).leading_for <= now - begun {
            break;
        }
        assert!(now < deadline, "its timers continue from its earlier term");
        sleep(Duration::from_millis(10)).await;
    }
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}
