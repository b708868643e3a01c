//! Spools: they keep events while there is no table, and a damaged one stops no node.

use std::path::PathBuf;

use serde_json::{Value, json};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::node::Node;
use tidewater_cluster_tests::{HarnessError, Result};

use super::recorder::Recorder;
use super::table::{EventTable, now_ns, time_of};
use crate::hooks::load;
use crate::quiet_start::expect_quiet_start;
use crate::support::{wait_for_kind, wait_for_level};

/// Returns the directory of a node's spool.
pub(super) fn spool_of(node: &Node) -> PathBuf {
    node.spec.data_dir.clone().unwrap_or_default().join("events").join("spool")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_wait_until_data_nodes_are_up() -> Result<()> {
    let mut cluster = ClusterPlan::default().events().prepare().await?;
    cluster.start_with(0).await?;
    let mut recorder = Recorder::start(&cluster, &cluster.directory().join("recorder"))?;
    let payload = json!({ "before": "the data nodes" });
    recorder.record(&json!({ "type": "early", "payload": payload })).await?;
    // An administrative call that fails.
    cluster.run(&["table", "drop", "nothing"]).await?.status(3)?;
    let table = EventTable::connect(&cluster).await?;
    let rows = table.rows().await.map_err(HarnessError::violated)?;
    assert!(rows.is_empty(), "{rows:?}");
    let before = now_ns();
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    let early = table.wait_for("the early event", |row| row["type"] == "early").await?;
    assert_eq!(early["payload"], payload);
    assert!(time_of(&early) < before, "{early}");
    let is_call = |row: &Value| row["type"] == "admin_call" && row["subject"] == "nothing";
    let call = table.wait_for("the administrative call", is_call).await?;
    assert_eq!((&call["call"], &call["outcome"]), (&json!("DropTable"), &json!("failed")));
    assert!(time_of(&call) < before, "{call}");
    // The first leader of the meta nodes.
    let is_first = |row: &Value| row["type"] == "leader_changed" && row["group_id"] == 0;
    table.wait_for("the meta leader", is_first).await?;
    recorder.end().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_spool_stops_no_node() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(3, 1, 0).events().start().await?;
    wait_for_level(&cluster).await?;
    let table = EventTable::connect(&cluster).await?;
    table.wait_for("a first event", |_| true).await?;
    cluster.create_log_table().await?;
    let (leader, _) = cluster.meta_leader().await?;
    let follower = (leader + 1) % cluster.meta.len();
    let data = cluster.node_id(&cluster.data[0].spec).await?;
    let meta = cluster.node_id(&cluster.meta[follower].spec).await?;
    let mut spools = Vec::new();
    for (id, node) in [(data, &mut cluster.data[0]), (meta, &mut cluster.meta[follower])] {
        node.terminate().await?;
        let spool = spool_of(node);
        std::fs::write(spool.join("CURRENT"), "MANIFEST-999999 of another spool\n")
            .map_err(HarnessError::io("damage the spool"))?;
        node.start().await?;
        spools.push((id, spool));
    }
    for (id, spool) in &spools {
        let is_of_node = |problem: &Value| problem["node_id"] == *id;
        let problem = wait_for_kind(&cluster, "events_not_recorded", is_of_node).await?;
        println!("{problem}");
        assert!(problem["detail"].to_string().contains(&spool.display().to_string()), "{problem}");
    }
    load(&cluster, 0).await?;
    assert_eq!(cluster.count(LOG_TABLE).await?, 100);
    for (id, spool) in &spools {
        let aside = cluster.directory().join(format!("damaged-spool-{id}"));
        std::fs::rename(spool, &aside).map_err(HarnessError::io("move the spool away"))?;
    }
    // Without a restart.
    cluster.wait_until_healthy().await?;
    record_by_hook(&cluster, &table, data).await?;
    cluster.finish().await
}

/// Adds a hook whose calls are events of the data node, and waits for one.
async fn record_by_hook(cluster: &Cluster, table: &EventTable, node: u64) -> Result<()> {
    let add = ["hook", "add", "seen", "--kind", "events", "--config", "{}"];
    cluster.run(&add).await?.ok()?;
    load(cluster, 1).await?;
    let is_call = |row: &Value| row["type"] == "hook_event" && row["node_id"] == node;
    table.wait_for("an event of the node", is_call).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_start_with_events_logs_no_warning() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(3, 3, 1).events().start().await?;
    let table = EventTable::connect(&cluster).await?;
    table.wait_for("a first event", |_| true).await?;
    expect_quiet_start(cluster).await
}
