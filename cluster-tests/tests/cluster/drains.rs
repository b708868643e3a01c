//! Data nodes that join and leave under load: no write fails, and no acknowledged row is lost.

use serde_json::Value;
use tidewater_cluster_tests::cluster::ClusterPlan;
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::time::Instant;

use crate::joins::{node_id, voters};
use crate::reader::Reader;
use crate::support::{SETTLED_WITHIN, conclude, wait_for_level};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_node_leaves_without_a_failed_write() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(3, 4, 0).start().await?;
    wait_for_level(&cluster).await?;
    wait::until("all groups have three voters", SETTLED_WITHIN, || async {
        let voters = voters(&cluster).await.map_err(|error| error.to_string())?;
        if voters == [3; 8] { Ok(()) } else { Err(format!("{voters:?}")) }
    })
    .await?;
    cluster.create_log_table_with_regions(4).await?;
    let load = Workload::start(&cluster, LoadOptions::default()).await?;
    let reader = Reader::start(&cluster).await?;
    let leaving = cluster.owner(tidewater_cluster_tests::cluster::LOG_TABLE).await?;
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
