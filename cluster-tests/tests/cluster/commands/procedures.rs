//! Commands that list, describe and cancel procedures, while their regions have no leaders and the meta leader is
//! killed.

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::node::Signal;
use tidewater_cluster_tests::{HarnessError, Result, wait};

use super::{check, check_equal, json, list};
use crate::support::{SETTLED_WITHIN, wait_for_level};

const FIELDS: [&str; 15] = [
    "procedure_id",
    "kind",
    "state",
    "cause",
    "step",
    "error",
    "table",
    "table_id",
    "number",
    "regions_done",
    "regions",
    "begun_ms",
    "deadline_ms",
    "ended_ms",
    "abandonable",
];
const CREATE: [&str; 9] = [
    "--columns",
    "id int64",
    "--primary-key",
    "id",
    "--distribute",
    "hash(id)",
    "--regions",
    "6",
    "--timeout",
];

/// Waits until the last procedure of a table has this state.
async fn wait_for(cluster: &Cluster, table: &str, state: &str) -> Result<Value> {
    wait::until(&format!("a procedure of table {table} is {state}"), SETTLED_WITHIN, || async {
        let found = list(cluster, &["procedure", "list"], &FIELDS).await;
        let found = found.map_err(|error| error.to_string())?;
        let of_table = found.iter().find(|of| of["table"] == table);
        match of_table {
            Some(procedure) if procedure["state"] == state => Ok(procedure.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Begins an operation that cannot complete in time.
async fn begin(cluster: &Cluster, args: &[&str]) -> Result<()> {
    let output = cluster.run(args).await?;
    check(&format!("{args:?} does not complete: {output:?}"), output.status != Some(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn procedures_continue_after_the_meta_leader_is_killed() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(3, 3, 0).start().await?;
    wait_for_level(&cluster).await?;
    let create = [&["table", "create", "t"], &CREATE[..], &["30s"]].concat();
    cluster.run(&create).await?.ok()?;
    let created = wait_for(&cluster, "t", "completed").await?;
    check_equal("kind", created["kind"].as_str(), Some("create"))?;

    // No group has a leader.
    for node in &cluster.data[..2] {
        node.signal(Signal::Stop).await?;
    }
    begin(&cluster, &["table", "truncate", "t", "--timeout", "3s"]).await?;
    let create = [&["table", "create", "u"], &CREATE[..], &["3s"]].concat();
    begin(&cluster, &create).await?;
    let truncation = wait_for(&cluster, "t", "running").await?;
    check_equal("regions", truncation["regions"].as_u64(), Some(6))?;
    let id = truncation["procedure_id"].as_str().unwrap_or_default().to_owned();
    let (leader, _) = cluster.meta_leader().await?;
    cluster.meta[leader].kill().await?;
    let creation = wait_for(&cluster, "u", "running").await?;
    let described = json(&cluster, &["procedure", "describe", &id]).await?;
    check_equal("number", described["number"].as_u64(), truncation["number"].as_u64())?;

    // The truncation has begun in some regions, perhaps: it cannot be taken back. A creation can.
    let refused = cluster.run(&["procedure", "cancel", &id]).await?.status(4)?;
    check(&format!("{refused:?}"), refused.stderr.contains("cannot be taken back"))?;
    let other = cluster.run(&["table", "truncate", "t", "--timeout", "3s"]).await?;
    check(&format!("{other:?}"), other.status != Some(0) && other.stderr.contains(&id))?;
    let created = creation["procedure_id"].as_str().unwrap_or_default();
    cluster.run(&["procedure", "cancel", created]).await?.ok()?;
    cluster.run(&["procedure", "describe", "x"]).await?.status(2)?;
    let unknown = "0197a1b2-0000-7000-8000-000000000001";
    cluster.run(&["procedure", "describe", unknown]).await?.status(3)?;

    for node in &cluster.data[..2] {
        node.signal(Signal::Continue).await?;
    }
    let ended = wait_for(&cluster, "t", "completed").await?;
    check_equal("id", ended["procedure_id"].as_str(), Some(id.as_str()))?;
    let cancelled = wait_for(&cluster, "u", "abandoned").await?;
    check_equal("cause", cancelled["cause"].as_str(), Some("cancelled"))?;
    let text = cluster.run(&["procedure", "describe", created]).await?.ok()?.stdout;
    check(&text, text.contains("create of table u: abandoned (cancelled)"))?;
    let tables = list(&cluster, &["table", "list"], &["name"]).await?;
    let names: Vec<&str> = tables.iter().filter_map(|table| table["name"].as_str()).collect();
    if names != ["t"] {
        return Err(HarnessError::violated(format!("tables {names:?}")));
    }
    cluster.meta[leader].start().await?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}
