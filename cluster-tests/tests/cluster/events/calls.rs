//! Administrative calls that data nodes answer.

use serde_json::{Value, json};
use tidewater_cluster_tests::cluster::{ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::{HarnessError, Result};

use super::table::EventTable;
use crate::support::wait_for_level;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_data_nodes_are_recorded() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).events().start().await?;
    wait_for_level(&cluster).await?;
    cluster.create_log_table().await?;
    let region = cluster.region(LOG_TABLE).await?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    // The meta leader flushes the source.
    cluster.run(&["table", "clone", LOG_TABLE, "copy"]).await?.ok()?;
    let node = cluster.node_id(&cluster.data[0].spec.clone()).await?.to_string();
    cluster.run(&["node", "log-level", &node, "info"]).await?.ok()?;

    let table = EventTable::connect(&cluster).await?;
    let is_call = |row: &Value, call: &str| row["type"] == "admin_call" && row["call"] == call;
    let cloned = table.wait_for("the clone", |row| is_call(row, "CloneTable")).await?;
    assert!(cloned["request_id"].is_string(), "{cloned}");
    // The last event of the node's spool.
    let filter = table.wait_for("the log filter", |row| is_call(row, "SetLogFilter")).await?;
    let subject = format!("info at {}", cluster.data[0].spec.advertise);
    assert_eq!((&filter["subject"], &filter["outcome"]), (&json!(subject), &json!("completed")));
    let rows = table.rows().await.map_err(HarnessError::violated)?;
    let flushes: Vec<_> = rows.iter().filter(|row| is_call(row, "FlushRegion")).collect();
    let [flush] = &flushes[..] else { panic!("{flushes:?}") };
    let subject = format!("region {} of group {}", region.region_id, region.group_id);
    assert_eq!((&flush["subject"], &flush["outcome"]), (&json!(subject), &json!("completed")));
    assert!(flush["caller"].as_str().is_some_and(|caller| caller.contains(':')), "{flush}");
    cluster.finish().await
}
