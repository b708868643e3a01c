//! Events that meta nodes record.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_events::{RecordedEvent, Value};
use tidewater_proto::v1::procedures_client::ProceduresClient;
use tidewater_proto::v1::{self, Reason, meta_command::Kind};
use tokio::time::{Instant, sleep};

use super::cluster::{LIMIT, MetaCluster};
use super::data_nodes::{FakeDataNode, FakeDataNodes};
use crate::catalog_events::testing::{NOW_MS, text, value};
use crate::commands::testing::directory;

/// Events of a type that a node has recorded.
fn recorded(cluster: &MetaCluster, node: u64, event_type: &str) -> Vec<RecordedEvent> {
    let events = cluster.recorders[&node].events().into_iter();
    events.filter(|event| event.event_type == event_type).collect()
}

/// Waits until a node has recorded an event about the node with this id.
async fn wait_for(
    cluster: &MetaCluster,
    node: u64,
    event_type: &str,
    subject: u64,
) -> RecordedEvent {
    let deadline = Instant::now() + LIMIT;
    loop {
        let mut events = recorded(cluster, node, event_type).into_iter();
        let is_of = |event: &RecordedEvent| value(event, "node_id") == Value::UInt64(subject);
        if let Some(event) = events.find(is_of) {
            return event;
        }
        assert!(Instant::now() < deadline, "node {node} records no {event_type} of {subject}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_records_calls_that_change_the_cluster() {
    let mut cluster = MetaCluster::bootstrapped(3).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let drop_table =
        v1::DropTableRequest { request_id: directory(1), name: "t".into(), table_id: 0 };
    for (node, expected) in [(follower, Reason::NotLeader), (leader, Reason::TableNotFound)] {
        let refused = cluster.admin(node).await.drop_table(drop_table.clone()).await.unwrap_err();
        assert_eq!(Refusal::from_status(&refused).reason, expected);
    }
    let mut admin = cluster.admin(leader).await;
    admin.cluster_status(v1::ClusterStatusRequest {}).await.unwrap();
    admin.list_meta_members(v1::ListMetaMembersRequest {}).await.unwrap();
    admin.get_balance(v1::GetBalanceRequest {}).await.unwrap();
    let mut procedures = ProceduresClient::new(cluster.channel(leader).await);
    procedures.list_procedures(v1::ListProceduresRequest::default()).await.unwrap();

    assert_eq!(recorded(&cluster, follower, "admin_call"), []);
    let calls = recorded(&cluster, leader, "admin_call");
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!((text(call, "call"), text(call, "subject")), ("DropTable".into(), "t".into()));
    assert_eq!(text(call, "outcome"), "failed");
    assert!(text(call, "cause").contains("does not exist"), "{call:?}");
    assert!(text(call, "caller").starts_with("127.0.0.1:"), "{call:?}");
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transfer_is_the_cause_of_a_leader_change() {
    let mut cluster = MetaCluster::bootstrapped(3).await;
    let leader = cluster.leader().await;
    let next = (1..=3).find(|id| *id != leader).unwrap();
    cluster.wait_equal().await;
    let group = cluster.nodes[&leader].meta.slot().get().unwrap().group;
    group.transfer_to(NodeId(next)).await.unwrap();
    let changed = wait_for(&cluster, next, "leader_changed", next).await;
    assert_eq!(text(&changed, "cause"), "the former leader transferred its leadership");
    assert_eq!(value(&changed, "former_node_id"), Value::UInt64(leader));
    drop(group);
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_leader_records_recent_events_again() {
    let mut cluster = MetaCluster::bootstrapped(3).await;
    let hosted = Arc::new(Mutex::new(FakeDataNodes::default()));
    let data = FakeDataNode::start(&cluster, 1, &hosted).await;
    let leader = cluster.leader().await;
    wait_for(&cluster, leader, "leader_changed", leader).await;
    // The clocks of the fake nodes are unknown.
    let agreed = v1::AdvanceTime { now_ms: NOW_MS, agreed_ms: NOW_MS };
    let group = cluster.nodes[&leader].meta.slot().get().unwrap().group;
    group.propose(Kind::AdvanceTime(agreed)).await.unwrap();
    let first = wait_for(&cluster, leader, "node_up", data.node_id).await;
    assert_eq!(first.timestamp_ns, NOW_MS as i64 * 1_000_000);
    assert_eq!(text(&first, "node_kind"), "data");
    cluster.wait_equal().await;

    drop(group);
    cluster.nodes.remove(&leader).unwrap().kill().await;
    let next = cluster.leader().await;
    let changed = wait_for(&cluster, next, "leader_changed", next).await;
    let cause = text(&changed, "cause");
    // Another election may have failed before.
    assert!(cause.contains("was silent") || cause.contains("unknown"), "{cause}");
    assert_eq!(wait_for(&cluster, next, "node_up", data.node_id).await, first);
    let mut terms = BTreeSet::new();
    for event in (1..=3).flat_map(|node| recorded(&cluster, node, "leader_changed")) {
        let Value::UInt64(term) = value(&event, "term") else { panic!("{event:?}") };
        assert!(terms.insert(term), "term {term} is recorded twice");
        assert_eq!(value(&event, "group_id"), Value::UInt64(0));
    }
    data.stop().await;
    for (_, node) in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
}
