//! Data nodes that do not answer calls, or reject them.

use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::TableId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, GroupState, ProcedureKind, Reason, TableState};
use tokio::time::Instant;

use super::cluster::{MetaCluster, until};
use super::data_nodes::{FakeDataNode, FakeDataNodes};
use crate::commands::procedures::testing::begin;
use crate::commands::testing::{directory, table};
use crate::leader::MAX_CALLS_PER_GROUP;

/// More tables than the leader has permits of any kind.
const TABLES: u64 = 80;

#[tokio::test(flavor = "multi_thread")]
async fn tables_on_a_hanging_node_delay_nothing_else() {
    let mut cluster = MetaCluster::bootstrapped(1).await;
    let hanging = [101].into();
    let hosted = Arc::new(Mutex::new(FakeDataNodes { hanging, ..FakeDataNodes::default() }));
    let first = FakeDataNode::start(&cluster, 1, &hosted).await;
    let active_groups = |catalog: &v1::CatalogSnapshot| {
        let active = i32::from(GroupState::Active);
        catalog.groups.iter().filter(|group| group.state == active).count()
    };
    cluster.wait_for("a group", |catalog| active_groups(catalog) == 1).await;
    let running = cluster.nodes[&1].meta.slot().get().unwrap();
    until("the level of procedures", || {
        running.group.view.read().header().feature_level == FeatureLevel::HIGHEST
    })
    .await;
    let create = |number: u64| {
        let name = format!("t{number}");
        let request = v1::CreateTableRequest { regions: 1, ..table(100 + number, &name) };
        begin(ProcedureKind::Create, 100 + number, &request)
    };
    for number in 0..TABLES {
        running.group.propose(create(number)).await.unwrap();
    }
    until("the maximum of concurrent calls", || hosted.lock().open_calls >= MAX_CALLS_PER_GROUP)
        .await;

    // Neither the repair of groups nor a table on another node waits for the calls that hang.
    let second = FakeDataNode::start(&cluster, 2, &hosted).await;
    cluster.wait_for("the second node's group", |catalog| active_groups(catalog) == 2).await;
    running.group.propose(create(TABLES)).await.unwrap();
    let is_active = || {
        let state = running.group.view.read();
        let created = state.table_named(&format!("t{TABLES}"));
        created.is_some_and(|table| table.state == TableState::Active)
    };
    until("the table on the second node is active", is_active).await;
    // Before the first call has timed out.
    let observed = running.observations.snapshot(&[], Instant::now());
    assert!(observed.table_errors.is_empty(), "{:?}", observed.table_errors);
    assert_eq!(hosted.lock().open_calls, MAX_CALLS_PER_GROUP + 1);
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
    let running = cluster.nodes[&1].meta.slot().get().unwrap();
    until("the level of procedures", || {
        running.group.view.read().header().feature_level == FeatureLevel::HIGHEST
    })
    .await;
    cluster.create_table(table(1, "t")).await.unwrap();
    let begin =
        v1::BeginLoadRequest { request_id: directory(2), name: "t".to_owned(), timeout_ms: 1_000 };
    let status = cluster.admin(1).await.begin_load(begin).await.unwrap_err();
    let refusal = Refusal::from_status(&status);
    assert_eq!(refusal.reason, Reason::LoadEnded, "{refusal}");
    // The table accepts changes again when the regions have abandoned their staging areas.
    until("the load has ended", || {
        let state = running.group.view.read();
        let changes = state.table(TableId(1)).is_some_and(|table| table.change.is_some());
        !changes && state.procedures().running().count() == 0
    })
    .await;
    let steps: Vec<u32> = hosted.lock().changes.iter().map(|(_, step)| step.step).collect();
    assert!(!steps.is_empty() && steps.iter().all(|step| *step == 2), "{steps:?}");
    data.stop().await;
    cluster.nodes.remove(&1).unwrap().stop().await;
}
