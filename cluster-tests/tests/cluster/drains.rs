//! Data nodes that join and leave under load: no write fails, and no acknowledged row is lost.

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result};
use tokio::time::Instant;

use crate::joins::node_id;
use crate::reader::Reader;
use crate::support::{SETTLED_WITHIN, conclude, data_groups, start_with_groups};

/// Returns the numbers of voters of the data groups.
async fn voters(cluster: &Cluster) -> Result<Vec<usize>> {
    let groups = data_groups(cluster).await?;
    Ok(groups.iter().map(|group| group["voters"].as_array().map_or(0, Vec::len)).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_node_leaves_without_a_failed_write() -> Result<()> {
    let mut cluster = start_with_groups(4, 4).await?;
    cluster.create_log_table_with_regions(4).await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let reader = Reader::start(&cluster).await?;
    let leaving = cluster.owner(LOG_TABLE).await?;
    let id = node_id(&cluster, leaving).await?.to_string();
    let in_use = cluster.run(&["node", "remove", &id]).await?;
    in_use.status(4)?.expect_stderr(&["node drain"])?;

    load.progress(40).await?;
    let begun = Instant::now();
    let drained = cluster.run(&["node", "drain", &id, "--output", "json"]).await?.ok()?.json()?;
    println!("drained in {:.1?}: {drained}", begun.elapsed());
    if drained["groups_left"] != Value::Array(Vec::new()) || voters(&cluster).await? != [3; 8] {
        return Err(HarnessError::violated(format!("{drained}, {:?}", voters(&cluster).await?)));
    }
    // Without a fourth node, the groups of the others have nowhere to go.
    let other = node_id(&cluster, (leaving + 1) % 4).await?.to_string();
    let stuck = cluster.run(&["node", "drain", &other]).await?;
    stuck.status(4)?.expect_stderr(&["Start another data node first"])?;
    cluster.run(&["node", "remove", &id]).await?.ok()?;
    load.progress(40).await?;
    let exited = cluster.data[leaving].wait_for_exit(SETTLED_WITHIN).await?;
    println!("the removed node: {exited}");
    if cluster.data[leaving].start().await.is_ok() {
        return Err(HarnessError::violated("a removed node has joined again"));
    }
    let scans = reader.stop().await?;
    println!("{scans} scans");
    let verdict = conclude(cluster, load).await?;
    if verdict.failed > 0 || verdict.unknown > 0 {
        return Err(HarnessError::violated(format!("a write was not acknowledged: {verdict}")));
    }
    Ok(())
}
