//! Start, restart, failover and catch-up of meta nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, NodeState, Reason, watch_event::Event};
use tokio::time::timeout;

use super::cluster::{LIMIT, MetaCluster, free_address, serve};
use super::data_nodes::{FakeDataNode, FakeDataNodes, register_request, voters};
use crate::commands::testing::{directory, table};
use crate::{Bootstrap, MetaError};

#[tokio::test(flavor = "multi_thread")]
async fn standalone_node_keeps_its_catalog_across_a_restart() {
    let mut cluster = MetaCluster::new(1);
    cluster.start(1, Bootstrap::IfEmpty).await;
    let hosted = Arc::new(Mutex::new(FakeDataNodes::default()));
    let data = FakeDataNode::start(&cluster, 1, &hosted).await;
    assert_eq!(data.node_id, 101);
    let made = cluster.create_table(table(1, "t")).await.unwrap();
    assert_eq!(made.state, i32::from(v1::TableState::Active));
    assert_eq!(hosted.lock().regions.len(), 1);
    let exists = cluster.create_table(table(2, "t")).await.unwrap_err();
    assert_eq!(exists.reason, Reason::TableExists);
    cluster.wait_for("one voter", |catalog| voters(catalog, 1) == 1).await;
    let status = cluster.status().await;
    assert!(status.healthy, "{:?}", status.problems);
    let before = cluster.catalog().await;

    cluster.nodes.remove(&1).unwrap().stop().await;
    let again = serve(cluster.options(1, Bootstrap::Once), &free_address()).await;
    assert!(matches!(again.err(), Some(MetaError::AlreadyBootstrapped { .. })));
    cluster.start(1, Bootstrap::IfEmpty).await;
    let after = cluster.catalog().await;
    assert_eq!((before.cluster_id, before.tables), (after.cluster_id, after.tables));

    let dropped = v1::DropTableRequest { request_id: directory(3), name: "t".into(), table_id: 0 };
    cluster
        .retry(|leader| {
            let dropped = dropped.clone();
            let cluster = &cluster;
            async move { cluster.admin(leader).await.drop_table(dropped).await }
        })
        .await
        .unwrap();
    assert_eq!(hosted.lock().regions.len(), 0);
    let index = cluster
        .retry(|leader| {
            let value = vec![7u8; 256].into();
            let cluster = &cluster;
            async move {
                cluster.admin(leader).await.bench_command(v1::BenchCommandRequest { value }).await
            }
        })
        .await
        .unwrap();
    assert!(index.log_index > 0);
    data.stop().await;
    cluster.nodes.remove(&1).unwrap().stop().await;
}

/// Proposes this many commands to the only node of a cluster.
async fn propose(cluster: &MetaCluster, commands: usize) {
    let group = cluster.nodes[&1].meta.slot().get().unwrap().group;
    let proposals = (0..commands).map(|_| group.bench(Bytes::from_static(b"command")));
    let mut proposals = futures::stream::iter(proposals).buffer_unordered(512);
    while let Some(proposed) = proposals.next().await {
        proposed.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_is_due_by_entries_before_a_restart() {
    let mut cluster = MetaCluster::new(1);
    cluster.start(1, Bootstrap::IfEmpty).await;
    cluster.leader().await;
    propose(&cluster, 6_000).await;
    cluster.nodes.remove(&1).unwrap().stop().await;
    cluster.start(1, Bootstrap::IfEmpty).await;
    cluster.leader().await;
    let group = cluster.nodes[&1].meta.slot().get().unwrap().group;
    let mut metrics = group.raft.metrics();
    assert_eq!(metrics.borrow_watched().snapshot, None);
    propose(&cluster, 5_000).await;
    let built = async {
        while metrics.borrow_watched().snapshot.is_none_or(|id| id.index <= 10_000) {
            metrics.changed().await.unwrap();
        }
    };
    timeout(LIMIT, built).await.unwrap();
    cluster.nodes.remove(&1).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_keeps_its_catalog_across_a_failover() {
    let mut cluster = MetaCluster::bootstrapped(3).await;
    let hosted = Arc::new(Mutex::new(FakeDataNodes::default()));
    let first = FakeDataNode::start(&cluster, 1, &hosted).await;
    let made = cluster.create_table(table(1, "t")).await.unwrap();
    // A follower returns a hint to the leader.
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let refused =
        cluster.meta(follower).await.register(register_request(9, "a:1")).await.unwrap_err();
    let refusal = Refusal::from_status(&refused);
    assert_eq!(refusal.reason, Reason::NotLeader);
    assert_eq!(refusal.leader.unwrap().address, cluster.peers[&NodeId(leader)]);

    // A watcher receives a snapshot, then every change, and continues at the next leader.
    let request = v1::WatchRequest::default();
    let mut watch = cluster.meta(leader).await.watch(request).await.unwrap().into_inner();
    let Some(Event::Snapshot(snapshot)) = watch.next().await.unwrap().unwrap().event else {
        panic!("a snapshot comes first")
    };
    assert_eq!(snapshot.tables[0].name, "t");
    let mut revision = snapshot.revision;

    // Groups grow as nodes join.
    let second = FakeDataNode::start(&cluster, 2, &hosted).await;
    let third = FakeDataNode::start(&cluster, 3, &hosted).await;
    cluster.wait_for("three voters", |catalog| voters(catalog, 1) == 3).await;
    while let Ok(event) = timeout(Duration::from_millis(200), watch.next()).await {
        match event.unwrap().unwrap().event {
            Some(Event::Delta(delta)) => {
                assert_eq!(delta.revision, revision + 1);
                revision = delta.revision;
            }
            Some(Event::CurrentRevision(current)) => assert_eq!(current, revision),
            other => panic!("{other:?}"),
        }
    }

    cluster.nodes.remove(&leader).unwrap().kill().await;
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    let again = cluster.create_table(table(1, "t")).await.unwrap();
    assert_eq!(again, made, "a repeated request has the same outcome");
    cluster.create_table(table(2, "u")).await.unwrap();
    let request = v1::WatchRequest {
        from_revision: revision,
        incarnation: snapshot.incarnation,
        cluster_id: snapshot.cluster_id,
        ..v1::WatchRequest::default()
    };
    let mut watch = cluster.meta(next).await.watch(request).await.unwrap().into_inner();
    let Some(Event::Delta(delta)) = watch.next().await.unwrap().unwrap().event else {
        panic!("the new leader continues with deltas")
    };
    assert_eq!(delta.revision, revision + 1);

    cluster.start(leader, Bootstrap::Never).await;
    cluster.wait_equal().await;
    for data in [first, second, third] {
        data.stop().await;
    }
    let down = i32::from(NodeState::Down);
    cluster
        .wait_for("all data nodes down", |catalog| {
            catalog.nodes.iter().filter(|node| node.state == down).count() == 3
        })
        .await;
    let status = cluster.status().await;
    assert!(status.problems.iter().any(|text| text.contains("is down")), "{:?}", status.problems);
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lagging_member_receives_a_snapshot() {
    let mut cluster = MetaCluster::bootstrapped(3).await;
    let leader = cluster.leader().await;
    let lagging = (1..=3).find(|id| *id != leader).unwrap();
    cluster.nodes.remove(&lagging).unwrap().stop().await;
    let group = cluster.nodes[&leader].meta.slot().get().unwrap().group;
    cluster
        .retry(|leader| {
            let cluster = &cluster;
            async move { cluster.meta(leader).await.register(register_request(1, "a:1")).await }
        })
        .await
        .unwrap();
    let index = group.bench(vec![0u8; 16].into()).await.unwrap();
    group.raft.trigger().snapshot().await.unwrap();
    let wait = group.raft.wait(Some(LIMIT));
    wait.metrics(|m| m.snapshot.is_some_and(|id| id.index >= index), "snapshot").await.unwrap();
    group.raft.trigger().purge_log(index).await.unwrap();
    let wait = group.raft.wait(Some(LIMIT));
    wait.metrics(|m| m.purged.is_some_and(|id| id.index >= index), "purged").await.unwrap();

    cluster.start(lagging, Bootstrap::Never).await;
    cluster.wait_equal().await;
    // The installed state survives a restart.
    cluster.nodes.remove(&lagging).unwrap().stop().await;
    cluster.start(lagging, Bootstrap::Never).await;
    cluster.wait_equal().await;
    let catalog = cluster.nodes[&lagging].meta.slot().get().unwrap().group.view.read();
    assert_eq!(catalog.node(NodeId(101)).unwrap().address, "a:1");
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}
