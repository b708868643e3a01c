//! Data nodes that do not answer calls, or reject them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::TableId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, GroupState, Reason, meta_command::Kind};
use tokio::time::{Instant, sleep};

use super::cluster::{LIMIT, MetaCluster};
use super::data_nodes::{FakeDataNode, FakeDataNodes};
use crate::commands::testing::{directory, table};

/// More tables than the leader processes concurrently.
const TABLES: u64 = 80;
/// Number of tables that the leader processes concurrently.
const MAX_CONCURRENT_TABLES: usize = 32;

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_on_a_hanging_node_do_not_delay_groups() {
    let mut cluster = MetaCluster::bootstrapped(1).await;
    let hosted = Arc::new(Mutex::new(FakeDataNodes { hangs: true, ..FakeDataNodes::default() }));
    let first = FakeDataNode::start(&cluster, 1, &hosted).await;
    let active = i32::from(GroupState::Active);
    cluster
        .wait_for("a group", |catalog| catalog.groups.iter().any(|group| group.state == active))
        .await;
    let running = cluster.nodes[&1].meta.slot().get().unwrap();
    for number in 0..TABLES {
        let create =
            v1::CreateTableRequest { regions: 1, ..table(100 + number, &format!("t{number}")) };
        running.group.propose(Kind::CreateTable(create)).await.unwrap();
    }
    until("the maximum of concurrent calls", || hosted.lock().open_calls >= MAX_CONCURRENT_TABLES)
        .await;

    let second = FakeDataNode::start(&cluster, 2, &hosted).await;
    until("the second node gets its group", || hosted.lock().groups.contains_key(&2)).await;
    // Before the first call has timed out.
    let observed = running.observations.snapshot(&[], Instant::now());
    assert!(observed.table_errors.is_empty(), "{:?}", observed.table_errors);
    first.stop().await;
    second.stop().await;
    cluster.nodes.remove(&1).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn load_without_staging_areas_is_abandoned_at_its_deadline() {
    let mut cluster = MetaCluster::bootstrapped(1).await;
    let hosted =
        Arc::new(Mutex::new(FakeDataNodes { rejects_areas: true, ..FakeDataNodes::default() }));
    let data = FakeDataNode::start(&cluster, 1, &hosted).await;
    cluster.create_table(table(1, "t")).await.unwrap();
    let begin =
        v1::BeginLoadRequest { request_id: directory(2), name: "t".to_owned(), timeout_ms: 1_000 };
    let status = cluster.admin(1).await.begin_load(begin).await.unwrap_err();
    let refusal = Refusal::from_status(&status);
    assert_eq!(refusal.reason, Reason::LoadEnded, "{refusal}");
    // The table accepts changes again when the regions have abandoned their staging areas.
    let running = cluster.nodes[&1].meta.slot().get().unwrap();
    until("the load has ended", || {
        let table = running.group.view.read().table(TableId(1)).cloned();
        table.is_some_and(|table| table.change.is_none())
    })
    .await;
    let steps: Vec<u32> = hosted.lock().changes.iter().map(|(_, step)| step.step).collect();
    assert!(!steps.is_empty() && steps.iter().all(|step| *step == 2), "{steps:?}");
    data.stop().await;
    cluster.nodes.remove(&1).unwrap().stop().await;
}
