//! Data nodes that take calls and do not answer them, or refuse them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::TableId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, GroupState, Reason, meta_command::Kind};
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, LIMIT};
use super::data_nodes::{DataNode, Hosted};
use crate::commands::testing::{directory, table};

/// More than are worked on at the same time.
const TABLES: u64 = 80;
/// As many as are worked on at the same time.
const AT_ONCE: usize = 32;

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_on_a_node_that_hangs_do_not_hold_up_groups() {
    let mut cluster = Cluster::bootstrapped(1).await;
    let hosted = Arc::new(Mutex::new(Hosted { hangs: true, ..Hosted::default() }));
    let first = DataNode::start(&cluster, 1, &hosted).await;
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
    until("all that may be are under way", || hosted.lock().asked >= AT_ONCE).await;

    let second = DataNode::start(&cluster, 2, &hosted).await;
    until("the second node gets its group", || hosted.lock().groups.contains_key(&2)).await;
    // Sooner than a single call was given up.
    let observed = running.observations.observed(&[], Instant::now());
    assert!(observed.table_errors.is_empty(), "{:?}", observed.table_errors);
    first.stop().await;
    second.stop().await;
    cluster.nodes.remove(&1).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_does_not_get_its_areas_is_given_up_in_time() {
    let mut cluster = Cluster::bootstrapped(1).await;
    let hosted = Arc::new(Mutex::new(Hosted { refuses_areas: true, ..Hosted::default() }));
    let data = DataNode::start(&cluster, 1, &hosted).await;
    cluster.create_table(table(1, "t")).await.unwrap();
    let (request_id, name) = (directory(2), "t".to_owned());
    let begin = v1::BeginLoadRequest { request_id, name, timeout_ms: 1_000 };
    let refused = cluster.admin(1).await.begin_load(begin).await.unwrap_err();
    let refused = Refusal::from_status(&refused);
    assert_eq!(refused.reason, Reason::LoadEnded, "{refused}");
    // The table is free again, as soon as the regions have given up what they have.
    let running = cluster.nodes[&1].meta.slot().get().unwrap();
    until("the load is over", || {
        let table = running.group.view.read().table(TableId(1)).cloned();
        table.is_some_and(|table| table.change.is_none())
    })
    .await;
    let steps: Vec<u32> = hosted.lock().changes.iter().map(|(_, step)| step.step).collect();
    assert!(!steps.is_empty() && steps.iter().all(|step| *step == 2), "{steps:?}");
    data.stop().await;
    cluster.nodes.remove(&1).unwrap().stop().await;
}
